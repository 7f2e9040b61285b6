//! Sharing packets out to stacks, where the device has one queue only.

use crate::packet::{Packet, TCP, UDP, address_bits};

/// The shard of `shards` that a packet belongs to: the same for all packets of a flow, both ways.
pub fn shard_of(packet: &[u8], shards: usize) -> usize {
    let hash = flow_hash(packet);
    usize::try_from(hash % (shards.max(1) as u64)).unwrap_or(0)
}

/// A hash of a packet's addresses and ports that does not depend on the direction. Packets without ports are told apart
/// by their addresses only; what is no IP packet gives 0.
pub fn flow_hash(packet: &[u8]) -> u64 {
    let Some(packet) = Packet::parse(packet) else { return 0 };
    let (source, destination) = match (packet.protocol, packet.payload) {
        (TCP | UDP, [s0, s1, d0, d1, ..]) => (u16::from_be_bytes([*s0, *s1]), u16::from_be_bytes([*d0, *d1])),
        _ => (0, 0),
    };
    // A sum does not know which came first. The mixing after it spreads what the sum left in the high bits.
    mix(end(address_bits(packet.source), source).wrapping_add(end(address_bits(packet.destination), destination)), 0)
}

fn end(address: u128, port: u16) -> u64 {
    let (high, low) = halves(address);
    mix(mix(high, low), u64::from(port))
}

/// The high and the low half.
#[inline]
pub(crate) fn halves(bits: u128) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bits.to_be_bytes();
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes([i, j, k, l, m, n, o, p]))
}

/// Two words into one, each bit of which depends on all: the halves of a wide product (as wyhash does).
#[inline]
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let (high, low) = halves(u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xe703_7ed1_a0b4_28db));
    high ^ low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build;

    #[test]
    fn both_directions_of_a_flow_meet_in_one_shard_and_flows_spread() {
        let mut shares = [0; 4];
        for port in 0..4000u16 {
            let client = format!("100.72.0.1:{}", 20_000 + port).parse().unwrap();
            let server = "100.72.1.9:443".parse().unwrap();
            let there = build::datagram(client, server, b"x").unwrap();
            let back = build::datagram(server, client, b"yy").unwrap();
            assert_eq!(flow_hash(&there), flow_hash(&back));
            shares[shard_of(&there, 4)] += 1;
        }
        assert!(shares.iter().all(|share| (800..1200).contains(share)), "{shares:?}");
    }

    #[test]
    fn what_is_no_packet_belongs_to_the_first_shard() {
        assert_eq!(shard_of(b"", 4), 0);
        assert_eq!(shard_of(&[0x45; 7], 4), 0);
        assert_eq!(shard_of(&[0x45; 7], 0), 0, "no shards at all");
    }
}
