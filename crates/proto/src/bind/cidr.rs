//! IPv4 networks.

use std::{fmt, net::Ipv4Addr, ops::RangeInclusive, str::FromStr};

/// An IPv4 network in CIDR form, for example `127.0.0.0/24`. No host bit is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: u32,
    prefix: u8,
}

/// A text that is no IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    #[error("must be an IPv4 network in CIDR form, for example 100.72.0.0/16")]
    Form,
    #[error("must be the address of a network: with this prefix it is {0}")]
    HostBits(Cidr),
}

impl Cidr {
    pub(super) const fn literal(network: Ipv4Addr, prefix: u8) -> Self {
        Self { network: network.to_bits(), prefix }
    }

    #[must_use]
    pub const fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network)
    }

    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// What of an address tells the hosts of this network apart.
    #[must_use]
    pub fn host_bits(self, ip: Ipv4Addr) -> u32 {
        ip.to_bits() & !self.mask()
    }

    /// Addresses at the beginning of a virtual subnet, the network address counted in, that no resource gets: those of
    /// the devices and resolvers of the machine's users (two for each user).
    #[must_use]
    pub const fn reserved(self) -> u32 {
        if self.prefix <= 20 { 256 } else { 3 }
    }

    /// The addresses of a virtual subnet that the control plane gives to resources: the lower half, but those that are
    /// reserved.
    #[must_use]
    pub fn assigned_hosts(self) -> RangeInclusive<u32> {
        self.network + self.reserved()..=self.network | self.mask_below()
    }

    /// The addresses of a virtual subnet that a daemon gives to the hosts under wildcard aliases: the upper half, but the
    /// broadcast address.
    #[must_use]
    pub fn dynamic_hosts(self) -> RangeInclusive<u32> {
        (self.network | self.mask_below()) + 1..=*self.hosts().end()
    }

    /// The host bits but the highest.
    fn mask_below(self) -> u32 {
        !self.mask() >> 1
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or_default()
    }

    #[must_use]
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        ip.to_bits() & self.mask() == self.network
    }

    /// Whether `other` lies wholly within.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.network())
    }

    /// The addresses that hosts may have: all but the network's own and the broadcast address, where there are these.
    pub(super) fn hosts(self) -> RangeInclusive<u32> {
        let last = self.network | !self.mask();
        if self.prefix >= 31 { self.network..=last } else { self.network + 1..=last - 1 }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (ip, prefix) = text.split_once('/').ok_or(CidrError::Form)?;
        let ip: Ipv4Addr = ip.parse().map_err(|_| CidrError::Form)?;
        let digits = !prefix.is_empty() && prefix.len() <= 2 && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|prefix| digits && *prefix <= 32).ok_or(CidrError::Form)?;
        let asked = Self { network: ip.to_bits(), prefix };
        let network = Self { network: asked.network & asked.mask(), prefix };
        if network == asked { Ok(network) } else { Err(CidrError::HostBits(network)) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}
