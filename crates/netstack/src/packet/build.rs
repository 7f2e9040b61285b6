//! Packets that the stack makes by itself: RST, ICMP, datagrams, and the SYN that it lets in.
//!
//! All are small; their checksums are computed here, whatever the device could do.

use std::net::{IpAddr, SocketAddr};

use super::{ACK, ICMP4, ICMP6, Packet, RST, SYN, Segment, Syn, TCP, UDP};

const HOP_LIMIT: u8 = 64;
/// RFC 1812 4.3.2.3: an ICMP error quotes as much as fits into 576 bytes.
const QUOTE_4: usize = 576 - 20 - 8;
/// RFC 4443 2.4 (c): as much as fits into the minimum MTU.
const QUOTE_6: usize = 1280 - 40 - 8;

/// Why a destination is unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    Address,
    Port,
}

/// The RST that answers `segment` as RFC 9293 3.10.7.1 has it.
pub(crate) fn reset(source: SocketAddr, destination: SocketAddr, segment: &Segment<'_>) -> Option<Vec<u8>> {
    if segment.has(ACK) {
        return tcp(destination, source, segment.acknowledgement, 0, RST, 0, &[]);
    }
    let acknowledgement = segment.sequence.wrapping_add(segment.length());
    tcp(destination, source, 0, acknowledgement, RST | ACK, 0, &[])
}

/// The RST that answers a SYN without data.
pub(crate) fn refusal(source: SocketAddr, destination: SocketAddr, syn: &Syn) -> Option<Vec<u8>> {
    tcp(destination, source, 0, syn.sequence.wrapping_add(1), RST | ACK, 0, &[])
}

/// A held SYN once more, with another maximum segment size.
pub(crate) fn syn(source: SocketAddr, destination: SocketAddr, syn: &Syn, max_segment: u16) -> Option<Vec<u8>> {
    let mut options = Vec::with_capacity(12);
    let [m0, m1] = max_segment.to_be_bytes();
    options.extend_from_slice(&[2, 4, m0, m1]);
    if let Some(scale) = syn.window_scale {
        options.extend_from_slice(&[1, 3, 3, scale]);
    }
    if syn.selective {
        options.extend_from_slice(&[1, 1, 4, 2]);
    }
    tcp(source, destination, syn.sequence, 0, SYN, syn.window, &options)
}

fn tcp(
    source: SocketAddr,
    destination: SocketAddr,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    window: u16,
    options: &[u8],
) -> Option<Vec<u8>> {
    let mut segment = Vec::with_capacity(20 + options.len());
    segment.extend_from_slice(&source.port().to_be_bytes());
    segment.extend_from_slice(&destination.port().to_be_bytes());
    segment.extend_from_slice(&sequence.to_be_bytes());
    segment.extend_from_slice(&acknowledgement.to_be_bytes());
    let words = u8::try_from((20 + options.len()) / 4).ok()?;
    segment.extend_from_slice(&[words << 4, flags]);
    segment.extend_from_slice(&window.to_be_bytes());
    segment.extend_from_slice(&[0; 4]);
    segment.extend_from_slice(options);
    transport(source.ip(), destination.ip(), TCP, segment, 16)
}

pub(crate) fn datagram(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(8 + payload.len()).ok()?;
    let mut udp = Vec::with_capacity(usize::from(length));
    udp.extend_from_slice(&source.port().to_be_bytes());
    udp.extend_from_slice(&destination.port().to_be_bytes());
    udp.extend_from_slice(&length.to_be_bytes());
    udp.extend_from_slice(&[0; 2]);
    udp.extend_from_slice(payload);
    transport(source.ip(), destination.ip(), UDP, udp, 6)
}

/// The answer to an echo request, `request` being all of its ICMP message.
pub(crate) fn echo_reply(packet: &Packet<'_>) -> Option<Vec<u8>> {
    let (_, rest) = packet.payload.split_first_chunk::<4>()?;
    let (kind, protocol) = match packet.destination {
        IpAddr::V4(_) => (0, ICMP4),
        IpAddr::V6(_) => (129, ICMP6),
    };
    let mut reply = Vec::with_capacity(packet.payload.len());
    reply.extend_from_slice(&[kind, 0, 0, 0]);
    reply.extend_from_slice(rest);
    transport(packet.destination, packet.source, protocol, reply, 2)
}

/// Makes a TCP packet over IPv4, with a partial checksum, as long as `packet` is, with what its last segment says.
pub(crate) fn lengthen(packet: &mut [u8], acknowledgement: u32, flags: u8, window: u16) {
    let Some(&[first, ..]) = packet.first_chunk::<20>() else { return };
    let (length, at) = (packet.len(), usize::from(first & 15) * 4);
    let Some((ip, tcp)) = packet.split_at_mut_checked(at) else { return };
    let [_, _, l0, l1, _, _, _, _, _, _, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3, ..] = ip else { return };
    let (source, destination) = ([*s0, *s1, *s2, *s3], [*d0, *d1, *d2, *d3]);
    // What does not fit is written as 0, which stands for all that there is.
    [*l0, *l1] = u16::try_from(length).unwrap_or(0).to_be_bytes();
    [*c0, *c1] = [0, 0];
    let sum = !fold(sum(ip));
    if let Some(field) = ip.get_mut(10..12) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    let [_, _, _, _, _, _, _, _, a0, a1, a2, a3, _, f, w0, w1, c0, c1, ..] = tcp else { return };
    [*a0, *a1, *a2, *a3] = acknowledgement.to_be_bytes();
    *f = flags;
    [*w0, *w1] = window.to_be_bytes();
    let pseudo = pseudo_sum(source.into(), destination.into(), TCP, length - at);
    [*c0, *c1] = fold(pseudo).to_be_bytes();
}

/// Tells the sender of `packet` that it went nowhere.
pub(crate) fn unreachable(packet: &Packet<'_>, why: Unreachable) -> Option<Vec<u8>> {
    let (kind, code, protocol, quote) = match (packet.destination, why) {
        (IpAddr::V4(_), Unreachable::Address) => (3, 1, ICMP4, QUOTE_4),
        (IpAddr::V4(_), Unreachable::Port) => (3, 3, ICMP4, QUOTE_4),
        (IpAddr::V6(_), Unreachable::Address) => (1, 3, ICMP6, QUOTE_6),
        (IpAddr::V6(_), Unreachable::Port) => (1, 4, ICMP6, QUOTE_6),
    };
    let quoted = packet.bytes.get(..quote).unwrap_or(packet.bytes);
    let mut message = Vec::with_capacity(8 + quoted.len());
    message.extend_from_slice(&[kind, code, 0, 0, 0, 0, 0, 0]);
    message.extend_from_slice(quoted);
    transport(packet.destination, packet.source, protocol, message, 2)
}

/// Puts an IP header before a message whose checksum belongs `at` that place and is 0 still.
fn transport(source: IpAddr, destination: IpAddr, protocol: u8, mut message: Vec<u8>, at: usize) -> Option<Vec<u8>> {
    let pseudo = if protocol == ICMP4 { 0 } else { pseudo_sum(source, destination, protocol, message.len()) };
    let sum = match !fold(pseudo + sum(&message)) {
        // RFC 768: 0 would mean that there is none.
        0 if protocol == UDP => 0xffff,
        sum => sum,
    };
    message.get_mut(at..at + 2)?.copy_from_slice(&sum.to_be_bytes());
    let mut packet = Vec::with_capacity(40 + message.len());
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(20 + message.len()).ok()?.to_be_bytes();
            // No identification is needed: not to be fragmented (RFC 6864).
            packet.extend_from_slice(&[0x45, 0, length[0], length[1], 0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0]);
            packet.extend_from_slice(&source.octets());
            packet.extend_from_slice(&destination.octets());
            let header = !fold(self::sum(&packet));
            packet.get_mut(10..12)?.copy_from_slice(&header.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(message.len()).ok()?.to_be_bytes();
            packet.extend_from_slice(&[0x60, 0, 0, 0, length[0], length[1], protocol, HOP_LIMIT]);
            packet.extend_from_slice(&source.octets());
            packet.extend_from_slice(&destination.octets());
        }
        _ => return None,
    }
    packet.extend_from_slice(&message);
    Some(packet)
}

/// The sum of the header that checksums of TCP, UDP and ICMPv6 count besides their own bytes.
pub(crate) fn pseudo_sum(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u64 {
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => sum(&source.octets()) + sum(&destination.octets()),
        (source, destination) => {
            sum(&super::address_bits(source).to_be_bytes()) + sum(&super::address_bits(destination).to_be_bytes())
        }
    };
    addresses + u64::from(protocol) + length as u64
}

/// The sum of big-endian 16-bit words, the last one padded, not folded.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, last) = bytes.as_chunks::<2>();
    let words: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    words + last.first().map_or(0, |last| u64::from(*last) << 8)
}

/// A sum with its carries added, in 16 bits.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}
