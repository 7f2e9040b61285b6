use proptest::prelude::*;

use super::*;
use crate::name::{DnsNameError, HostPatternError};

fn network(loopback_range: &str, multi_loopback: bool, vnm_subnet: &str) -> Network {
    let settings = NetworkSettings {
        loopback_range: loopback_range.to_owned(),
        multi_loopback,
        vnm_subnet: vnm_subnet.to_owned(),
        ..NetworkSettings::default()
    };
    Network::read(&settings).unwrap()
}

fn default() -> Network {
    Network::read(&NetworkSettings::default()).unwrap()
}

fn wish(mode: BindMode) -> Wish {
    Wish::any(mode)
}

fn loopback(ip: &str, port: u16) -> BindAddress {
    BindAddress::loopback(ip.parse().unwrap(), port)
}

/// As another resource has it that was bound by an older control plane: without a name and a loopback address.
fn vnm(ip: &str, port: u16) -> BindAddress {
    BindAddress { mode: BindMode::Vnm, ip: ip.parse().unwrap(), port, dns_name: None, loopback: None }
}

/// Assigns for a resource `db` with one port.
fn assign(wish: &Wish, port: u16, network: &Network, taken: &Taken<'_>) -> Result<BindAddress, Vec<Broken>> {
    assign_ports(wish, port, "", network, taken)
}

fn assign_ports(
    wish: &Wish,
    port: u16,
    ports: &str,
    network: &Network,
    taken: &Taken<'_>,
) -> Result<BindAddress, Vec<Broken>> {
    super::assign(wish, &Asker { name: "db", port, ports: &ports.parse().unwrap() }, network, taken)
}

/// Where it is in the virtual network.
fn place(bind: BindAddress) -> (String, u16) {
    (bind.ip.to_string(), bind.port)
}

fn taken<'a>(binds: impl IntoIterator<Item = &'a BindAddress>) -> Taken<'a> {
    let mut taken = Taken::default();
    for bind in binds {
        taken.add(bind, &PortSet::default(), "other");
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
    let network = network("127.0.0.1/32", false, "100.72.0.0/28");
    let first = assign(&wish(BindMode::Vnm), 5432, &network, &Taken::default()).unwrap();
    assert_eq!(place(first.clone()), ("100.72.0.3".to_owned(), 5432));
    let mut table = taken([&first]);
    table.retire("100.72.0.4".parse().unwrap());
    let second = assign(&wish(BindMode::Vnm), 22, &network, &table).unwrap();
    assert_eq!(place(second), ("100.72.0.5".to_owned(), 22));
    for last in [5, 6, 7] {
        table.retire([100, 72, 0, last].into());
    }
    assert_eq!(rules(assign(&wish(BindMode::Vnm), 22, &network, &table)), [("bind.ip", Rule::NoneLeft)]);
}

#[test]
fn every_resource_of_the_virtual_network_has_a_loopback_address_and_a_name() {
    for mode in [BindMode::Vnm, BindMode::Both] {
        let other = loopback("127.0.0.1", 10000);
        let bind = assign(&wish(mode), 5432, &default(), &taken([&other])).unwrap();
        assert_eq!((bind.mode, place(bind.clone())), (mode, ("100.72.1.0".to_owned(), 5432)));
        assert_eq!(bind.loopback_address(), Some("127.0.0.1:10001".parse().unwrap()));
        assert_eq!(bind.dns_name.clone().unwrap().to_string(), "db.my-org");
        let next = assign(&wish(BindMode::Loopback), 5432, &default(), &taken([&other, &bind])).unwrap();
        assert_eq!(next, loopback("127.0.0.1", 10002));
    }
    let ask = Wish { loopback_port: Some(15432), loopback_ip: "127.0.0.1".parse().ok(), ..wish(BindMode::Both) };
    let bind = assign(&ask, 5432, &default(), &Taken::default()).unwrap();
    assert_eq!(bind.loopback_address(), Some("127.0.0.1:15432".parse().unwrap()));
    assert_eq!(assign(&Wish::keep(&bind), 5432, &default(), &Taken::default()), Ok(bind.clone()));
    let held = Rule::PortTaken { ip: Ipv4Addr::LOCALHOST, holder: "other".to_owned() };
    assert_eq!(
        rules(assign(&ask, 5432, &default(), &taken([&loopback("127.0.0.1", 15432)]))),
        [("bind.loopback.port", held)]
    );
    let ask = Wish { loopback_port: Some(80), loopback_ip: "127.0.0.2".parse().ok(), ..wish(BindMode::Vnm) };
    assert_eq!(
        rules(assign(&ask, 22, &default(), &Taken::default())),
        [
            ("bind.loopback.ip", Rule::OutsideRange(default().loopback_range)),
            ("bind.loopback.port", Rule::LoopbackPort)
        ]
    );
    let ask = Wish { loopback_port: Some(15432), ..wish(BindMode::Loopback) };
    assert_eq!(rules(assign(&ask, 22, &default(), &Taken::default())), [("bind.loopback", Rule::SecondLoopback)]);
}

#[test]
fn resources_share_a_virtual_address_only_while_they_share_no_port() {
    let at = |port| Wish { ip: "100.72.1.9".parse().ok(), port, ..wish(BindMode::Vnm) };
    let mut table = Taken::default();
    let cluster = assign_ports(&at(None), 6379, "7000-7005", &default(), &table).unwrap();
    table.add(&cluster, &"7000-7005".parse().unwrap(), "cluster");
    let ip = Ipv4Addr::new(100, 72, 1, 9);
    let held = || Rule::PortTaken { ip, holder: "cluster".to_owned() };
    for (port, ports, broken) in [
        (7003, "", ("bind.port", "7003")),
        (6379, "", ("bind.port", "6379")),
        (80, "7005-8000", ("ports", "7005")),
        (80, "6000-7000", ("ports", "6379")),
    ] {
        let refused = assign_ports(&at(None), port, ports, &default(), &table).unwrap_err();
        let told: Vec<_> = refused.iter().map(|broken| (broken.field, broken.value.as_str())).collect();
        assert_eq!((told, &refused[0].rule), (vec![broken], &held()), "{port} {ports}");
    }
    assert!(assign_ports(&at(None), 80, "7006-8000,6000", &default(), &table).is_ok());
}

#[test]
fn a_bind_port_never_means_two_ports() {
    let ask = |port| Wish { port: Some(port), ..wish(BindMode::Vnm) };
    let refused = assign_ports(&ask(7003), 6379, "7000-7005", &default(), &Taken::default());
    assert_eq!(rules(refused), [("bind.port", Rule::PortMeansTwo)]);
    for (port, ports) in [(7003, "7000-7005"), (6379, "6379,7000-7005"), (6379, "")] {
        assert!(assign_ports(&ask(port), u16::try_from(port).unwrap(), ports, &default(), &Taken::default()).is_ok());
    }
}

#[test]
fn vnm_ports_are_1_to_65535_and_unique_per_address() {
    let ask = |ip: &str, port| Wish { ip: ip.parse().ok(), port: Some(port), ..wish(BindMode::Vnm) };
    for port in [1, 22, 65220, 65535] {
        assert!(assign(&ask("100.72.1.9", port), 80, &default(), &Taken::default()).is_ok());
    }
    for port in [-1, 0, 65536] {
        let refused = assign(&ask("100.72.1.9", port), 80, &default(), &Taken::default());
        assert_eq!(rules(refused), [("bind.port", Rule::VnmPort)]);
    }
    let other = vnm("100.72.1.9", 22);
    assert!(assign(&ask("100.72.1.9", 80), 80, &default(), &taken([&other])).is_ok());
    let same = assign(&ask("100.72.1.9", 22), 80, &default(), &taken([&other]));
    let ip = Ipv4Addr::new(100, 72, 1, 9);
    assert_eq!(rules(same), [("bind.port", Rule::PortTaken { ip, holder: "other".to_owned() })]);
}

#[test]
fn a_virtual_address_of_another_resource_is_never_given_again() {
    let mut table = Taken::default();
    table.retire("100.72.1.9".parse().unwrap());
    let ask = Wish { ip: "100.72.1.9".parse().ok(), ..wish(BindMode::Vnm) };
    assert_eq!(rules(assign(&ask, 22, &default(), &table)), [("bind.ip", Rule::Retired)]);
}

#[test]
fn a_resource_stays_where_another_one_was_beside_it_and_takes_no_port_that_may_have_been_the_others() {
    let ask = Wish { ip: "100.72.1.9".parse().ok(), port: Some(5432), ..wish(BindMode::Vnm) };
    let network = default();
    let before = assign_ports(&ask, 5432, "80,443", &network, &Taken::default()).unwrap();
    let mut table = Taken::default();
    table.stay(&before, &"80,443".parse().unwrap());
    table.retire("100.72.1.9".parse().unwrap());
    assert_eq!(assign_ports(&ask, 5432, "80,443", &network, &table), Ok(before.clone()));
    assert_eq!(assign_ports(&ask, 5432, "443", &network, &table), Ok(before.clone()), "less is no other's");
    let retired = Rule::PortRetired([100, 72, 1, 9].into());
    let other = Wish { port: Some(22), ..ask.clone() };
    assert_eq!(rules(assign_ports(&other, 5432, "80", &network, &table)), [("bind.port", retired.clone())]);
    assert_eq!(rules(assign_ports(&ask, 5432, "80-81", &network, &table)), [("ports", retired)]);
    let elsewhere = assign_ports(&Wish { ip: None, ..other }, 5432, "80", &network, &table).unwrap();
    assert_eq!(place(elsewhere), ("100.72.1.0".to_owned(), 22));
    let gone = Wish { ip: "100.72.1.10".parse().ok(), ..ask };
    table.retire("100.72.1.10".parse().unwrap());
    assert_eq!(rules(assign_ports(&gone, 5432, "", &network, &table)), [("bind.ip", Rule::Retired)]);
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
        ("100.72.0.1", Rule::Reserved { count: 256 }),
        ("100.72.0.255", Rule::Reserved { count: 256 }),
        ("100.72.128.0", Rule::UpperHalf),
        ("100.72.255.254", Rule::UpperHalf),
    ] {
        assert_eq!(rules(ask(ip)), [("bind.ip", rule)], "{ip}");
    }
    for good in ["100.72.1.0", "100.72.127.255"] {
        assert!(ask(good).is_ok(), "{good}");
    }
}

#[test]
fn a_subnet_is_for_devices_then_resources_then_hosts_under_wildcards() {
    let text = |range: RangeInclusive<u32>| {
        format!("{}-{}", Ipv4Addr::from_bits(*range.start()), Ipv4Addr::from_bits(*range.end()))
    };
    for (subnet, reserved, assigned, dynamic) in [
        ("100.64.0.0/10", 256, "100.64.1.0-100.95.255.255", "100.96.0.0-100.127.255.254"),
        ("100.72.0.0/16", 256, "100.72.1.0-100.72.127.255", "100.72.128.0-100.72.255.254"),
        ("10.0.16.0/20", 256, "10.0.17.0-10.0.23.255", "10.0.24.0-10.0.31.254"),
        ("10.0.0.0/21", 3, "10.0.0.3-10.0.3.255", "10.0.4.0-10.0.7.254"),
        ("192.168.7.0/29", 3, "192.168.7.3-192.168.7.3", "192.168.7.4-192.168.7.6"),
    ] {
        let cidr: Cidr = subnet.parse().unwrap();
        let got = (cidr.reserved(), text(cidr.assigned_hosts()), text(cidr.dynamic_hosts()));
        assert_eq!(got, (reserved, assigned.to_owned(), dynamic.to_owned()), "{subnet}");
    }
}

#[test]
fn an_ipv6_address_keeps_the_host_part_and_differs_between_organisations() {
    let org = |n| crate::id::OrgId::from_ulid(ulid::Ulid(n));
    let (subnet, moved): (Cidr, Cidr) = ("100.72.0.0/16".parse().unwrap(), "10.9.0.0/16".parse().unwrap());
    let ip = ipv6_address(org(1), subnet, Ipv4Addr::new(100, 72, 1, 9));
    assert_eq!(ip.segments()[3..], [0, 0, 0, 0, 0x109]);
    assert_eq!((ip.octets()[0], ip), (0xfd, ipv6_address(org(1), moved, Ipv4Addr::new(10, 9, 1, 9))));
    assert_eq!(ip.segments()[..3], ipv6_network(org(1)).segments()[..3]);
    assert_ne!(ipv6_network(org(1)), ipv6_network(org(2)));
}

fn named(name: &str) -> Wish {
    Wish { dns_name: Some(name.to_owned()), ..wish(BindMode::Vnm) }
}

#[test]
fn names_are_valid_unique_and_only_for_vnm() {
    let bind = assign(&named("DB.My-Org"), 22, &default(), &Taken::default()).unwrap();
    assert_eq!(bind.dns_name.clone().unwrap().to_string(), "db.my-org");
    let again = assign(&named("db.my-ORG."), 22, &default(), &taken([&bind]));
    assert_eq!(rules(again), [("bind.dns_name", Rule::NameTaken("other".to_owned()))]);
    for (name, rule) in [
        ("a_b", Rule::Name(DnsNameError::Character)),
        ("x.localhost", Rule::Localhost),
        ("localhost", Rule::Localhost),
        ("*.localhost", Rule::Localhost),
        ("*", Rule::Pattern(HostPatternError::StarAlone)),
        ("a*.internal", Rule::Pattern(HostPatternError::Star)),
        ("*.com", Rule::PublicSuffix),
        ("*.co.uk", Rule::PublicSuffix),
        ("com", Rule::PublicSuffix),
        ("*.local", Rule::SpecialUse),
        ("*.10.in-addr.arpa", Rule::SpecialUse),
    ] {
        let refused = assign(&named(name), 22, &default(), &Taken::default());
        assert_eq!(rules(refused), [("bind.dns_name", rule)], "{name}");
    }
    for name in ["*.kafka.internal", "*.internal", "db.internal.example", "dc1.corp.local", "*.example.com"] {
        assert!(assign(&named(name), 22, &default(), &Taken::default()).is_ok(), "{name}");
    }
    let refused = assign(&Wish { mode: BindMode::Loopback, ..named("db") }, 22, &default(), &Taken::default());
    assert_eq!(rules(refused), [("bind.dns_name", Rule::NameInLoopback)]);
}

#[test]
fn aliases_may_overlap_but_no_two_are_the_same() {
    let mut binds: Vec<BindAddress> = Vec::new();
    for alias in ["*.internal", "*.kafka.internal", "b1.kafka.internal", "kafka.internal"] {
        let bind = assign(&named(alias), 22, &default(), &taken(&binds)).unwrap();
        binds.push(bind);
    }
    for alias in ["*.KAFKA.internal", "b1.kafka.internal."] {
        let refused = assign(&named(alias), 22, &default(), &taken(&binds));
        assert_eq!(rules(refused), [("bind.dns_name", Rule::NameTaken("other".to_owned()))]);
    }
}

#[test]
fn nobody_gets_a_name_that_covers_the_control_plane_or_a_gateway() {
    let own = |name: &str, whose: &str| OwnName { name: name.parse().unwrap(), whose: whose.to_owned() };
    let own_names = [own("control.acme.example", "the control plane"), own("gw.my-org", "gateway gw-1")];
    let taken = Taken::new(&own_names);
    for (name, covered, whose) in [
        ("control.acme.example", "control.acme.example", "the control plane"),
        ("*.acme.example", "control.acme.example", "the control plane"),
        ("acme.example", "control.acme.example", "the control plane"),
        ("gw.my-org", "gw.my-org", "gateway gw-1"),
    ] {
        let rule = Rule::CoversOwn { name: covered.to_owned(), whose: whose.to_owned() };
        assert_eq!(rules(assign(&named(name), 22, &default(), &taken)), [("bind.dns_name", rule)], "{name}");
    }
    for name in ["db.acme.example", "*.control.acme.example.internal", "gw2.my-org"] {
        assert!(assign(&named(name), 22, &default(), &taken).is_ok(), "{name}");
    }
    assert!(check_covers(&"example".parse().unwrap(), &own_names).is_err());
    assert!(check_covers(&"other.example".parse().unwrap(), &own_names).is_ok());
}

#[test]
fn a_name_that_was_not_given_is_made_of_the_resources_name_and_never_one_that_is_taken() {
    let network = default();
    let name_of = |name: &str, taken: &Taken<'_>| {
        let asker = Asker { name, port: 22, ports: &PortSet::default() };
        super::assign(&wish(BindMode::Vnm), &asker, &network, taken).unwrap().dns_name.unwrap().to_string()
    };
    assert_eq!(name_of("Payments DB (prod)", &Taken::default()), "payments-db-prod.my-org");
    assert_eq!(name_of("日本", &Taken::default()), "resource.my-org");
    let mut binds: Vec<BindAddress> = Vec::new();
    for expected in ["db.my-org", "db-2.my-org", "db-3.my-org"] {
        let bind = assign(&wish(BindMode::Vnm), 22, &network, &taken(&binds)).unwrap();
        assert_eq!(bind.dns_name.clone().unwrap().to_string(), expected);
        binds.push(bind);
    }
    let long = "x".repeat(70);
    let first = assign(&named(&format!("{}.my-org", "x".repeat(63))), 22, &network, &Taken::default()).unwrap();
    assert_eq!(name_of(&long, &taken([&first])), format!("{}-2.my-org", "x".repeat(61)));
    let own = [OwnName { name: "db.my-org".parse().unwrap(), whose: "the control plane".to_owned() }];
    assert_eq!(name_of("db", &Taken::new(&own)), "db-2.my-org");
}

#[test]
fn hosts_go_with_a_wildcard_and_lie_under_it() {
    let alias: HostPattern = "*.kafka.internal".parse().unwrap();
    let check = |hosts: &[&str], alias: Option<&HostPattern>| {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        check_hosts(&hosts, alias).map_err(|broken| {
            broken.into_iter().map(|broken| (broken.field, broken.value, broken.rule)).collect::<Vec<_>>()
        })
    };
    let read = check(&["b2.kafka.internal", "*.EU.kafka.internal", "b2.kafka.internal."], Some(&alias)).unwrap();
    assert_eq!(read.iter().map(ToString::to_string).collect::<Vec<_>>(), ["b2.kafka.internal", "*.eu.kafka.internal"]);
    assert_eq!(check(&["*.kafka.internal"], Some(&alias)).unwrap(), std::slice::from_ref(&alias));
    assert_eq!(check(&[], None), Ok(Vec::new()));
    for (bad, rule) in [
        ("kafka.internal", Rule::OutsideAlias(alias.clone())),
        ("*.internal", Rule::OutsideAlias(alias.clone())),
        ("b1.internal", Rule::OutsideAlias(alias.clone())),
        ("*", Rule::Pattern(HostPatternError::StarAlone)),
        ("10.0.0.1", Rule::Pattern(HostPatternError::Name(DnsNameError::Address))),
    ] {
        assert_eq!(check(&[bad], Some(&alias)), Err(vec![("hosts", bad.to_owned(), rule)]));
    }
    let exact: HostPattern = "b1.kafka.internal".parse().unwrap();
    for alias in [None, Some(&exact)] {
        let rule = Rule::HostsWithoutWildcard;
        assert_eq!(check(&["b1.kafka.internal"], alias), Err(vec![("hosts", "b1.kafka.internal".to_owned(), rule)]));
    }
    let many: Vec<String> = (0..65).map(|n| format!("b{n}.kafka.internal")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(check(&many[..64], Some(&alias)).is_ok());
    assert_eq!(check(&many, Some(&alias)), Err(vec![("hosts", "65".to_owned(), Rule::TooManyHosts)]));
}

#[test]
fn a_zone_follows_from_the_organisations_name_and_is_never_everybodys() {
    for (org, zone) in [
        ("My organisation", "my-organisation"),
        ("Acme Inc.", "acme-inc"),
        ("Com", "com-org"),
        ("localhost", "localhost-org"),
        ("local", "local-org"),
        ("1234", "1234-org"),
        ("日本", "my-org"),
        ("github.io", "github-io"),
    ] {
        assert_eq!(zone_for(org), zone, "{org}");
        assert!(check_zone(&zone_for(org)).is_ok());
    }
    for (zone, rule) in [
        ("", Rule::Name(DnsNameError::Empty)),
        (".", Rule::Name(DnsNameError::Label)),
        ("*.my-org", Rule::Name(DnsNameError::Character)),
        ("co.uk", Rule::PublicSuffix),
        ("github.io", Rule::PublicSuffix),
        ("local", Rule::SpecialUse),
        ("10.in-addr.arpa", Rule::SpecialUse),
        ("my.localhost", Rule::Localhost),
        (&"a.".repeat(96), Rule::ZoneTooLong(189)),
    ] {
        assert_eq!(check_zone(zone), Err(rule), "{zone}");
    }
}

#[test]
fn every_broken_rule_of_a_wish_is_told_at_once() {
    let ask = Wish {
        ip: "10.0.0.1".parse().ok(),
        port: Some(80),
        dns_name: Some("db".to_owned()),
        ..wish(BindMode::Loopback)
    };
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
            ..NetworkSettings::default()
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
    Create(Wish, u16, PortSet),
    Delete(prop::sample::Index),
    Move(prop::sample::Index, Wish),
}

fn any_ip() -> impl Strategy<Value = Option<IpAddr>> {
    let ips =
        ["127.0.0.1", "127.0.0.2", "127.0.0.3", "100.72.0.3", "100.72.0.4", "100.72.0.7", "100.72.0.8", "10.1.1.1"];
    prop::option::weighted(0.4, prop::sample::select(ips.to_vec()).prop_map(|ip| ip.parse().unwrap()))
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let mode = prop_oneof![Just(BindMode::Loopback), Just(BindMode::Vnm), Just(BindMode::Both)];
    let port = prop::option::weighted(0.5, prop::sample::select(vec![0, 22, 1024, 10000, 10001, 64999, 65220, 70000]));
    let names = vec!["a", "B.c", "b.C", "-", "x.localhost", "db.my-org", "db-2.my-org", "*.my-org"];
    let name = prop::option::weighted(0.3, prop::sample::select(names));
    let second = prop::option::weighted(0.2, prop::sample::select(vec![80, 1024, 10000, 10001]));
    (mode, any_ip(), port, name, second).prop_map(|(mode, ip, port, name, loopback_port)| Wish {
        mode,
        ip,
        port,
        dns_name: name.map(str::to_owned),
        loopback_ip: None,
        loopback_port: loopback_port.filter(|_| mode.is_virtual()),
    })
}

fn any_ports() -> impl Strategy<Value = PortSet> {
    prop::sample::select(vec!["", "", "22-25", "80,5432", "10000-10001"]).prop_map(|ports| ports.parse().unwrap())
}

fn any_step() -> impl Strategy<Value = Step> {
    let own = prop::sample::select(vec![22u16, 80, 5432]);
    prop_oneof![
        5 => (any_wish(), own, any_ports()).prop_map(|(wish, port, ports)| Step::Create(wish, port, ports)),
        2 => any::<prop::sample::Index>().prop_map(Step::Delete),
        1 => (any::<prop::sample::Index>(), any_wish()).prop_map(|(which, wish)| Step::Move(which, wish)),
    ]
}

/// The rules written down once more, by trying every candidate in order.
struct Model {
    network: Network,
    next: usize,
    live: BTreeMap<usize, (BindAddress, u16, PortSet)>,
    /// Every virtual address that a resource ever had.
    had: BTreeSet<(IpAddr, usize)>,
}

impl Model {
    fn others(&self, id: usize) -> impl Iterator<Item = (&BindAddress, &PortSet)> {
        self.live.iter().filter(move |(other, _)| **other != id).map(|(_, (bind, _, ports))| (bind, ports))
    }

    fn lives_at(&self, id: usize, ip: IpAddr) -> bool {
        self.live.get(&id).is_some_and(|(bind, ..)| bind.mode.is_virtual() && bind.ip == ip)
    }

    /// Where others were that are gone, a resource keeps the ports that it has.
    fn may_have(&self, id: usize, ip: IpAddr, served: &BTreeSet<u16>) -> bool {
        let has =
            self.live.get(&id).filter(|_| self.lives_at(id, ip)).map(|(bind, _, ports)| Self::served(bind.port, ports));
        !self.retired(id, ip) || has.is_some_and(|has| served.is_subset(&has))
    }

    fn served(port: u16, ports: &PortSet) -> BTreeSet<u16> {
        ports.ranges().flatten().chain([port]).collect()
    }

    fn retired(&self, id: usize, ip: IpAddr) -> bool {
        self.had.iter().any(|(had, other)| *had == ip && *other != id && !self.lives_at(*other, ip))
    }

    fn loopback(&self, id: usize, ip: Option<IpAddr>, port: Option<i64>) -> Option<(IpAddr, u16)> {
        let ips: &[u8] = if self.network.multi_loopback { &[1, 2] } else { &[1] };
        let ports: Vec<u16> = match port {
            Some(port) => u16::try_from(port).into_iter().collect(),
            None => (10000..10200).collect(),
        };
        let candidates = ports.iter().flat_map(|port| ips.iter().map(|last| (IpAddr::from([127, 0, 0, *last]), *port)));
        candidates.into_iter().find(|(at, port)| {
            let free = self.others(id).all(|(bind, _)| bind.loopback_address() != Some((*at, *port).into()));
            free && (1024..=64999).contains(port) && ip.is_none_or(|ip| ip == *at)
        })
    }

    fn virtual_(&self, id: usize, wish: &Wish, own_port: u16, ports: &PortSet) -> Option<(IpAddr, u16)> {
        let port = wish.port.map_or(Ok(own_port), u16::try_from).ok().filter(|port| *port > 0)?;
        if port != own_port && ports.contains(port) {
            return None;
        }
        let mut ips = [3, 4, 5, 6, 7].map(|last| IpAddr::from([100, 72, 0, last])).into_iter();
        let ip = ips.find(|ip| {
            let mut there = self.others(id).filter(|(bind, _)| bind.mode.is_virtual() && bind.ip == *ip);
            match wish.ip {
                Some(wish) if wish != *ip => false,
                Some(_) => {
                    there.all(|(bind, held)| Self::served(bind.port, held).is_disjoint(&Self::served(port, ports)))
                }
                None => there.next().is_none(),
            }
        })?;
        self.may_have(id, ip, &Self::served(port, ports)).then_some((ip, port))
    }

    fn name(&self, id: usize, wish: &Wish) -> Option<String> {
        let taken = |name: &str| {
            self.others(id).any(|(bind, _)| bind.dns_name.as_ref().is_some_and(|held| held.to_string() == name))
        };
        match &wish.dns_name {
            Some(name) if name == "-" || name == "x.localhost" => None,
            Some(name) => Some(name.to_lowercase()).filter(|name| !taken(name)),
            None => ["db".to_owned()]
                .into_iter()
                .chain((2..).map(|n| format!("db-{n}")))
                .map(|label| format!("{label}.my-org"))
                .find(|name| !taken(name)),
        }
    }

    fn expected(&self, id: usize, wish: &Wish, own_port: u16, ports: &PortSet) -> Option<BindAddress> {
        if wish.mode == BindMode::Loopback {
            let (ip, port) = self.loopback(id, wish.ip, wish.port)?;
            return wish.dns_name.is_none().then(|| BindAddress::loopback(ip, port));
        }
        // What is assigned is the first that nobody has or had.
        let wish = match wish.ip {
            Some(_) => wish.clone(),
            None => {
                let mut ips = [3, 4, 5, 6, 7].map(|last| IpAddr::from([100, 72, 0, last])).into_iter();
                let free = |ip: &IpAddr| {
                    !self.retired(id, *ip) && self.others(id).all(|(bind, _)| !bind.mode.is_virtual() || bind.ip != *ip)
                };
                Wish { ip: Some(ips.find(free)?), ..wish.clone() }
            }
        };
        let dns_name = Some(self.name(id, &wish)?.parse().unwrap());
        let (ip, port) = self.virtual_(id, &wish, own_port, ports)?;
        let (at, loopback_port) = self.loopback(id, None, wish.loopback_port)?;
        let loopback = Some(LoopbackAddress { ip: at, port: loopback_port });
        Some(BindAddress { mode: wish.mode, ip, port, dns_name, loopback })
    }

    fn bind(&mut self, id: usize, wish: &Wish, own_port: u16, ports: &PortSet) -> Result<(), TestCaseError> {
        let mut taken = Taken::default();
        for (bind, held) in self.others(id) {
            taken.add(bind, held, "other");
        }
        if let Some((bind, _, held)) = self.live.get(&id) {
            taken.stay(bind, held);
        }
        for (ip, other) in &self.had {
            if *other != id && !self.lives_at(*other, *ip) {
                taken.retire(*ip);
            }
        }
        let got = super::assign(wish, &Asker { name: "db", port: own_port, ports }, &self.network, &taken);
        let expected = self.expected(id, wish, own_port, ports);
        prop_assert_eq!(got.as_ref().ok(), expected.as_ref(), "{:?} {:?}", wish, got);
        if let Err(broken) = &got {
            prop_assert!(!broken.is_empty(), "refused without a reason");
        }
        if let Ok(bind) = got {
            if bind.mode.is_virtual() {
                self.had.insert((bind.ip, id));
            }
            self.live.insert(id, (bind, own_port, ports.clone()));
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
        let network = network("127.0.0.0/30", multi, "100.72.0.0/28");
        let mut model = Model { network, next: 0, live: BTreeMap::new(), had: BTreeSet::new() };
        for step in steps {
            match step {
                Step::Create(wish, own_port, ports) => {
                    model.next += 1;
                    model.bind(model.next, &wish, own_port, &ports)?;
                }
                Step::Delete(which) if !model.live.is_empty() => {
                    let id = *which.get(&model.live.keys().copied().collect::<Vec<_>>());
                    model.live.remove(&id);
                }
                Step::Move(which, wish) if !model.live.is_empty() => {
                    let id = *which.get(&model.live.keys().copied().collect::<Vec<_>>());
                    let (_, own_port, ports) = model.live[&id].clone();
                    model.bind(id, &wish, own_port, &ports)?;
                }
                Step::Delete(_) | Step::Move(..) => {}
            }
            let binds = || model.live.values().map(|(bind, ..)| bind);
            let places: BTreeSet<_> = binds().map(|bind| (bind.ip, bind.port)).collect();
            prop_assert_eq!(places.len(), model.live.len(), "two resources share a place");
            let places: BTreeSet<_> = binds().map(|bind| bind.loopback_address().unwrap()).collect();
            prop_assert_eq!(places.len(), model.live.len(), "two resources share a loopback address");
            let names: Vec<_> = binds().filter_map(|bind| bind.dns_name.as_ref()).collect();
            prop_assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "two resources share a name");
        }
    }
}
