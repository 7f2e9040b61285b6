use std::time::Duration;

use axum::http::Method;
use postern_proto::{
    lease::{RevokedSubject, StreamSubject},
    replica::Replica,
    resource::Health,
    sync::{ClientFrame, HealthReport, Item, ItemKey, NodeLoad, ServerFrame},
    time::UnixMillis,
};
use postern_tunnel::control::LongPoll;
use serde_json::{Value, json};

use crate::support::{Device, Socket, World};

fn revoked(frame: &ServerFrame) -> Vec<RevokedSubject> {
    match frame {
        ServerFrame::Revoke { revocations } => revocations.iter().map(|r| r.subject.clone()).collect(),
        _ => vec![],
    }
}

fn snapshots(socket: &Socket) -> usize {
    socket.seen.iter().filter(|frame| matches!(frame, ServerFrame::Snapshot { .. })).count()
}

fn access(item: Option<&Item>) -> Option<&Health> {
    match item {
        Some(Item::Access(resource)) => Some(&resource.health),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_gets_a_snapshot_then_deltas_and_after_a_break_only_the_difference() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let (one, two) = (world.create_resource("one").await, world.create_resource("two").await);
    world.create_role("first", &[one], account).await;
    let device = world.sign_in("ada@example.org").await;
    let mut socket = device.follow().await;
    socket.settle().await;
    assert_eq!(snapshots(&socket), 3);
    assert!(socket.item(&ItemKey::Access { id: one }).is_some() && socket.item(&ItemKey::Settings).is_some());
    assert!(socket.item(&ItemKey::Account { id: account }).is_some());

    let role = world.create_role("second", &[two], account).await;
    socket.item_when(ItemKey::Access { id: two }, |item| item.is_some()).await;
    assert_eq!(snapshots(&socket), 3);

    let replica = std::mem::take(&mut socket.replica);
    drop(socket);
    world.remove_role(role).await;
    let mut socket = device.follow_from(replica).await;
    socket.item_when(ItemKey::Access { id: two }, |item| item.is_none()).await;
    assert!(socket.item(&ItemKey::Access { id: one }).is_some());
    assert_eq!(snapshots(&socket), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_many_pieces_arrives_whole() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let mut resources = Vec::new();
    for number in 0..60 {
        // Letters of several bytes, so that pieces end within them.
        resources.push(world.create_resource(&format!("größe-{}-{number}", "äöü€".repeat(10))).await);
    }
    world.create_role("first", &resources, account).await;
    let mut socket = world.sign_in("ada@example.org").await.follow().await;
    socket.settle().await;
    let longest = socket.seen.iter().map(|frame| serde_json::to_string(frame).unwrap().len()).max().unwrap();
    assert!(longest > 3 * 4096, "{longest}");
    for id in resources {
        let Some(Item::Access(resource)) = socket.item(&ItemKey::Access { id }) else { panic!("{id} is not there") };
        assert!(resource.name.starts_with("größe-äöü€äöü€"), "{}", resource.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_device_holds_the_same_again() {
    let mut world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let resource = world.create_resource("one").await;
    let role = world.create_role("first", &[resource], account).await;
    let device = world.sign_in("ada@example.org").await;
    let mut socket = device.follow().await;
    socket.settle().await;
    let replica = std::mem::take(&mut socket.replica);
    world.stop().await;
    let bye = socket.seen.len();
    while socket.next().await.is_ok() {}
    assert!(matches!(&socket.seen[bye..], [.., ServerFrame::Bye { code, .. }] if code == "stopping"));
    world.restart_after_stop().await;
    world.remove_role(role).await;
    let mut socket = device.follow_from(replica).await;
    socket.settle().await;
    assert!(socket.item(&ItemKey::Access { id: resource }).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_role_is_revoked_at_gateways_and_at_the_device() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let bystander = world.create_account("bob@example.org").await;
    let resource = world.create_resource("db").await;
    let role = world.create_role("team", &[resource], account).await;
    world.create_role("others", &[resource], bystander).await;
    let gateways = [world.enrol_gateway("gw1").await, world.enrol_gateway("gw2").await];
    let mut nodes = Vec::new();
    for gateway in &gateways {
        nodes.push(gateway.follow().await);
        nodes.last_mut().unwrap().settle().await;
    }
    let mut devices = Vec::new();
    for email in ["ada@example.org", "bob@example.org"] {
        let mut socket = world.sign_in(email).await.follow().await;
        socket.settle().await;
        devices.push(socket);
    }
    world.remove_role(role).await;
    let expected = vec![RevokedSubject::Access { account, resource }];
    for node in &mut nodes {
        let frame = node.until(|frame| !revoked(frame).is_empty()).await;
        assert_eq!(revoked(&frame), expected);
    }
    let frame = devices[0].until(|frame| !revoked(frame).is_empty()).await;
    assert_eq!(revoked(&frame), expected);
    devices[0].item_when(ItemKey::Access { id: resource }, |item| item.is_none()).await;
    let other = &mut devices[1];
    other.send(&ClientFrame::Ping { n: 9 }).await;
    other.until(|frame| matches!(frame, ServerFrame::Pong { n: 9, .. })).await;
    assert!(other.seen.iter().all(|frame| revoked(frame).is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_away_is_told_what_was_revoked_meanwhile() {
    let mut world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let resource = world.create_resource("db").await;
    let role = world.create_role("team", &[resource], account).await;
    let gateway = world.enrol_gateway("gw").await;
    world.remove_role(role).await;
    world.restart().await;
    let mut node = gateway.follow().await;
    node.settle().await;
    let told: Vec<_> = node.seen.iter().flat_map(revoked).collect();
    assert_eq!(told, [RevokedSubject::Access { account, resource }]);
    assert!(
        matches!(node.item(&ItemKey::Resource { id: resource }), Some(Item::Resource(r)) if r.host == "db.example")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn live_streams_are_judged_by_what_counts_now() {
    let world = World::start().await;
    let (ada, bob) = (world.create_account("ada@example.org").await, world.create_account("bob@example.org").await);
    let (kept, lost) = (world.create_resource("kept").await, world.create_resource("lost").await);
    world.create_role("team", &[kept], ada).await;
    world.create_role("others", &[kept], bob).await;
    let (device, gone) = (world.sign_in("ada@example.org").await, world.sign_in("bob@example.org").await);
    let second = world.sign_in("ada@example.org").await;
    second.post::<()>("/api/v1/logout", &()).await.unwrap();
    world.update_account(bob, |account| account.suspended = true).await;
    let gateway = world.enrol_gateway("gw").await;
    let mut node = gateway.follow().await;
    node.settle().await;
    let subject = |device: &Device, account, resource| StreamSubject {
        account,
        device: device.given.device,
        resource,
        grant: "rol_x".to_owned(),
    };
    let subjects = vec![
        subject(&device, ada, kept),
        subject(&device, ada, lost),
        subject(&second, ada, kept),
        subject(&gone, bob, kept),
    ];
    let before = node.seen.len();
    node.send(&ClientFrame::Live { subjects }).await;
    node.until(|frame| matches!(frame, ServerFrame::Checked)).await;
    let mut cut: Vec<_> = node.seen[before..].iter().flat_map(revoked).collect();
    cut.sort();
    let mut expected = vec![
        RevokedSubject::Account { account: bob },
        RevokedSubject::Device { device: second.given.device },
        RevokedSubject::Access { account: ada, resource: lost },
    ];
    expected.sort();
    assert_eq!(cut, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_may_not_speak_as_a_gateway() {
    let world = World::start().await;
    world.create_account("ada@example.org").await;
    let device = world.sign_in("ada@example.org").await;
    let mut socket = device.follow().await;
    socket.settle().await;
    socket.send(&ClientFrame::Health { reports: vec![] }).await;
    let bye = socket.until(|frame| matches!(frame, ServerFrame::Bye { .. })).await;
    assert!(matches!(bye, ServerFrame::Bye { code, .. } if code == "bad_frame"));
    assert!(socket.next().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_reaches_devices_and_is_asked_for_on_demand() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let resource = world.create_resource("db").await;
    world.create_role("team", &[resource], account).await;
    let device = world.sign_in("ada@example.org").await;
    let mut socket = device.follow().await;
    socket.settle().await;
    let key = ItemKey::Access { id: resource };
    assert_eq!(access(socket.item(&key).as_ref()), Some(&Health::Unknown));

    let gateway = world.enrol_gateway("gw").await;
    let mut node = gateway.follow().await;
    node.settle().await;
    let report =
        |health| HealthReport { resource, health, checked_at: world.state().clock.now(), connect_micros: None };
    node.send(&ClientFrame::Health { reports: vec![report(Health::Healthy)] }).await;
    socket.item_when(key.clone(), |item| access(item) == Some(&Health::Healthy)).await;

    let unhealthy = Health::unhealthy("connection refused");
    let exchange = world.state().exchange.clone();
    let asking = tokio::spawn(async move { exchange.check(resource, Duration::from_secs(12)).await });
    node.until(|frame| *frame == ServerFrame::CheckHealth { resource }).await;
    node.send(&ClientFrame::Health { reports: vec![report(unhealthy.clone())] }).await;
    assert_eq!(asking.await.unwrap(), unhealthy);
    socket.item_when(key, |item| access(item) == Some(&unhealthy)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_says_where_it_is_and_that_it_drains() {
    let world = World::start().await;
    world.create_account("ada@example.org").await;
    let gateway = world.enrol_gateway("gw").await;
    let device = world.sign_in("ada@example.org").await;
    let mut socket = device.follow().await;
    socket.settle().await;
    let mut node = gateway.follow().await;
    node.settle().await;
    let key = ItemKey::Gateway { id: gateway.given };
    let entry = |item: Option<&Item>| match item {
        Some(Item::Gateway(gateway)) => (gateway.address.clone(), gateway.draining),
        _ => panic!("no gateway"),
    };
    assert_eq!(entry(socket.item(&key).as_ref()), ("gw.example:5000".to_owned(), false));
    let advertise = Some("127.0.0.1:7777".to_owned());
    node.send(&ClientFrame::Presence { advertise, draining: false, drain_ends: None }).await;
    socket.item_when(key.clone(), |item| entry(item) == ("127.0.0.1:7777".to_owned(), false)).await;
    node.send(&ClientFrame::Presence { advertise: None, draining: true, drain_ends: None }).await;
    socket.item_when(key, |item| entry(item) == ("127.0.0.1:7777".to_owned(), true)).await;
    let presence = world.state().exchange.presence(gateway.given).unwrap();
    assert!(presence.connected && presence.leaving.draining && presence.agent == "test 1.0", "{presence:?}");
    drop(node);
    while world.state().exchange.presence(gateway.given).unwrap().connected {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_of_a_resources_health_is_kept() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    world.update_account(account, |account| account.admin = true).await;
    let resource = world.create_resource("db").await;
    let (gateway, admin) = (world.enrol_gateway("gw").await, world.sign_in("ada@example.org").await);
    let mut node = gateway.follow().await;
    node.settle().await;
    let down = || Health::unhealthy("connection refused\n");
    for (at, health) in [(1, Health::Healthy), (2, Health::Healthy), (3, down()), (4, down()), (5, Health::Healthy)] {
        let report = HealthReport { resource, health, checked_at: UnixMillis(at), connect_micros: None };
        node.send(&ClientFrame::Health { reports: vec![report] }).await;
    }
    let history = loop {
        let view: Value = admin.get(&format!("/api/v1/resources/{resource}/health")).await.unwrap();
        match view["history"].as_array() {
            Some(history) if history.len() == 3 => break view,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let turns: Vec<_> = history["history"].as_array().into_iter().flatten().collect();
    let told: Vec<_> = turns.iter().map(|turn| (turn["at"].as_u64(), turn["health"]["state"].as_str())).collect();
    assert_eq!(told, [(Some(5), Some("healthy")), (Some(3), Some("unhealthy")), (Some(1), Some("healthy"))]);
    assert_eq!((&turns[1]["health"]["error"], &turns[1]["node_name"]), (&"connection refused".into(), &"gw".into()));
    assert_eq!(history["health"]["state"], "healthy");
    // All of it is far in the past; how the node found it last stays.
    postern_control::housekeeping::sweep(&world.state().store).await.unwrap();
    let view: Value = admin.get(&format!("/api/v1/resources/{resource}/health")).await.unwrap();
    let left: Vec<_> = view["history"].as_array().into_iter().flatten().map(|turn| turn["at"].as_u64()).collect();
    assert_eq!(left, [Some(5)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_drained_leaves_the_routes_at_once_and_comes_back() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    world.update_account(account, |account| account.admin = true).await;
    let gateway = world.enrol_gateway("gw").await;
    let admin = world.sign_in("ada@example.org").await;
    let (mut socket, mut node) = (admin.follow().await, gateway.follow().await);
    socket.settle().await;
    node.settle().await;
    let path = format!("/api/v1/nodes/{}", gateway.given);
    let view = || async { admin.get::<Value>(&path).await.unwrap() };
    let up = view().await;
    assert_eq!((up["state"].as_str(), up["role"].as_str()), (Some("up"), Some("gateway")), "{up}");
    let load = |streams| ClientFrame::Load { load: NodeLoad { streams, cpu_permille: Some(125) } };
    node.send(&load(3)).await;

    let drained: Value = admin.post(&format!("{path}/drain"), &json!({ "deadline": 60 })).await.unwrap();
    let ends = drained["drain_ends_at"].as_u64().unwrap();
    assert_eq!(drained["state"], "draining");
    let leaves = |item: Option<&Item>| match item {
        Some(Item::Gateway(gateway)) => (gateway.draining, gateway.drain_ends.map(|ends| ends.0)),
        _ => panic!("no gateway"),
    };
    let key = ItemKey::Gateway { id: gateway.given };
    socket.item_when(key.clone(), |item| leaves(item) == (true, Some(ends))).await;
    let own = ItemKey::Node { id: gateway.given };
    let order = |item: Option<&Item>| match item {
        Some(Item::Node { drain, .. }) => drain.map(|order| order.ends_at.0),
        _ => None,
    };
    node.item_when(own.clone(), |item| order(item) == Some(ends)).await;

    node.send(&ClientFrame::Presence { advertise: None, draining: true, drain_ends: Some(UnixMillis(ends)) }).await;
    let seen = |state: &'static str, streams: u64| {
        let view = &view;
        async move {
            let mut now = view().await;
            while now["state"] != state || now["streams"] != streams {
                tokio::time::sleep(Duration::from_millis(10)).await;
                now = view().await;
            }
            now
        }
    };
    assert_eq!(seen("draining", 3).await["cpu_permille"], 125);
    node.send(&load(0)).await;
    seen("drained", 0).await;

    let back = admin.client.call::<(), ()>(Method::DELETE, &format!("{path}/drain"), None::<&()>).await;
    assert!(back.is_ok(), "{back:?}");
    node.item_when(own, |item| order(item).is_none()).await;
    node.send(&ClientFrame::Presence { advertise: None, draining: false, drain_ends: None }).await;
    socket.item_when(key, |item| leaves(item) == (false, None)).await;
    seen("up", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_polls_say_the_same_as_the_socket() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let (one, two) = (world.create_resource("one").await, world.create_resource("two").await);
    let role = world.create_role("first", &[one], account).await;
    let device = world.sign_in("ada@example.org").await;
    let poll = LongPoll::new(device.client.clone());
    let mut replica = Replica::default();
    let hello = replica.hello("test 1.0");
    for frame in poll.poll(&hello, Duration::ZERO).await.unwrap() {
        replica.apply(&frame).unwrap();
    }
    let mut socket = device.follow().await;
    socket.settle().await;
    assert!(replica.items().eq(socket.replica.items()));

    // Nothing new: the welcome alone, when the wait is over.
    let frames = poll.poll(&replica.hello_again("test 1.0"), Duration::from_secs(1)).await.unwrap();
    assert!(matches!(frames[..], [ServerFrame::Welcome(_)]), "{frames:?}");

    let hello = replica.hello_again("test 1.0");
    let waiting = poll.poll(&hello, Duration::from_secs(30));
    let changing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.create_role("second", &[two], account).await;
    };
    let (frames, ()) = tokio::join!(waiting, changing);
    for frame in frames.unwrap() {
        assert!(!matches!(frame, ServerFrame::Snapshot { .. }));
        replica.apply(&frame).unwrap();
    }
    socket.item_when(ItemKey::Access { id: two }, |item| item.is_some()).await;
    assert!(replica.items().eq(socket.replica.items()));

    // Between two polls nothing is lost.
    world.remove_role(role).await;
    let frames = poll.poll(&replica.hello_again("test 1.0"), Duration::from_secs(30)).await.unwrap();
    assert!(frames.iter().flat_map(revoked).eq([RevokedSubject::Access { account, resource: one }]));
    for frame in frames {
        replica.apply(&frame).unwrap();
    }
    socket.item_when(ItemKey::Access { id: one }, |item| item.is_none()).await;
    assert!(replica.items().eq(socket.replica.items()));
    let pong = poll.send(&[ClientFrame::Ping { n: 3 }]).await.unwrap();
    assert!(matches!(pong[..], [ServerFrame::Pong { n: 3, .. }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_polls_is_told_every_revocation() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let resource = world.create_resource("db").await;
    let role = world.create_role("team", &[resource], account).await;
    let gateway = world.enrol_gateway("gw").await;
    let poll = LongPoll::new(gateway.client.clone());
    let mut replica = Replica::default();
    let hello = replica.hello("test 1.0");
    for frame in poll.poll(&hello, Duration::ZERO).await.unwrap() {
        replica.apply(&frame).unwrap();
    }
    let hello = replica.hello_again("test 1.0");
    let waiting = poll.poll(&hello, Duration::from_secs(30));
    let changing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.remove_role(role).await;
    };
    let (frames, ()) = tokio::join!(waiting, changing);
    assert!(frames.unwrap().iter().flat_map(revoked).eq([RevokedSubject::Access { account, resource }]));
    let answer = poll.send(&[ClientFrame::Live { subjects: vec![] }]).await.unwrap();
    assert_eq!(answer, [ServerFrame::Checked]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_grant_leaves_the_device_and_is_revoked_by_itself() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    let resource = world.create_resource("db").await;
    let device = world.sign_in("ada@example.org").await;
    let mut socket = device.follow().await;
    socket.settle().await;
    // Later than a busy machine tells of it.
    let end = world.state().clock.now().plus(Duration::from_secs(3));
    world.grant(account, resource, end).await;
    let key = ItemKey::Access { id: resource };
    socket.item_when(key.clone(), |item| item.is_some()).await;
    socket.item_when(key, |item| item.is_none()).await;
    assert!(world.state().clock.now() >= end);
    assert!(socket.seen.iter().flat_map(revoked).eq([RevokedSubject::Access { account, resource }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_follows_is_seen_with_its_program() {
    let world = World::start().await;
    let account = world.create_account("ada@example.org").await;
    world.update_account(account, |account| account.admin = true).await;
    let device = world.sign_in("ada@example.org").await;
    let signed_in = world.state().clock.now();
    world.pass(Duration::from_secs(60));
    let mut socket = device.follow().await;
    socket.settle().await;
    loop {
        let seen: Value = device.get(&format!("/api/v1/devices/{}", device.given.device)).await.unwrap();
        if seen["agent"] == "test 1.0" {
            assert!(seen["last_seen_at"].as_u64().unwrap() >= signed_in.0 + 60_000);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_needs_a_certificate_and_a_version_that_both_speak() {
    let world = World::start().await;
    world.create_account("ada@example.org").await;
    let device = world.sign_in("ada@example.org").await;
    let refused = device.get::<Vec<ServerFrame>>("/api/v1/sync?version=99").await.unwrap_err();
    assert_eq!(refused.code, "other_version");
    let refused = device.get::<Vec<ServerFrame>>("/api/v1/sync?version=1&have=nonsense").await.unwrap_err();
    assert_eq!((refused.status, refused.violations[0].field.as_str()), (422, "have"));
    device.client.set_identity(None);
    let refused = device.client.call::<(), Vec<ServerFrame>>(Method::GET, "/api/v1/sync?version=1", None).await;
    assert_eq!(crate::support::problem(refused).code, "no_certificate");
}
