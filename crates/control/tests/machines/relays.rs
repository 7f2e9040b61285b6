//! Relays: how they enrol, who hears of them, and which resources clients are sent over them for.

use postern_proto::{
    api::NodeKind,
    id::NodeId,
    resource::Health,
    sync::{ClientFrame, HealthReport, Item, ItemKey, ParkedAt},
    time::UnixMillis,
};

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_its_kind_of_node_only() {
    let world = World::start().await;
    let (_, token) = world.create_gateway("gw").await;
    let refused = world.enrol(token.clone(), NodeKind::Relay).await.err().unwrap();
    let detail = refused.problem().unwrap().detail.clone().unwrap();
    assert!(detail.contains("for a gateway") && detail.contains("this is a relay"), "{detail}");
    world.enrol(token, NodeKind::Gateway).await.unwrap();
}

fn parked(item: Option<&Item>) -> Vec<NodeId> {
    match item {
        Some(Item::Relay(relay)) => relay.parked.iter().map(|at| at.gateway).collect(),
        _ => Vec::new(),
    }
}

fn neighbours(item: Option<&Item>) -> Vec<NodeId> {
    if let Some(Item::Neighbours { nodes }) = item { nodes.clone() } else { Vec::new() }
}

fn via(item: Option<&Item>) -> Option<Vec<NodeId>> {
    if let Some(Item::Access(resource)) = item { Some(resource.via.clone()) } else { None }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_hear_where_a_relay_is_parked_and_reach_over_it_what_no_gateway_reaches() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let resource = world.create_resource("db").await;
    world.create_role("team", &[resource], account).await;
    let (gateway, relay) = (world.enrol_gateway("gw").await, world.enrol_relay("re", "").await);
    let stranger = world.enrol_relay("far", "elsewhere").await;
    let (mut at_gateway, mut at_relay) = (gateway.follow().await, relay.follow().await);
    let mut at_stranger = stranger.follow().await;
    let mut device = world.sign_in("ada@example.org").await.follow().await;
    for socket in [&mut at_gateway, &mut at_relay, &mut at_stranger, &mut device] {
        socket.settle().await;
    }
    assert_eq!(neighbours(at_gateway.item(&ItemKey::Neighbours).as_ref()), [relay.given]);
    assert_eq!(neighbours(at_relay.item(&ItemKey::Neighbours).as_ref()), [gateway.given]);
    assert_eq!(neighbours(at_stranger.item(&ItemKey::Neighbours).as_ref()), []);
    let key = ItemKey::Relay { id: relay.given };
    assert_eq!(parked(device.item(&key).as_ref()), []);

    let at = vec![ParkedAt { gateway: gateway.given, latency_micros: 700 }];
    at_relay.send(&ClientFrame::Parked { at }).await;
    device.item_when(key.clone(), |item| parked(item) == [gateway.given]).await;
    at_gateway.item_when(key, |item| parked(item) == [gateway.given]).await;

    let report = |health| ClientFrame::Health {
        reports: vec![HealthReport { resource, health, checked_at: UnixMillis(1), connect_micros: None }],
    };
    let key = ItemKey::Access { id: resource };
    assert_eq!(via(device.item(&key).as_ref()), Some(vec![]));
    at_gateway.send(&report(Health::unhealthy("no route"))).await;
    at_relay.send(&report(Health::Healthy)).await;
    device.item_when(key.clone(), |item| via(item) == Some(vec![relay.given])).await;
    at_gateway.send(&report(Health::Healthy)).await;
    device.item_when(key, |item| via(item) == Some(vec![])).await;
}
