//! Which subnet a virtual network takes on this machine. Pure and deterministic.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::{Conflict, Landscape};

/// Where a virtual network may lie at all.
const ALLOWED: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
];
/// In which order /16 networks are tried: first two octets, from and to. Parts of 100.64.0.0/10 that nobody is known to
/// use, then parts of 10.0.0.0/8 far from what home routers, VPN servers and clusters take (some products keep the whole
/// of 100.64.0.0/10 to themselves), then the crowded parts. 192.168.0.0/16 is people's homes and is never moved to.
const SCAN: [(u8, u8, u8); 11] = [
    (100, 72, 79),
    (100, 84, 87),
    (100, 104, 111),
    (100, 116, 123),
    (10, 201, 239),
    (10, 160, 199),
    (10, 104, 151),
    (172, 28, 31),
    (100, 64, 71),
    (10, 2, 103),
    (172, 20, 27),
];

/// The subnet to use, and why it is not the wished one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub subnet: Ipv4Net,
    /// What collides with the wish. Empty when the wish could be met, or could again be met by now.
    pub conflicts: Vec<Conflict>,
}

/// There is no room for a network of this size beside those of this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no network like {wanted} is free on this machine: {}", sentence(.conflicts))]
pub struct NoFreeSubnet {
    pub wanted: Ipv4Net,
    pub conflicts: Vec<Conflict>,
}

fn sentence(conflicts: &[Conflict]) -> String {
    let all: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
    all.join(", ")
}

/// Chooses the subnet for a virtual network that wishes to be `wanted`.
///
/// A network in use (`current`, chosen earlier for the same wish) stays for as long as nothing collides with it: moving
/// twice costs more than being elsewhere. Otherwise the wish, when it is free. Otherwise the first free network of the
/// same size in a fixed order, with as many middle bits of the wish as it can keep: 100.72.5.0/24 becomes 100.73.5.0/24.
/// Host parts stay what they are: see [`rebase`].
///
/// # Errors
/// Nothing of that size is free.
pub fn choose_subnet(
    landscape: &Landscape,
    wanted: Ipv4Net,
    current: Option<Ipv4Net>,
    ours: &[u32],
) -> Result<Choice, NoFreeSubnet> {
    let wanted = wanted.trunc();
    let collides = |subnet: Ipv4Net| !landscape.conflicts(IpNet::V4(subnet), ours).is_empty();
    let conflicts = landscape.conflicts(IpNet::V4(wanted), ours);
    let current = current.map(|current| current.trunc()).filter(|current| current.prefix_len() == wanted.prefix_len());
    if let Some(subnet) = current.filter(|current| !collides(*current)) {
        return Ok(Choice { subnet, conflicts });
    }
    if conflicts.is_empty() {
        return Ok(Choice { subnet: wanted, conflicts });
    }
    match candidates(wanted).find(|subnet| !collides(*subnet)) {
        Some(subnet) => Ok(Choice { subnet, conflicts }),
        None => Err(NoFreeSubnet { wanted, conflicts }),
    }
}

/// Networks of the size of `wanted` in the order in which they are tried, each once.
fn candidates(wanted: Ipv4Net) -> impl Iterator<Item = Ipv4Net> {
    let middle = wanted.network().to_bits() & 0xffff;
    let sixteens = SCAN.into_iter().flat_map(|(first, from, to)| (from..=to).map(move |second| (first, second)));
    let mut seen = BTreeSet::new();
    sixteens
        .filter_map(move |(first, second)| {
            let bits = u32::from_be_bytes([first, second, 0, 0]) | middle;
            Ipv4Net::new(bits.into(), wanted.prefix_len()).ok().map(|network| network.trunc())
        })
        .filter(|network| ALLOWED.iter().any(|allowed| allowed.contains(network)))
        .filter(move |network| seen.insert(*network))
}

/// The address in `to` with the host part that `address` has in `from`; `None` when it does not lie there, or when the
/// two differ in size.
#[must_use]
pub fn rebase(address: Ipv4Addr, from: Ipv4Net, to: Ipv4Net) -> Option<Ipv4Addr> {
    if !from.contains(&address) || from.prefix_len() != to.prefix_len() {
        return None;
    }
    let host = address.to_bits() & from.hostmask().to_bits();
    Some((to.network().to_bits() | host).into())
}
