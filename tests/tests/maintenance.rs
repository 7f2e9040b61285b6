//! A drain that waits for its maintenance window, with all programs: it comes when nobody is in the way, also when the
//! control plane was killed meanwhile.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    client,
    command::PATIENCE,
    stack::{PASSWORD, Stack},
    target::{Behaviour, Target},
};
use serde_json::{Value, json};

async fn node_when(stack: &Stack, node: &str, what: &str, fits: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // The control plane may be away just now.
        match stack.api().get(&format!("/api/v1/nodes/{node}")).await {
            Ok(view) if fits(&view) => return Ok(view),
            seen => anyhow::ensure!(Instant::now() < deadline, "{what}: {seen:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_node_is_drained_in_its_window_once_it_is_idle_and_new_connections_go_elsewhere() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().gateways(2).resource("echo", Kind::Tcp, target.address()).start().await?;
    let mut admin = stack.add_user("admin", None, &[]).await?;
    let (email, _) = stack.control.first_admin().context("no administrator")?;
    admin.login_with_cli(email, PASSWORD).await?;
    let address = stack.user().connect("echo").await?;
    let mut held = client::open(address).await?;
    let node = stack.carrier_of("echo").await?.id().to_string();
    node_when(&stack, &node, "it says that it carries something", |view| view["streams"] == 1).await?;

    let create = ["admin", "maintenance", "create", "night", "--duration", "1h", "--require-idleness"];
    admin.postern(&[&create[..], &["--schedule", "0 0 29 2 *"]].concat()).await?;
    let planned =
        admin.postern(&["admin", "nodes", "drain", &node, "--in-window", "--deadline", "1m", "--json"]).await?;
    let planned: Value = serde_json::from_str(&planned)?;
    let opens = planned["drain_planned"]["begins_at"].as_u64().context("no time")?;
    assert_eq!((&planned["state"], &planned["drain_planned"]["open"]), (&json!("up"), &json!(false)), "{planned}");
    let windows: Value = serde_json::from_str(&admin.postern(&["admin", "maintenance", "list", "--json"]).await?)?;
    assert_eq!(windows["items"][0]["opens_at"].as_u64(), Some(opens), "{windows}");

    stack.control.kill().await?;
    client::ask(&mut held, b"nobody minds").await?;
    stack.control.restart().await?;
    node_when(&stack, &node, "it is back", |view| view["state"] == "up" && view["streams"] == 1).await?;
    admin.postern(&["admin", "maintenance", "update", "night", "--schedule", "* * * * *"]).await?;
    let listed = admin.postern(&["admin", "nodes", "list"]).await?;
    assert!(listed.contains("when idle"), "{listed}");
    client::ask(&mut held, b"still here").await?;
    let busy = node_when(&stack, &node, "it waits", |view| view["drain_planned"]["open"] == true).await?;
    assert_eq!((&busy["state"], &busy["drain_ends_at"]), (&json!("up"), &Value::Null), "{busy}");

    drop(held);
    let drained = node_when(&stack, &node, "it is not drained", |view| view["state"] == "drained").await?;
    assert_eq!(drained["drain_planned"], Value::Null, "{drained}");
    assert_eq!(client::exchange(address, b"by the other").await?, b"by the other");
    let sessions = stack.user().client().sessions().await?;
    assert!(sessions.iter().all(|session| session.gateway.map(|id| id.to_string()) != Some(node.clone())));
    admin.postern(&["admin", "nodes", "drain", &node, "--cancel"]).await?;
    node_when(&stack, &node, "it is back in service", |view| view["state"] == "up").await?;
    admin.stop().await?;
    stack.stop().await
}
