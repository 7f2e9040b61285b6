use postern_proto::{
    id::ResourceId,
    replica::Replica,
    resource::{BindAddress, ClientResource, Health, Kind},
    sync::GatewayInfo,
};
use proptest::prelude::*;
use ulid::Ulid;

use super::*;
use crate::sync::feed::view;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

fn org() -> OrgId {
    OrgId::from_ulid(Ulid::from_parts(1, 1))
}

fn account(n: u64) -> AccountId {
    AccountId::from_ulid(Ulid::from_parts(n, 2))
}

fn node(n: u64) -> NodeId {
    NodeId::from_ulid(Ulid::from_parts(n, 3))
}

fn resource(n: u64) -> ResourceId {
    ResourceId::from_ulid(Ulid::from_parts(n, 4))
}

fn device(n: u64) -> Peer {
    Peer::Device { account: account(n), device: DeviceId::from_ulid(Ulid::from_parts(n, 5)) }
}

fn gateway(n: u64, address: u16) -> Item {
    let address = format!("gw:{address}");
    Item::Gateway(GatewayInfo { id: node(n), name: format!("g{n}"), address, draining: false, drain_ends: None })
}

fn access(n: u64, revision: u64) -> Item {
    let bind = BindAddress::loopback([127, 0, 0, 1].into(), 2000);
    Item::Access(ClientResource {
        id: resource(n),
        name: format!("r{n}"),
        kind: Kind::Tcp,
        tags: BTreeMap::new(),
        bind,
        ports: postern_proto::port::PortSet::default(),
        revision,
        via: vec![],
        cluster: None,
        health: Health::Unknown,
    })
}

fn nothing_held() -> Hello {
    Replica::default().hello("t")
}

/// As a peer that knows no clusters.
fn connect(hub: &mut Hub, peer: Peer, hello: &Hello, now: UnixMillis) -> ConnectionId {
    let scopes = scopes_of(peer, None, hello).into_iter().filter(|scope| scope != CLUSTERS).collect();
    hub.connect(peer, scopes, hello, now)
}

#[test]
fn who_can_read_clusters_is_told_of_them_and_workers_of_what_is_theirs() {
    let (reads, reads_not) = (nothing_held(), Hello { have: Default::default(), ..nothing_held() });
    assert!(scopes_of(device(1), None, &reads).contains(&CLUSTERS.to_owned()));
    assert!(!scopes_of(device(1), None, &reads_not).contains(&CLUSTERS.to_owned()));
    let cluster = ClusterId::from_ulid(Ulid(5));
    let scopes = scopes_of(Peer::Node { node: node(1) }, Some(cluster), &reads);
    assert_eq!(scopes, [ORG.to_owned(), cluster_scope(cluster), node_scope(node(1))]);
}

fn hub() -> Hub {
    let mut hub = Hub::new(org(), "e1".to_owned(), 1000);
    let now = Instant::now();
    hub.publish(ORG, view([gateway(1, 1)]), now);
    hub.publish(GATEWAYS, View::new(), now);
    for n in 1..=3 {
        hub.publish(&format!("account:{}", account(n)), view([access(n, 1)]), now);
        hub.publish(&format!("node:{}", node(n)), View::new(), now);
    }
    hub
}

fn frames(hub: &mut Hub, id: ConnectionId) -> Vec<ServerFrame> {
    std::iter::from_fn(|| match hub.next(id) {
        Next::Send(frame) => Some(serde_json::from_str(&frame).unwrap()),
        Next::Wait | Next::Close => None,
    })
    .collect()
}

fn follow(hub: &mut Hub, id: ConnectionId, replica: &mut Replica) {
    for frame in frames(hub, id) {
        replica.apply(&frame).unwrap();
    }
}

fn revocation(subject: RevokedSubject) -> Revocation {
    Revocation { subject, at: NOW, reason: "test".to_owned() }
}

fn revoked(frames: &[ServerFrame]) -> Vec<RevokedSubject> {
    let of = |frame: &ServerFrame| match frame {
        ServerFrame::Revoke { revocations } => revocations.iter().map(|r| r.subject.clone()).collect(),
        _ => vec![],
    };
    frames.iter().flat_map(of).collect()
}

#[test]
fn a_new_device_gets_snapshots_and_one_that_comes_back_only_the_difference() {
    let (mut hub, mut replica) = (hub(), Replica::default());
    let id = connect(&mut hub, device(1), &replica.hello("t"), NOW);
    follow(&mut hub, id, &mut replica);
    assert_eq!(replica.items().cloned().collect::<Vec<_>>(), [access(1, 1), gateway(1, 1)]);
    hub.disconnect(id, Instant::now());

    hub.patch(ORG, vec![gateway(2, 1).into()], vec![]);
    let id = connect(&mut hub, device(1), &replica.hello("t"), NOW);
    let frames = frames(&mut hub, id);
    assert!(matches!(frames[..], [ServerFrame::Welcome(_), ServerFrame::Delta { .. }]), "{frames:?}");
}

#[test]
fn another_epoch_makes_what_is_held_worth_nothing() {
    let (mut before, mut replica) = (hub(), Replica::default());
    let id = connect(&mut before, device(1), &replica.hello("t"), NOW);
    follow(&mut before, id, &mut replica);
    let mut after = hub();
    after.epoch = "e2".to_owned();
    let id = connect(&mut after, device(1), &replica.hello("t"), NOW);
    let snapshots = frames(&mut after, id).iter().filter(|f| matches!(f, ServerFrame::Snapshot { .. })).count();
    assert_eq!(snapshots, 2);
}

#[test]
fn a_change_wakes_only_those_that_it_concerns() {
    let mut hub = hub();
    let ids = [1, 2].map(|n| connect(&mut hub, device(n), &nothing_held(), NOW));
    hub.take_woken();
    hub.patch(&format!("account:{}", account(1)), vec![access(7, 1).into()], vec![]);
    assert_eq!(hub.take_woken(), BTreeSet::from([ids[0]]));
    hub.patch(&format!("account:{}", account(3)), vec![access(7, 1).into()], vec![]);
    assert_eq!(hub.take_woken(), BTreeSet::new());
}

#[test]
fn revocations_reach_all_nodes_and_only_the_devices_concerned() {
    let mut hub = hub();
    let nodes = [1, 2].map(|n| connect(&mut hub, Peer::Node { node: node(n) }, &nothing_held(), NOW));
    let devices = [1, 2].map(|n| connect(&mut hub, device(n), &nothing_held(), NOW));
    let one = RevokedSubject::Access { account: account(1), resource: resource(1) };
    let two = RevokedSubject::Resource { resource: resource(2) };
    hub.revoke(&[revocation(one.clone()), revocation(two.clone())]);
    for id in nodes {
        assert_eq!(revoked(&frames(&mut hub, id)), [one.clone(), two.clone()]);
    }
    assert_eq!(revoked(&frames(&mut hub, devices[0])), [one]);
    assert_eq!(revoked(&frames(&mut hub, devices[1])), [two]);
}

#[test]
fn a_device_that_loses_very_much_at_once_is_told_in_few_frames() {
    let mut hub = hub();
    let ids = [1, 2].map(|n| connect(&mut hub, device(n), &nothing_held(), NOW));
    ids.iter().for_each(|id| drop(frames(&mut hub, *id)));
    let lost: Vec<_> =
        (0..2500).map(|n| revocation(RevokedSubject::Access { account: account(1), resource: resource(n) })).collect();
    hub.revoke(&lost);
    let told = frames(&mut hub, ids[0]);
    assert_eq!((told.len(), revoked(&told).len()), (3, 2500));
    assert!(frames(&mut hub, ids[1]).is_empty());
}

#[test]
fn one_that_never_reads_is_closed_and_holds_nothing_up() {
    let mut hub = hub();
    let slow = connect(&mut hub, Peer::Node { node: node(1) }, &nothing_held(), NOW);
    let quick = connect(&mut hub, Peer::Node { node: node(2) }, &nothing_held(), NOW);
    for n in 0..1000 {
        hub.revoke(&[revocation(RevokedSubject::Resource { resource: resource(n) })]);
        assert_eq!(revoked(&frames(&mut hub, quick)).len(), 1);
    }
    assert_eq!(hub.nodes(), BTreeSet::from([node(2)]));
    assert!(matches!(frames(&mut hub, slow)[..], [ServerFrame::Bye { .. }]));
    assert_eq!(hub.next(slow), Next::Close);
}

#[test]
fn a_closed_peer_is_told_why() {
    let mut hub = hub();
    let ids = [1, 2].map(|n| connect(&mut hub, device(n), &nothing_held(), NOW));
    hub.close_where("login_ended", "You were signed out", |peer| peer == device(1));
    let said = frames(&mut hub, ids[0]);
    assert!(matches!(said.last(), Some(ServerFrame::Bye { code, .. }) if code == "login_ended"));
    assert_eq!(hub.next(ids[0]), Next::Close);
    frames(&mut hub, ids[1]);
    assert_eq!(hub.next(ids[1]), Next::Wait);
}

#[test]
fn a_scope_that_nobody_follows_is_forgotten_after_a_while() {
    let (mut hub, start) = (hub(), Instant::now());
    let id = connect(&mut hub, device(1), &nothing_held(), NOW);
    hub.sweep(start + KEEP_IDLE * 2);
    assert_eq!(hub.scopes().count(), 2);
    hub.disconnect(id, start);
    hub.sweep(start + KEEP_IDLE / 2);
    assert_eq!(hub.scopes().count(), 2);
    hub.sweep(start + KEEP_IDLE);
    assert_eq!(hub.scopes().count(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Patch {
        scope: usize,
        item: u64,
        revision: u64,
    },
    Delete {
        scope: usize,
        item: u64,
    },
    Replace {
        scope: usize,
        items: Vec<(u64, u64)>,
    },
    /// A client takes up to so many frames.
    Read {
        client: usize,
        frames: usize,
    },
    Reconnect {
        client: usize,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let items = prop::collection::vec((0u64..6, 0u64..4), 0..6);
    prop_oneof![
        4 => (0usize..3, 0u64..6, 0u64..4).prop_map(|(scope, item, revision)| Step::Patch { scope, item, revision }),
        2 => (0usize..3, 0u64..6).prop_map(|(scope, item)| Step::Delete { scope, item }),
        2 => (0usize..3, items).prop_map(|(scope, items)| Step::Replace { scope, items }),
        4 => (0usize..2, 0usize..6).prop_map(|(client, frames)| Step::Read { client, frames }),
        1 => (0usize..2).prop_map(|client| Step::Reconnect { client }),
        1 => Just(Step::Restart),
    ]
}

/// Two devices beside a hub, and what the hub should hold.
struct World {
    hub: Hub,
    model: Vec<(Scope, View)>,
    clients: Vec<(Replica, ConnectionId)>,
    generation: u64,
}

impl World {
    fn new() -> Self {
        let model = [ORG.to_owned(), format!("account:{}", account(1)), format!("account:{}", account(2))];
        let mut world = Self {
            hub: Hub::new(org(), "e".to_owned(), 1),
            model: model.into_iter().map(|scope| (scope, View::new())).collect(),
            clients: vec![],
            generation: 0,
        };
        world.restart();
        world
    }

    fn restart(&mut self) {
        self.generation += 1;
        self.hub = Hub::new(org(), "e".to_owned(), self.generation << 32);
        for (scope, items) in &self.model {
            self.hub.publish(scope, items.clone(), Instant::now());
        }
        let mut replicas: Vec<Replica> = self.clients.drain(..).map(|(replica, _)| replica).collect();
        replicas.resize_with(2, Replica::default);
        for (n, mut replica) in replicas.into_iter().enumerate() {
            let id = connect(&mut self.hub, device(n as u64 + 1), &replica.hello("t"), NOW);
            self.clients.push((replica, id));
        }
    }

    fn read(&mut self, client: usize, frames: usize) {
        let (replica, id) = &mut self.clients[client];
        for _ in 0..frames {
            let Next::Send(frame) = self.hub.next(*id) else { return };
            replica.apply(&serde_json::from_str(&frame).unwrap()).unwrap();
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Patch { scope, item, revision } => {
                let (scope, items) = &mut self.model[scope];
                items.insert(access(item, revision).key(), access(item, revision).into());
                self.hub.patch(scope, vec![access(item, revision).into()], vec![]);
            }
            Step::Delete { scope, item } => {
                let (scope, items) = &mut self.model[scope];
                items.remove(&access(item, 0).key());
                self.hub.patch(scope, vec![], vec![access(item, 0).key()]);
            }
            Step::Replace { scope, items: new } => {
                let (scope, items) = &mut self.model[scope];
                *items = view(new.into_iter().map(|(item, revision)| access(item, revision)));
                self.hub.publish(scope, items.clone(), Instant::now());
            }
            Step::Read { client, frames } => self.read(client, frames),
            Step::Reconnect { client } => {
                let (replica, id) = &mut self.clients[client];
                self.hub.disconnect(*id, Instant::now());
                *id = connect(&mut self.hub, device(client as u64 + 1), &replica.hello("t"), NOW);
            }
            Step::Restart => self.restart(),
        }
    }
}

proptest! {
    #[test]
    fn every_replica_ends_with_the_view_however_it_read(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        for client in 0..2 {
            world.read(client, usize::MAX);
            let replica = &world.clients[client].0;
            for scope in [0, client + 1] {
                let (scope, items) = &world.model[scope];
                let held: Vec<Item> = replica.items_of(scope).cloned().collect();
                prop_assert_eq!(held, items.values().map(|item| Item::clone(item)).collect::<Vec<_>>());
            }
        }
    }
}
