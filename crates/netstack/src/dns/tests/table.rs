use super::{super::key::Key, *};

#[test]
fn a_table_that_contradicts_itself_is_refused() {
    let with = |change: fn(&mut Contents)| {
        let mut contents = contents();
        change(&mut contents);
        Table::new(contents).unwrap_err()
    };
    assert_eq!(
        with(|contents| contents.names.push(known("db.my-org", &["100.72.9.0"]))),
        TableError::NameTwice(name("db.my-org"))
    );
    assert_eq!(
        with(|contents| contents.wildcards.push(contents.wildcards[0].clone())),
        TableError::NameTwice(name(WILDCARD))
    );
    assert_eq!(
        with(|contents| contents.names.push(known("db.elsewhere", &["100.72.9.0"]))),
        TableError::NoZone(name("db.elsewhere"))
    );
}

#[test]
fn names_may_share_an_address_whose_pointer_is_the_first_of_them() {
    let mut contents = contents();
    contents.names.push(known("two.my-org", &["100.72.1.0"]));
    let table = Table::new(contents).unwrap();
    let ip: IpAddr = "100.72.1.0".parse().unwrap();
    assert_eq!(table.name_of(ip), Some(&b"\x02db\x06my-org\0"[..]));
    let key = Key::of_host("two.my-org").unwrap();
    assert!(matches!(
        table.find(&key),
        Found::In { place: Place::Name(addresses), .. } if addresses.v4.iter().any(|v4| IpAddr::from(*v4) == ip)
    ));
}

#[test]
fn host_parts_are_the_same_in_both_families() {
    let range = range();
    for (part, v4, v6) in
        [(0x0100, "100.72.1.0", "fd12:3456:789a::100"), (0xfffe, "100.72.255.254", "fd12:3456:789a::fffe")]
    {
        let part = HostPart(part);
        let (v4, v6): (IpAddr, IpAddr) = (v4.parse().unwrap(), v6.parse().unwrap());
        assert_eq!(range.v4(part).map(IpAddr::from), Some(v4));
        assert_eq!(range.v6(part).map(IpAddr::from), Some(v6));
        assert_eq!((range.part(v4), range.part(v6)), (Some(part), Some(part)));
        assert!(range.contains(v4) && range.contains(v6));
    }
    assert_eq!(range.v4(HostPart(0x1_0000)), None, "it is not the network's");
    assert_eq!(range.v6(HostPart(0x1_0000)), None);
    assert_eq!(range.part("fd12:3456:789a:1::1".parse().unwrap()), None);
    assert!(range.contains("fd12:3456:789a:1::1".parse().unwrap()));
    assert!(!range.contains("fd12:3456:789b::1".parse().unwrap()));
    assert_eq!(range.part("100.73.0.1".parse().unwrap()), None);
}

#[test]
fn the_nearest_zone_and_the_nearest_wildcard_count() {
    let mut all = contents();
    all.zones.extend(names(&["deep.my-org"]));
    all.names.push(known("x.deep.my-org", &["100.72.3.1"]));
    all.wildcards = names(&["my-org", "near.my-org"])
        .into_iter()
        .map(|parent| Wildcard { parent, notice: None })
        .chain(all.wildcards)
        .collect();
    let mut bed = Bed::of(all);
    assert_eq!(addresses(&bed.ask("any.my-org", RecordType::A)).len(), 1);
    assert_eq!(addresses(&bed.ask("any.near.my-org", RecordType::A)).len(), 1);
    assert_eq!(addresses(&bed.ask("near.my-org", RecordType::A)).len(), 1, "it is a host of the farther wildcard");
    let answer = bed.ask("y.deep.my-org", RecordType::A);
    assert_eq!(answer.response_code, ResponseCode::NXDomain, "a zone of its own is under nobody's wildcard");
    assert_eq!(soa(&answer).name.to_ascii(), "deep.my-org.");
}
