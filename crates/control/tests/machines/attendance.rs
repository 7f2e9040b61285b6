//! Nodes that come, go and stay away.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use postern_control::{
    cluster::remove_absent,
    health::attendance::{PATIENCE, away_since, of_node},
    housekeeping, sql,
};
use postern_proto::{
    id::NodeId,
    resource::Health,
    sync::{ClientFrame, HealthReport},
    time::UnixMillis,
};
use serde_json::{Value, json};

use crate::{
    clusters::{enrol, make_cluster, make_key},
    support::{Device, Socket, World},
};

const DAY: Duration = Duration::from_secs(86_400);

async fn admin(world: &World) -> Device {
    let account = world.create_account("ada@example.org").await;
    world.update_account(account, |account| account.admin = true).await;
    world.sign_in("ada@example.org").await
}

async fn view_when(admin: &Device, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..2000 {
        last = admin.get(path).await.unwrap();
        if fits(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{last}");
}

/// Waits until the control plane knows whether a node is connected.
async fn until_here(world: &World, node: NodeId, here: bool) {
    let exchange = &world.state().exchange;
    for _ in 0..2000 {
        if exchange.presence(node).is_some_and(|presence| presence.connected) == here {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{node} is not as it should be");
}

/// As much time passes as it takes until somebody who is missing counts as away.
fn miss(world: &World) {
    let now = Instant::now();
    world.state().exchange.sweep(now);
    world.state().exchange.sweep(now + PATIENCE);
}

/// The states of a history, newest first.
fn states(view: &Value) -> Vec<&str> {
    let turns = view["history"].as_array().into_iter().flatten();
    turns.map(|turn| turn["node_state"].as_str().or_else(|| turn["state"].as_str()).unwrap_or("health")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn that_a_node_was_away_is_noted_with_it_and_with_the_resources_that_it_checks() {
    let mut world = World::start().await;
    let (admin, gateway) = (admin(&world).await, world.enrol_gateway("gw").await);
    let (resource, id) = (world.create_resource("db").await, gateway.given);
    let (node, health) = (format!("/api/v1/nodes/{id}"), format!("/api/v1/resources/{resource}/health"));
    let connect = async || -> Socket {
        let mut node = gateway.follow().await;
        node.settle().await;
        node
    };
    let mut socket = connect().await;
    let report = HealthReport { resource, health: Health::Healthy, checked_at: UnixMillis(1), connect_micros: None };
    socket.send(&ClientFrame::Health { reports: vec![report] }).await;
    world.state().exchange.sweep(Instant::now());
    view_when(&admin, &node, |view| states(view) == ["up"]).await;
    let found = view_when(&admin, &health, |view| !states(view).is_empty()).await;
    assert_eq!(states(&found), ["health"], "that it came first says nothing");

    drop(socket);
    until_here(&world, id, false).await;
    let gone = world.state().exchange.presence(id).unwrap().last_seen;
    miss(&world);
    let away = view_when(&admin, &node, |view| states(view) == ["away", "up"]).await;
    assert_eq!(away["history"][0]["at"], json!(gone), "since it was last seen");
    let found = view_when(&admin, &health, |view| states(view).len() == 2).await;
    assert_eq!(states(&found), ["away", "health"]);
    let turn = &found["history"][0];
    assert_eq!((&turn["node_name"], &turn["health"]["state"]), (&json!("gw"), &json!("unknown")));

    let socket = connect().await;
    world.state().exchange.sweep(Instant::now());
    view_when(&admin, &node, |view| states(view) == ["up", "away", "up"]).await;
    let found = view_when(&admin, &health, |view| states(view).len() == 3).await;
    assert_eq!(states(&found), ["up", "away", "health"]);

    // A restart of the control plane says nothing twice, and nodes that do not come after it are noted.
    drop(socket);
    // In a database that is shared it would count as connected for a while longer, had its control plane not noticed.
    until_here(&world, id, false).await;
    world.restart().await;
    let admin = world.sign_in("ada@example.org").await;
    miss(&world);
    view_when(&admin, &node, |view| states(view) == ["away", "up", "away", "up"]).await;
    // A week later only how it is now is left.
    world.pass(8 * DAY);
    housekeeping::sweep(&world.state().store).await.unwrap();
    let turns = of_node(&world.state().store, id, 10).await.unwrap();
    assert_eq!(turns.len(), 1, "{turns:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_stay_away_are_removed_while_others_of_their_cluster_are_there() {
    let world = World::start().await;
    let (eu, us) = (make_cluster(&world, "eu").await, make_cluster(&world, "us").await);
    let (in_eu, in_us) = (make_key(&world, eu).await, make_key(&world, us).await);
    let (one, stays) = enrol(&world, &in_eu).await.unwrap();
    let (two, goes) = enrol(&world, &in_eu).await.unwrap();
    let (_, alone) = enrol(&world, &in_us).await.unwrap();
    let gateway = world.enrol_gateway("gw").await;
    let mut here = one.follow().await;
    here.settle().await;
    let mut gone = two.follow().await;
    gone.settle().await;
    let remove = async || {
        let state = world.state();
        remove_absent(&state.store, &state.exchange, DAY).await.unwrap()
    };
    world.state().exchange.sweep(Instant::now());
    drop(gone);
    until_here(&world, goes.node, false).await;
    miss(&world);
    let noted = async |count: usize| {
        let store = &world.state().store;
        for _ in 0..2000 {
            let now = store.clock().now();
            if away_since(store, now).await.unwrap().len() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not all that are away are noted");
    };
    // The worker, the only one of the other cluster, and the gateway.
    noted(3).await;
    world.pass(DAY - Duration::from_secs(600));
    assert_eq!(remove().await, [], "it is early");
    world.pass(Duration::from_secs(601));
    assert_eq!(remove().await, [goes.node]);
    let nodes: BTreeSet<NodeId> = world.state().store.catalogue().nodes.keys().copied().collect();
    assert_eq!(nodes, BTreeSet::from([stays.node, alone.node, gateway.given]));
    assert_eq!(remove().await, []);
    // It is in the audit.
    let statement =
        "SELECT COUNT(*) FROM activity WHERE verb = 'gateway.deleted' AND subject_id = $1 AND actor_kind = 'system'";
    let written = sql::query(statement).bind(goes.node.to_string());
    let written: i64 = written.scalar(world.state().store.reader()).await.unwrap();
    assert_eq!(written, 1);

    // What the control plane does not see at all it does not take for gone: both are away, and stay.
    drop(here);
    until_here(&world, stays.node, false).await;
    miss(&world);
    noted(3).await;
    world.pass(2 * DAY);
    assert_eq!(remove().await, []);
    // One that comes back in time is no longer away.
    let mut here = one.follow().await;
    here.settle().await;
    assert_eq!(remove().await, []);
}
