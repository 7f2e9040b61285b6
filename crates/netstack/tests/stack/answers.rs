//! What is answered where no stream is.

use std::net::{IpAddr, SocketAddr};

use postern_netstack::{Answers, Event, Protocol, StackConfig};
use smoltcp::{
    phy::ChecksumCapabilities,
    socket::tcp,
    wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpProtocol, UdpPacket},
};

use crate::harness::{
    network::{CLIENT, CLIENT6, Network, RESOLVER, SERVER, SERVER6, at, client},
    wire::{ACK, Hand, RST, addresses, around, see, udp},
};

fn network() -> Network {
    Network::new(StackConfig::default())
}

fn ping(destination: &str) -> Vec<u8> {
    let destination: IpAddr = destination.parse().unwrap();
    let mut bytes = vec![0; 8 + 56];
    let caps = ChecksumCapabilities::default();
    match destination {
        IpAddr::V4(_) => {
            Icmpv4Repr::EchoRequest { ident: 77, seq_no: 3, data: &[9; 56] }
                .emit(&mut Icmpv4Packet::new_unchecked(&mut bytes), &caps);
            around(CLIENT.parse().unwrap(), destination, IpProtocol::Icmp, &bytes)
        }
        IpAddr::V6(to) => {
            Icmpv6Repr::EchoRequest { ident: 77, seq_no: 3, data: &[9; 56] }.emit(
                &CLIENT6.parse().unwrap(),
                &to,
                &mut Icmpv6Packet::new_unchecked(&mut bytes),
                &caps,
            );
            around(CLIENT6.parse().unwrap(), destination, IpProtocol::Icmpv6, &bytes)
        }
    }
}

/// Type and code of an ICMP answer, after its checksum was checked.
fn icmp(packet: &[u8]) -> (u8, u8) {
    let (source, destination, start) = addresses(packet);
    let message = &packet[start..];
    match (source, destination) {
        (IpAddr::V4(_), _) => assert!(Icmpv4Packet::new_checked(message).unwrap().verify_checksum()),
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            assert!(Icmpv6Packet::new_checked(message).unwrap().verify_checksum(&source, &destination));
        }
        other => panic!("{other:?}"),
    }
    (message[0], message[1])
}

fn one(network: &mut Network, packet: &[u8]) -> Option<Vec<u8>> {
    network.inject(packet);
    let mut answers = network.transmit();
    assert!(answers.len() <= 1);
    answers.pop()
}

#[test]
fn an_unknown_port_and_an_unknown_address_are_refused_at_once() {
    for destination in ["100.72.1.9:5433", "100.72.200.1:80", "[fd00:72::1:9]:1", "[fd00:72::ffff]:80", "100.72.0.2:54"]
    {
        let mut network = network();
        let handle = network.kernel.connect(40_000, at(destination));
        assert!(network.settle().is_empty(), "no flow");
        assert_eq!(network.kernel.socket(handle).state(), tcp::State::Closed, "{destination}");
    }
}

#[test]
fn port_0_is_refused_even_when_the_table_has_it() {
    let mut network = network();
    let mut table = network.stack.addresses().clone();
    table.addresses.values_mut().for_each(|address| address.ports = vec![0..=65_535]);
    network.stack.set_addresses(table);
    let answer = one(&mut network, &Hand::syn(client(40_000), at("100.72.1.9:0"), 1).packet()).unwrap();
    assert_eq!(see(&answer).unwrap().flags, RST | ACK);
    assert!(network.events().is_empty());
}

#[test]
fn a_segment_without_a_flow_is_reset_and_a_reset_never() {
    let mut network = network();
    let mut hand = Hand {
        acknowledgement: Some(5),
        control: smoltcp::wire::TcpControl::None,
        ..Hand::syn(client(1), at(SERVER), 9)
    };
    let answer = see(&one(&mut network, &hand.packet()).unwrap()).unwrap();
    assert_eq!((answer.flags, answer.sequence), (RST, 5));
    hand.acknowledgement = None;
    hand.control = smoltcp::wire::TcpControl::Fin;
    let answer = see(&one(&mut network, &hand.packet()).unwrap()).unwrap();
    assert_eq!((answer.flags, answer.acknowledgement), (RST | ACK, 10));
    hand.control = smoltcp::wire::TcpControl::Rst;
    assert_eq!(one(&mut network, &hand.packet()), None);
}

#[test]
fn nothing_outside_our_networks_is_answered_and_nobody_but_the_device() {
    let mut network = network();
    let foreign = client(40_000);
    let stranger = at("100.72.0.77:40000");
    for packet in [
        Hand::syn(foreign, at("8.8.8.8:443"), 1).packet(),
        udp(foreign, at("8.8.8.8:53"), b"x"),
        udp(foreign, at("224.0.0.251:5353"), b"x"),
        ping("8.8.8.8"),
        ping("ff02::1"),
        Hand::syn(stranger, at(SERVER), 1).packet(),
        Hand::syn(stranger, at("100.72.1.9:1"), 1).packet(),
        udp(stranger, at(RESOLVER), b"x"),
        udp(stranger, at(SERVER), b"x"),
    ] {
        assert_eq!(one(&mut network, &packet), None);
        assert!(network.events().is_empty());
    }
    assert_eq!(network.stack.stats().dropped_packets, 9);
}

#[test]
fn echo_is_answered_for_what_can_be_reached() {
    let mut network = network();
    for (destination, expected) in [
        ("100.72.1.9", (0, 0)),
        ("100.72.0.2", (0, 0)),
        ("fd00:72::1:9", (129, 0)),
        ("100.72.1.10", (3, 1)),
        ("100.72.99.99", (3, 1)),
        ("fd00:72::ffff", (1, 3)),
    ] {
        let answer = one(&mut network, &ping(destination)).unwrap();
        assert_eq!(icmp(&answer), expected, "{destination}");
        if expected == (0, 0) || expected == (129, 0) {
            let (_, _, start) = addresses(&answer);
            assert_eq!(answer[start + 4..], [&[0, 77, 0, 3][..], &[9; 56]].concat(), "as it was sent");
        }
    }
}

#[test]
fn datagrams_reach_the_resolver_and_nothing_else() {
    let mut network = network();
    network.inject(&udp(client(5353), at(RESOLVER), b"query"));
    assert_eq!(
        network.events(),
        [Event::Datagram { source: client(5353), destination: at(RESOLVER), payload: b"query".to_vec() }]
    );
    network.stack.send_datagram(at(RESOLVER), client(5353), b"answer");
    let answer = network.transmit().pop().unwrap();
    let (source, destination, start) = addresses(&answer);
    let packet = UdpPacket::new_checked(&answer[start..]).unwrap();
    assert!(packet.verify_checksum(&source.into(), &destination.into()));
    assert_eq!((packet.src_port(), packet.dst_port(), packet.payload()), (53, 5353, &b"answer"[..]));

    let port = udp(client(5353), at(SERVER), b"x");
    let answer = one(&mut network, &port).unwrap();
    assert_eq!(icmp(&answer), (3, 3));
    assert_eq!(answer[28..], port, "quoted");
    assert_eq!(icmp(&one(&mut network, &udp(client(1), at("100.72.99.9:1"), b"x")).unwrap()), (3, 1));
    let six = SocketAddr::new(CLIENT6.parse().unwrap(), 9);
    assert_eq!(icmp(&one(&mut network, &udp(six, at(SERVER6), b"x")).unwrap()), (1, 4));

    network.stack.reply_unreachable(client(5353), at(RESOLVER));
    assert_eq!(icmp(&network.transmit().pop().unwrap()), (3, 3));
}

#[test]
fn connections_to_the_resolver_are_flows_like_any_other() {
    let mut network = network();
    let (handle, flow) = network.connect(40_000, at(RESOLVER));
    network
        .stack
        .send(flow, |room| {
            room[..2].copy_from_slice(b"ok");
            2
        })
        .unwrap();
    network.settle();
    assert_eq!(network.kernel.read(handle), b"ok");
}

#[test]
fn when_asked_for_nothing_is_answered_before_the_owner_said_so() {
    let mut network = Network::new(StackConfig { answers: Answers::Asked, ..StackConfig::default() });
    let packets = [
        (Protocol::Tcp, Hand::syn(client(40_000), at("100.72.1.9:1"), 1).packet()),
        (Protocol::Udp, udp(client(40_000), at(SERVER), b"x")),
        (Protocol::Echo, ping("100.72.1.9")),
    ];
    for (expected, packet) in &packets {
        for release in [true, false] {
            assert_eq!(one(&mut network, packet), None);
            let events = network.events();
            let [Event::Answer { answer, protocol, source, .. }] = events[..] else { panic!("{events:?}") };
            assert_eq!((protocol, source.ip()), (*expected, client(0).ip()));
            if release {
                network.stack.release(answer);
            } else {
                network.stack.discard(answer);
            }
            network.stack.release(answer);
            assert_eq!(network.transmit().len(), usize::from(release), "once, if at all");
        }
    }
    // A connection to what exists is the owner's to decide as ever.
    network.inject(&Hand::syn(client(40_000), at(SERVER), 1).packet());
    assert!(matches!(network.events()[..], [Event::Syn { .. }]));
}
