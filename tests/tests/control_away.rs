//! The control plane is never on the data path: stopped, it is missed by nobody for a while, and nothing is forgotten.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use postern_local_api::message::ControlLink;
use postern_proto::resource::Kind;
use postern_tests::{
    client,
    stack::Stack,
    target::{Behaviour, Target},
};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_and_records_arrive_later() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    let mut running = client::open(address).await?;
    stack.control.kill().await?;
    stack.user().status_when(|status| matches!(status.control, ControlLink::Away { .. })).await?;

    client::ask(&mut running, b"running").await?;
    let bytes = 1000;
    for number in 0..50 {
        let sent = vec![b'x'; bytes + number];
        assert_eq!(client::exchange(address, &sent).await?, sent, "a new stream on a cached lease");
    }
    client::ask(&mut running, b"still running").await?;

    stack.control.restart().await?;
    stack.user().status_when(|status| matches!(status.control, ControlLink::Connected { .. })).await?;
    client::ask(&mut running, b"and on").await?;
    drop(running);
    let whole = |sessions: &[Value]| sessions.len() == 51 && sessions.iter().all(|session| ended(session).is_some());
    let sessions = stack.sessions_when(whole).await?;
    assert_eq!(sessions.len(), 51, "none lost, none twice");
    let sizes: BTreeSet<u64> = sessions.iter().filter_map(ended).collect();
    for number in 0..50 {
        assert!(sizes.contains(&((bytes + number) as u64)), "the session with {} bytes is missing", bytes + number);
    }
    stack.api().get("/api/v1/audit/verify").await?;
    stack.stop().await
}

/// The bytes that went up in an ended session.
fn ended(session: &Value) -> Option<u64> {
    session.get("ended_at").filter(|at| !at.is_null())?;
    session.get("bytes_up")?.as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_start_while_the_control_plane_is_away_find_it_later() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    assert_eq!(client::exchange(address, b"before").await?, b"before");
    stack.control.stop().await?;
    stack.gateways[0].kill().await?;
    stack.gateways[0].restart().await?;
    stack.user_mut().kill().await?;
    stack.user_mut().restart().await?;
    stack.control.restart().await?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let address = stack.user().listens("echo").await?;
        if client::exchange(address, b"after").await.ok().as_deref() == Some(b"after") {
            break;
        }
        assert!(Instant::now() < deadline, "nothing works after all came back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stack.stop().await
}

/// What was taken away while the control plane could not say so is cut as soon as it can.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_while_a_gateway_was_away_opens_nothing() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    assert_eq!(client::exchange(address, b"before").await?, b"before");
    stack.gateways[0].kill().await?;
    stack.revoke_all().await?;
    stack.gateways[0].restart().await?;
    let before = target.bytes();
    for _ in 0..20 {
        let answer = client::exchange(address, b"EVIL").await.unwrap_or_default();
        assert!(answer.is_empty());
    }
    assert_eq!(target.bytes(), before, "reached the resource: {}", target.received());
    stack.stop().await
}
