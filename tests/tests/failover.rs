//! Gateways that die, drain and come back.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    client::{self, End},
    figure,
    stack::Stack,
    target::{Behaviour, Target},
};
use rustix::process::Signal;

/// A protocol whose messages end with the connection: only a reset tells that one is not whole.
#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_dead_gateway_are_reset_and_new_ones_go_through_another() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().gateways(2).resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(client::open(address).await?);
    }
    let sessions = stack.user().client().sessions().await?;
    let carrier = stack.carrier_of("echo").await?;
    let carried = sessions.iter().filter(|session| session.gateway == Some(carrier.id().into())).count();
    carrier.kill().await?;
    let killed = Instant::now();
    let (reset, _living) = client::reset_and_living(streams).await?;
    assert_eq!(reset, carried, "streams of the dead gateway, and only those, are reset");
    assert_eq!(client::exchange(address, b"again").await?, b"again");
    figure::say(&format!("{reset} streams reset, a new one at the latest after {:?}", killed.elapsed()));
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_come_within_a_second_and_new_streams_at_once() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().gateways(2).resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    let mut stream = client::open(address).await?;
    stack.carrier_of("echo").await?.kill().await?;
    let killed = Instant::now();
    assert_eq!(client::end(&mut stream).await?, End::Reset);
    let reset = killed.elapsed();
    assert_eq!(client::exchange(address, b"again").await?, b"again");
    figure::say(&format!("reset after {reset:?}, a new stream after {:?}", killed.elapsed()));
    // The figure for a reset; the new stream has the generous limit.
    assert!(reset < Duration::from_secs(1), "the reset took {reset:?}");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_gateway_comes_back_and_is_used_again() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    assert_eq!(client::exchange(address, b"before").await?, b"before");
    stack.gateways[0].kill().await?;
    assert!(client::exchange(address, b"without").await.map_or(true, |answer| answer.is_empty()));
    let error = stack.user().resource_when("echo", |status| status.last_error.is_some()).await?.last_error;
    figure::say(&format!("said meanwhile: {}", error.unwrap_or_default()));
    stack.gateways[0].restart().await?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while client::exchange(address, b"after").await.ok().as_deref() != Some(b"after") {
        assert!(Instant::now() < deadline, "the gateway is not used again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_gateway_finishes_old_streams_and_takes_no_new_ones() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().gateways(2).resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    let mut old = client::open(address).await?;
    let carrier = stack.carrier_of("echo").await?;
    let draining = carrier.id();
    carrier.signal(Signal::TERM)?;
    let deadline = Instant::now() + client::DEADLINE;
    while !carrier.log().contains("stopping: no new connections") {
        assert!(Instant::now() < deadline, "it does not begin to drain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(carrier.is_running(), "it left a stream alone");
    for _ in 0..10 {
        let mut new = client::open(address).await.context("a new stream while one gateway drains")?;
        let carried = stack.user().client().sessions().await?;
        let by_draining = carried.iter().filter(|session| session.gateway == Some(draining.into())).count();
        assert_eq!(by_draining, 1, "only the old stream stays at the draining gateway");
        client::ask(&mut new, b"new").await?;
        client::ask(&mut old, b"old").await.context("the old stream while its gateway drains")?;
    }
    drop(old);
    let carrier = stack.gateways.iter_mut().find(|gateway| gateway.id() == draining).context("gone")?;
    let status = carrier.wait(Duration::from_secs(20)).await.context("the drained gateway does not end")?;
    assert!(status.success(), "{status}");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_ends_after_its_time() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let builder = Stack::builder().gateway_option("--drain").gateway_option("2");
    let mut stack = builder.resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    let mut stream = client::open(address).await?;
    stack.gateways[0].signal(Signal::TERM)?;
    let status = stack.gateways[0].wait(Duration::from_secs(20)).await?;
    assert!(status.success(), "{status}");
    assert_eq!(client::end(&mut stream).await?, End::Reset, "a drained stream looked complete");
    stack.gateways[0].restart().await?;
    let ended =
        |sessions: &[serde_json::Value]| sessions.iter().any(|session| session.to_string().contains("\"drained\""));
    let sessions = stack.sessions_when(ended).await?;
    assert!(ended(&sessions), "the record does not say why the session ended: {sessions:?}");
    stack.stop().await
}
