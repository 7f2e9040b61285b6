//! What a node says to one replica, all know.

use std::time::Duration;

use postern_control::{
    catalogue::{Leaving, Node, NodeKind},
    run::Running,
    store::Change,
    sync::Subscription,
};
use postern_proto::{
    id::NodeId,
    resource::{Health, Tags},
    sync::{HealthReport, Hello, Peer},
    time::UnixMillis,
};

use crate::shared::{WITHIN, change, put_resource, start};

pub(crate) fn connect(running: &Running, node: NodeId) -> Subscription {
    let hello = Hello { version: 1, agent: "test 1".to_owned(), epoch: String::new(), have: Default::default() };
    running.state.exchange.admit(Peer::Node { node }, &hello)
}

pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(WITHIN, waiting).await.is_ok(), "{what}");
}

pub(crate) async fn put_gateway(change: &mut Change) -> NodeId {
    let node = Node {
        id: NodeId::from_ulid(change.ulid()),
        name: "gw".to_owned(),
        kind: NodeKind::Gateway,
        group: String::new(),
        tags: Tags::new(),
        advertise: Some("gw.example:5000".to_owned()),
        spki_sha256: None,
        enrolled_at: Some(change.now()),
        drain_ends_at: None,
        planned_drain: None,
        cluster: None,
        access_key: None,
        created_at: change.now(),
        revision: 0,
    };
    change.put(node).await.unwrap().id
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn a_gateway_of_one_replica_is_known_at_the_others_and_asked_by_them() {
    postern_tunnel::tls::install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let (one, stop_one) = start(folder.path(), "a").await;
    let (other, stop_other) = start(folder.path(), "b").await;
    let mut change = change(&one.state.store).await;
    let resource = put_resource(&mut change, 1, "prod").await;
    let node = put_gateway(&mut change).await;
    let revision = change.commit().await.unwrap().revision;
    until("the change is not known", || other.state.store.catalogue().revision == revision).await;
    let seen =
        |running: &Running| running.state.exchange.presence(node).map(|seen| (seen.connected, seen.leaving.draining));
    let report = |health| HealthReport { resource, health, checked_at: UnixMillis(0), connect_micros: None };

    let here = connect(&one, node);
    until("it is there", || seen(&other) == Some((true, false))).await;
    one.state.exchange.report_health(node, vec![report(Health::Healthy)]);
    until("its report", || other.state.exchange.health(resource) == Health::Healthy).await;
    one.state.exchange.set_leaving(node, Leaving { draining: true, ends: None });
    until("it drains", || seen(&other) == Some((true, true))).await;
    one.state.exchange.set_leaving(node, Leaving::default());

    // Asked at the other replica, it answers here.
    let answering = tokio::spawn({
        let (exchange, error) = (one.state.exchange.clone(), "connection refused".to_owned());
        async move {
            here.woken().await;
            let mut asked = false;
            while !asked {
                while let postern_control::sync::hub::Next::Send(frame) = here.next() {
                    asked |= frame.as_str().contains("check_health") || frame.as_str().contains("CheckHealth");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let health = Health::unhealthy(error);
            exchange.report_health(
                node,
                vec![HealthReport { resource, health, checked_at: UnixMillis(1), connect_micros: None }],
            );
            here
        }
    });
    let health = other.state.exchange.check(resource, WITHIN).await;
    assert!(matches!(health, Health::Unhealthy { .. }), "{health:?}");
    let here = tokio::time::timeout(WITHIN, answering).await.unwrap().unwrap();

    // It moves: the end of the connection here says nothing about the one there.
    let there = connect(&other, node);
    until("it is there too", || seen(&one) == Some((true, false))).await;
    drop(here);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((seen(&one), seen(&other)), (Some((true, false)), Some((true, false))));
    drop(there);
    until("it went", || seen(&one) == Some((false, false))).await;
    for (running, stop) in [(one, stop_one), (other, stop_other)] {
        stop.cancel();
        running.finish().await;
    }
}
