use super::*;

fn wish() -> InterfaceConfig {
    InterfaceConfig {
        subnet: "100.72.0.0/16".parse().unwrap(),
        ipv6: Some("fd12:3456:789a::/48".parse().unwrap()),
        zones: vec![Zone::new("my-org").unwrap()],
        kept_out: vec![Zone::new("control.example.org").unwrap()],
        queues: 1,
        mtu: 1500,
    }
}

fn code_of(policy: &Policy, wish: &InterfaceConfig) -> Option<Code> {
    policy.check(wish).err().map(|problem| problem.code)
}

#[test]
fn only_private_ranges_can_be_had() {
    let policy = Policy::default();
    for (subnet, free) in [
        ("10.0.0.0/8", true),
        ("100.64.0.0/10", true),
        ("172.31.0.0/16", true),
        ("192.168.7.0/24", true),
        ("100.0.0.0/9", false),
        ("172.15.0.0/16", false),
        ("172.16.0.0/11", false),
        ("8.8.8.0/24", false),
        ("127.0.0.0/8", false),
        ("169.254.0.0/16", false),
        ("224.0.0.0/8", false),
        ("192.0.2.0/24", false),
    ] {
        let wish = InterfaceConfig { subnet: subnet.parse().unwrap(), ..wish() };
        let expected = (!free).then_some(Code::RangeForbidden);
        assert_eq!(code_of(&policy, &wish), expected, "{subnet}");
    }
    for network in ["2001:db8::/48", "fc00::/48", "fe80::/64", "::/48", "ff00::/48"] {
        let wish = InterfaceConfig { ipv6: Some(network.parse().unwrap()), ..wish() };
        assert_eq!(code_of(&policy, &wish), Some(Code::RangeForbidden), "{network}");
    }
}

#[test]
fn the_administrator_narrows_the_ranges_and_never_widens_them() {
    let policy = Policy::parse("allowed_ranges = [\"100.72.0.0/15\", \"fd12::/16\"]").unwrap();
    assert_eq!(code_of(&policy, &wish()), None);
    let elsewhere = InterfaceConfig { subnet: "10.0.0.0/16".parse().unwrap(), ..wish() };
    assert_eq!(code_of(&policy, &elsewhere), Some(Code::RangeForbidden));
    let ipv4_only = Policy::parse("allowed_ranges = [\"100.64.0.0/10\"]").unwrap();
    assert_eq!(code_of(&ipv4_only, &wish()), Some(Code::RangeForbidden));
    assert!(Policy::parse("allowed_ranges = [\"0.0.0.0/0\"]").unwrap_err().contains("not inside a private range"));
}

#[test]
fn zones_of_everybody_are_refused() {
    for (zone, free) in [
        ("my-org", true),
        ("db.internal.example", true),
        ("example.org", true),
        ("corp.local", true),
        ("com", false),
        ("co.uk", false),
        ("github.io", false),
        ("local", false),
        ("localhost", false),
        ("arpa", false),
        ("in-addr.arpa", false),
    ] {
        let wish = InterfaceConfig { zones: vec![Zone::new(zone).unwrap()], kept_out: vec![], ..wish() };
        assert_eq!(code_of(&Policy::default(), &wish), (!free).then_some(Code::ZoneForbidden), "{zone}");
    }
}

#[test]
fn a_zone_that_covers_the_control_plane_is_refused() {
    for (zone, free) in [
        ("example.org", false),
        ("control.example.org", false),
        ("a.control.example.org", true),
        ("db.example.org", true),
    ] {
        let wish = InterfaceConfig { zones: vec![Zone::new(zone).unwrap()], ..wish() };
        assert_eq!(code_of(&Policy::default(), &wish), (!free).then_some(Code::ZoneForbidden), "{zone}");
    }
}

#[test]
fn numbers_have_bounds() {
    let policy = Policy::default();
    let subnet = |text: &str| InterfaceConfig { subnet: text.parse().unwrap(), ..wish() };
    let cases = [
        subnet("10.0.0.0/30"),
        subnet("10.0.0.0/7"),
        InterfaceConfig { queues: 0, ..wish() },
        InterfaceConfig { queues: MAX_QUEUES + 1, ..wish() },
        InterfaceConfig { mtu: 1279, ..wish() },
        InterfaceConfig { mtu: 65_536, ..wish() },
        InterfaceConfig { zones: vec![Zone::new("a").unwrap(); MAX_ZONES + 1], ..wish() },
        InterfaceConfig { ipv6: Some("fd00::/40".parse().unwrap()), ..wish() },
        InterfaceConfig { ipv6: Some("fd00::/112".parse().unwrap()), ..wish() },
    ];
    for case in cases {
        assert_eq!(code_of(&policy, &case), Some(Code::OutOfBounds), "{case:?}");
    }
}

#[test]
fn the_file_names_users_and_groups() {
    let policy = Policy::parse("allow_uids = [1000]\nallow_groups = [\"root\", 77]\npolkit = false").unwrap();
    assert!(!policy.polkit && policy.names(0, &[]) && policy.names(1000, &[]));
    assert!(policy.names(5, &[77]) && policy.names(5, &[9, 0]) && !policy.names(5, &[78]));
    assert!(Policy::parse("allow_groups = [\"no such group\"]").is_err());
    assert!(Policy::parse("allow_uid = [1000]").is_err());
    assert!(!Policy::default().names(1000, &[1000]) && Policy::default().polkit);
}

#[test]
fn a_file_that_others_may_write_is_not_trusted() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("netd.toml");
    assert!(Policy::read(&path).is_ok());
    fs::write(&path, "polkit = false").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(Policy::read(&path), Err(PolicyError::NotTrusted { .. })));
}

#[test]
fn loopback_addresses_are_loopback_addresses_and_not_too_many() {
    let address = |number: u32| Ipv4Addr::from_bits(0x7f00_0000 + number);
    assert_eq!(check_loopback(&[]), Ok(()));
    assert_eq!(check_loopback(&(1..1025).map(address).collect::<Vec<_>>()), Ok(()));
    let refused = |addresses: &[Ipv4Addr]| check_loopback(addresses).unwrap_err().code;
    assert_eq!(refused(&(1..1026).map(address).collect::<Vec<_>>()), Code::OutOfBounds);
    assert_eq!(refused(&[address(1), Ipv4Addr::new(128, 0, 0, 1)]), Code::RangeForbidden);
}
