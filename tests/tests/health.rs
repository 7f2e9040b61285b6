//! Whether resources answer is told to whoever lists them.

use anyhow::Context as _;
use postern_local_api::message::ResourceStatus;
use postern_proto::resource::{Health, Kind};
use postern_tests::{
    client, figure, need_namespace, network_bed,
    ports::refused_address,
    stack::Stack,
    target::{Behaviour, Target},
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_is_healthy_unhealthy_or_unknown() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().resource("up", Kind::Tcp, target.address()).start().await?;
    let down = stack.create_resource("down", Kind::Tcp, refused_address()?).await?;
    stack.add_rule(stack.role, &[down]).await?;
    stack.user().resource_when("up", |status| status.resource.health == Health::Healthy).await?;
    let unhealthy = |health: &Health| matches!(health, Health::Unhealthy { error, .. } if !error.is_empty());
    let status = stack.user().resource_when("down", |status| unhealthy(&status.resource.health)).await?;
    figure::say(&format!("{:?}", status.resource.health));

    target.close();
    let up = stack.resource("up").await?;
    let deadline = std::time::Instant::now() + client::DEADLINE;
    loop {
        stack.api().post(&format!("/api/v1/resources/{up}/check"), json!({})).await?;
        let shown = stack.api().get(&format!("/api/v1/resources/{up}")).await?;
        if shown["health"]["state"] == "unhealthy" {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "a check on demand does not see it: {shown}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gateway_nothing_is_known() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().gateways(0).resource("echo", Kind::Tcp, target.address()).start().await?;
    assert_eq!(stack.user().knows("echo").await?.resource.health, Health::Unknown);
    let address = stack.user().connect("echo").await?;
    let answer = client::exchange(address, b"anybody?").await.unwrap_or_default();
    assert!(answer.is_empty());
    let error = stack.user().resource_when("echo", |status| status.last_error.is_some()).await?.last_error;
    assert!(error.as_deref().is_some_and(|error| error.contains("gateway")), "{error:?}");
    stack.stop().await
}

/// A gateway dials no address of its own machine unless the resource says that it may.
#[tokio::test(flavor = "multi_thread")]
async fn local_targets_need_to_be_allowed() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().start().await?;
    let port = target.address().port();
    let gateway = stack.gateways[0].address().port();
    let hosts = ["127.0.0.1", "localhost", "0.0.0.0", "127.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "[::]"];
    for (number, host) in hosts.into_iter().enumerate() {
        for (kind, port) in [("target", port), ("gateway", gateway)] {
            let name = format!("local-{number}-{kind}");
            let body = json!({"name": name, "kind": "tcp", "host": host, "port": port});
            let created = stack.api().call("POST", "/api/v1/resources", Some(body)).await?;
            if created.status == 422 {
                continue;
            }
            let resource = postern_tests::stack::id(&created.success()?)?;
            stack.grant(stack.account, resource, None).await?;
            stack.user().knows(&name).await?;
            let address = stack.user().connect(&name).await?;
            let answer = client::exchange(address, b"EVIL").await.unwrap_or_default();
            assert!(answer.is_empty(), "{host} was dialled");
        }
    }
    assert_eq!((target.accepted(), target.bytes()), (0, 0));
    stack.stop().await
}

/// A namespace without a way out of it.
#[test]
fn a_gateway_that_has_no_way_to_a_resource_says_that_and_not_that_nothing_listens() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |bed| {
        let stack = bed.stack().resource("far", Kind::Tcp, "203.0.113.9:5432".parse()?).start().await?;
        let address = stack.user().connect("far").await?;
        let code = |status: &ResourceStatus| status.trouble.as_ref().map(|trouble| trouble.code.clone());
        let checked =
            stack.user().resource_when("far", |status| code(status).as_deref() == Some("target_unroutable")).await?;
        let answer = client::exchange(address, b"anybody?").await.unwrap_or_default();
        assert!(answer.is_empty());
        let status = stack.user().resource_when("far", |status| status.last_error.is_some()).await?;
        for status in [checked, status] {
            let trouble = status.trouble.context("there is trouble")?;
            assert_eq!(trouble.code, "target_unroutable");
            assert!(trouble.why.contains("203.0.113.9:5432") && !trouble.why.contains("listens"), "{trouble:?}");
        }
        let shown = stack.user().postern(&["status"]).await?;
        assert!(shown.contains("far: The gateway finds no way to the target. (target_unroutable)"), "{shown}");
        let ended = |session: &Value| session["reason"] == "dial_failed";
        let sessions = stack.sessions_when(|sessions| sessions.iter().any(ended)).await?;
        assert!(sessions.iter().any(|session| session.to_string().contains("no way leads")), "{sessions:?}");
        stack.stop().await
    })
}
