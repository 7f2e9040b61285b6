//! IP packets as far as the guest needs them.

use std::net::{IpAddr, SocketAddr};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;
pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

/// A packet without options of IPv6.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) protocol: u8,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) payload: &'a [u8],
}

impl<'a> Packet<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => {
                let header = usize::from(bytes.first()? & 15) * 4;
                let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
                let payload = bytes.get(header..)?;
                Some(Self { protocol: *bytes.get(9)?, source: address(12)?, destination: address(16)?, payload })
            }
            6 => {
                let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?));
                let payload = bytes.get(40..)?;
                Some(Self { protocol: *bytes.get(6)?, source: address(8)?, destination: address(24)?, payload })
            }
            _ => None,
        }
    }

    /// The packet behind an empty virtio header.
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut frame = vec![0; 10];
        let length = u16::try_from(self.payload.len()).unwrap_or_default();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = vec![0x45, 0];
                header.extend((length + 20).to_be_bytes());
                header.extend([0, 0, 0x40, 0, 64, self.protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let sum = checksum(&[&header]);
                header.splice(10..12, sum.to_be_bytes());
                frame.extend(header);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([self.protocol, 64]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            _ => {}
        }
        frame.extend(self.payload);
        frame
    }

    /// The way back with another payload, whose checksum at `at` is filled in.
    pub(super) fn reply(&self, mut payload: Vec<u8>, at: usize) -> Vec<u8> {
        let mut pseudo = Vec::new();
        if self.protocol != ICMP {
            for address in [self.destination, self.source] {
                match address {
                    IpAddr::V4(address) => pseudo.extend(address.octets()),
                    IpAddr::V6(address) => pseudo.extend(address.octets()),
                }
            }
            pseudo.extend([0, self.protocol]);
            pseudo.extend(u16::try_from(payload.len()).unwrap_or_default().to_be_bytes());
        }
        payload.splice(at..at + 2, [0, 0]);
        let sum = checksum(&[&pseudo, &payload]);
        payload.splice(at..at + 2, sum.to_be_bytes());
        let (source, destination) = (self.destination, self.source);
        Packet { protocol: self.protocol, source, destination, payload: &payload }.frame()
    }
}

/// What the guest looks at in a TCP segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    pub(super) flags: u8,
    pub(super) data: &'a [u8],
}

impl<'a> Segment<'a> {
    pub(super) fn parse(packet: &Packet<'a>) -> Option<Self> {
        let (from, to) = ports(packet)?;
        let bytes = packet.payload;
        let sequence = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
        let data = bytes.get(usize::from(bytes.get(12)? >> 4) * 4..)?;
        Some(Self { from, to, sequence, flags: *bytes.get(13)?, data })
    }

    /// A segment the other way.
    pub(super) fn answer(&self, packet: &Packet<'_>, sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let consumed = self.data.len() as u32 + u32::from(self.flags & (SYN | FIN) != 0);
        let mut bytes = Vec::new();
        bytes.extend(self.to.port().to_be_bytes());
        bytes.extend(self.from.port().to_be_bytes());
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(self.sequence.wrapping_add(consumed).to_be_bytes());
        bytes.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(data);
        packet.reply(bytes, 16)
    }
}

/// The ends of a TCP segment or UDP datagram.
pub(super) fn ports(packet: &Packet<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let port = |at: usize| Some(u16::from_be_bytes(packet.payload.get(at..at + 2)?.try_into().ok()?));
    Some((SocketAddr::new(packet.source, port(0)?), SocketAddr::new(packet.destination, port(2)?)))
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let [high, low] = [pair.first(), pair.get(1)].map(|byte| u32::from(byte.copied().unwrap_or_default()));
            sum += high << 8 | low;
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or_default()
}
