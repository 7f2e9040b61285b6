use std::time::Duration;

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
fn names_that_somebody_makes_up_do_not_use_up_the_addresses_for_ever() {
    for (text, room) in [("192.168.0.0/29", 3), ("10.0.0.0/24", 127), ("10.0.0.0/8", MAX_HOSTS)] {
        let mut hosts = subnet(text);
        let real = hosts.give("real.x").unwrap();
        assert!(hosts.reach("real.x") && !hosts.reach("real.x"));
        hosts.at(Duration::from_secs(60));
        (1..room).for_each(|host| _ = hosts.give(&format!("h{host}.x")).unwrap());
        hosts.at(FORGOTTEN_AFTER);
        assert_eq!(hosts.give("new.x"), Err(NoAddress::Full), "{text}: somebody may remember all of them");
        assert!(hosts.try_out("h1.x"), "somebody does");
        hosts.at(FORGOTTEN_AFTER + Duration::from_secs(60));
        let before = hosts.given();
        (2..room).for_each(|host| _ = hosts.give(&format!("new{host}.x")).unwrap());
        assert_eq!((hosts.given() - before, hosts.len()), (room - 2, room));
        assert_eq!(hosts.give("one-more.x"), Err(NoAddress::Full));
        assert_eq!((hosts.give("real.x"), hosts.name(real).as_deref()), (Ok(real), Some("real.x")));
        assert!(hosts.get("h1.x").is_some() && hosts.get("h2.x").is_none());
        assert!(!hosts.try_out("h2.x"), "its address may be another's");
    }
}

#[test]
fn after_a_restart_somebody_may_remember_everything_and_who_was_reached_stays() {
    let mut hosts = subnet("192.168.0.0/29");
    ["a.x", "b.x", "c.x"].iter().for_each(|host| _ = hosts.give(host).unwrap());
    hosts.reach("b.x");
    hosts.at(FORGOTTEN_AFTER * 2);
    let mut again = subnet("192.168.0.0/29");
    assert_eq!(again.import(hosts.export()), 0);
    assert_eq!(again.give("d.x"), Err(NoAddress::Full));
    again.at(FORGOTTEN_AFTER);
    assert!(again.give("d.x").is_ok() && again.give("e.x").is_ok());
    assert_eq!(again.give("f.x"), Err(NoAddress::Full));
    assert_eq!(again.get("b.x"), hosts.get("b.x"));
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
    let record = |host: &str, part| HostRecord { host: host.to_owned(), part: HostPart(part), reached: false };
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
    assert_eq!(hosts.usable(), [HostRecord { host: "b1.kafka.internal".to_owned(), part: large, reached: false }]);
    assert_eq!(hosts.export().len(), 2, "what was ever given is given to nobody else");
    // A move to a network of the same size changes nothing.
    hosts.fit("10.72.0.0/16".parse().unwrap());
    assert_eq!(hosts.give("b1.kafka.internal"), Ok(large));
}
