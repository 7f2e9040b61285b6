use proptest::prelude::*;

use super::*;

fn network(loopback_range: &str, multi_loopback: bool, vnm_subnet: &str) -> Network {
    let settings = NetworkSettings {
        loopback_range: loopback_range.to_owned(),
        multi_loopback,
        vnm_subnet: vnm_subnet.to_owned(),
    };
    Network::read(&settings).unwrap()
}

fn default() -> Network {
    Network::read(&NetworkSettings::default()).unwrap()
}

fn wish(mode: BindMode) -> Wish {
    Wish { mode, ip: None, port: None, dns_name: None }
}

fn loopback(ip: &str, port: u16) -> BindAddress {
    BindAddress { mode: BindMode::Loopback, ip: ip.parse().unwrap(), port, dns_name: None }
}

fn vnm(ip: &str, port: u16) -> BindAddress {
    BindAddress { mode: BindMode::Vnm, ip: ip.parse().unwrap(), port, dns_name: None }
}

fn taken<'a>(binds: impl IntoIterator<Item = &'a BindAddress>) -> Taken<'a> {
    let mut taken = Taken::default();
    for bind in binds {
        taken.add(bind, "other");
    }
    taken
}

fn rules(result: Result<BindAddress, Vec<Broken>>) -> Vec<(&'static str, Rule)> {
    result.unwrap_err().into_iter().map(|broken| (broken.field, broken.rule)).collect()
}

#[test]
fn an_empty_wish_gets_the_next_free_loopback_port_from_10000_on() {
    let wish = wish(BindMode::Loopback);
    let first = assign(&wish, 5432, &default(), &Taken::default()).unwrap();
    assert_eq!(first, loopback("127.0.0.1", 10000));
    let third = loopback("127.0.0.1", 10002);
    assert_eq!(assign(&wish, 5432, &default(), &taken([&first, &third])).unwrap(), loopback("127.0.0.1", 10001));
}

#[test]
fn with_multi_loopback_an_empty_wish_walks_the_addresses_of_the_range() {
    let network = network("127.0.0.0/30", true, "100.72.0.0/16");
    let mut binds: Vec<BindAddress> = Vec::new();
    for expected in [("127.0.0.1", 10000), ("127.0.0.2", 10000), ("127.0.0.1", 10001), ("127.0.0.2", 10001)] {
        let next = assign(&wish(BindMode::Loopback), 80, &network, &taken(&binds)).unwrap();
        assert_eq!(next, loopback(expected.0, expected.1));
        binds.push(next);
    }
}

#[test]
fn a_port_alone_is_bound_at_the_next_address_where_it_is_free() {
    let network = network("127.0.0.0/30", true, "100.72.0.0/16");
    let ask = Wish { port: Some(5432), ..wish(BindMode::Loopback) };
    let first = assign(&ask, 5432, &network, &Taken::default()).unwrap();
    let second = assign(&ask, 5432, &network, &taken([&first])).unwrap();
    assert_eq!((&first, &second), (&loopback("127.0.0.1", 5432), &loopback("127.0.0.2", 5432)));
    assert_eq!(rules(assign(&ask, 5432, &network, &taken([&first, &second]))), [("bind.port", Rule::NoneLeft)]);
}

#[test]
fn a_full_address_is_left_for_the_ports_below_10000_and_then_there_is_none() {
    let above: Vec<_> = (10000..=64999).map(|port| loopback("127.0.0.1", port)).collect();
    let next = assign(&wish(BindMode::Loopback), 80, &default(), &taken(&above)).unwrap();
    assert_eq!(next, loopback("127.0.0.1", 1024));
    let all: Vec<_> = LOOPBACK_PORTS.map(|port| loopback("127.0.0.1", port)).collect();
    let none = assign(&wish(BindMode::Loopback), 80, &default(), &taken(&all));
    assert_eq!(rules(none), [("bind.port", Rule::NoneLeft)]);
}

#[test]
fn loopback_ports_are_1024_to_64999_and_never_those_of_postern_itself() {
    for port in [-1, 0, 1, 1023, 65000, 65220, 65230, 65535, 65536, 1 << 40] {
        let ask = Wish { port: Some(port), ..wish(BindMode::Loopback) };
        assert_eq!(rules(assign(&ask, 80, &default(), &Taken::default())), [("bind.port", Rule::LoopbackPort)]);
    }
    for port in [1024, 64999] {
        let ask = Wish { port: Some(port), ..wish(BindMode::Loopback) };
        assert!(assign(&ask, 80, &default(), &Taken::default()).is_ok());
    }
    assert!(assigned_ports().all(|port| port != 65220 && port != 65230));
}

#[test]
fn loopback_addresses_are_those_of_the_range_and_only_the_first_without_multi_loopback() {
    let single = network("127.0.0.0/24", false, "100.72.0.0/16");
    let multi = network("127.0.0.0/24", true, "100.72.0.0/16");
    let ask = |ip: &str, network| {
        let ask = Wish { ip: Some(ip.parse().unwrap()), ..wish(BindMode::Loopback) };
        assign(&ask, 80, network, &Taken::default())
    };
    assert!(ask("127.0.0.1", &single).is_ok());
    assert!(ask("127.0.0.200", &multi).is_ok());
    let first = Ipv4Addr::new(127, 0, 0, 1);
    assert_eq!(rules(ask("127.0.0.2", &single)), [("bind.ip", Rule::NotFirst(first))]);
    for network in [&single, &multi] {
        assert_eq!(rules(ask("127.0.0.0", network)), [("bind.ip", Rule::NotAHost)]);
        assert_eq!(rules(ask("127.0.0.255", network)), [("bind.ip", Rule::NotAHost)]);
        for outside in ["127.0.1.1", "10.0.0.1", "::1", "0.0.0.0"] {
            let rule = Rule::OutsideRange(network.loopback_range);
            assert_eq!(rules(ask(outside, network)), [("bind.ip", rule)], "{outside}");
        }
    }
}

#[test]
fn vnm_takes_the_own_port_and_the_next_address_that_nobody_has_or_had() {
    let network = network("127.0.0.1/32", false, "100.72.0.0/29");
    let first = assign(&wish(BindMode::Vnm), 5432, &network, &Taken::default()).unwrap();
    assert_eq!(first, vnm("100.72.0.3", 5432));
    let mut table = taken([&first]);
    table.retire("100.72.0.4".parse().unwrap());
    assert_eq!(assign(&wish(BindMode::Vnm), 22, &network, &table).unwrap(), vnm("100.72.0.5", 22));
    table.retire("100.72.0.5".parse().unwrap());
    table.retire("100.72.0.6".parse().unwrap());
    assert_eq!(rules(assign(&wish(BindMode::Vnm), 22, &network, &table)), [("bind.port", Rule::NoneLeft)]);
}

#[test]
fn vnm_ports_are_1_to_65535_and_unique_per_address() {
    let ask = |ip: &str, port| Wish { ip: ip.parse().ok(), port: Some(port), ..wish(BindMode::Vnm) };
    for port in [1, 22, 65220, 65535] {
        assert!(assign(&ask("100.72.0.9", port), 80, &default(), &Taken::default()).is_ok());
    }
    for port in [-1, 0, 65536] {
        let refused = assign(&ask("100.72.0.9", port), 80, &default(), &Taken::default());
        assert_eq!(rules(refused), [("bind.port", Rule::VnmPort)]);
    }
    let other = vnm("100.72.0.9", 22);
    assert!(assign(&ask("100.72.0.9", 80), 80, &default(), &taken([&other])).is_ok());
    let same = assign(&ask("100.72.0.9", 22), 80, &default(), &taken([&other]));
    let ip = Ipv4Addr::new(100, 72, 0, 9);
    assert_eq!(rules(same), [("bind.port", Rule::PortTaken { ip, holder: "other".to_owned() })]);
}

#[test]
fn a_virtual_address_of_another_resource_is_never_given_again() {
    let mut table = Taken::default();
    table.retire("100.72.0.9".parse().unwrap());
    let ask = Wish { ip: "100.72.0.9".parse().ok(), ..wish(BindMode::Vnm) };
    assert_eq!(rules(assign(&ask, 22, &default(), &table)), [("bind.ip", Rule::Retired)]);
}

#[test]
fn virtual_addresses_lie_in_the_subnet_and_not_where_postern_itself_is() {
    let ask = |ip: &str| {
        let ask = Wish { ip: ip.parse().ok(), ..wish(BindMode::Vnm) };
        assign(&ask, 22, &default(), &Taken::default())
    };
    for (ip, rule) in [
        ("100.73.0.1", Rule::OutsideSubnet(default().vnm_subnet)),
        ("127.0.0.1", Rule::OutsideSubnet(default().vnm_subnet)),
        ("fd00::1", Rule::OutsideSubnet(default().vnm_subnet)),
        ("100.72.0.0", Rule::NotAHost),
        ("100.72.255.255", Rule::NotAHost),
        ("100.72.0.1", Rule::Reserved),
        ("100.72.0.2", Rule::Reserved),
    ] {
        assert_eq!(rules(ask(ip)), [("bind.ip", rule)], "{ip}");
    }
}

#[test]
fn names_are_valid_unique_and_only_for_vnm() {
    let ask = |mode, name: &str| Wish { dns_name: Some(name.to_owned()), ..wish(mode) };
    let bind = assign(&ask(BindMode::Vnm, "DB.My-Org"), 22, &default(), &Taken::default()).unwrap();
    assert_eq!(bind.dns_name.as_deref(), Some("db.my-org"));
    let again = assign(&ask(BindMode::Vnm, "db.my-ORG."), 22, &default(), &taken([&bind]));
    assert_eq!(rules(again), [("bind.dns_name", Rule::NameTaken("other".to_owned()))]);
    for (name, rule) in
        [("a_b", Rule::Name(DnsNameError::Character)), ("x.localhost", Rule::Localhost), ("localhost", Rule::Localhost)]
    {
        let refused = assign(&ask(BindMode::Vnm, name), 22, &default(), &Taken::default());
        assert_eq!(rules(refused), [("bind.dns_name", rule)]);
    }
    let refused = assign(&ask(BindMode::Loopback, "db"), 22, &default(), &Taken::default());
    assert_eq!(rules(refused), [("bind.dns_name", Rule::NameInLoopback)]);
}

#[test]
fn every_broken_rule_of_a_wish_is_told_at_once() {
    let ask =
        Wish { mode: BindMode::Loopback, ip: "10.0.0.1".parse().ok(), port: Some(80), dns_name: Some("db".to_owned()) };
    let fields: Vec<_> =
        rules(assign(&ask, 22, &default(), &Taken::default())).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["bind.dns_name", "bind.ip", "bind.port"]);
}

#[test]
fn settings_are_networks_of_the_right_kind() {
    let read = |loopback_range: &str, vnm_subnet: &str| {
        let settings = NetworkSettings {
            loopback_range: loopback_range.to_owned(),
            multi_loopback: true,
            vnm_subnet: vnm_subnet.to_owned(),
        };
        Network::read(&settings).map_err(|broken| broken.into_iter().map(|broken| broken.rule).collect::<Vec<_>>())
    };
    for good in ["127.0.0.1/32", "127.0.0.0/8", "127.10.0.0/16"] {
        assert!(read(good, "100.64.0.0/10").is_ok(), "{good}");
    }
    for good in ["100.64.0.0/10", "100.72.0.0/16", "10.0.0.0/8", "172.20.0.0/14", "192.168.7.0/29"] {
        assert!(read("127.0.0.1/32", good).is_ok(), "{good}");
    }
    for (bad, rule) in [
        ("10.0.0.0/8", Rule::NotLoopback),
        ("127.0.0.1", Rule::Cidr(CidrError::Form)),
        ("127.0.0.1/33", Rule::Cidr(CidrError::Form)),
        ("127.0.0.1/+8", Rule::Cidr(CidrError::Form)),
        ("::1/128", Rule::Cidr(CidrError::Form)),
        ("127.0.0.1/8", Rule::Cidr(CidrError::HostBits("127.0.0.0/8".parse().unwrap()))),
        ("0.0.0.0/0", Rule::NotLoopback),
    ] {
        assert_eq!(read(bad, "100.64.0.0/10"), Err(vec![rule]), "{bad}");
    }
    for (bad, rule) in [
        ("8.8.8.0/24", Rule::NotVirtual),
        ("100.0.0.0/8", Rule::NotVirtual),
        ("127.0.0.0/8", Rule::NotVirtual),
        ("10.0.0.0/30", Rule::SubnetTooSmall),
    ] {
        assert_eq!(read("127.0.0.1/32", bad), Err(vec![rule]), "{bad}");
    }
    assert_eq!(read("x", "y").unwrap_err().len(), 2);
}

/// What an administrator does in the model test.
#[derive(Clone, Debug)]
enum Step {
    Create(Wish, u16),
    Delete(prop::sample::Index),
    Move(prop::sample::Index, Wish),
}

fn any_ip() -> impl Strategy<Value = Option<IpAddr>> {
    let ips =
        ["127.0.0.1", "127.0.0.2", "127.0.0.3", "100.72.0.3", "100.72.0.4", "100.72.0.6", "100.72.0.7", "10.1.1.1"];
    prop::option::weighted(0.4, prop::sample::select(ips.to_vec()).prop_map(|ip| ip.parse().unwrap()))
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let mode = prop_oneof![Just(BindMode::Loopback), Just(BindMode::Vnm)];
    let port = prop::option::weighted(0.5, prop::sample::select(vec![0, 22, 1024, 10000, 10001, 64999, 65220, 70000]));
    let name = prop::option::weighted(0.3, prop::sample::select(vec!["a", "B.c", "b.C", "-", "x.localhost"]));
    (mode, any_ip(), port, name).prop_map(|(mode, ip, port, name)| Wish {
        mode,
        ip,
        port,
        dns_name: name.map(str::to_owned),
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (any_wish(), prop::sample::select(vec![22u16, 80, 5432])).prop_map(|(wish, port)| Step::Create(wish, port)),
        2 => any::<prop::sample::Index>().prop_map(Step::Delete),
        1 => (any::<prop::sample::Index>(), any_wish()).prop_map(|(which, wish)| Step::Move(which, wish)),
    ]
}

/// The rules written down once more, by trying every candidate in order.
struct Model {
    network: Network,
    next: usize,
    live: BTreeMap<usize, BindAddress>,
    /// Every virtual address that a resource ever had.
    had: BTreeSet<(IpAddr, usize)>,
}

impl Model {
    fn ips(&self, mode: BindMode) -> Vec<IpAddr> {
        let last: &[u8] = match (mode, self.network.multi_loopback) {
            (BindMode::Loopback, true) => &[1, 2],
            (BindMode::Loopback, false) => &[1],
            (BindMode::Vnm, _) => &[3, 4, 5, 6],
        };
        let prefix = if mode == BindMode::Loopback { [127, 0, 0] } else { [100, 72, 0] };
        last.iter().map(|last| IpAddr::from([prefix[0], prefix[1], prefix[2], *last])).collect()
    }

    fn allowed(&self, id: usize, wish: &Wish, ip: IpAddr, port: u16) -> bool {
        let others = || self.live.iter().filter(|(other, _)| **other != id).map(|(_, bind)| bind);
        let free = others().all(|bind| (bind.mode, bind.ip, bind.port) != (wish.mode, ip, port));
        let retired = self
            .had
            .iter()
            .any(|(had, other)| *had == ip && *other != id && self.live.get(other).is_none_or(|bind| bind.ip != ip));
        let fits_wish = wish.ip.is_none_or(|wish| wish == ip) && wish.port.is_none_or(|wish| wish == i64::from(port));
        let range = if wish.mode == BindMode::Loopback { 1024..=64999 } else { 1..=65535 };
        let own_address = wish.mode == BindMode::Loopback || wish.ip.is_some() || others().all(|bind| bind.ip != ip);
        free && fits_wish
            && range.contains(&port)
            && (wish.mode == BindMode::Loopback || !retired)
            && own_address
            && self.ips(wish.mode).contains(&ip)
    }

    fn expected(&self, id: usize, wish: &Wish, own_port: u16) -> Option<BindAddress> {
        let dns_name = match &wish.dns_name {
            None => None,
            Some(_) if wish.mode == BindMode::Loopback => return None,
            Some(name) => {
                let name = name.to_lowercase();
                let others = self.live.iter().filter(|(other, _)| **other != id);
                let taken = others.into_iter().any(|(_, bind)| bind.dns_name.as_deref() == Some(&name));
                if taken || name == "-" || name == "x.localhost" {
                    return None;
                }
                Some(name)
            }
        };
        let ports: Vec<u16> = match (wish.mode, wish.port) {
            (_, Some(port)) => u16::try_from(port).into_iter().collect(),
            (BindMode::Vnm, None) => vec![own_port],
            (BindMode::Loopback, None) => (10000..10100).collect(),
        };
        let ips = self.ips(wish.mode);
        let candidates = ports.iter().flat_map(|port| ips.iter().map(move |ip| (*ip, *port)));
        let (ip, port) = candidates.into_iter().find(|(ip, port)| self.allowed(id, wish, *ip, *port))?;
        Some(BindAddress { mode: wish.mode, ip, port, dns_name })
    }

    fn bind(&mut self, id: usize, wish: &Wish, own_port: u16) -> Result<(), TestCaseError> {
        let mut taken = Taken::default();
        for (_, bind) in self.live.iter().filter(|(other, _)| **other != id) {
            taken.add(bind, "other");
        }
        for (ip, other) in &self.had {
            if *other != id && self.live.get(other).is_none_or(|bind| bind.ip != *ip) {
                taken.retire(*ip);
            }
        }
        let got = assign(wish, own_port, &self.network, &taken);
        let expected = self.expected(id, wish, own_port);
        prop_assert_eq!(got.as_ref().ok(), expected.as_ref(), "{:?} {:?}", wish, got);
        if let Ok(bind) = got {
            if bind.mode == BindMode::Vnm {
                self.had.insert((bind.ip, id));
            }
            self.live.insert(id, bind);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn addresses_are_assigned_as_a_model_that_tries_them_all_does(
        multi in any::<bool>(),
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let network = network("127.0.0.0/30", multi, "100.72.0.0/29");
        let mut model = Model { network, next: 0, live: BTreeMap::new(), had: BTreeSet::new() };
        for step in steps {
            match step {
                Step::Create(wish, own_port) => {
                    model.next += 1;
                    model.bind(model.next, &wish, own_port)?;
                }
                Step::Delete(which) if !model.live.is_empty() => {
                    let id = *which.get(&model.live.keys().copied().collect::<Vec<_>>());
                    model.live.remove(&id);
                }
                Step::Move(which, wish) if !model.live.is_empty() => {
                    let id = *which.get(&model.live.keys().copied().collect::<Vec<_>>());
                    model.bind(id, &wish, 80)?;
                }
                Step::Delete(_) | Step::Move(..) => {}
            }
            let places: BTreeSet<_> = model.live.values().map(|bind| (bind.mode, bind.ip, bind.port)).collect();
            prop_assert_eq!(places.len(), model.live.len(), "two resources share a place");
        }
    }
}
