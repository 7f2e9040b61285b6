//! The client of the control plane against a server that speaks real TLS, HTTP and WebSockets.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod addresses;
mod fake;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fake::{Ca, Call, Fake, FakeSocket, Reply, json, org, problem};
use http::{Method, StatusCode, header};
use postern_proto::{
    id::NodeId,
    problem::Problem,
    replica::Replica,
    sync::{ClientFrame, Item, ServerFrame, VERSION, Welcome},
    time::UnixMillis,
};
use postern_tunnel::control::{
    Bearer, CallError, ClientIdentity, ControlClient, SyncEvent, SyncHandle, SyncLoop, SyncTiming, Trust,
};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use ulid::Ulid;

fn client(fake: &Fake, trust: Trust) -> Arc<ControlClient> {
    Arc::new(ControlClient::new(fake.url().parse().unwrap(), trust))
}

async fn get(client: &ControlClient, path: &str) -> Result<u32, CallError> {
    client.call(Method::GET, path, None::<&()>).await
}

fn seven(_: &Call) -> Reply {
    json(&7)
}

#[tokio::test]
async fn calls_carry_json_both_ways_and_share_one_connection() {
    let ca = Ca::new();
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), true, |call| json(&call.body.len())).await;
    let client = client(&fake, Trust::Ca(ca.pem()));
    for _ in 0..5 {
        assert_eq!(client.call::<_, usize>(Method::POST, "/x", Some(&"12345")).await.unwrap(), 7);
    }
    assert_eq!(fake.connections(), 1);
    assert_eq!(fake.calls()[0].headers[header::HOST], fake.address.to_string());
}

#[tokio::test]
async fn an_answer_without_a_body_fits_the_unit() {
    let ca = Ca::new();
    let no_content = |_: &Call| {
        let mut reply = Reply::default();
        *reply.status_mut() = StatusCode::NO_CONTENT;
        reply
    };
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), true, no_content).await;
    client(&fake, Trust::Ca(ca.pem())).call::<_, ()>(Method::POST, "/x", None::<&()>).await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_handed_on_as_the_problem_it_is() {
    let ca = Ca::new();
    let refused = Problem::new(403, "denied", "You may not do this").with_detail("Ask an administrator.");
    let said = refused.clone();
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), true, move |_| problem(&said)).await;
    let error = get(&client(&fake, Trust::Ca(ca.pem())), "/x").await.unwrap_err();
    assert_eq!(error, CallError::Refused(refused));
}

#[tokio::test]
async fn answers_that_make_no_sense_are_garbled_and_a_balancers_502_is_unreachable() {
    let ca = Ca::new();
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), true, |call| {
        let mut reply = json(&"text");
        if let Ok(status) = call.path.trim_start_matches('/').parse() {
            *reply.status_mut() = StatusCode::from_u16(status).unwrap();
        }
        reply
    })
    .await;
    let client = client(&fake, Trust::Ca(ca.pem()));
    assert!(matches!(get(&client, "/x").await, Err(CallError::Garbled { .. })));
    assert!(matches!(get(&client, "/500").await, Err(CallError::Garbled { .. })));
    assert!(matches!(get(&client, "/502").await, Err(CallError::Unreachable { .. })));
}

#[tokio::test]
async fn a_server_of_another_ca_or_another_name_is_untrusted_and_gets_no_request() {
    let (ca, other) = (Ca::new(), Ca::new());
    let foreign = Fake::start(&ca, &other.leaf(&["127.0.0.1"]), true, seven).await;
    let misnamed = Fake::start(&ca, &ca.leaf(&["127.0.0.2", "localhost", "other.example"]), true, seven).await;
    for fake in [&foreign, &misnamed] {
        let client = client(fake, Trust::Ca(ca.pem()));
        client.set_bearer(Some(Bearer::new("secret")));
        let error = get(&client, "/x").await.unwrap_err();
        assert!(matches!(error, CallError::Untrusted { .. }), "{error}");
        assert_eq!(fake.calls().len(), 0);
    }
}

#[tokio::test]
async fn a_dns_name_is_verified_exactly() {
    let ca = Ca::new();
    let fake = Fake::start(&ca, &ca.leaf(&["localhost"]), true, seven).await;
    let url = format!("https://localhost:{}", fake.address.port());
    let client = ControlClient::new(url.parse().unwrap(), Trust::Ca(ca.pem()));
    assert_eq!(get(&client, "/x").await, Ok(7));
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let ca = Ca::new();
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), true, seven).await;
    let client = client(&fake, Trust::Ca(ca.pem()));
    drop(fake);
    tokio::task::yield_now().await;
    let error = get(&client, "/x").await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_ca_is_pinned_by_its_fingerprint_and_no_secret_leaves_before() {
    let ca = Ca::new();
    let info = ca.info();
    let answer = move |call: &Call| if call.path == "/api/v1/ca" { json(&info) } else { json(&7) };
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), true, answer).await;
    let client = client(&fake, Trust::fingerprint(&ca.fingerprint().to_uppercase()).unwrap());
    let leaf = ca.leaf(&["client"]);
    client.set_identity(Some(ClientIdentity::from_pem(&leaf.certificate, &leaf.key).unwrap()));
    client.set_bearer(Some(Bearer::new("secret")));
    assert_eq!(get(&client, "/x").await, Ok(7));
    let calls = fake.calls();
    assert_eq!(calls.len(), 2);
    assert!(calls[0].leaf.is_none() && !calls[0].headers.contains_key(header::AUTHORIZATION));
    assert!(calls[1].leaf.is_some());
    assert_eq!(calls[1].headers[header::AUTHORIZATION], "Bearer secret");
}

#[tokio::test]
async fn another_fingerprint_is_untrusted_and_gets_no_secret() {
    let (ca, meant) = (Ca::new(), Ca::new());
    let info = ca.info();
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), true, move |_| json(&info)).await;
    let client = client(&fake, Trust::fingerprint(&meant.fingerprint()).unwrap());
    client.set_bearer(Some(Bearer::new("secret")));
    assert!(matches!(get(&client, "/x").await, Err(CallError::Untrusted { .. })));
    assert!(fake.calls().iter().all(|call| !call.headers.contains_key(header::AUTHORIZATION)));
}

#[tokio::test]
async fn a_new_identity_is_shown_on_the_next_call() {
    let ca = Ca::new();
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), true, seven).await;
    let client = client(&fake, Trust::Ca(ca.pem()));
    for name in ["first", "second"] {
        let leaf = ca.leaf(&[name]);
        client.set_identity(Some(ClientIdentity::from_pem(&leaf.certificate, &leaf.key).unwrap()));
        get(&client, "/x").await.unwrap();
        get(&client, "/x").await.unwrap();
    }
    let calls = fake.calls();
    assert_eq!(fake.connections(), 2);
    assert!(calls[0].leaf.is_some() && calls[0].leaf == calls[1].leaf && calls[1].leaf != calls[2].leaf);
}

#[tokio::test]
async fn a_key_of_another_certificate_is_no_identity() {
    let ca = Ca::new();
    let (one, other) = (ca.leaf(&["one"]), ca.leaf(&["other"]));
    assert!(ClientIdentity::from_pem(&one.certificate, &other.key).is_err());
    assert!(ClientIdentity::from_pem("", &one.key).is_err());
}

#[tokio::test]
async fn a_foreign_client_certificate_is_a_refusal_of_the_control_plane() {
    let (ca, other) = (Ca::new(), Ca::new());
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), true, seven).await;
    let client = client(&fake, Trust::Ca(ca.pem()));
    let leaf = other.leaf(&["client"]);
    client.set_identity(Some(ClientIdentity::from_pem(&leaf.certificate, &leaf.key).unwrap()));
    let error = get(&client, "/x").await.unwrap_err();
    assert_eq!(error.problem().map(|problem| problem.code.as_str()), Some("client_certificate_refused"), "{error}");
}

// === sync ===

fn timing() -> SyncTiming {
    SyncTiming { ping_every: Duration::from_millis(100), poll_wait: Duration::ZERO, stable_after: Duration::ZERO }
}

struct Follower {
    handle: SyncHandle,
    _stop: DropGuard,
}

impl Follower {
    fn start(client: Arc<ControlClient>, timing: SyncTiming) -> Self {
        let (sync, handle) = SyncLoop::new(client, "test/1", Replica::default(), timing);
        let stop = CancellationToken::new();
        tokio::spawn(sync.run(stop.clone()));
        Self { handle, _stop: stop.drop_guard() }
    }

    async fn event(&mut self) -> SyncEvent {
        timeout(Duration::from_secs(20), self.handle.events.recv()).await.unwrap().unwrap()
    }

    /// Skips what comes before the event that is looked for.
    async fn until(&mut self, wanted: impl Fn(&SyncEvent) -> bool) -> SyncEvent {
        loop {
            let event = self.event().await;
            if wanted(&event) {
                return event;
            }
        }
    }

    fn names(&self) -> Vec<String> {
        let name = |item: &Item| if let Item::Node { name, .. } = item { Some(name.clone()) } else { None };
        self.handle.replica().items().filter_map(name).collect()
    }
}

async fn accept(fake: &mut Fake) -> FakeSocket {
    timeout(Duration::from_secs(20), fake.sockets.recv()).await.unwrap().unwrap()
}

fn welcome() -> ServerFrame {
    ServerFrame::Welcome(Welcome {
        version: VERSION,
        org: org(),
        epoch: "e 1".into(),
        now: UnixMillis(5),
        scopes: vec!["org".into()],
    })
}

fn node(id: u128, name: &str) -> Item {
    Item::Node { id: NodeId::from_ulid(Ulid::from_parts(1, id)), name: name.into(), drain: None }
}

fn snapshot(rev: u64, items: Vec<Item>) -> ServerFrame {
    ServerFrame::Snapshot { scope: "org".into(), rev, part: 0, of: 1, items }
}

fn delta(from: u64, put: Vec<Item>) -> ServerFrame {
    ServerFrame::Delta { scope: "org".into(), from, to: from + 1, put, del: vec![] }
}

async fn start() -> (Fake, Follower) {
    let ca = Ca::new();
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), true, seven).await;
    let follower = Follower::start(client(&fake, Trust::Ca(ca.pem())), timing());
    (fake, follower)
}

/// What it holds something of.
fn held(hello: &postern_proto::sync::Hello) -> BTreeMap<String, u64> {
    hello.have.iter().filter(|(_, rev)| **rev > 0).map(|(scope, rev)| (scope.clone(), *rev)).collect()
}

fn hello_of(frame: Option<ClientFrame>) -> postern_proto::sync::Hello {
    let Some(ClientFrame::Hello(hello)) = frame else { panic!("{frame:?}") };
    hello
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_goes_on_where_it_was() {
    let (mut fake, mut follower) = start().await;
    let mut socket = accept(&mut fake).await;
    assert!(held(&hello_of(socket.recv().await)).is_empty());
    socket.send(&welcome()).await;
    socket.send(&snapshot(3, vec![node(1, "a")])).await;
    assert_eq!(follower.event().await, SyncEvent::Connected { now: UnixMillis(5), polling: false });
    assert!(matches!(follower.event().await, SyncEvent::Changed(_)));
    assert_eq!(follower.event().await, SyncEvent::Complete);
    drop(socket);
    follower.until(|event| matches!(event, SyncEvent::Away { .. })).await;
    let mut socket = accept(&mut fake).await;
    assert_eq!(held(&hello_of(socket.recv().await)), BTreeMap::from([("org".to_owned(), 3)]));
    socket.send(&welcome()).await;
    socket.send(&delta(3, vec![node(2, "b")])).await;
    follower.until(|event| matches!(event, SyncEvent::Changed(_))).await;
    assert_eq!(follower.names(), ["a", "b"]);
}

#[tokio::test]
async fn frames_that_do_not_fit_keep_what_is_held_and_ask_afresh() {
    let too_long = format!("{{\"t\":\"checked\",\"x\":\"{}\"}}", "x".repeat(postern_proto::sync::MAX_FRAME));
    let gap = serde_json::to_string(&delta(9, vec![node(2, "b")])).unwrap();
    for bad in ["{", "{\"t\":\"nonsense\"}", &gap, &too_long] {
        let (mut fake, mut follower) = start().await;
        let mut socket = accept(&mut fake).await;
        socket.recv().await;
        socket.send(&welcome()).await;
        socket.send(&snapshot(3, vec![node(1, "a")])).await;
        socket.send_text(bad.to_owned()).await;
        let away = follower.until(|event| matches!(event, SyncEvent::Away { .. })).await;
        assert!(matches!(away, SyncEvent::Away { error: CallError::Garbled { .. }, .. }), "{away:?}");
        assert_eq!(follower.names(), ["a"]);
        assert!(held(&hello_of(accept(&mut fake).await.recv().await)).is_empty());
    }
}

#[tokio::test]
async fn a_control_plane_that_answers_no_ping_is_away() {
    let (mut fake, mut follower) = start().await;
    let mut socket = accept(&mut fake).await;
    socket.send(&welcome()).await;
    follower.event().await;
    // The socket stays open and is not read.
    let away = follower.event().await;
    assert!(matches!(away, SyncEvent::Away { error: CallError::Unreachable { .. }, .. }), "{away:?}");
    drop(socket);
}

#[tokio::test]
async fn answered_pings_keep_the_connection() {
    let (mut fake, mut follower) = start().await;
    let mut socket = accept(&mut fake).await;
    socket.recv().await;
    socket.send(&welcome()).await;
    for expected in 1..=5 {
        assert_eq!(socket.recv().await, Some(ClientFrame::Ping { n: expected }));
        socket.send(&ServerFrame::Pong { n: expected, now: UnixMillis(6) }).await;
    }
    assert!(matches!(follower.event().await, SyncEvent::Connected { .. }));
    assert!(follower.handle.events.try_recv().is_err());
}

#[tokio::test]
async fn frames_go_out_and_revocations_come_in() {
    let (mut fake, mut follower) = start().await;
    let mut socket = accept(&mut fake).await;
    socket.recv().await;
    socket.send(&welcome()).await;
    follower.event().await;
    follower.handle.outbox.send(ClientFrame::Live { subjects: vec![] }).await.unwrap();
    while socket.recv().await != Some(ClientFrame::Live { subjects: vec![] }) {}
    socket.send(&ServerFrame::Revoke { revocations: vec![] }).await;
    socket.send(&ServerFrame::Checked).await;
    assert_eq!(follower.event().await, SyncEvent::Revoked(vec![]));
    assert_eq!(follower.event().await, SyncEvent::Checked);
}

#[tokio::test]
async fn a_new_identity_connects_again_without_a_word() {
    let ca = Ca::new();
    let mut fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), true, seven).await;
    let client = client(&fake, Trust::Ca(ca.pem()));
    let mut follower = Follower::start(Arc::clone(&client), timing());
    let mut socket = accept(&mut fake).await;
    socket.send(&welcome()).await;
    follower.event().await;
    let leaf = ca.leaf(&["client"]);
    client.set_identity(Some(ClientIdentity::from_pem(&leaf.certificate, &leaf.key).unwrap()));
    let mut socket = accept(&mut fake).await;
    assert!(socket.leaf.is_some());
    socket.send(&welcome()).await;
    assert!(matches!(follower.event().await, SyncEvent::Connected { .. }));
}

#[tokio::test]
async fn a_refusal_in_the_control_planes_words_is_told_and_tried_again() {
    let ca = Ca::new();
    let refused = Problem::new(401, "certificate_needed", "No certificate");
    let said = refused.clone();
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), false, move |_| problem(&said)).await;
    let mut follower = Follower::start(client(&fake, Trust::Ca(ca.pem())), timing());
    for _ in 0..2 {
        let SyncEvent::Away { error, .. } = follower.event().await else { panic!() };
        assert_eq!(error.problem(), Some(&refused));
    }
}

#[tokio::test]
async fn long_polls_carry_the_same_frames_where_websockets_do_not_pass() {
    let ca = Ca::new();
    let answer = |call: &Call| {
        let path = &call.path;
        if call.method == Method::POST {
            return json(&[ServerFrame::Checked]);
        }
        match path {
            _ if !path.contains('?') => {
                let mut reply = json(&"no upgrades here");
                *reply.status_mut() = StatusCode::BAD_REQUEST;
                reply
            }
            _ if path.contains("have=clusters:0&") => json(&[welcome(), snapshot(3, vec![node(1, "a")])]),
            _ if path.contains("have=clusters:0,org:3&") => json(&[welcome(), delta(3, vec![node(2, "b")])]),
            _ => json(&[welcome()]),
        }
    };
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), false, answer).await;
    let timing = SyncTiming { poll_wait: Duration::from_secs(1), ..timing() };
    let mut follower = Follower::start(client(&fake, Trust::Ca(ca.pem())), timing);
    assert_eq!(follower.event().await, SyncEvent::Connected { now: UnixMillis(5), polling: true });
    assert!(matches!(follower.event().await, SyncEvent::Changed(_)));
    assert_eq!(follower.event().await, SyncEvent::Complete);
    assert!(matches!(follower.event().await, SyncEvent::Changed(_)));
    assert_eq!(follower.names(), ["a", "b"]);
    follower.handle.outbox.send(ClientFrame::Live { subjects: vec![] }).await.unwrap();
    assert_eq!(follower.event().await, SyncEvent::Checked);
    let polls: Vec<Call> = fake.calls().into_iter().filter(|call| call.path.contains('?')).collect();
    assert!(polls[0].path.contains("version=1&epoch=&have=clusters:0&wait=0"), "{}", polls[0].path);
    assert!(polls[1].path.contains("epoch=e%201&have=clusters:0,org:3&wait=1"), "{}", polls[1].path);
}

#[tokio::test]
async fn the_loop_ends_when_it_is_cancelled() {
    let ca = Ca::new();
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), true, seven).await;
    let (sync, _handle) = SyncLoop::new(client(&fake, Trust::Ca(ca.pem())), "test/1", Replica::default(), timing());
    let stop = CancellationToken::new();
    let running = tokio::spawn(sync.run(stop.clone()));
    stop.cancel();
    timeout(Duration::from_secs(20), running).await.unwrap().unwrap();
}
