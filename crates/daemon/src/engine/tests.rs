//! The engine against a reference model: what should be listened on is written down a second time, in a few lines, and
//! a shell that answers late, wrongly or never must not get the two apart.

use std::sync::Arc;

use postern_local_api::message::Connection;
use postern_proto::{
    id::{AccountId, DeviceId},
    lease::{LIFETIME, RevokedSubject},
    resource::{BindAddress, Health, Kind, Tags},
};
use proptest::prelude::*;

use super::*;

mod leasing;
mod places;

use self::places::{LANDSCAPES, Net, NetworkModel, WISHES, shaped};

const IDS: u128 = 6;

fn id(n: u128) -> ResourceId {
    ResourceId::from_ulid((n + 1).into())
}

fn owner(account: u128, service: bool) -> Owner {
    Owner { account: AccountId::from_ulid(account.into()), device: DeviceId::from_ulid(1.into()), service }
}

fn at(seconds: u64) -> Now {
    Now { boot: Duration::from_secs(1000 + seconds), wall: UnixMillis(1_700_000_000_000 + seconds * 1000) }
}

fn resource(n: u128, port: u16) -> ClientResource {
    ClientResource {
        id: id(n),
        name: format!("r{n}"),
        kind: Kind::Tcp,
        tags: Tags::new(),
        bind: BindAddress::loopback([127, 0, 0, 1].into(), port),
        ports: postern_proto::port::PortSet::default(),
        revision: 1,
        via: Vec::new(),
        cluster: None,
        health: Health::Unknown,
    }
}

fn lease(resource: ResourceId, now: Now) -> IssuedLease {
    IssuedLease {
        resource,
        token: "token".to_owned(),
        issued_at: now.wall,
        not_after: now.wall.plus(LIFETIME),
        grant_ends: None,
    }
}

fn signed_in(account: u128, service: bool, now: Now) -> Input {
    let hours = |n: u64| Duration::from_secs(n * 3600);
    Input::SignedIn {
        owner: owner(account, service),
        certificate: CertificateSpan { not_before: now.wall, not_after: now.wall.plus(hours(12)) },
        sign_in_ends: now.wall.plus(hours(48)),
        choices: BTreeMap::new(),
    }
}

/// Carries out commands as the real shell does and checks what must always hold.
#[derive(Debug, Default)]
struct Shell {
    listeners: BTreeMap<Ticket, (ResourceId, SocketAddr)>,
    /// Closed while their answer was on its way.
    stale: BTreeSet<Ticket>,
    leases: BTreeSet<ResourceId>,
    denied: BTreeSet<ResourceId>,
    request: Option<Vec<ResourceId>>,
    renewing: bool,
    cut: BTreeMap<ResourceId, ResetCode>,
    cut_revoked: usize,
    sign_in_ended: bool,
    saved_choices: Option<BTreeMap<ResourceId, bool>>,
    /// What netd was asked for and has not answered, and questions whose answers are of no interest any more.
    asked: Option<(NetworkTicket, NetworkPlan)>,
    overtaken: Vec<(NetworkTicket, NetworkPlan)>,
    released: usize,
    places: Option<Arc<Places>>,
}

impl Shell {
    fn void_requests(&mut self) {
        self.request = None;
        self.renewing = false;
    }

    fn carry_out(&mut self, engine: &mut Engine) {
        self.cut.clear();
        self.cut_revoked = 0;
        self.released = 0;
        while let Some(command) = engine.poll_command() {
            match command {
                Command::Bind { ticket, resource, address } => {
                    assert!(address.ip().is_loopback() && address.port() != 0);
                    assert!(self.listeners.values().all(|(other, _)| *other != resource), "two listeners for one");
                    assert!(self.listeners.insert(ticket, (resource, address)).is_none(), "a ticket twice");
                }
                Command::Unbind { ticket } => {
                    let known = self.listeners.remove(&ticket).is_some();
                    assert!(known || self.stale.contains(&ticket), "closed what was never opened");
                    if known {
                        self.stale.insert(ticket);
                    }
                }
                Command::Cut { resource, code } => {
                    // The first one says why.
                    self.cut.entry(resource).or_insert(code);
                }
                Command::CutRevoked(_) => self.cut_revoked += 1,
                Command::RequestLeases(ids) => {
                    assert!(!ids.is_empty() && ids.len() <= 1000);
                    assert!(self.request.replace(ids).is_none(), "two requests at a time");
                }
                Command::PutLease { lease, until, .. } => {
                    assert!(until > Duration::ZERO);
                    self.leases.insert(lease.resource);
                }
                Command::DropLease(id) => {
                    assert!(self.leases.remove(&id), "dropped a lease that was not there");
                }
                Command::SetDenied { resource, denied: true } => assert!(self.denied.insert(resource)),
                Command::SetDenied { resource, denied: false } => assert!(self.denied.remove(&resource)),
                Command::SaveChoices(choices) => self.saved_choices = Some(choices),
                Command::SaveLeases(_) | Command::SavePorts(_) => {}
                Command::SetPlaces(places) => {
                    assert!(self.cut.is_empty(), "a stream may begin between the cut and the taking away");
                    self.places = places;
                }
                Command::ConfigureNetwork { ticket, plan } => {
                    assert!(self.asked.is_none(), "two questions at a time");
                    assert!(self.overtaken.iter().all(|(old, _)| *old < ticket), "a ticket twice");
                    self.asked = Some((ticket, plan));
                }
                Command::ReleaseNetwork => {
                    self.released += 1;
                    self.overtaken.extend(self.asked.take());
                }
                Command::RenewCertificate => {
                    assert!(!self.renewing, "two renewals at a time");
                    self.renewing = true;
                }
                Command::EndSignIn => {
                    self.sign_in_ended = true;
                    self.void_requests();
                }
            }
        }
    }
}

/// The reference: what should be, in the plainest words.
#[derive(Debug, Default)]
struct Model {
    account: Option<(u128, bool)>,
    locked: bool,
    access: BTreeMap<ResourceId, ClientResource>,
    choices: BTreeMap<ResourceId, bool>,
    network: NetworkModel,
}

impl Model {
    /// The loopback addresses that should be listened on.
    fn wanted(&self) -> BTreeMap<ResourceId, SocketAddr> {
        let Some((_, service)) = self.account else { return BTreeMap::new() };
        if self.locked {
            return BTreeMap::new();
        }
        self.access.values().filter_map(|resource| Some((resource.id, self.loopback(resource, service)?))).collect()
    }

    fn sign_out(&mut self) {
        *self = Self { network: std::mem::take(&mut self.network), ..Self::default() };
    }
}

#[derive(Clone, Debug)]
enum Op {
    SignIn {
        account: u128,
        service: bool,
    },
    SignOut,
    Lock,
    Unlock,
    /// For each resource: absent, or present with a port; port 0 stands for an address that is never bound.
    Access(Vec<Option<u16>>),
    /// One resource comes, changes or goes.
    AccessChanged(u128, Option<u16>),
    Connect(u128),
    Disconnect(u128),
    AnswerBind {
        pick: prop::sample::Index,
        ok: bool,
    },
    AnswerStale {
        pick: prop::sample::Index,
        ok: bool,
    },
    ListenerLost(prop::sample::Index),
    AnswerLeases {
        ok: bool,
        deny: u128,
    },
    LeaseNeeded(u128),
    AnswerRenewal(bool),
    Revoke(u128),
    ControlReached,
    ChooseNetwork(bool),
    WishNetwork(usize),
    Landscape(usize),
    AnswerNetwork {
        ok: bool,
        fault: usize,
    },
    AnswerOvertaken {
        pick: prop::sample::Index,
        ok: bool,
    },
    LoseNetwork,
    Wait(u64),
    WaitForTimeout,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let port = prop_oneof![4 => (0_u16..5).prop_map(|n| 2000 + n), 1 => Just(0)];
    let op = prop_oneof![
        2 => (0_u128..2, any::<bool>()).prop_map(|(account, service)| Op::SignIn { account, service }),
        1 => Just(Op::SignOut),
        1 => Just(Op::Lock),
        2 => Just(Op::Unlock),
        4 => prop::collection::vec(prop::option::of(port), IDS as usize).prop_map(Op::Access),
        4 => (0..IDS, prop::option::of(2000_u16..2005)).prop_map(|(n, port)| Op::AccessChanged(n, port)),
        5 => (0..IDS).prop_map(Op::Connect),
        3 => (0..IDS).prop_map(Op::Disconnect),
        8 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(pick, ok)| Op::AnswerBind { pick, ok }),
        2 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(pick, ok)| Op::AnswerStale { pick, ok }),
        1 => any::<prop::sample::Index>().prop_map(Op::ListenerLost),
        5 => (any::<bool>(), 0..IDS * 3).prop_map(|(ok, deny)| Op::AnswerLeases { ok, deny }),
        2 => (0..IDS).prop_map(Op::LeaseNeeded),
        2 => any::<bool>().prop_map(Op::AnswerRenewal),
        2 => (0..IDS).prop_map(Op::Revoke),
        1 => Just(Op::ControlReached),
        3 => prop::bool::weighted(0.8).prop_map(Op::ChooseNetwork),
        3 => (0..WISHES).prop_map(Op::WishNetwork),
        2 => (0..LANDSCAPES).prop_map(Op::Landscape),
        6 => (prop::bool::weighted(0.8), 0..4_usize).prop_map(|(ok, fault)| Op::AnswerNetwork { ok, fault }),
        1 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(pick, ok)| Op::AnswerOvertaken { pick, ok }),
        1 => Just(Op::LoseNetwork),
        3 => (0_u64..40_000).prop_map(Op::Wait),
        5 => Just(Op::WaitForTimeout),
    ];
    prop::collection::vec(op, 1..120)
}

#[derive(Debug)]
struct World {
    engine: Engine,
    shell: Shell,
    model: Model,
    now: Now,
    /// Tickets whose bind was answered with success.
    open: BTreeSet<Ticket>,
}

impl World {
    fn new(seed: u64) -> Self {
        let engine = Engine::new(seed);
        Self { engine, shell: Shell::default(), model: Model::default(), now: at(0), open: BTreeSet::new() }
    }

    fn give(&mut self, input: Input) {
        let before = self.model_after(&input);
        if matches!(input, Input::SignedIn { .. } | Input::SignedOut) {
            self.shell.void_requests();
        }
        self.engine.handle(input, self.now);
        self.settle(&before);
    }

    fn pass(&mut self, span: Duration) {
        self.now.boot += span;
        self.now.wall = self.now.wall.plus(span);
        let before = self.model.usable();
        self.engine.handle_timeout(self.now);
        self.settle(&before);
        if let Some(next) = self.engine.poll_timeout() {
            assert!(next > self.now.boot, "a timeout that has come was not taken: busy loop");
        }
    }

    /// Updates the model and returns what could be used before.
    fn model_after(&mut self, input: &Input) -> BTreeSet<ResourceId> {
        let before = self.model.usable();
        match input {
            Input::SignedIn { owner, .. } => {
                let account = owner.account.ulid().0;
                if self.model.account.is_some_and(|(before, _)| before != account) {
                    self.model.sign_out();
                }
                self.model.account = Some((account, owner.service));
                self.model.locked = false;
            }
            Input::SignedOut => self.model.sign_out(),
            Input::Locked if self.model.account.is_some() => self.model.locked = true,
            Input::Unlocked => self.model.locked = false,
            Input::Access(resources) => {
                self.model.access = resources.iter().map(|resource| (resource.id, resource.clone())).collect();
            }
            Input::AccessChanged { put, removed } => {
                self.model.access.retain(|id, _| !removed.contains(id));
                self.model.access.extend(put.iter().map(|resource| (resource.id, resource.clone())));
            }
            Input::Connect(ids) | Input::Disconnect(ids) => {
                for id in ids.iter().filter(|id| self.model.access.contains_key(*id)) {
                    self.model.choices.insert(*id, matches!(input, Input::Connect(_)));
                }
            }
            Input::NetworkChosen { enabled } => self.model.network.enabled = *enabled,
            Input::NetworkSettings { wish, .. } => self.model.network.wish = Some(wish.clone()),
            Input::Landscape(landscape) => self.model.network.full = landscape.routes.len() > 1,
            Input::NetworkConfigured { .. } | Input::NetworkFailed { .. } => {
                if let Some(net) = self.model.network.answered.take() {
                    self.model.network.net = net;
                }
            }
            Input::NetworkLost { .. } if self.model.network.net != Net::Off => self.model.network.net = Net::Missing,
            _ => {}
        }
        before
    }

    fn settle(&mut self, before: &BTreeSet<ResourceId>) {
        self.shell.carry_out(&mut self.engine);
        if self.shell.sign_in_ended {
            self.shell.sign_in_ended = false;
            self.model.sign_out();
        }
        self.model.follow_network(self.shell.asked.is_some(), self.shell.released);
        self.model.check_places(self.shell.places.as_deref());
        self.open.retain(|ticket| self.shell.listeners.contains_key(ticket));
        let (wanted, in_network) = (self.model.wanted(), self.model.in_network());
        for (ticket, (id, address)) in &self.shell.listeners {
            assert_eq!(wanted.get(id), Some(address), "{ticket:?} listens where nothing is wanted");
        }
        for (id, address) in &in_network {
            let presence = self.engine.resource(*id, self.now).expect("a place is of a known resource").1;
            assert_eq!(presence.connection, Connection::Listening { address: *address });
        }
        for (id, address) in &wanted {
            let presence = self.engine.resource(*id, self.now).expect("a wanted resource is known").1;
            let listener = self.shell.listeners.iter().find(|(_, (other, _))| other == id);
            let open = listener.is_some_and(|(ticket, _)| self.open.contains(ticket));
            if in_network.contains_key(id) {
                assert_eq!(presence.also_at, open.then_some(*address));
                continue;
            }
            match presence.connection {
                Connection::Listening { address: shown } => {
                    assert_eq!(shown, *address);
                    assert!(open);
                }
                Connection::PortInUse { .. } | Connection::Failed { .. } => assert!(listener.is_none()),
                Connection::Disconnected => assert!(listener.is_some(), "wanted, not tried and not failed"),
                Connection::Suspended => panic!("suspended while not locked"),
            }
        }
        let usable = self.model.usable();
        for id in before.difference(&usable) {
            assert!(self.shell.cut.contains_key(id), "streams of {id} live on");
        }
        let known: BTreeSet<_> = self.model.access.keys().copied().collect();
        assert!(self.shell.leases.is_subset(&known), "a lease outlived its grant");
        assert!(self.shell.denied.is_subset(&known), "a denial outlived its grant");
        assert!(self.shell.denied.is_disjoint(&self.shell.leases), "denied and given at a time");
        let shown: BTreeSet<_> = self.engine.resources().map(|resource| resource.id).collect();
        assert_eq!(shown, known);
    }

    fn run(&mut self, op: Op) {
        let now = self.now;
        match op {
            Op::SignIn { account, service } => self.give(signed_in(account, service, now)),
            Op::SignOut => self.give(Input::SignedOut),
            Op::Lock => self.give(Input::Locked),
            Op::Unlock => self.give(Input::Unlocked),
            Op::Access(ports) if self.model.account.is_some() => {
                let all = ports.iter().enumerate();
                let all = all.filter_map(|(n, port)| Some(shaped(n as u128, (*port)?))).collect();
                self.give(Input::Access(all));
            }
            Op::AccessChanged(n, port) if self.model.account.is_some() => {
                let put: Vec<_> = port.map(|port| shaped(n, port)).into_iter().collect();
                let removed = if put.is_empty() { vec![id(n)] } else { Vec::new() };
                self.give(Input::AccessChanged { put, removed });
            }
            Op::Access(_) | Op::AccessChanged(..) => {}
            Op::Connect(n) => self.give(Input::Connect(vec![id(n)])),
            Op::Disconnect(n) => self.give(Input::Disconnect(vec![id(n)])),
            Op::AnswerBind { pick, ok } => {
                let waiting: Vec<_> =
                    self.shell.listeners.keys().filter(|ticket| !self.open.contains(ticket)).collect();
                if !waiting.is_empty() {
                    let ticket = **pick.get(&waiting);
                    self.answer_bind(ticket, ok);
                }
            }
            Op::AnswerStale { pick, ok } => {
                let stale: Vec<_> = self.shell.stale.iter().copied().collect();
                if !stale.is_empty() {
                    self.answer_bind(*pick.get(&stale), ok);
                }
            }
            Op::ListenerLost(pick) => {
                let open: Vec<_> = self.open.iter().copied().collect();
                if !open.is_empty() {
                    let ticket = *pick.get(&open);
                    self.shell.listeners.remove(&ticket);
                    self.give(Input::ListenerLost { ticket, error: "gone".to_owned() });
                }
            }
            Op::AnswerLeases { ok, deny } => self.answer_leases(ok, deny),
            Op::LeaseNeeded(n) => self.give(Input::LeaseNeeded(id(n))),
            Op::AnswerRenewal(ok) if self.shell.renewing => {
                self.shell.renewing = false;
                let not_after = now.wall.plus(Duration::from_secs(12 * 3600));
                let span = CertificateSpan { not_before: now.wall, not_after };
                self.give(if ok { Input::CertificateRenewed(span) } else { Input::CertificateFailed });
            }
            Op::AnswerRenewal(_) => {}
            Op::Revoke(n) => {
                let subject = RevokedSubject::Resource { resource: id(n) };
                self.give(Input::Revoked(vec![Revocation { subject, at: now.wall, reason: String::new() }]));
                assert_eq!(self.shell.cut_revoked, 1);
                assert!(!self.shell.leases.contains(&id(n)));
            }
            Op::ControlReached => self.give(Input::ControlReached),
            Op::ChooseNetwork(enabled) => self.give(Input::NetworkChosen { enabled }),
            Op::WishNetwork(wish) => {
                self.give(Input::NetworkSettings { wish: places::wish(wish), own_names: Vec::new() });
            }
            Op::Landscape(n) => self.give(Input::Landscape(places::landscape(n))),
            Op::AnswerNetwork { ok, fault } => {
                if let Some((ticket, plan)) = self.shell.asked.take() {
                    let before = &self.model.network.net;
                    self.model.network.answered = Some(places::after_answer(before, &plan, ok, places::fault(fault)));
                    self.answer_network(ticket, &plan, ok, fault);
                }
            }
            Op::AnswerOvertaken { pick, ok } => {
                if !self.shell.overtaken.is_empty() {
                    let (ticket, plan) = pick.get(&self.shell.overtaken).clone();
                    self.answer_network(ticket, &plan, ok, 0);
                }
            }
            Op::LoseNetwork => {
                self.shell.overtaken.extend(self.shell.asked.take());
                self.give(Input::NetworkLost { reason: "the device is gone".to_owned() });
            }
            Op::Wait(millis) => self.pass(Duration::from_millis(millis)),
            Op::WaitForTimeout => {
                if let Some(next) = self.engine.poll_timeout() {
                    self.pass(next.saturating_sub(self.now.boot));
                }
            }
        }
    }

    fn answer_network(&mut self, ticket: NetworkTicket, plan: &NetworkPlan, ok: bool, fault: usize) {
        let (fault, reason) = (places::fault(fault), "no".to_owned());
        self.give(match ok {
            true => Input::NetworkConfigured { ticket, interface: places::interface(plan) },
            false => Input::NetworkFailed { ticket, fault, reason },
        });
    }

    fn answer_bind(&mut self, ticket: Ticket, ok: bool) {
        if ok {
            if self.shell.listeners.contains_key(&ticket) {
                self.open.insert(ticket);
            }
            self.give(Input::Bound { ticket });
        } else {
            // The real shell has no listener then, and says so.
            if self.shell.listeners.remove(&ticket).is_some() {
                self.open.remove(&ticket);
            }
            self.give(Input::BindFailed { ticket, failure: BindFailure::InUse { holder: None } });
        }
    }

    fn answer_leases(&mut self, ok: bool, deny: u128) {
        let Some(asked) = self.shell.request.take() else { return };
        if !ok {
            return self.give(Input::LeasesFailed);
        }
        let (denied, granted): (Vec<_>, Vec<_>) = asked.into_iter().partition(|asked| *asked == id(deny));
        let leases = granted.into_iter().map(|id| (lease(id, self.now), None)).collect();
        self.give(Input::LeasesIssued { leases, denied });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]
    #[test]
    fn what_may_be_used_is_what_should_be_and_where_it_should_be(ops in ops(), seed: u64) {
        let mut world = World::new(seed);
        world.give(signed_in(0, false, at(0)));
        for op in ops {
            world.run(op);
        }
    }
}

/// A world in which one resource is connected and listening.
fn connected() -> World {
    let mut world = World::new(7);
    world.give(signed_in(0, false, at(0)));
    world.give(Input::Access(vec![resource(0, 2000), resource(1, 2001)]));
    world.give(Input::Connect(vec![id(0)]));
    world.run(Op::AnswerBind { pick: index(), ok: true });
    world.answer_leases(true, IDS);
    world
}

fn index() -> prop::sample::Index {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    any::<prop::sample::Index>().new_tree(&mut runner).unwrap().current()
}

fn connection(world: &World, n: u128) -> Connection {
    world.engine.resource(id(n), world.now).unwrap().1.connection
}

#[test]
fn only_what_is_connected_is_listened_on() {
    let world = connected();
    assert!(matches!(connection(&world, 0), Connection::Listening { address } if address.port() == 2000));
    assert_eq!(connection(&world, 1), Connection::Disconnected);
    assert_eq!(world.shell.listeners.len(), 1);
}

#[test]
fn a_service_account_has_everything_connected_but_what_was_disconnected() {
    let mut world = World::new(7);
    world.give(signed_in(0, true, at(0)));
    world.give(Input::Access(vec![resource(0, 2000), resource(1, 2001)]));
    assert_eq!(world.shell.listeners.len(), 2);
    world.give(Input::Disconnect(vec![id(0)]));
    world.give(Input::Access(vec![resource(0, 2000), resource(1, 2001), resource(2, 2002)]));
    let listening: Vec<_> = world.shell.listeners.values().map(|(id, _)| *id).collect();
    assert_eq!(listening, [id(1), id(2)]);
}

#[test]
fn a_lost_grant_closes_and_cuts_in_the_same_breath_and_a_regained_one_opens_again() {
    let mut world = connected();
    world.give(Input::Access(vec![resource(1, 2001)]));
    assert!(world.shell.listeners.is_empty() && world.shell.leases.is_empty());
    assert_eq!(world.shell.cut.get(&id(0)), Some(&ResetCode::Revoked), "access was lost, nobody disconnected");
    world.give(Input::Access(vec![resource(0, 2000)]));
    assert_eq!(world.shell.listeners.len(), 1);
}

#[test]
fn locking_closes_and_cuts_everything_and_unlocking_brings_it_back() {
    let mut world = connected();
    world.give(Input::Locked);
    assert!(world.shell.listeners.is_empty());
    assert_eq!(world.shell.cut.get(&id(0)), Some(&ResetCode::Disconnected));
    assert_eq!(connection(&world, 0), Connection::Suspended);
    assert_eq!(connection(&world, 1), Connection::Disconnected);
    world.give(Input::Unlocked);
    assert_eq!(world.shell.listeners.len(), 1);
}

#[test]
fn two_resources_can_swap_their_addresses() {
    let mut world = connected();
    world.give(Input::Connect(vec![id(1)]));
    world.run(Op::AnswerBind { pick: index(), ok: true });
    let mut swapped = [resource(0, 2001), resource(1, 2000)];
    for resource in &mut swapped {
        resource.revision = 2;
    }
    world.engine.handle(Input::Access(swapped.to_vec()), world.now);
    let kinds: Vec<_> = std::iter::from_fn(|| world.engine.poll_command())
        .filter_map(|command| match command {
            Command::Unbind { .. } => Some('u'),
            Command::Bind { .. } => Some('b'),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, ['u', 'u', 'b', 'b']);
}

#[test]
fn a_moved_address_keeps_the_running_streams() {
    let mut world = connected();
    world.give(Input::Access(vec![resource(0, 2009)]));
    assert!(!world.shell.cut.contains_key(&id(0)));
    assert_eq!(world.shell.listeners.values().next().unwrap().1.port(), 2009);
}

#[test]
fn a_port_in_use_is_tried_again_with_growing_pauses_and_at_once_when_asked() {
    let mut world = World::new(7);
    world.give(signed_in(0, false, at(0)));
    world.give(Input::Access(vec![resource(0, 2000)]));
    world.give(Input::Connect(vec![id(0)]));
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let ticket = *world.shell.listeners.keys().next().unwrap();
        world.answer_bind(ticket, false);
        let Connection::PortInUse { retry_at, .. } = connection(&world, 0) else { panic!("not in use") };
        pauses.push(retry_at.since(world.now.wall));
        while world.shell.listeners.is_empty() {
            world.run(Op::WaitForTimeout);
        }
    }
    assert!(pauses[0] <= Duration::from_secs(1), "{pauses:?}");
    assert!(pauses[7] >= Duration::from_secs(15) && pauses[7] <= Duration::from_secs(30), "{pauses:?}");
    let ticket = *world.shell.listeners.keys().next().unwrap();
    world.answer_bind(ticket, false);
    world.give(Input::Connect(vec![id(0)]));
    assert_eq!(world.shell.listeners.len(), 1);
}

#[test]
fn an_address_that_other_machines_reach_is_never_bound() {
    let mut world = World::new(7);
    world.give(signed_in(0, true, at(0)));
    let mut evil = [resource(0, 2000), resource(1, 2001), resource(2, 0)];
    evil[0].bind.ip = [0, 0, 0, 0].into();
    evil[1].bind.ip = [192, 0, 2, 7].into();
    world.give(Input::Access(evil.to_vec()));
    assert!(world.shell.listeners.is_empty());
    assert!(matches!(connection(&world, 0), Connection::Failed { error, .. } if error.contains("other machines")));
}

#[test]
fn the_end_of_the_sign_in_ends_everything_without_the_control_plane() {
    let mut world = connected();
    world.pass(Duration::from_secs(48 * 3600));
    assert!(world.shell.listeners.is_empty() && world.shell.leases.is_empty());
    assert!(world.shell.cut.contains_key(&id(0)));
    assert_eq!(world.engine.poll_timeout(), None);
}

#[test]
fn another_account_inherits_nothing() {
    let mut world = connected();
    world.give(signed_in(1, false, world.now));
    assert!(world.shell.listeners.is_empty() && world.shell.leases.is_empty());
    world.give(Input::Access(vec![resource(0, 2000)]));
    assert!(world.shell.listeners.is_empty(), "the choices were the other account's");
}

#[test]
fn the_same_account_signing_in_again_disturbs_nothing() {
    let mut world = connected();
    let before = world.shell.listeners.clone();
    world.give(signed_in(0, false, world.now));
    assert_eq!(world.shell.listeners, before);
    assert!(world.shell.cut.is_empty());
}

#[test]
fn choices_are_kept_over_a_restart() {
    let world = connected();
    let mut engine = Engine::new(1);
    let mut again = signed_in(0, false, at(0));
    if let Input::SignedIn { choices, .. } = &mut again {
        *choices = world.shell.saved_choices.unwrap();
    }
    engine.handle(again, at(0));
    engine.handle(Input::Access(vec![resource(0, 2000), resource(1, 2001)]), at(0));
    let binds: Vec<_> = std::iter::from_fn(|| engine.poll_command())
        .filter_map(|command| if let Command::Bind { resource, .. } = command { Some(resource) } else { None })
        .collect();
    assert_eq!(binds, [id(0)]);
}

#[test]
fn another_port_moves_one_listener_and_touches_no_other() {
    let (mut engine, mut shell) = (Engine::new(1), Shell::default());
    engine.handle(signed_in(1, true, at(0)), at(0));
    engine.handle(Input::Access(vec![resource(0, 10_000), resource(1, 10_001)]), at(0));
    shell.carry_out(&mut engine);
    let before: Vec<_> = shell.listeners.keys().copied().collect();
    before.iter().for_each(|ticket| engine.handle(Input::Bound { ticket: *ticket }, at(1)));
    let chosen = |port| Input::PortChosen { resource: id(0), plane: crate::port_choice::Plane::Loopback, port };
    engine.handle(chosen(Some(20_000)), at(2));
    shell.carry_out(&mut engine);
    let ports = |shell: &Shell| -> BTreeMap<_, _> {
        shell.listeners.values().map(|(resource, address)| (*resource, address.port())).collect()
    };
    assert_eq!(ports(&shell), BTreeMap::from([(id(0), 20_000), (id(1), 10_001)]));
    assert!(shell.listeners.keys().any(|ticket| before.contains(ticket)), "the other one was closed");
    assert!(shell.cut.is_empty(), "streams were cut");
    assert_eq!(engine.chosen_port(id(0)), Some((20_000, Some(10_000))));
    // What the control plane says about the resource changes nothing about that.
    engine.handle(Input::AccessChanged { put: vec![resource(0, 10_005)], removed: Vec::new() }, at(3));
    shell.carry_out(&mut engine);
    assert_eq!(ports(&shell)[&id(0)], 20_000);
    engine.handle(chosen(None), at(4));
    shell.carry_out(&mut engine);
    assert_eq!(ports(&shell)[&id(0)], 10_005);
    assert_eq!(engine.chosen_port(id(0)), None);
}
