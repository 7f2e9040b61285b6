//! What a user's virtual network should look like ([`InterfaceConfig`]), and what it came to look like
//! ([`Configured`]). Values only.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::dns::DnsState;

/// Queues of one device: one per thread of the stack, and there are no more than cores that help.
pub const MAX_QUEUES: u8 = 16;
/// Zones of one device. A message with this many of the longest names fits the protocol's limit.
pub const MAX_ZONES: usize = 512;
/// The smallest MTU that IPv6 allows, and the largest an IP packet can have.
pub const MTU: std::ops::RangeInclusive<u32> = 1280..=65535;
/// The shortest and longest prefix of a virtual IPv4 subnet.
pub const SUBNET_PREFIX: std::ops::RangeInclusive<u8> = 8..=29;
/// The shortest and longest prefix of a virtual IPv6 network: the interface part holds the IPv4 host bits.
pub const IPV6_PREFIX: std::ops::RangeInclusive<u8> = 48..=96;
/// Users side by side in one subnet of at least a /20. In smaller subnets there is room for one.
pub const MAX_SLOTS: u8 = 127;

/// What a user's virtual network should look like. Handed to [`crate::netd::Client::configure`] as often as wished: what
/// is so already stays untouched, open connections included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceConfig {
    /// The virtual subnet, inside RFC 1918 or 100.64.0.0/10. Only this much is routed.
    pub subnet: Ipv4Net,
    /// An IPv6 ULA network beside it; its interface part repeats the IPv4 host bits. Left out where the machine has
    /// IPv6 off; [`Configured`] says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Net>,
    /// The names that are asked at the resolver address, each with everything below it. At most [`MAX_ZONES`].
    #[serde(default)]
    pub zones: Vec<Zone>,
    /// Names that no zone may cover: the control plane's and the gateways' own.
    #[serde(default)]
    pub kept_out: Vec<Zone>,
    /// Queues of the device, 1 to [`MAX_QUEUES`]. Another number makes a new device.
    pub queues: u8,
    /// Within [`MTU`].
    pub mtu: u32,
}

/// A DNS name in lower case without its final dot, of at least one label: letters, digits, hyphens and underscores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(String);

/// Why a name is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    #[error("the root zone is everybody's")]
    Root,
    #[error("a name has at most 253 characters")]
    TooLong,
    #[error("each label of a name has 1 to 63 characters")]
    LabelLength,
    #[error("a label holds letters, digits, hyphens and underscores, and has no hyphen at its ends")]
    Character,
    #[error("a name made of digits looks like an address")]
    Numeric,
}

impl Zone {
    /// Reads a name; a final dot and capitals are forgiven.
    ///
    /// # Errors
    /// What makes it no name.
    pub fn new(name: &str) -> Result<Self, ZoneError> {
        if name.len() > 254 {
            return Err(ZoneError::TooLong);
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if name.is_empty() {
            return Err(ZoneError::Root);
        }
        if name.len() > 253 {
            return Err(ZoneError::TooLong);
        }
        name.split('.').try_for_each(check_label)?;
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ZoneError::Numeric);
        }
        Ok(Self(name))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` is this zone or lies below it.
    #[must_use]
    pub fn covers(&self, name: &Self) -> bool {
        name.0.strip_suffix(&self.0).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

fn check_label(label: &str) -> Result<(), ZoneError> {
    if label.is_empty() || label.len() > 63 {
        return Err(ZoneError::LabelLength);
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let good = label.bytes().all(known) && !label.starts_with('-') && !label.ends_with('-');
    if good { Ok(()) } else { Err(ZoneError::Character) }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    fn from_str(name: &str) -> Result<Self, ZoneError> {
        Self::new(name)
    }
}

impl TryFrom<String> for Zone {
    type Error = ZoneError;

    fn try_from(name: String) -> Result<Self, ZoneError> {
        Self::new(&name)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.0
    }
}

/// The two addresses of a user in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair<A> {
    /// The device's own: source of this user's connections into the virtual network.
    pub device: A,
    /// Where the system's resolver asks for the zones.
    pub resolver: A,
}

/// The addresses that slot `slot` has in `subnet`: network + 1 + 2·slot and network + 2 + 2·slot. `None` when the
/// subnet has no such slot: [`MAX_SLOTS`] in a /20 or larger, one in a smaller one.
#[must_use]
pub fn ipv4_addresses(subnet: Ipv4Net, slot: u8) -> Option<Pair<Ipv4Addr>> {
    let slots = if subnet.prefix_len() <= 20 { MAX_SLOTS } else { 1 };
    if slot >= slots || !SUBNET_PREFIX.contains(&subnet.prefix_len()) {
        return None;
    }
    let device = subnet.network().to_bits().checked_add(1 + 2 * u32::from(slot))?;
    Some(Pair { device: device.into(), resolver: device.checked_add(1)?.into() })
}

/// The same slot's addresses in the IPv6 network: the interface part is the IPv4 host part.
#[must_use]
pub fn ipv6_addresses(network: Ipv6Net, slot: u8) -> Pair<Ipv6Addr> {
    let device = network.network().to_bits() | (1 + 2 * u128::from(slot));
    Pair { device: device.into(), resolver: (device + 1).into() }
}

/// The IPv6 twin of a virtual IPv4 address: `network` with the host bits that `address` has in `subnet`.
#[must_use]
pub fn ipv6_twin(network: Ipv6Net, subnet: Ipv4Net, address: Ipv4Addr) -> Ipv6Addr {
    let host = address.to_bits() & subnet.hostmask().to_bits();
    (network.network().to_bits() | u128::from(host)).into()
}

/// The IPv6 half of what was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Part {
    pub network: Ipv6Net,
    #[serde(flatten)]
    pub addresses: Pair<Ipv6Addr>,
}

/// What the virtual network came to look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The device's number: what a `sock_diag` look-up of who sent a packet has to name.
    pub index: u32,
    pub name: String,
    /// Which of the subnet's reserved address pairs this user has.
    pub slot: u8,
    pub subnet: Ipv4Net,
    #[serde(flatten)]
    pub addresses: Pair<Ipv4Addr>,
    /// `None` when it was not asked for, or when this machine has IPv6 off.
    pub ipv6: Option<Ipv6Part>,
    pub mtu: u32,
    /// Whether and how the zones are registered. The network works by address without them.
    pub dns: DnsState,
    /// Whether the kernel's packet filter keeps other users out too (nftables); the owner look-up is needed either way.
    pub second_lock: bool,
}

impl Interface {
    /// The device's own addresses, IPv4 first.
    #[must_use]
    pub fn devices(&self) -> Vec<IpAddr> {
        let ipv6 = self.ipv6.map(|part| IpAddr::V6(part.addresses.device));
        std::iter::once(IpAddr::V4(self.addresses.device)).chain(ipv6).collect()
    }

    /// The addresses that answer names, IPv4 first.
    #[must_use]
    pub fn resolvers(&self) -> Vec<IpAddr> {
        let ipv6 = self.ipv6.map(|part| IpAddr::V6(part.addresses.resolver));
        std::iter::once(IpAddr::V4(self.addresses.resolver)).chain(ipv6).collect()
    }
}

/// The answer to [`crate::netd::Client::configure`].
#[derive(Debug)]
pub struct Configured {
    pub interface: Interface,
    /// The open queues of a device that is new, non-blocking and close-on-exec. Empty when the device is the one that
    /// the asker has already: its queues go on. A device that was replaced ends the old queues with `EBADFD`.
    pub queues: Vec<Queue>,
}

/// One open queue of the device: reads give one packet each, after a 10-byte `virtio_net_hdr`; checksum and TCP
/// segmentation offload are on.
#[cfg(unix)]
pub type Queue = std::os::fd::OwnedFd;
/// One open queue of the device.
#[cfg(windows)]
pub type Queue = std::os::windows::io::OwnedHandle;

#[cfg(test)]
mod tests;
