use super::*;

fn subnet(text: &str) -> HostAddresses {
    HostAddresses::new(text.parse().unwrap())
}

#[test]
fn hosts_are_in_the_upper_half_and_never_at_the_broadcast_address() {
    for (text, parts) in [("100.72.0.0/16", 0x8000..=0xfffe), ("10.0.0.0/24", 128..=254), ("192.168.0.0/29", 4..=6)] {
        let mut hosts = subnet(text);
        for host in 0..300 {
            if let Ok(part) = hosts.give(&format!("h{host}.x")) {
                assert!(parts.contains(&part.0), "{text} {part:?}");
            }
        }
    }
}

#[test]
fn when_all_addresses_are_given_further_hosts_get_none_and_the_others_keep_theirs() {
    for (text, room) in [("10.0.0.0/24", 127), ("192.168.0.0/29", 3), ("10.0.0.0/8", MAX_HOSTS)] {
        let mut hosts = subnet(text);
        let given: Vec<_> = (0..room).map(|host| hosts.give(&format!("h{host}.x")).unwrap()).collect();
        assert_eq!(hosts.give("another.x"), Err(NoAddress::Full), "{text}");
        assert_eq!((hosts.len(), hosts.give("h1.x")), (room, Ok(given[1])));
    }
}

#[test]
fn a_host_gets_the_same_address_wherever_it_is_asked_for_first() {
    let (mut one, mut other) = (subnet("100.72.0.0/16"), subnet("100.84.0.0/16"));
    one.give("first.kafka.internal").unwrap();
    assert_eq!(one.give("b1.kafka.internal"), other.give("b1.kafka.internal"));
    // Known since the first release; a change would move hosts of people who lost their state.
    assert_eq!(other.give("b1.kafka.internal"), Ok(HostPart(33_855)));
}

#[test]
fn what_was_kept_is_checked() {
    let record = |host: &str, part| HostRecord { host: host.to_owned(), part: HostPart(part) };
    let mut hosts = subnet("10.0.0.0/24");
    let useless = hosts.import([
        record("a.x", 200),
        record("b.x", 200),
        record("Upper.x", 201),
        record("no host", 202),
        record("a.x", 203),
        record("outside.x", 3000),
    ]);
    assert_eq!(useless, 3, "an address twice, and two that are no hosts");
    assert_eq!((hosts.get("a.x"), hosts.get("b.x")), (Some(HostPart(200)), None));
    assert_eq!(hosts.name(HostPart(200)).as_deref(), Some("a.x"));
    assert_eq!(hosts.name(HostPart(203)), None, "the second address of a host answers for nobody");
    let again = hosts.give("outside.x").unwrap();
    assert!((128..=254).contains(&again.0));
    // What lies outside is kept, so that it is given to nobody when the subnet grows again.
    assert!(hosts.export().contains(&record("outside.x", 3000)));
    assert_eq!(hosts.import([record("c.x", 3000)]), 1);
}

#[test]
fn a_network_of_another_size_has_its_own_upper_half_and_nobody_is_below_it() {
    let mut hosts = subnet("100.72.0.0/20");
    let small = hosts.give("b1.kafka.internal").unwrap();
    // The control plane gives addresses in the lower half of a /16: a host there would meet a resource.
    hosts.fit("100.72.0.0/16".parse().unwrap());
    let large = hosts.give("b1.kafka.internal").unwrap();
    assert!(small.0 < 0x8000 && (0x8000..=0xfffe).contains(&large.0), "{small:?} {large:?}");
    assert_eq!(hosts.usable(), [HostRecord { host: "b1.kafka.internal".to_owned(), part: large }]);
    assert_eq!(hosts.export().len(), 2, "what was ever given is given to nobody else");
    // A move to a network of the same size changes nothing.
    hosts.fit("10.72.0.0/16".parse().unwrap());
    assert_eq!(hosts.give("b1.kafka.internal"), Ok(large));
}
