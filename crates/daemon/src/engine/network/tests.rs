//! The network through the engine: when netd is asked, what is where, and what happens when there is none.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv6Net};
use postern_local_api::message::{Connection, NameService, NetworkStatus};
use postern_proto::{
    id::{AccountId, DeviceId},
    resource::{BindAddress, BindMode, Kind, LoopbackAddress, Tags},
};
use tun_driver::{
    dns::{DnsBackend, DnsState},
    interface::{Ipv6Part, Pair},
    network::HostRoute,
};

use super::*;
use crate::engine::{BindFailure, CertificateSpan, Command, Engine, Input, Owner, Presence};

fn at(seconds: u64) -> Now {
    Now { boot: Duration::from_secs(1000 + seconds), wall: UnixMillis(1_700_000_000_000 + seconds * 1000) }
}

fn id(n: u128) -> ResourceId {
    ResourceId::from_ulid((n + 1).into())
}

fn resource(n: u8, mode: BindMode) -> ClientResource {
    let (ip, loopback) = match mode {
        BindMode::Loopback => ([127, 0, 0, 1].into(), None),
        BindMode::Vnm | BindMode::Both => {
            ([100, 72, 1, n].into(), Some(LoopbackAddress { ip: [127, 0, 0, 1].into(), port: 10_000 + u16::from(n) }))
        }
    };
    ClientResource {
        id: id(n.into()),
        name: format!("r{n}"),
        kind: Kind::Postgres,
        tags: Tags::new(),
        bind: BindAddress {
            mode,
            ip,
            port: 5432,
            dns_name: mode.is_virtual().then(|| format!("r{n}.my-org").parse().unwrap()),
            loopback,
        },
        ports: PortSet::default(),
        revision: 1,
        via: Vec::new(),
        cluster: None,
        health: Health::Healthy,
    }
}

fn wish() -> NetworkWish {
    NetworkWish { subnet: "100.72.0.0/16".parse().unwrap(), ipv6: None, zone: "my-org".parse().unwrap() }
}

/// What netd makes of a plan.
pub(in crate::engine) fn interface(plan: &NetworkPlan) -> Interface {
    let subnet = net(plan.subnet);
    let addresses = tun_driver::interface::ipv4_addresses(subnet, 0).unwrap();
    Interface {
        index: 7,
        name: "postern0".to_owned(),
        slot: 0,
        subnet,
        addresses: Pair { device: addresses.device, resolver: addresses.resolver },
        ipv6: None,
        mtu: 1500,
        dns: DnsState::NoZones,
        second_lock: false,
    }
}

/// A machine whose Tailscale has 100.64.0.0/10.
fn crowded() -> Landscape {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    Landscape {
        interfaces: vec![HostInterface {
            index: 9,
            name: "tailscale0".to_owned(),
            addresses: vec![net("100.101.1.1/32")],
        }],
        routes: vec![HostRoute { destination: net("100.64.0.0/10"), gateway: None, interface: Some(9) }],
        resolvers: Vec::new(),
    }
}

/// Engine and a shell that does what it is told.
struct World {
    engine: Engine,
    now: Now,
    asked: Option<(NetworkTicket, NetworkPlan)>,
    asks: usize,
    released: usize,
    places: Option<Arc<Places>>,
    listening: BTreeMap<crate::engine::Ticket, ResourceId>,
    cut: BTreeSet<ResourceId>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            engine: Engine::new(1),
            now: at(0),
            asked: None,
            asks: 0,
            released: 0,
            places: None,
            listening: BTreeMap::new(),
            cut: BTreeSet::new(),
        };
        let owner =
            Owner { account: AccountId::from_ulid(1.into()), device: DeviceId::from_ulid(1.into()), service: false };
        let hours = |n: u64| world.now.wall.plus(Duration::from_secs(n * 3600));
        let certificate = CertificateSpan { not_before: world.now.wall, not_after: hours(12) };
        let choices = BTreeMap::new();
        world.give(Input::SignedIn { owner, certificate, sign_in_ends: hours(48), choices });
        world.give(Input::NetworkSettings { wish: Ok(wish()), own_names: Vec::new() });
        world
    }

    /// With two resources in the network, one in both modes, and the network up.
    fn up() -> Self {
        let mut world = Self::new();
        world.give(Input::Access(vec![resource(1, BindMode::Vnm), resource(2, BindMode::Both)]));
        world.give(Input::NetworkChosen { enabled: true });
        world.agree();
        world
    }

    fn give(&mut self, input: Input) {
        self.cut.clear();
        self.engine.handle(input, self.now);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(command) = self.engine.poll_command() {
            match command {
                Command::ConfigureNetwork { ticket, plan } => {
                    self.asks += 1;
                    self.asked = Some((ticket, plan));
                }
                Command::ReleaseNetwork => self.released += 1,
                Command::SetPlaces(places) => {
                    assert!(self.cut.is_empty(), "a stream may begin between the cut and the taking away");
                    self.places = places;
                }
                Command::Bind { ticket, resource, address } => {
                    assert!(address.ip().is_loopback());
                    self.listening.insert(ticket, resource);
                    self.engine.handle(Input::Bound { ticket }, self.now);
                }
                Command::Unbind { ticket } => {
                    self.listening.remove(&ticket);
                }
                Command::Cut { resource, .. } => {
                    self.cut.insert(resource);
                }
                _ => {}
            }
        }
    }

    /// netd does what it is asked.
    fn agree(&mut self) {
        let (ticket, plan) = self.asked.take().expect("netd was asked");
        let interface = interface(&plan);
        self.give(Input::NetworkConfigured { ticket, interface });
    }

    fn refuse(&mut self, fault: NetworkFault) {
        let (ticket, _) = self.asked.take().expect("netd was asked");
        self.give(Input::NetworkFailed { ticket, fault, reason: "postern-netd does not run".to_owned() });
    }

    /// Lets time pass until something is due.
    fn wait(&mut self) {
        let due = self.engine.poll_timeout().unwrap();
        self.now.wall = self.now.wall.plus(due.saturating_sub(self.now.boot));
        self.now.boot = self.now.boot.max(due);
        self.cut.clear();
        self.engine.handle_timeout(self.now);
        self.carry_out();
    }

    fn presence(&self, n: u128) -> Presence {
        self.engine.resource(id(n), self.now).unwrap().1
    }

    fn place(&self, n: u128) -> Option<&Place> {
        self.places.as_ref()?.places.iter().find(|place| place.resource == id(n))
    }

    fn status(&self) -> NetworkStatus {
        self.engine.network_status(self.now)
    }

    fn listens(&self, n: u128) -> bool {
        self.listening.values().any(|other| *other == id(n))
    }
}

#[test]
fn netd_is_asked_once_it_is_switched_on_and_somebody_is_signed_in() {
    let mut world = World::new();
    assert_eq!((world.asks, world.status()), (0, NetworkStatus::Off));
    world.give(Input::NetworkChosen { enabled: true });
    let (_, plan) = world.asked.clone().unwrap();
    assert_eq!(plan.subnet.to_string(), "100.72.0.0/16");
    assert_eq!(plan.zones, ["my-org".parse().unwrap()]);
    assert_eq!(world.status(), NetworkStatus::Starting);
    world.agree();
    assert!(matches!(world.status(), NetworkStatus::Up(up) if up.moved.is_none() && up.interface == "postern0"));
    world.give(Input::SignedOut);
    assert_eq!((world.released, world.places.is_none(), world.status()), (1, true, NetworkStatus::Waiting));
}

#[test]
fn in_the_network_everything_is_connected_that_was_not_disconnected() {
    let mut world = World::up();
    let presence = world.presence(1);
    assert_eq!(presence.connection, Connection::Listening { address: "100.72.1.1:5432".parse().unwrap() });
    assert_eq!((presence.virtual_name.as_deref(), presence.fallback), (Some("r1.my-org"), None));
    assert!(!world.listens(1) && !world.listens(2), "a loopback address is for those who ask for it");
    world.give(Input::Connect(vec![id(1), id(2)]));
    assert!(!world.listens(1) && world.listens(2), "both at once only where that is wished");
    assert_eq!(world.presence(2).also_at, Some("127.0.0.1:10002".parse().unwrap()));
    world.give(Input::Disconnect(vec![id(1)]));
    assert_eq!(world.place(1).unwrap().standing, Standing::Disconnected);
    assert_eq!(world.presence(1).connection, Connection::Disconnected);
    assert!(world.cut.contains(&id(1)));
}

#[test]
fn what_is_taken_away_or_locked_is_out_of_the_network_and_cut() {
    let mut world = World::up();
    world.give(Input::AccessChanged { put: Vec::new(), removed: vec![id(1)] });
    assert!(world.place(1).is_none() && world.cut.contains(&id(1)) && !world.cut.contains(&id(2)));
    world.give(Input::Locked);
    assert!(world.places.as_ref().unwrap().locked && world.cut.contains(&id(2)));
    assert_eq!(world.presence(2).connection, Connection::Suspended);
    world.give(Input::Unlocked);
    assert!(!world.places.as_ref().unwrap().locked);
    assert_eq!(world.asks, 1, "the device stayed");
}

#[test]
fn without_netd_everything_is_at_loopback_with_the_reason_until_netd_is_there() {
    let mut world = World::new();
    world.give(Input::Access(vec![resource(1, BindMode::Vnm), resource(2, BindMode::Loopback)]));
    world.give(Input::NetworkChosen { enabled: true });
    world.refuse(NetworkFault::NoService);
    let NetworkStatus::Unavailable { fault, reason, .. } = world.status() else { panic!("{:?}", world.status()) };
    assert_eq!((fault, reason.as_str()), (NetworkFault::NoService, "postern-netd does not run"));
    let presence = world.presence(1);
    assert_eq!(presence.connection, Connection::Listening { address: "127.0.0.1:10001".parse().unwrap() });
    assert!(presence.fallback.unwrap().contains("postern-netd does not run"));
    assert!(!world.listens(2), "what belongs at loopback is connected by hand as ever");
    // Trying again disturbs nothing.
    for _ in 0..5 {
        world.wait();
        assert!(world.listens(1) && world.cut.is_empty());
        if world.asked.is_some() {
            world.refuse(NetworkFault::NoService);
            assert!(world.listens(1) && world.cut.is_empty());
        }
    }
    while world.asked.is_none() {
        world.wait();
    }
    world.agree();
    assert!(!world.listens(1) && world.cut.is_empty(), "streams that run at loopback go on");
    assert_eq!(world.presence(1).fallback, None);
}

#[test]
fn switching_it_on_again_asks_at_once_and_the_answer_counts() {
    let mut world = World::new();
    world.give(Input::NetworkChosen { enabled: true });
    assert!(!world.engine.is_network_settled());
    world.refuse(NetworkFault::NoService);
    assert!(world.engine.is_network_settled());
    // netd was started by now: whoever asks is not told of the last failure.
    world.give(Input::NetworkChosen { enabled: true });
    assert!(world.asked.is_some() && !world.engine.is_network_settled());
    world.agree();
    assert!(world.engine.is_network_settled() && matches!(world.status(), NetworkStatus::Up(_)));
}

#[test]
fn while_it_is_switched_off_what_is_connected_is_at_loopback() {
    let mut world = World::new();
    world.give(Input::Access(vec![resource(1, BindMode::Vnm)]));
    assert_eq!(world.presence(1).connection, Connection::Disconnected);
    assert!(world.presence(1).fallback.unwrap().contains("postern network enable"));
    world.give(Input::AccessChanged { put: vec![resource(3, BindMode::Both)], removed: Vec::new() });
    assert_eq!(world.presence(3).fallback, None, "what is in both belongs at loopback, too");
    world.give(Input::Connect(vec![id(1)]));
    assert!(world.listens(1));
}

#[test]
fn a_resource_without_a_loopback_address_says_why_it_is_nowhere() {
    let mut world = World::new();
    let mut alone = resource(1, BindMode::Vnm);
    alone.bind.loopback = None;
    world.give(Input::Access(vec![alone]));
    world.give(Input::Connect(vec![id(1)]));
    let Connection::Failed { error, .. } = world.presence(1).connection else { panic!() };
    assert!(error.contains("virtual network only"), "{error}");
}

#[test]
fn a_conflict_moves_the_network_live_and_host_parts_stay() {
    let mut world = World::up();
    let before = world.place(1).unwrap().address;
    assert_eq!(before, Ipv4Addr::new(100, 72, 1, 1));
    world.give(Input::Landscape(crowded()));
    assert_eq!(world.place(1).unwrap().address, before, "until netd has done it");
    let (_, plan) = world.asked.clone().unwrap();
    assert!(!net(plan.subnet).contains(&before));
    world.agree();
    let place = world.place(1).unwrap();
    assert_eq!(place.address.octets()[2..], [1, 1]);
    assert!(net(plan.subnet).contains(&place.address));
    assert!(world.cut.is_empty() && world.released == 0);
    let NetworkStatus::Up(up) = world.status() else { panic!("{:?}", world.status()) };
    let moved = up.moved.unwrap();
    assert_eq!(moved.from, "100.72.0.0/16");
    assert!(moved.because.iter().any(|why| why.contains("tailscale0")), "{moved:?}");
    // Free again: it stays where it is, moving twice costs more than being elsewhere.
    world.give(Input::Landscape(Landscape::default()));
    assert_eq!(world.asks, 2);
}

#[test]
fn a_new_wish_of_the_organisation_moves_the_network_live() {
    let mut world = World::up();
    let other = NetworkWish { subnet: "10.201.0.0/16".parse().unwrap(), ..wish() };
    world.give(Input::NetworkSettings { wish: Ok(other), own_names: Vec::new() });
    let (_, plan) = world.asked.clone().unwrap();
    assert_eq!(plan.subnet.to_string(), "10.201.0.0/16");
    world.refuse(NetworkFault::Failed);
    assert!(matches!(world.status(), NetworkStatus::Up(up) if up.subnet == "100.72.0.0/16" && up.behind.is_some()));
    while world.asked.is_none() {
        world.wait();
    }
    world.agree();
    let NetworkStatus::Up(up) = world.status() else { panic!("{:?}", world.status()) };
    assert_eq!((up.subnet.as_str(), up.moved), ("10.201.0.0/16", None));
    assert!(world.cut.is_empty() && world.released == 0);
}

#[test]
fn a_conflict_that_is_there_first_is_avoided_from_the_beginning() {
    let mut world = World::new();
    world.give(Input::Landscape(crowded()));
    world.give(Input::NetworkChosen { enabled: true });
    let (_, plan) = world.asked.clone().unwrap();
    assert_ne!(plan.subnet.to_string(), "100.72.0.0/16");
}

#[test]
fn ipv6_that_is_switched_off_or_on_later_is_asked_for_anew() {
    let mut world = World::new();
    world.give(Input::NetworkSettings {
        wish: Ok(NetworkWish { ipv6: Some("fd00:72::".parse().unwrap()), ..wish() }),
        own_names: Vec::new(),
    });
    world.give(Input::Access(vec![resource(1, BindMode::Vnm)]));
    world.give(Input::NetworkChosen { enabled: true });
    let answer = |world: &mut World, ipv6: bool| {
        let (ticket, plan) = world.asked.take().expect("netd was asked");
        let network: Ipv6Net = "fd00:72::/48".parse().unwrap();
        let part = Ipv6Part { network, addresses: tun_driver::interface::ipv6_addresses(network, 0) };
        let interface = Interface { ipv6: ipv6.then_some(part), ..interface(&plan) };
        world.give(Input::NetworkConfigured { ticket, interface });
    };
    let device = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let interfaces = vec![HostInterface { index: 7, name: "postern0".to_owned(), addresses }];
        Input::Landscape(Landscape { interfaces, ..Landscape::default() })
    };
    let shown = |world: &World| match world.status() {
        NetworkStatus::Up(up) => up.ipv6,
        other => panic!("{other:?}"),
    };
    answer(&mut world, true);
    world.give(device(&["100.72.0.1/32", "fd00:72::1/128", "fe80::1/64"]));
    assert_eq!((world.asks, shown(&world).as_deref()), (1, Some("fd00:72::/48")));
    world.give(device(&["100.72.0.1/32"]));
    answer(&mut world, false);
    assert_eq!((world.asks, shown(&world)), (2, None));
    // netd may leave it out for a reason of its own: it is asked once for each address that is new.
    world.give(device(&["100.72.0.1/32", "fe80::1/64"]));
    answer(&mut world, false);
    assert_eq!((world.asks, shown(&world)), (3, None));
    world.give(device(&["fe80::1/64"]));
    assert_eq!(world.asks, 3);
    world.give(device(&["100.72.0.1/32", "fe80::2/64"]));
    answer(&mut world, true);
    assert_eq!((world.asks, shown(&world).as_deref()), (4, Some("fd00:72::/48")));
    assert!(world.cut.is_empty());
}

#[test]
fn a_zone_that_netd_refuses_takes_nothing_down() {
    let mut world = World::up();
    let mut odd = resource(3, BindMode::Vnm);
    odd.bind.dns_name = Some("db.internal.example".parse().unwrap());
    world.give(Input::AccessChanged { put: vec![odd], removed: Vec::new() });
    let zones: Vec<String> = world.asked.as_ref().unwrap().1.zones.iter().map(ToString::to_string).collect();
    assert_eq!(zones, ["my-org", "db.internal.example"]);
    world.refuse(NetworkFault::Failed);
    let NetworkStatus::Up(up) = world.status() else { panic!("{:?}", world.status()) };
    assert!(up.behind.is_some());
    assert_eq!(up.left_out, ["db.internal.example"], "its name has no answer, and that is told");
    assert!(world.place(3).is_some() && world.cut.is_empty(), "it is reached by address");
}

#[test]
fn a_lost_device_is_asked_for_again_and_an_answer_to_an_older_question_counts_for_nothing() {
    let mut world = World::up();
    world.give(Input::NetworkLost { reason: "the device is gone".to_owned() });
    assert!(world.places.is_none() && world.presence(1).fallback.is_some());
    world.wait();
    let (stale, plan) = world.asked.clone().unwrap();
    world.give(Input::NetworkChosen { enabled: false });
    assert_eq!(world.status(), NetworkStatus::Off);
    world.give(Input::NetworkConfigured { ticket: stale, interface: interface(&plan) });
    assert_eq!(world.status(), NetworkStatus::Off);
    assert!(world.places.is_none());
}

#[test]
fn status_tells_how_names_stand_now_and_not_how_they_were_registered() {
    let mut world = World::up();
    let names = |world: &World| match world.status() {
        NetworkStatus::Up(up) => up.names,
        other => panic!("{other:?}"),
    };
    assert_eq!(names(&world), NameService::NoZones);
    for backend in [DnsBackend::ResolvConf, DnsBackend::Resolved] {
        world.give(Input::NetworkNames { dns: DnsState::Registered { backend } });
        assert!(matches!(names(&world), NameService::Registered { .. }));
    }
    let reason = "systemd-resolved is not running".to_owned();
    world.give(Input::NetworkNames { dns: DnsState::Unavailable { reason: reason.clone() } });
    assert_eq!(names(&world), NameService::Unavailable { reason });
    assert!(world.place(1).is_some() && world.cut.is_empty(), "nothing else changes");
    world.give(Input::NetworkLost { reason: "the device is gone".to_owned() });
    world.give(Input::NetworkNames { dns: DnsState::NoZones });
    assert!(matches!(world.status(), NetworkStatus::Unavailable { .. }));
}

#[test]
fn names_beyond_the_zones_that_may_be_had_are_told() {
    let mut world = World::new();
    let mut covering = resource(1, BindMode::Vnm);
    covering.bind.dns_name = Some("*.corp.example".parse().unwrap());
    world.give(Input::NetworkSettings { wish: Ok(wish()), own_names: vec!["gw.corp.example".parse().unwrap()] });
    world.give(Input::Access(vec![covering, resource(2, BindMode::Vnm)]));
    world.give(Input::NetworkChosen { enabled: true });
    world.agree();
    let NetworkStatus::Up(up) = world.status() else { panic!("{:?}", world.status()) };
    assert_eq!((up.zones, up.left_out), (vec!["my-org".to_owned()], vec!["*.corp.example".to_owned()]));
    let name = |n| world.presence(n).virtual_name;
    assert_eq!((name(1), name(2)), (None, Some("r2.my-org".to_owned())), "who has no name is shown by its address");
}

#[test]
fn a_listener_that_fails_in_the_stand_in_is_told_of_as_ever() {
    let mut world = World::new();
    world.give(Input::Access(vec![resource(1, BindMode::Vnm)]));
    world.give(Input::NetworkChosen { enabled: true });
    world.refuse(NetworkFault::NoService);
    let ticket = *world.listening.keys().next().unwrap();
    world.give(Input::ListenerLost { ticket, error: "gone".to_owned() });
    assert!(matches!(world.presence(1).connection, Connection::Failed { .. }));
    let _ = BindFailure::InUse { holder: None };
}

#[test]
fn zones_cover_every_alias_once_and_never_our_own_names() {
    let name = |text: &str| text.parse::<DnsName>().unwrap();
    let alias = |text: &str| text.parse::<HostPattern>().unwrap();
    let aliases = [alias("db.my-org"), alias("*.kafka.internal"), alias("b1.kafka.internal"), alias("x.example.com")];
    let zones = zones(&name("my-org"), aliases.iter(), &[name("gw.x.example.com")]);
    assert_eq!(zones, [name("my-org"), name("kafka.internal")]);
}
