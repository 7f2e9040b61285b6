//! A node that is taken out of service: new connections go another way, and who has one that lasts is told how long it has.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    client,
    command::PATIENCE,
    stack::Stack,
    target::{Behaviour, Target},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_connection_over_a_node_that_is_drained_sees_the_countdown_until_it_is_taken_back()
-> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().gateways(2).resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    let mut old = client::open(address).await?;
    let node = stack.carrier_of("echo").await?.id();
    let drained = stack.api().post(&format!("/api/v1/nodes/{node}/drain"), json!({ "deadline": 240 })).await?;
    let ends = drained["drain_ends_at"].as_u64().context("no end")?;

    let deadline = Instant::now() + PATIENCE;
    let item = loop {
        let status = stack.user().client().status().await?;
        if let Some(item) = status.health.into_iter().find(|item| item.code == "node_leaves") {
            break item;
        }
        anyhow::ensure!(Instant::now() < deadline, "nobody is told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(item.until.map(|until| until.0), Some(ends), "{item:?}");
    assert!(item.what.contains("out of service") && item.why.contains("over it: 1"), "{item:?}");
    let sessions = stack.user().client().sessions().await?;
    assert_eq!(sessions.first().and_then(|session| session.ends_at).map(|at| at.0), Some(ends), "{sessions:?}");

    let mut new = client::open(address).await.context("a new stream while one gateway drains")?;
    client::ask(&mut new, b"new").await?;
    client::ask(&mut old, b"old").await?;
    let sessions = stack.user().client().sessions().await?;
    let over = sessions.iter().filter(|session| session.gateway == Some(node.into())).count();
    assert_eq!((sessions.len(), over), (2, 1), "{sessions:?}");
    drop(old);
    stack.node_is(node, "drained").await?;
    stack.api().delete(&format!("/api/v1/nodes/{node}/drain")).await?;
    stack.node_is(node, "up").await?;
    // The service hears it from the control plane too, a moment before or after us.
    stack.user().status_when(|status| status.health.iter().all(|item| item.code != "node_leaves")).await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_when_a_drain_ends_is_cut() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().gateways(2).resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    let mut old = client::open(address).await?;
    let node = stack.carrier_of("echo").await?.id();
    stack.api().post(&format!("/api/v1/nodes/{node}/drain"), json!({ "deadline": 1 })).await?;
    assert_eq!(client::end(&mut old).await?, client::End::Reset, "a drained stream looked complete");
    assert_eq!(client::exchange(address, b"again").await?, b"again");
    stack.stop().await
}
