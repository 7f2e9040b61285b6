use postern_proto::{
    id::{AccountId, DeviceId, GrantId},
    replica::Replica,
    resource::{BindAddress, Kind, Tags},
};
use ulid::Ulid;

use super::*;
use crate::{
    catalogue::{Account, AccountKind, Grant, Resource},
    clock::Clock,
    store::{Absent, Actor},
};

struct World {
    _folder: tempfile::TempDir,
    store: Store,
    exchange: Exchange,
    follower: Follower,
    account: AccountId,
    resource: ResourceId,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Absent::Create { org: "Example" }, Clock::system()).await.unwrap();
        let (account, resource) =
            (AccountId::from_ulid(Ulid::from_parts(1, 1)), ResourceId::from_ulid(Ulid::from_parts(2, 2)));
        let mut change = store.change(Actor::system()).await.unwrap();
        change.put(someone(account)).await.unwrap();
        change.put(something(resource)).await.unwrap();
        change.commit().await.unwrap();
        let (exchange, follower) = Exchange::new(store.clone(), vec![]).unwrap();
        Self { _folder: folder, store, exchange, follower, account, resource }
    }

    fn device(&self) -> Peer {
        Peer::Device { account: self.account, device: DeviceId::from_ulid(Ulid::from_parts(3, 3)) }
    }

    async fn grant(&self) {
        let mut change = self.store.change(Actor::system()).await.unwrap();
        let id = GrantId::from_ulid(change.ulid());
        let (account, resource, created_at) = (self.account, self.resource, change.now());
        let grant = Grant { id, account, resource, ends_at: None, reason: "test".to_owned(), created_at, revision: 0 };
        change.put(grant).await.unwrap();
        change.commit().await.unwrap();
    }

    /// What the follower's task does, for what has happened so far.
    fn follow(&mut self) {
        while let Ok(changes) = self.follower.changes.try_recv() {
            self.exchange.lock().follow(&self.store, &changes);
        }
    }
}

fn someone(id: AccountId) -> Account {
    Account {
        id,
        email: "ada@example.org".parse().unwrap(),
        name: "Ada".to_owned(),
        kind: AccountKind::User,
        admin: false,
        suspended: false,
        tags: Tags::new(),
        created_at: UnixMillis(0),
        revision: 0,
    }
}

fn something(id: ResourceId) -> Resource {
    Resource {
        id,
        name: "db".to_owned(),
        kind: Kind::Tcp,
        host: "db.example".to_owned(),
        port: 5432,
        ports: postern_proto::port::PortSet::default(),
        hosts: Vec::new(),
        tags: Tags::new(),
        bind: BindAddress::loopback([127, 0, 0, 1].into(), 2000),
        allow_local: false,
        strict: false,
        egress: None,
        cluster: None,
        created_at: UnixMillis(0),
        revision: 0,
    }
}

fn read(subscription: &Subscription, replica: &mut Replica) {
    while let Next::Send(frame) = subscription.next() {
        replica.apply(&serde_json::from_str(&frame).unwrap()).unwrap();
    }
}

#[tokio::test]
async fn a_scope_loaded_before_its_change_is_followed_holds_the_change_once() {
    let mut world = World::new().await;
    let mut replica = Replica::default();
    world.grant().await;
    let subscription = world.exchange.admit(world.device(), &replica.hello("t"));
    world.follow();
    read(&subscription, &mut replica);
    assert!(replica.items().any(|item| matches!(item, Item::Access(resource) if resource.id == world.resource)));
}

#[tokio::test]
async fn who_fell_behind_the_changes_is_brought_up_to_date() {
    let mut world = World::new().await;
    let mut replica = Replica::default();
    let subscription = world.exchange.admit(world.device(), &replica.hello("t"));
    read(&subscription, &mut replica);
    world.grant().await;
    let since = world.store.clock().now();
    let mut change = world.store.change(Actor::system()).await.unwrap();
    change.put(Account { suspended: true, ..someone(world.account) }).await.unwrap();
    change.commit().await.unwrap();
    world.follower.changes = world.store.follow();
    world.exchange.catch_up(since).await;
    let mut said = Vec::new();
    while let Next::Send(frame) = subscription.next() {
        said.push(serde_json::from_str::<ServerFrame>(&frame).unwrap());
    }
    assert!(matches!(&said[..], [ServerFrame::Revoke { .. }, .., ServerFrame::Bye { .. }]), "{said:?}");
}

#[tokio::test]
async fn health_is_unknown_a_while_after_the_gateway_is_gone() {
    let world = World::new().await;
    let node = NodeId::from_ulid(Ulid::from_parts(4, 4));
    let mut replica = Replica::default();
    let device = world.exchange.admit(world.device(), &replica.hello("t"));
    let gateway = world.exchange.admit(Peer::Node { node }, &Replica::default().hello("t"));
    let health = Health::Healthy;
    let report = HealthReport { resource: world.resource, health, checked_at: UnixMillis(0), connect_micros: None };
    world.exchange.report_health(node, vec![report]);
    assert_eq!(world.exchange.health(world.resource), Health::Healthy);
    let now = Instant::now();
    drop(gateway);
    world.exchange.sweep(now + Duration::from_secs(1));
    assert_eq!(world.exchange.health(world.resource), Health::Healthy);
    world.exchange.sweep(now + Duration::from_secs(20));
    assert_eq!(world.exchange.health(world.resource), Health::Unknown);
    read(&device, &mut replica);
}

#[tokio::test]
async fn a_check_without_gateways_does_not_wait() {
    let world = World::new().await;
    let checked = world.exchange.check(world.resource, Duration::from_secs(3600));
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), checked).await, Ok(Health::Unknown));
}

#[tokio::test]
async fn a_resting_poll_goes_on_only_for_who_has_all_that_was_sent() {
    let world = World::new().await;
    let mut replica = Replica::default();
    let first = world.exchange.admit_poll(world.device(), &replica.hello("t"));
    read(&first, &mut replica);
    let id = first.id;
    world.exchange.rest(first);
    let second = world.exchange.admit_poll(world.device(), &replica.hello_again("t"));
    assert_eq!(second.id, id);
    read(&second, &mut replica);
    world.exchange.rest(second);
    let other = world.exchange.admit_poll(world.device(), &Replica::default().hello("t"));
    assert_ne!(other.id, id);
    world.exchange.rest(other);
    world.exchange.sweep(Instant::now() + REST);
    assert!(world.exchange.resting().is_empty());
    assert!(world.exchange.lock().wakers.is_empty());
}

#[test]
fn revisions_grow_from_run_to_run_and_stay_exact_in_every_json() {
    let (first, later) = (UnixMillis(1_790_000_000_000), UnixMillis(1_790_000_000_001));
    let (a, b) = (first_revision(first).unwrap(), first_revision(later).unwrap());
    assert!(b > a && b - a <= 1 << 12);
    assert!(first_revision(UnixMillis(4_000_000_000_000)).unwrap() < 1 << 53);
}
