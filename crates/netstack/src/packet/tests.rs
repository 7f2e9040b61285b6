use std::net::SocketAddr;

use super::{build::Unreachable, *};

const CLIENT: &str = "100.72.0.1:40000";
const SERVER: &str = "100.72.1.9:5432";
const CLIENT6: &str = "[fd00::1]:40000";
const SERVER6: &str = "[fd00::9]:5432";

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn held() -> Syn {
    Syn { sequence: 7, window: 64000, max_segment: Some(1460), window_scale: Some(7), selective: true }
}

/// The checksums of a packet hold when their sum with everything they cover is all ones.
fn assert_checksums(bytes: &[u8]) {
    let packet = Packet::parse(bytes).unwrap();
    if packet.source.is_ipv4() {
        assert_eq!(build::fold(build::sum(&bytes[..20])), 0xffff, "IPv4 header");
    }
    let pseudo = match packet.protocol {
        ICMP4 => 0,
        protocol => build::pseudo_sum(packet.source, packet.destination, protocol, packet.payload.len()),
    };
    assert_eq!(build::fold(pseudo + build::sum(packet.payload)), 0xffff, "message");
}

#[test]
fn a_syn_that_is_let_in_says_what_the_held_one_said() {
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let bytes = build::syn(at(client), at(server), &held(), 9000).unwrap();
        assert_checksums(&bytes);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.source, packet.destination), (at(client).ip(), at(server).ip()));
        let segment = Segment::parse(packet.payload).unwrap();
        assert!(segment.is_syn());
        assert_eq!(Syn::read(&segment), Syn { max_segment: Some(9000), ..held() });
    }
}

#[test]
fn options_that_cannot_be_read_end_the_reading() {
    let read = |options: &[u8]| {
        let segment = Segment {
            source_port: 1,
            destination_port: 2,
            sequence: 0,
            acknowledgement: 0,
            flags: SYN,
            window: 0,
            options,
            data: 0,
        };
        let syn = Syn::read(&segment);
        (syn.max_segment, syn.window_scale, syn.selective)
    };
    assert_eq!(read(&[2, 4, 5, 180, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 200]), (Some(1460), Some(14), false));
    assert_eq!(read(&[8, 0, 2, 4, 5, 180]), (None, None, false), "a length of 0 would never end");
    assert_eq!(read(&[8, 99, 4, 2]), (None, None, false), "a length past the end");
    assert_eq!(read(&[0, 4, 2]), (None, None, false), "the list was over");
}

#[test]
fn answers_carry_right_checksums_and_the_sender_as_destination() {
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let request = build::datagram(at(client), at(server), b"question").unwrap();
        assert_checksums(&request);
        let packet = Packet::parse(&request).unwrap();
        let refused = build::refusal(at(client), at(server), &held()).unwrap();
        let unreachable = build::unreachable(&packet, Unreachable::Port).unwrap();
        let echo = build::echo_reply(&packet).unwrap();
        for answer in [refused, unreachable, echo] {
            assert_checksums(&answer);
            let answer = Packet::parse(&answer).unwrap();
            assert_eq!((answer.source, answer.destination), (at(server).ip(), at(client).ip()));
        }
    }
}

#[test]
fn what_is_cut_short_or_a_fragment_is_no_packet() {
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let bytes = build::syn(at(client), at(server), &held(), 1460).unwrap();
        for length in 0..bytes.len() {
            assert!(Packet::parse(&bytes[..length]).is_none(), "{length}");
        }
        let payload = Packet::parse(&bytes).unwrap().payload;
        for length in 0..payload.len() {
            assert!(Segment::parse(&payload[..length]).is_none(), "{length}");
        }
    }
    let mut bytes = build::syn(at(CLIENT), at(SERVER), &held(), 1460).unwrap();
    bytes[6] = 0x20;
    assert!(Packet::parse(&bytes).is_none(), "more fragments");
}
