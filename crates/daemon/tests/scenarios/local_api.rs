//! The local API as its client sees it.

use std::collections::BTreeSet;

use postern_local_api::{
    message::{
        CheckGroup, Connection, ControlCall, DoctorLine, Event, LogRequest, PortOverride, Redaction, SignIn, Status,
        StatusApi, VERSION, Verdict,
    },
    mirror::apply,
};

use rustix::process::Signal;

use crate::{
    control::EMAIL,
    daemon::{Daemon, NAME, World, free_port, ping, problem, resource},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_follows_events_sees_what_the_service_sees() {
    let world = World::start().await;
    let mut events = world.daemon.client.events().await.unwrap();
    let mut copy = None;
    let first = events.next().await.unwrap();
    assert!(matches!(first.event, Event::Snapshot { .. }));
    apply(&mut copy, first.event);
    world.control.grant("later", free_port());
    world.daemon.disconnect(NAME).await;
    world.daemon.client.lock().await.unwrap();
    let wanted = world
        .daemon
        .until("locked with both", |status| {
            status.resources.len() == 2 && matches!(status.sign_in, SignIn::Locked { .. })
        })
        .await;
    let follow = async {
        while copy.as_ref().is_none_or(|copy| {
            copy.resources.len() != 2 || copy.sign_in != wanted.sign_in || copy.resources != wanted.resources
        }) {
            apply(&mut copy, events.next().await.unwrap().event);
        }
    };
    tokio::time::timeout(crate::daemon::PATIENCE, follow).await.expect("the copy never fits");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_the_control_plane_are_made_with_the_login_and_the_certificate() {
    let world = World::start().await;
    let call = |method: &str, path: &str| ControlCall { method: method.to_owned(), path: path.to_owned(), body: None };
    let answer = world.daemon.client.control(&call("GET", "/api/v1/accounts?limit=5")).await.unwrap();
    assert_eq!(answer.body["items"][0]["email"], EMAIL);
    assert!(world.control.state().requests.contains(&("GET /api/v1/accounts?limit=5".to_owned(), true)));
    for path in ["/api/v1/../accounts", "/other", "/api/v1/leases"] {
        assert_eq!(problem(world.daemon.client.control(&call("GET", path)).await).code, "call_not_allowed");
    }
    assert!(!world.control.state().requests.iter().any(|(line, _)| line.contains("..")));
    world.daemon.client.logout().await.unwrap();
    assert_eq!(problem(world.daemon.client.control(&call("GET", "/api/v1/accounts")).await).code, "signed_out");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_everything_well_and_names_what_is_not() {
    let mut world = World::start().await;
    world.open().await;
    let report = world.daemon.client.doctor().await.unwrap();
    for check in &report.checks {
        assert!(matches!(check.verdict, Verdict::Ok | Verdict::Skipped), "{check:#?}");
    }
    let ids: Vec<_> = report.checks.iter().map(|check| check.id.as_str()).collect();
    for id in [
        "version",
        "control",
        "sync",
        "clock",
        "certificate",
        "gateway:gw-1",
        "isolation",
        "resource:echo",
        "files",
        "key",
    ] {
        assert!(ids.contains(&id), "{id} is missing in {ids:?}");
    }
    world.gateway.kill();
    world.control.stop();
    let report = world.daemon.client.doctor().await.unwrap();
    for id in ["control", "gateway:gw-1"] {
        let check = report.checks.iter().find(|check| check.id == id).unwrap();
        assert!(check.verdict == Verdict::Failed && check.advice.is_some(), "{check:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_of_each_check_as_it_begins_and_as_it_is_done() {
    let world = World::start().await;
    let mut lines = world.daemon.client.doctor_stream().await.unwrap();
    let (mut open, mut done) = (BTreeSet::new(), Vec::new());
    while let Some(line) = lines.next().await.unwrap() {
        match line {
            DoctorLine::Started { id, .. } => assert!(open.insert(id), "twice"),
            DoctorLine::Finished(check) => {
                assert!(open.remove(&check.id), "{check:?}");
                assert!(check.took_micros.is_some());
                done.push(check);
            }
        }
    }
    assert!(open.is_empty() && done.len() > 10, "{open:?}");
    let gateway = done.iter().find(|check| check.id == "gateway:gw-1").unwrap();
    assert_eq!((gateway.verdict, gateway.group), (Verdict::Ok, CheckGroup::Gateways));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_handed_out_with_as_much_as_is_asked_for() {
    let world = World::start().await;
    world.open().await;
    let logs = async |redaction| world.daemon.client.logs(&LogRequest { redaction }).await.unwrap();
    let names = logs(Redaction::Names).await;
    let port = format!("127.0.0.1:{}", world.port);
    let listening = |lines: &[String]| lines.iter().any(|line| line.contains("listening") && line.contains(&port));
    assert!(listening(&names.lines), "{names:?}");
    let pseudonyms = logs(Redaction::Pseudonyms).await;
    let text = pseudonyms.lines.join("\n");
    assert!(text.contains("res-1") && pseudonyms.replaced > 0, "{text}");
    for secret in ["127.0.0.1", EMAIL, &world.id.to_string()] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let strict = logs(Redaction::Strict).await;
    assert!(!strict.lines.is_empty() && strict.lines.iter().all(|line| !line.contains("listening")), "{strict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_port_is_taken_at_once_and_remembered_and_given_back() {
    let mut world = World::start().await;
    let mut stream = world.open().await;
    let other = world.control.grant("other", free_port());
    world.daemon.until("listed", |status| resource(status, other).is_some()).await;
    let port = free_port();
    let wish = |port| PortOverride { resource: world.id, port };
    let changed = world.daemon.client.set_override(&wish(Some(port))).await.unwrap();
    assert_eq!((changed.port_override, changed.assigned_port), (Some(port), Some(world.port)));
    assert_eq!(changed.connection, Connection::Listening { address: ([127, 0, 0, 1], port).into() });
    assert_eq!(changed.command, Some(format!("nc 127.0.0.1 {port}")));
    ping(&mut stream).await.unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", world.port)).is_err(), "the old port is still open");
    // What breaks a rule is refused with field, value and rule, and changes nothing.
    let bad = problem(world.daemon.client.set_override(&wish(Some(80))).await);
    assert_eq!((bad.code.as_str(), bad.violations[0].field.as_str()), ("port_range", "port"));
    let status = world.daemon.status().await;
    let taken = resource(&status, other).unwrap().resource.bind.port;
    let bad = problem(world.daemon.client.set_override(&wish(Some(taken))).await);
    assert_eq!((bad.code.as_str(), bad.violations[0].value.clone()), ("port_taken", taken.to_string()));
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let held = holder.local_addr().unwrap().port();
    if held <= 64_999 {
        let bad = problem(world.daemon.client.set_override(&wish(Some(held))).await);
        assert!(bad.code == "port_taken" && bad.violations[0].rule.contains("pid"), "{bad:?}");
    }
    world.daemon.restart(Signal::KILL);
    let at = |port: u16| {
        move |status: &Status, id| {
            resource(status, id)
                .is_some_and(|it| it.connection == Connection::Listening { address: ([127, 0, 0, 1], port).into() })
        }
    };
    world.daemon.until("at the chosen port", |status| at(port)(status, world.id)).await;
    let wish = PortOverride { resource: world.id, port: None };
    let changed = world.daemon.client.set_override(&wish).await.unwrap();
    assert_eq!((changed.port_override, changed.assigned_port), (None, None));
    assert!(at(world.port)(&world.daemon.status().await, world.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_make_no_sense_are_refused_in_words() {
    let world = World::start().await;
    let socket = world.daemon.client.socket().to_owned();
    for (path, body) in [("connect", "{"), ("connect", "{\"select\":\"most\"}"), ("login", "[]"), ("nowhere", "{}")] {
        let answer = raw(
            &socket,
            &format!(
                "POST /v1/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        );
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("application/problem+json"), "{answer}");
    }
    let wrong_method = raw(&socket, "GET /v1/connect HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(wrong_method.contains("no_such_call"), "{wrong_method}");
    assert_eq!(world.daemon.client.hello().await.unwrap().version, VERSION);
}

fn raw(socket: &std::path::Path, request: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_for_scripts_needs_the_token_of_its_file() {
    let home = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(home.path(), &["--status-listen", "127.0.0.1:0"]);
    let status = daemon.until("served", |status| matches!(status.status_api, StatusApi::Listening { .. })).await;
    let StatusApi::Listening { address, token_file } = status.status_api else { panic!() };
    let token = std::fs::read_to_string(&token_file).unwrap();
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&token_file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let ask = |token: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head = format!("GET /v1/status HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n");
        stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(ask(&token).starts_with("HTTP/1.1 200"));
    assert!(ask("wrong").starts_with("HTTP/1.1 401"));
    daemon.end(Signal::TERM);
    assert!(!std::path::Path::new(&token_file).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_squatter_on_the_status_port_is_told_of_and_no_token_lies_about() {
    let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = squatter.local_addr().unwrap().to_string();
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &["--status-listen", &address]);
    let status = daemon.until("told", |status| matches!(status.status_api, StatusApi::Failed { .. })).await;
    let StatusApi::Failed { error } = &status.status_api else { panic!() };
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    assert!(status.warnings.iter().any(|warning| warning.contains("status for scripts")));
    assert!(!home.path().join("run/status-token").exists());
    drop(squatter);
    daemon.until("served", |status| matches!(status.status_api, StatusApi::Listening { .. })).await;
    assert!(resource(&daemon.status().await, postern_proto::id::ResourceId::from_ulid(1.into())).is_none());
}
