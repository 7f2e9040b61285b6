//! IPv6 addresses in the virtual network: a unique local network (RFC 4193) for each organisation.

use std::net::{Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest::{SHA256, digest};

use super::Cidr;
use crate::id::OrgId;

/// The length of [`ipv6_network`].
pub const IPV6_PREFIX: u8 = 48;

/// The organisation's network: `fd`, then 40 bits that follow from its identifier, so that two organisations hardly ever
/// have the same one.
#[must_use]
pub fn ipv6_network(org: OrgId) -> Ipv6Addr {
    let hash = digest(&SHA256, format!("postern ula {org}").as_bytes());
    let mut octets = [0; 16];
    for (octet, byte) in octets.iter_mut().zip([0xfd].iter().chain(hash.as_ref())).take(6) {
        *octet = *byte;
    }
    octets.into()
}

/// The IPv6 address beside a virtual IPv4 address: the organisation's network, then the host bits of the IPv4 address. It
/// stays when the virtual subnet moves.
#[must_use]
pub fn ipv6_address(org: OrgId, subnet: Cidr, ip: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(ipv6_network(org).to_bits() | u128::from(subnet.host_bits(ip)))
}
