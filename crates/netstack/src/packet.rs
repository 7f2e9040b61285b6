//! Packets as they are read: checked views, and nothing that trusts a length of the sender.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) mod build;

pub(crate) const ICMP4: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP6: u8 = 58;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// An IP packet, cut to the length that its header says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    /// What follows the IP header.
    pub(crate) payload: &'a [u8],
}

/// The header of a TCP segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: &'a [u8],
    /// Length of the data.
    pub(crate) data: usize,
}

impl<'a> Packet<'a> {
    /// `None` for what is no IPv4 or IPv6 packet, a fragment, or cut short.
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => None,
        }
    }

    #[inline]
    fn parse_v4(bytes: &'a [u8]) -> Option<Self> {
        let &[first, _, l0, l1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            bytes.first_chunk::<20>()?;
        let header = usize::from(first & 15) * 4;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        // More fragments, or not the first one.
        let fragment = u16::from_be_bytes([f0, f1]) & 0x3fff != 0;
        if fragment || header < 20 {
            return None;
        }
        let bytes = bytes.get(..length)?;
        Some(Self {
            bytes,
            source: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
            destination: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
            protocol,
            payload: bytes.get(header..)?,
        })
    }

    #[inline]
    fn parse_v6(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<40>()?;
        let &[_, _, _, _, l0, l1, protocol, _, ref addresses @ ..] = header;
        let (source, destination) = addresses.split_first_chunk::<16>()?;
        let payload = rest.get(..usize::from(u16::from_be_bytes([l0, l1])))?;
        Some(Self {
            bytes: bytes.get(..40 + payload.len())?,
            source: IpAddr::V6(Ipv6Addr::from(*source)),
            destination: IpAddr::V6(Ipv6Addr::from(*destination.first_chunk::<16>()?)),
            protocol,
            payload,
        })
    }
}

impl<'a> Segment<'a> {
    #[inline]
    pub(crate) fn parse(payload: &'a [u8]) -> Option<Self> {
        let &[s0, s1, d0, d1, n0, n1, n2, n3, a0, a1, a2, a3, offset, flags, w0, w1, ..] =
            payload.first_chunk::<20>()?;
        let header = usize::from(offset >> 4) * 4;
        Some(Self {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            sequence: u32::from_be_bytes([n0, n1, n2, n3]),
            acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
            flags,
            window: u16::from_be_bytes([w0, w1]),
            options: payload.get(20..header)?,
            data: payload.len().checked_sub(header)?,
        })
    }

    /// Whether it asks for a new connection.
    #[inline]
    pub(crate) fn is_syn(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }

    #[inline]
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Length in sequence numbers.
    pub(crate) fn length(&self) -> u32 {
        let flags = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        u32::try_from(self.data).unwrap_or(u32::MAX).wrapping_add(flags)
    }
}

/// What of a SYN is needed to let it in later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syn {
    pub(crate) sequence: u32,
    pub(crate) window: u16,
    pub(crate) max_segment: Option<u16>,
    pub(crate) window_scale: Option<u8>,
    pub(crate) selective: bool,
}

impl Syn {
    /// Options that cannot be read are taken as absent, like those after them.
    pub(crate) fn read(segment: &Segment<'_>) -> Self {
        let mut syn = Self {
            sequence: segment.sequence,
            window: segment.window,
            max_segment: None,
            window_scale: None,
            selective: false,
        };
        let mut rest = segment.options;
        loop {
            rest = match rest {
                [1, rest @ ..] => rest,
                [2, 4, m0, m1, rest @ ..] => {
                    syn.max_segment = Some(u16::from_be_bytes([*m0, *m1]));
                    rest
                }
                [3, 3, scale, rest @ ..] => {
                    // RFC 7323 2.3: larger ones count as 14.
                    syn.window_scale = Some((*scale).min(14));
                    rest
                }
                [4, 2, rest @ ..] => {
                    syn.selective = true;
                    rest
                }
                [kind, length, ..] if *kind > 1 && *length >= 2 => match rest.get(usize::from(*length)..) {
                    Some(rest) => rest,
                    None => break,
                },
                _ => break,
            };
        }
        syn
    }
}

/// An IP address as 128 bits, IPv4 ones mapped.
#[inline]
pub(crate) fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => 0xffff_0000_0000 | u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Whether an address may be the end of a conversation.
pub(crate) fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !(address.is_unspecified() || address.is_multicast() || address.is_broadcast()),
        IpAddr::V6(address) => {
            !(address.is_unspecified() || address.is_multicast() || address.to_ipv4_mapped().is_some())
        }
    }
}

#[cfg(test)]
mod tests;
