//! A drain that waits for its window outlives the replica that would have begun it.

use std::time::Duration;

use postern_control::{
    catalogue::{MaintenanceWindow, Node},
    duty::Duty,
};
use postern_proto::{id::WindowId, sync::NodeLoad};

use crate::{
    nodes::{connect, put_gateway, until},
    shared::{change, start},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn a_drain_that_one_replica_planned_is_begun_by_another_when_that_is_gone() {
    postern_tunnel::tls::install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let (one, stop_one) = start(folder.path(), "a").await;
    let (other, stop_other) = start(folder.path(), "b").await;
    let mut change = change(&one.state.store).await;
    let node = put_gateway(&mut change).await;
    let window = MaintenanceWindow {
        id: WindowId::from_ulid(change.ulid()),
        name: "w".to_owned(),
        schedule: "* * * * *".to_owned(),
        duration: 3600,
        require_idleness: true,
        nodes: None,
        created_at: change.now(),
        revision: 0,
    };
    change.put(window).await.unwrap();
    let waiting = Node { planned_drain: Some(30), ..Node::clone(&change.catalogue().nodes[&node]) };
    change.put(waiting).await.unwrap();
    let revision = change.commit().await.unwrap().revision;
    until("the plan is not known", || other.state.store.catalogue().revision == revision).await;

    // The first holds the duty for a while yet when it goes.
    let duty = Duty::new(one.state.store.clone(), "maintenance", Duration::from_secs(2));
    assert!(duty.take().await.unwrap());
    let load = |streams| NodeLoad { streams, cpu_permille: None };
    let here = connect(&one, node);
    one.state.exchange.set_load(node, load(3));
    until("its load", || other.state.exchange.presence(node).is_some_and(|seen| seen.load == Some(load(3)))).await;
    drop(here);
    stop_one.cancel();
    one.finish().await;
    assert_eq!(other.state.store.catalogue().nodes[&node].drain_ends_at, None);

    let there = connect(&other, node);
    other.state.exchange.set_load(node, load(0));
    let ordered = || other.state.store.catalogue().nodes[&node].drain_ends_at.is_some();
    until("nobody drains it", ordered).await;
    assert_eq!(other.state.store.catalogue().nodes[&node].planned_drain, None);
    drop(there);
    stop_other.cancel();
    other.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn a_replica_learns_at_once_whether_a_node_of_another_that_waits_is_idle() {
    postern_tunnel::tls::install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let (one, stop_one) = start(folder.path(), "a").await;
    let (other, stop_other) = start(folder.path(), "b").await;
    let mut change = change(&one.state.store).await;
    let node = put_gateway(&mut change).await;
    let waiting = Node { planned_drain: Some(30), ..Node::clone(&change.catalogue().nodes[&node]) };
    change.put(waiting).await.unwrap();
    change.commit().await.unwrap();
    let here = connect(&one, node);
    for streams in [0, 5, 0] {
        let load = NodeLoad { streams, cpu_permille: None };
        one.state.exchange.set_load(node, load);
        until("its load", || other.state.exchange.presence(node).is_some_and(|seen| seen.load == Some(load))).await;
    }
    drop(here);
    for (running, stop) in [(one, stop_one), (other, stop_other)] {
        stop.cancel();
        running.finish().await;
    }
}
