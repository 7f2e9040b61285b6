use std::{sync::Arc, time::Duration};

use axum::http::Method;
use postern_control::{
    clock::Clock,
    gateway::NewNode,
    store::{Absent, Actor, Store},
};
use postern_proto::{
    api::{CertificateResponse, EnrolRequest, EnrolResponse, NodeKind},
    problem::Problem,
};
use serde_json::{Value, json};

use crate::support::{World, key_and_request, problem};

async fn enrol(world: &World, token: &str) -> Result<EnrolResponse, Problem> {
    let request = EnrolRequest {
        token: token.to_owned(),
        key_pair: None,
        kind: NodeKind::Gateway,
        csr: key_and_request().1,
        advertise: None,
    };
    let answer = world.client().call(Method::POST, "/api/v1/nodes/enrol", Some(&request)).await;
    answer.map_err(|error| error.problem().unwrap_or_else(|| panic!("{error}")).clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_parallel_tries_with_one_token_exactly_one_succeeds() {
    let world = Arc::new(World::start().await);
    let (node, token) = world.create_gateway("gw").await;
    let tries: Vec<_> = (0..100)
        .map(|_| {
            let (world, token) = (Arc::clone(&world), token.clone());
            tokio::spawn(async move { enrol(&world, &token).await })
        })
        .collect();
    let (mut enrolled, mut refused) = (Vec::new(), 0);
    for answer in tries {
        match answer.await.unwrap() {
            Ok(answer) => enrolled.push(answer.node),
            Err(problem) => {
                assert_eq!((problem.status, problem.code.as_str()), (401, "enrol_token_refused"));
                refused += 1;
            }
        }
    }
    assert_eq!((enrolled, refused), (vec![node], 99));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_made_by_another_process_is_good_at_once() {
    let world = World::start().await;
    let other =
        Store::open_at(&crate::choice::place(world.folder()).await, Absent::Refuse, Clock::system()).await.unwrap();
    let mut change = other.change(Actor::operator()).await.unwrap();
    let node = postern_control::gateway::create(&mut change, NewNode::gateway("gw", None)).await.unwrap();
    let token = postern_control::gateway::issue_token(&mut change, &node).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(enrol(&world, token.token.expose()).await.unwrap().node, node.id);
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_after_a_day_and_with_a_newer_one_and_with_its_gateway() {
    let world = World::start().await;
    assert_eq!(enrol(&world, "postern_enrol_nonsense").await.unwrap_err().code, "enrol_token_refused");
    let (node, first) = world.create_gateway("gw").await;
    let mut change = world.change().await;
    let second = postern_control::gateway::issue_token(&mut change, &world.node(node)).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(enrol(&world, &first).await.unwrap_err().code, "enrol_token_refused");
    world.pass(Duration::from_secs(24 * 3600));
    let late = enrol(&world, second.token.expose()).await.unwrap_err();
    assert!(late.detail.unwrap().contains("time is over"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolled_gateway_renews_its_certificate_and_an_earlier_key_counts_no_more() {
    let world = World::start().await;
    let gateway = world.enrol_gateway("gw").await;
    let renewal = json!({"csr": gateway.request()});
    let renewed: CertificateResponse = gateway.post("/api/v1/nodes/certificate", &renewal).await.unwrap();
    let days = renewed.not_after.since(world.state().clock.now()).as_secs_f64() / 86_400.0;
    assert!((6.9..=7.0).contains(&days), "{days}");
    let other = json!({"csr": key_and_request().1});
    let refused = gateway.post::<CertificateResponse>("/api/v1/nodes/certificate", &other).await.unwrap_err();
    assert_eq!(refused.status, 422);

    let mut socket = gateway.follow().await;
    socket.settle().await;
    let mut change = world.change().await;
    let token = postern_control::gateway::issue_token(&mut change, &world.node(gateway.given)).await.unwrap();
    change.commit().await.unwrap();
    let again = enrol(&world, token.token.expose()).await.unwrap();
    assert_eq!(again.node, gateway.given);
    socket.until(|frame| matches!(frame, postern_proto::sync::ServerFrame::Bye { .. })).await;
    let refused = gateway.post::<CertificateResponse>("/api/v1/nodes/certificate", &renewal).await.unwrap_err();
    assert_eq!(refused.code, "node_unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_advertises_is_checked_and_shown_to_clients() {
    let world = World::start().await;
    let (node, token) = world.create_gateway("gw").await;
    let (_, csr) = key_and_request();
    let request = |advertise: &str| json!({"token": token, "csr": csr, "advertise": advertise});
    let call = |body: Value| {
        let client = world.client();
        async move { client.call::<_, EnrolResponse>(Method::POST, "/api/v1/nodes/enrol", Some(&body)).await }
    };
    let refused = problem(call(request("http://gw")).await);
    assert_eq!((refused.status, refused.violations[0].field.as_str()), (422, "advertise"));
    call(request("GW.example:5000")).await.unwrap();
    assert_eq!(world.node(node).advertise.as_deref(), Some("gw.example:5000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_does_not_get_a_certificate_of_a_gateway() {
    let world = World::start().await;
    world.create_account("ada@example.org").await;
    let device = world.sign_in("ada@example.org").await;
    let renewal = json!({"csr": device.request()});
    let refused = device.post::<CertificateResponse>("/api/v1/nodes/certificate", &renewal).await.unwrap_err();
    assert_eq!(refused.code, "other_certificate");
    let gateway = world.enrol_gateway("gw").await;
    let refused = gateway.post::<CertificateResponse>("/api/v1/devices/certificate", &renewal).await.unwrap_err();
    assert_eq!(refused.status, 401);
}
