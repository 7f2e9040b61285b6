use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::*;

const TUN: u32 = 7;

/// `(interface, address or route)`: what starts with a name is an address on it, `via` a route of all.
fn machine(networks: &[(&str, &str)], routes: &[(&str, &str)], resolvers: &[&str]) -> Landscape {
    let mut landscape =
        Landscape { resolvers: resolvers.iter().map(|ip| ip.parse().unwrap()).collect(), ..Landscape::default() };
    for (index, (name, address)) in (10_u32..).zip(networks) {
        let addresses = vec![address.parse().unwrap()];
        landscape.interfaces.push(HostInterface { index, name: (*name).to_owned(), addresses });
    }
    for (name, destination) in routes {
        let interface = landscape.interfaces.iter().find(|interface| interface.name == *name).map(|found| found.index);
        landscape.routes.push(HostRoute { destination: destination.parse().unwrap(), gateway: None, interface });
    }
    landscape
}

fn wish(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn texts(landscape: &Landscape, wanted: &str) -> Vec<String> {
    landscape.conflicts(wanted.parse().unwrap(), &landscape.ours()).iter().map(ToString::to_string).collect()
}

fn choose(landscape: &Landscape, wanted: &str) -> String {
    choose_subnet(landscape, wish(wanted), None, &landscape.ours()).unwrap().subnet.to_string()
}

#[test]
fn a_free_wish_is_met() {
    let landscape = machine(&[("eth0", "192.168.1.7/24")], &[("eth0", "0.0.0.0/0")], &["192.168.1.1", "1.1.1.1"]);
    assert_eq!(texts(&landscape, "100.72.0.0/16"), Vec::<String>::new());
    assert_eq!(choose(&landscape, "100.72.0.0/16"), "100.72.0.0/16");
}

#[test]
fn the_other_product_is_named_and_left_alone() {
    let tailscale = machine(&[("tailscale0", "100.101.102.103/32")], &[("tailscale0", "100.100.100.100/32")], &[]);
    let found = texts(&tailscale, "100.72.0.0/16");
    assert_eq!(found, ["100.64.0.0/10 is reserved by tailscale0 (Tailscale)"]);
    assert_eq!(choose(&tailscale, "100.72.0.0/16"), "10.201.0.0/16", "its packet filter keeps the whole /10");

    let warp = machine(&[("CloudflareWARP", "100.96.0.7/32")], &[], &[]);
    assert_eq!(texts(&warp, "100.100.0.0/16"), ["100.96.0.0/12 is reserved by CloudflareWARP (Cloudflare WARP)"]);
    assert_eq!(choose(&warp, "100.100.0.0/16"), "100.72.0.0/16");

    let docker = machine(&[("br-0123456789ab", "100.72.0.1/16")], &[("br-0123456789ab", "100.72.0.0/16")], &[]);
    assert_eq!(texts(&docker, "100.72.0.0/16"), ["100.72.0.0/16 is the network of br-0123456789ab (Docker)"]);
    assert_eq!(choose(&docker, "100.72.0.0/16"), "100.73.0.0/16");
}

#[test]
fn carrier_nat_is_recognised_by_its_range() {
    let landscape = machine(&[("eth0", "100.72.3.4/20")], &[], &[]);
    assert_eq!(texts(&landscape, "100.72.0.0/16"), ["100.72.0.0/20 is the network of eth0 (carrier NAT)"]);
}

#[test]
fn a_name_server_and_a_router_in_the_wish_collide() {
    let mut landscape = machine(&[("eth0", "192.168.1.7/24")], &[], &["100.72.200.1"]);
    assert_eq!(texts(&landscape, "100.72.0.0/16"), ["100.72.200.1 is a name server"]);
    landscape.resolvers = vec!["100.100.100.100".parse().unwrap()];
    assert_eq!(texts(&landscape, "100.100.0.0/16"), ["100.100.100.100 is a name server (Tailscale)"]);
    landscape.resolvers.clear();
    let gateway = Some("100.72.0.1".parse().unwrap());
    landscape.routes.push(HostRoute { destination: "0.0.0.0/0".parse().unwrap(), gateway, interface: Some(10) });
    assert_eq!(texts(&landscape, "100.72.0.0/16"), ["100.72.0.1 is a router on eth0"]);
    assert_eq!(choose(&landscape, "100.72.0.0/16"), "100.73.0.0/16");
}

#[test]
fn a_route_without_an_interface_collides_too() {
    let landscape = machine(&[], &[("", "100.72.0.0/14")], &[]);
    assert_eq!(texts(&landscape, "100.72.0.0/16"), ["100.72.0.0/14 is routed"]);
}

#[test]
fn whoever_routes_everything_collides_with_nobody() {
    let halves = [("tun0", "0.0.0.0/1"), ("tun0", "128.0.0.0/1"), ("tun0", "0.0.0.0/0"), ("tun0", "96.0.0.0/6")];
    let landscape = machine(&[("tun0", "10.8.0.2/24")], &halves, &[]);
    assert_eq!(texts(&landscape, "100.72.0.0/16"), Vec::<String>::new());
    assert_eq!(texts(&landscape, "10.8.0.0/16"), ["10.8.0.0/24 is the network of tun0 (a VPN)"]);
}

#[test]
fn our_own_devices_collide_with_nothing() {
    let mut landscape = machine(
        &[("postern0", "100.72.0.1/32"), ("postern1", "100.72.0.3/32")],
        &[("postern0", "100.72.0.0/16"), ("postern1", "100.72.0.0/16")],
        &["100.72.0.2", "100.72.0.4"],
    );
    assert_eq!(texts(&landscape, "100.72.0.0/16"), Vec::<String>::new());
    landscape.resolvers.push("100.72.0.9".parse().unwrap());
    assert_eq!(texts(&landscape, "100.72.0.0/16"), ["100.72.0.9 is a name server"], "nobody's resolver of ours");
}

#[test]
fn each_interface_is_named_once() {
    let networks = [("wt0", "100.72.1.2/16")];
    let routes = [("wt0", "100.72.0.0/16"), ("wt0", "100.72.1.2/32"), ("wt0", "100.72.255.255/32")];
    assert_eq!(
        texts(&machine(&networks, &routes, &[]), "100.72.0.0/16"),
        ["100.72.0.0/16 is the network of wt0 (NetBird)"]
    );
}

#[test]
fn smaller_and_larger_wishes_keep_their_size_and_middle() {
    let landscape = machine(&[("eth0", "100.72.5.9/24")], &[], &[]);
    assert_eq!(choose(&landscape, "100.72.5.0/24"), "100.73.5.0/24");
    assert_eq!(choose(&landscape, "100.72.5.128/25"), "100.73.5.128/25");
    assert_eq!(choose(&landscape, "100.72.4.0/25"), "100.72.4.0/25");
    assert_eq!(choose(&landscape, "100.72.0.0/13"), "100.80.0.0/13");
    assert_eq!(choose(&landscape, "100.64.0.0/10"), "10.192.0.0/10");
    assert_eq!(choose(&machine(&[("eth0", "10.1.2.3/24")], &[], &[]), "10.0.0.0/9"), "10.128.0.0/9");
}

#[test]
fn without_room_the_user_learns_why() {
    let landscape = machine(&[("eth0", "10.1.2.3/24")], &[], &[]);
    let error = choose_subnet(&landscape, wish("10.0.0.0/8"), None, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no network like 10.0.0.0/8 is free on this machine: 10.1.2.0/24 is the network of eth0"
    );
}

#[test]
fn what_is_in_use_stays_until_it_collides() {
    let free = machine(&[], &[], &[]);
    let current = Some(wish("100.73.0.0/16"));
    let choice = choose_subnet(&free, wish("100.72.0.0/16"), current, &[]).unwrap();
    assert_eq!((choice.subnet, choice.conflicts.len()), (wish("100.73.0.0/16"), 0));
    let taken = machine(&[("wg0", "100.73.0.1/24")], &[], &[]);
    assert_eq!(choose_subnet(&taken, wish("100.72.0.0/16"), current, &[]).unwrap().subnet, wish("100.72.0.0/16"));
    let other_size = Some(wish("100.73.0.0/24"));
    assert_eq!(choose_subnet(&free, wish("100.72.0.0/16"), other_size, &[]).unwrap().subnet, wish("100.72.0.0/16"));
}

#[test]
fn host_parts_move_along() {
    let address = Ipv4Addr::new(100, 72, 3, 9);
    assert_eq!(rebase(address, wish("100.72.0.0/16"), wish("10.201.0.0/16")), Some(Ipv4Addr::new(10, 201, 3, 9)));
    assert_eq!(rebase(address, wish("100.73.0.0/16"), wish("10.201.0.0/16")), None);
    assert_eq!(rebase(address, wish("100.72.0.0/16"), wish("10.201.0.0/24")), None);
}

fn networks() -> impl Strategy<Value = Vec<(u32, u8, bool)>> {
    // Mostly inside the ranges that are scanned, so that they do collide.
    let address = prop_oneof![
        (64_u8..128, any::<u16>()).prop_map(|(b, rest)| u32::from_be_bytes([100, b, 0, 0]) | u32::from(rest)),
        (any::<u8>(), any::<u16>()).prop_map(|(b, rest)| u32::from_be_bytes([10, b, 0, 0]) | u32::from(rest)),
        any::<u32>(),
    ];
    proptest::collection::vec((address, 8_u8..=32, any::<bool>()), 0..40)
}

proptest! {
    /// Against the plain definition: two networks overlap when the shorter prefix of both is the same.
    #[test]
    fn the_chosen_network_is_free_deterministic_and_as_large(
        networks in networks(), prefix in 8_u8..=29, wanted in any::<u32>(), current in any::<u32>(),
    ) {
        let mut landscape = Landscape::default();
        for (index, (address, prefix, is_route)) in (10_u32..).zip(&networks) {
            let network = IpNet::V4(Ipv4Net::new((*address).into(), *prefix).unwrap());
            let addresses = if *is_route { Vec::new() } else { vec![network] };
            landscape.interfaces.push(HostInterface { index, name: format!("if{index}"), addresses });
            if *is_route {
                landscape.routes.push(HostRoute { destination: network.trunc(), gateway: None, interface: Some(index) });
            }
        }
        let overlaps = |subnet: Ipv4Net| networks.iter().any(|(address, prefix, _)| {
            let shorter = u32::from(subnet.prefix_len().min(*prefix));
            (subnet.network().to_bits() ^ address) >> (32 - shorter) == 0
        });
        let wanted = Ipv4Net::new((u32::from_be_bytes([10, 0, 0, 0]) | wanted >> 8).into(), prefix).unwrap();
        let current = Some(Ipv4Net::new((u32::from_be_bytes([10, 0, 0, 0]) | current >> 8).into(), prefix).unwrap());
        let choice = choose_subnet(&landscape, wanted, current, &[TUN]);
        prop_assert_eq!(&choice, &choose_subnet(&landscape, wanted, current, &[TUN]));
        match choice {
            Ok(choice) => {
                prop_assert!(!overlaps(choice.subnet));
                prop_assert_eq!(choice.subnet.prefix_len(), prefix);
                prop_assert_eq!(choice.subnet, choice.subnet.trunc());
                prop_assert_eq!(choice.conflicts.is_empty(), !overlaps(wanted));
            }
            Err(error) => {
                prop_assert!(overlaps(wanted) && !error.conflicts.is_empty());
            }
        }
    }

    #[test]
    fn changes_settle_and_none_is_lost(gaps in proptest::collection::vec((0_u64..700, 0_usize..4), 1..40)) {
        let mut settle = Settle::new();
        let mut now = Instant::now();
        let (mut noted, mut told) = (BTreeSet::new(), BTreeSet::new());
        let mut first = None;
        for (gap, which) in gaps {
            now += Duration::from_millis(gap);
            if let Some(changes) = settle.poll_changes(now) {
                prop_assert!(!changes.is_empty());
                told.extend(changes);
                first = None;
            }
            settle.handle_change(Change::ALL[which], now);
            noted.insert(Change::ALL[which]);
            let first = *first.get_or_insert(now);
            let due = settle.poll_timeout().unwrap();
            prop_assert!(due <= now + Duration::from_millis(250) && due <= first + Duration::from_secs(2));
        }
        let due = settle.poll_timeout().unwrap();
        prop_assert!(settle.poll_changes(due - Duration::from_nanos(1)).is_none());
        told.extend(settle.poll_changes(due).unwrap());
        prop_assert_eq!(told, noted);
        prop_assert!(settle.poll_timeout().is_none() && settle.poll_changes(due).is_none());
    }
}
