use super::*;

#[test]
fn a_name_is_kept_in_lower_case_without_its_final_dot() {
    assert_eq!(Zone::new("My-Org.Example.").unwrap().as_str(), "my-org.example");
    assert_eq!(Zone::new("_ldap.corp").unwrap().as_str(), "_ldap.corp");
}

#[test]
fn what_is_no_name_is_refused() {
    let cases = [
        ("", ZoneError::Root),
        (".", ZoneError::Root),
        ("..", ZoneError::LabelLength),
        ("a..b", ZoneError::LabelLength),
        (".a", ZoneError::LabelLength),
        ("-a.b", ZoneError::Character),
        ("a-.b", ZoneError::Character),
        ("a b", ZoneError::Character),
        ("a\nb", ZoneError::Character),
        ("*.a", ZoneError::Character),
        ("a/b", ZoneError::Character),
        ("ä.b", ZoneError::Character),
        ("10.0.0.1", ZoneError::Numeric),
        ("7", ZoneError::Numeric),
    ];
    for (name, error) in cases {
        assert_eq!(Zone::new(name), Err(error), "{name:?}");
    }
    assert_eq!(Zone::new(&"a".repeat(64)), Err(ZoneError::LabelLength));
    let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
    assert_eq!(longest.len(), 253);
    assert!(Zone::new(&longest).is_ok());
    assert_eq!(Zone::new(&format!("{longest}b")), Err(ZoneError::TooLong));
    assert_eq!(Zone::new(&"a.".repeat(10_000)), Err(ZoneError::TooLong));
}

#[test]
fn a_zone_covers_itself_and_what_lies_below() {
    let zone = Zone::new("corp.example").unwrap();
    for (name, covered) in
        [("corp.example", true), ("a.b.corp.example", true), ("xcorp.example", false), ("example", false)]
    {
        assert_eq!(zone.covers(&Zone::new(name).unwrap()), covered, "{name}");
    }
}

#[test]
fn slots_have_addresses_of_their_own_inside_the_reserved_ones() {
    let subnet: Ipv4Net = "100.72.0.0/16".parse().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for slot in 0..MAX_SLOTS {
        let pair = ipv4_addresses(subnet, slot).unwrap();
        assert!(seen.insert(pair.device) && seen.insert(pair.resolver));
        assert!(pair.resolver < Ipv4Addr::new(100, 72, 1, 0) && pair.device > subnet.network());
    }
    assert_eq!(ipv4_addresses(subnet, MAX_SLOTS), None);
    let first = Pair { device: Ipv4Addr::new(100, 72, 0, 1), resolver: Ipv4Addr::new(100, 72, 0, 2) };
    assert_eq!(ipv4_addresses(subnet, 0), Some(first));
}

#[test]
fn a_small_subnet_has_room_for_one_user() {
    let subnet: Ipv4Net = "10.9.8.0/24".parse().unwrap();
    assert_eq!(ipv4_addresses(subnet, 0).unwrap().resolver, Ipv4Addr::new(10, 9, 8, 2));
    assert_eq!(ipv4_addresses(subnet, 1), None);
    assert_eq!(ipv4_addresses("10.9.8.0/30".parse().unwrap(), 0), None);
}

#[test]
fn ipv6_repeats_the_host_part() {
    let network: Ipv6Net = "fd12:3456:789a::/48".parse().unwrap();
    let subnet: Ipv4Net = "100.72.0.0/16".parse().unwrap();
    assert_eq!(ipv6_addresses(network, 1).device.to_string(), "fd12:3456:789a::3");
    assert_eq!(ipv6_twin(network, subnet, Ipv4Addr::new(100, 72, 1, 9)).to_string(), "fd12:3456:789a::109");
    for slot in [0, 5, 126] {
        let pair = ipv4_addresses(subnet, slot).unwrap();
        assert_eq!(ipv6_twin(network, subnet, pair.resolver), ipv6_addresses(network, slot).resolver);
    }
}
