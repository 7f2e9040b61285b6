//! The gateway as a whole: real TLS at both ends, a real resource, a control plane that does what the test says.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod bench;
mod berths;
#[path = "../../../tunnel/tests/control/fake.rs"]
#[expect(dead_code, reason = "made for another test, which uses the rest")]
mod fake;
mod faults;
mod full_disk;
mod lifecycle;
mod monitor;
#[path = "../../../../tests/src/openmetrics.rs"]
#[expect(dead_code, unreachable_pub, reason = "made for other tests, too")]
mod openmetrics;
mod reach;
mod relays;
#[path = "../../../../tests/src/skip.rs"]
#[expect(dead_code, unreachable_pub, reason = "made for another test, which uses the rest")]
mod skip;

use std::time::Duration;

use bench::{Bench, Device, Running, Stream, echo, now, resource, resource_id, sign, until};
use fake::Ca;
use postern_proto::{
    frame::ResetCode,
    lease::{Claims, Revocation, RevokedSubject},
    record::{EndReason, Event},
    resource::Health,
    sync::ServerFrame,
    time::UnixMillis,
};
use postern_tunnel::stream::EndCause;
use tokio::io::AsyncReadExt as _;

fn revoke(subject: RevokedSubject, at: UnixMillis) -> ServerFrame {
    ServerFrame::Revoke { revocations: vec![Revocation { subject, at, reason: "left the company".into() }] }
}

#[tokio::test]
async fn a_session_is_carried_and_recorded_from_start_to_end() {
    let bench = Bench::start().await;
    let mut stream = bench.open(1).await;
    let id = stream.id;
    stream.ping(&vec![7; 300_000]).await.unwrap();
    until(|| !bench.control.starts().is_empty()).await;
    let start = bench.control.starts().remove(0);
    assert_eq!((start.stream, start.account, start.device), (id, bench.device.account, bench.device.device));
    assert_eq!((start.resource_name.as_str(), start.grant.as_str()), ("echo-1", "rol_1"));
    assert_eq!(start.resource_tags["env"], "test");
    assert_eq!(stream.close().await, EndCause::Done);
    let end = bench.control.end_of(id).await;
    assert_eq!((end.reason, end.bytes_up, end.bytes_down), (EndReason::Closed, 300_000, 300_000));
    assert_eq!(end.dialled.unwrap().to_string(), start.target);
    bench.gateway.finish().await;
}

#[tokio::test]
async fn a_stream_that_may_not_be_opened_is_refused_with_its_reason() {
    let bench = Bench::start().await;
    let other = Device::new(&bench.control.ca, 2);
    let good = bench.device.claims(1);
    let table = [
        (other.lease(1), 403, "lease_foreign"),
        (sign(&Claims { not_after: now(), ..good.clone() }), 401, "lease_expired"),
        (sign(&Claims { grant_ends: Some(now()), ..good.clone() }), 403, "grant_ended"),
        (sign(&Claims { resource: resource_id(2), ..good.clone() }), 403, "lease_foreign"),
        (sign(&Claims { cnf: "00".repeat(32), ..good.clone() }), 403, "lease_foreign"),
        (format!("{}x", sign(&good)), 403, "lease_invalid"),
        ("nonsense".into(), 403, "lease_invalid"),
    ];
    for (lease, status, code) in table {
        let problem = Stream::open(&bench.entry, 1, &lease).await.refusal().await;
        assert_eq!((problem.status, problem.code.as_str()), (status, code), "{problem}");
    }
    let problem = bench.open(9).await.refusal().await;
    assert_eq!((problem.status, problem.code.as_str()), (404, "unknown_resource"));
    bench.carrying().await;
    until(|| bench.control.records().iter().any(|record| matches!(&record.event, Event::Refused(_)))).await;
    // The refusals may have arrived in a call of their own.
    until(|| !bench.control.starts().is_empty()).await;
    assert_eq!(bench.control.starts().len(), 1);
    bench.gateway.finish().await;
}

#[tokio::test]
async fn a_stream_waits_for_the_news_of_a_resource_that_its_client_knows_already() {
    let bench = Bench::start().await;
    let mut early = bench.open(9).await;
    bench.carrying().await;
    let known = bench.control.shared.resources.lock().unwrap().clone();
    bench.control.publish([known, vec![echo(9).await]].concat());
    early.ping(b"early").await.unwrap();
    assert_eq!(early.close().await, EndCause::Done);

    let gone = Claims { issued_at: UnixMillis(now().0 - 20_000), ..bench.device.claims(10) };
    let problem = Stream::open(&bench.entry, 10, &sign(&gone)).await.refusal().await;
    assert_eq!((problem.status, problem.code.as_str()), (404, "unknown_resource"));
    bench.gateway.finish().await;
}

#[tokio::test]
async fn a_certificate_of_another_ca_opens_nothing() {
    let bench = Bench::start().await;
    let stranger = Device::new(&Ca::new(), 1);
    let entry = stranger.entry(bench.gateway.ready.listen);
    let end = Stream::open(&entry, 1, &stranger.lease(1)).await.ended().await;
    assert!(matches!(end, EndCause::Refused(_)), "{end:?}");
    assert!(bench.control.starts().is_empty());
    bench.gateway.finish().await;
}

#[tokio::test]
async fn a_target_that_does_not_answer_or_is_forbidden_is_said_and_recorded() {
    let bench = Bench::start().await;
    // Bound, so that nobody else gets the port, and never listening.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead = silent.local_addr().unwrap().port();
    let mut forbidden = resource(3, dead);
    forbidden.allow_local = false;
    bench.control.publish(vec![resource(2, dead), forbidden]);
    until(|| bench.control.shared.health.lock().unwrap().iter().any(|report| report.resource == resource_id(3))).await;
    let refused = bench.open(2).await;
    let id = refused.id;
    let problem = refused.refusal().await;
    assert_eq!((problem.status, problem.code.as_str()), (502, "target_refused"));
    let end = bench.control.end_of(id).await;
    assert_eq!((end.reason, end.dialled), (EndReason::DialFailed, None));
    let problem = bench.open(3).await.refusal().await;
    assert_eq!((problem.status, problem.code.as_str()), (403, "target_forbidden"));
    bench.gateway.finish().await;
}

#[tokio::test]
async fn a_revocation_cuts_the_streams_that_match_and_voids_their_leases() {
    let bench = Bench::start().await;
    let other = Device::new(&bench.control.ca, 2);
    let other_entry = other.entry(bench.gateway.ready.listen);
    let lease = bench.device.lease(1);
    let mut cut = Vec::new();
    for _ in 0..20 {
        let mut stream = Stream::open(&bench.entry, 1, &lease).await;
        stream.ping(b"x").await.unwrap();
        cut.push(stream);
    }
    let mut kept = Stream::open(&other_entry, 1, &other.lease(1)).await;
    kept.ping(b"x").await.unwrap();
    bench.control.send(&revoke(RevokedSubject::Account { account: bench.device.account }, now()));
    for stream in cut {
        let id = stream.id;
        assert_eq!(stream.ended().await, EndCause::PeerReset(ResetCode::Revoked));
        let end = bench.control.end_of(id).await;
        assert_eq!((end.reason, end.detail.as_deref()), (EndReason::Revoked, Some("left the company")));
    }
    kept.ping(b"still here").await.unwrap();
    let problem = Stream::open(&bench.entry, 1, &lease).await.refusal().await;
    assert_eq!((problem.status, problem.code.as_str()), (401, "lease_revoked"));
    tokio::time::sleep(Duration::from_millis(2)).await;
    bench.carrying().await;
    bench.gateway.finish().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_grant() {
    let bench = Bench::start().await;
    let ends = now().plus(Duration::from_secs(2));
    let lease = sign(&Claims { grant_ends: Some(ends), ..bench.device.claims(1) });
    let mut stream = Stream::open(&bench.entry, 1, &lease).await;
    stream.ping(b"x").await.unwrap();
    let id = stream.id;
    assert_eq!(stream.ended().await, EndCause::PeerReset(ResetCode::GrantEnded));
    assert!(now() >= ends);
    assert_eq!(bench.control.end_of(id).await.reason, EndReason::GrantEnded);
    bench.gateway.finish().await;
}

#[tokio::test]
async fn what_a_fresh_snapshot_leaves_out_is_cut() {
    let bench = Bench::start().await;
    let stream = bench.carrying().await;
    let id = stream.id;
    bench.control.publish(vec![]);
    assert_eq!(stream.ended().await, EndCause::PeerReset(ResetCode::Revoked));
    assert_eq!(bench.control.end_of(id).await.detail.as_deref(), Some("the resource was removed"));
    let problem = bench.open(1).await.refusal().await;
    assert_eq!(problem.status, 404);
    bench.gateway.finish().await;
}

#[tokio::test]
async fn the_control_plane_is_asked_about_running_streams_after_each_snapshot() {
    let bench = Bench::start().await;
    let _stream = bench.carrying().await;
    let resources = bench.control.shared.resources.lock().unwrap().clone();
    bench.control.publish(resources);
    until(|| bench.control.shared.asked.lock().unwrap().iter().any(|asked| asked.device == bench.device.device)).await;
    bench.gateway.finish().await;
}

#[tokio::test]
async fn one_stream_identifier_runs_once() {
    let bench = Bench::start().await;
    let stream = bench.carrying().await;
    let twin = Stream::open_as(stream.id, &bench.entry, 1, &bench.device.lease(1)).await;
    assert_eq!(twin.refusal().await.status, 409);
    bench.gateway.finish().await;
}

#[tokio::test]
async fn a_node_opens_no_streams_for_itself() {
    let bench = Bench::start().await;
    let mut plain = tokio::net::TcpStream::connect(bench.gateway.ready.listen.unwrap()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = bench::within(plain.read_to_end(&mut answer)).await;
    assert!(!answer.windows(3).any(|part| part == b"200"), "nothing is served without TLS");
    bench.gateway.finish().await;
}

#[tokio::test]
async fn health_is_checked_reported_and_checked_again_when_asked() {
    let bench = Bench::start().await;
    let of = |n: u128| {
        let reports = bench.control.shared.health.lock().unwrap();
        reports.iter().rev().find(|report| report.resource == resource_id(n)).map(|report| report.health.clone())
    };
    until(|| of(1) == Some(Health::Healthy)).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut resources = bench.control.shared.resources.lock().unwrap().clone();
    resources.push(resource(2, port));
    bench.control.publish(resources);
    until(|| of(2) == Some(Health::Healthy)).await;
    drop(listener);
    bench.control.send(&ServerFrame::CheckHealth { resource: resource_id(2) });
    until(|| matches!(of(2), Some(Health::Unhealthy { .. }))).await;
    bench.gateway.finish().await;
}

#[tokio::test]
async fn a_gateway_on_a_port_from_the_kernel_says_where_it_is() {
    let bench = Bench::start().await;
    let address = Some(bench.gateway.ready.listen.unwrap().to_string());
    until(|| bench.control.shared.presence.lock().unwrap().contains(&(address.clone(), false))).await;
    bench.gateway.finish().await;
    assert!(bench.control.shared.presence.lock().unwrap().contains(&(address, true)), "it says that it drains");
}

#[tokio::test]
async fn a_bad_token_is_said_and_leaves_nothing_behind() {
    let control = bench::Control::start(vec![]).await;
    let state = tempfile::tempdir().unwrap();
    let error = Running::try_start(&control, &state, &["--enrol-token", "other"]).await.err().unwrap();
    assert!(error.to_string().contains("The enrolment token is not good"), "{error}");
    let error = Running::try_start(&control, &state, &[]).await.err().unwrap();
    assert!(error.to_string().contains("not enrolled"), "{error}");
    Running::start(&control, &state).await.finish().await;
}

#[tokio::test]
async fn of_many_resources_that_come_one_by_one_none_is_left_unchecked() {
    let bench = Bench::start().await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ids = 100..1100;
    for id in ids.clone() {
        bench.control.publish_one_more(resource(id, dead));
    }
    until(|| {
        let reports = bench.control.shared.health.lock().unwrap();
        let told: std::collections::BTreeSet<_> = reports.iter().map(|report| report.resource).collect();
        ids.clone().all(|id| told.contains(&resource_id(id)))
    })
    .await;
    bench.gateway.finish().await;
}
