//! The networks of this machine as values, and what of them overlaps a wished network. Pure.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::{Conflict, ConflictKind, product::Product};

/// Routes with a shorter prefix are everybody's default ("everything goes through me", also in halves or in pieces as
/// VPNs do it): ours, which are longer, take precedence over them, and that takes nothing away from anybody.
const DEFAULT_ROUTE_PREFIX: u8 = 7;
/// Where providers put their customers when public addresses run out (RFC 6598).
const CARRIER_NAT: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);
/// How the name of each device of ours begins.
pub const DEVICE_PREFIX: &str = "postern";

/// An interface and its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInterface {
    pub index: u32,
    pub name: String,
    /// Each with the prefix of its network: `192.168.1.7/24`.
    pub addresses: Vec<IpNet>,
}

/// A route of any table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    pub destination: IpNet,
    pub gateway: Option<IpAddr>,
    /// The number of the interface; `None` for routes that refuse (`unreachable`, `blackhole`).
    pub interface: Option<u32>,
}

/// Which networks this machine knows. See [`Landscape::read`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landscape {
    pub interfaces: Vec<HostInterface>,
    pub routes: Vec<HostRoute>,
    /// Name servers that the system asks, loopback ones left out.
    pub resolvers: Vec<IpAddr>,
}

impl Landscape {
    /// The numbers of Postern's own devices, of every user of this machine.
    #[must_use]
    pub fn ours(&self) -> Vec<u32> {
        let ours = self.interfaces.iter().filter(|interface| interface.name.starts_with(DEVICE_PREFIX));
        ours.map(|interface| interface.index).collect()
    }

    /// Everything that overlaps `wanted`, leaving out the interfaces with a number in `ours`. Each interface is named
    /// once per network, the widest first.
    #[must_use]
    pub fn conflicts(&self, wanted: IpNet, ours: &[u32]) -> Vec<Conflict> {
        let found = self.claims(ours).into_iter().filter(|claim| overlap(claim.network, wanted));
        let mut found: Vec<Conflict> = found.collect();
        found.sort_by_key(|conflict| (conflict.network.prefix_len(), conflict.kind, conflict.interface.clone()));
        let mut kept: Vec<Conflict> = Vec::new();
        for conflict in found {
            let known =
                |other: &Conflict| other.interface == conflict.interface && other.network.contains(&conflict.network);
            if !kept.iter().any(known) {
                kept.push(conflict);
            }
        }
        kept
    }

    /// Every network that somebody has, by whatever title.
    fn claims(&self, ours: &[u32]) -> Vec<Conflict> {
        let own_resolvers = self.own_resolvers(ours);
        let others = || self.interfaces.iter().filter(|interface| !ours.contains(&interface.index));
        let mut claims = Vec::new();
        for interface in others() {
            let addresses = interface.addresses.iter().filter(|address| address.prefix_len() > 0);
            claims.extend(addresses.map(|address| interface.claim(ConflictKind::Address, address.trunc())));
            let product = Product::of_interface(&interface.name);
            let reserved = product.into_iter().flat_map(Product::reserves);
            claims.extend(reserved.map(|network| interface.claim(ConflictKind::Reserved, network)));
        }
        for route in self.routes.iter().filter(|route| !route.interface.is_some_and(|index| ours.contains(&index))) {
            let holder = route.interface.and_then(|index| others().find(|interface| interface.index == index));
            let claim = |kind, network| match holder {
                Some(interface) => interface.claim(kind, network),
                None => claim(kind, network, ""),
            };
            if route.destination.prefix_len() > DEFAULT_ROUTE_PREFIX {
                claims.push(claim(ConflictKind::Route, route.destination));
            }
            claims.extend(route.gateway.map(|gateway| claim(ConflictKind::Gateway, IpNet::from(gateway))));
        }
        let resolvers = self.resolvers.iter().filter(|resolver| !own_resolvers.contains(resolver));
        claims.extend(resolvers.map(|resolver| claim(ConflictKind::Resolver, IpNet::from(*resolver), "")));
        claims
    }

    /// The resolver addresses of our own devices: each follows the device's own.
    fn own_resolvers(&self, ours: &[u32]) -> BTreeSet<IpAddr> {
        let own = self.interfaces.iter().filter(|interface| ours.contains(&interface.index));
        own.flat_map(|interface| &interface.addresses).filter_map(|address| next(address.addr())).collect()
    }
}

impl HostInterface {
    fn claim(&self, kind: ConflictKind, network: IpNet) -> Conflict {
        claim(kind, network, &self.name)
    }
}

fn claim(kind: ConflictKind, network: IpNet, interface: &str) -> Conflict {
    let product = Product::of_interface(interface).or_else(|| Product::of_network(network));
    let carrier = || (kind == ConflictKind::Address && is_carrier(network)).then_some("carrier NAT");
    let product = product.map(Product::name).or_else(carrier).map(str::to_owned);
    Conflict { network: network.trunc(), kind, interface: interface.to_owned(), product }
}

fn is_carrier(network: IpNet) -> bool {
    matches!(network, IpNet::V4(network) if CARRIER_NAT.contains(&network))
}

fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

impl fmt::Display for Conflict {
    /// What stands there, to be read after "100.72.0.0/16 cannot be used here:".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = self.network;
        match self.kind {
            ConflictKind::Address => write!(f, "{network} is the network")?,
            ConflictKind::Route => write!(f, "{network} is routed")?,
            ConflictKind::Gateway => write!(f, "{} is a router", network.addr())?,
            ConflictKind::Resolver => write!(f, "{} is a name server", network.addr())?,
            ConflictKind::Reserved => write!(f, "{network} is reserved")?,
        }
        let (preposition, interface) = (self.kind.preposition(), self.interface.as_str());
        match (interface, self.product.as_deref()) {
            ("", None) => Ok(()),
            ("", Some(product)) => write!(f, " ({product})"),
            (interface, None) => write!(f, " {preposition} {interface}"),
            (interface, Some(product)) => write!(f, " {preposition} {interface} ({product})"),
        }
    }
}

impl ConflictKind {
    const fn preposition(self) -> &'static str {
        match self {
            Self::Address => "of",
            Self::Route => "to",
            Self::Gateway | Self::Resolver => "on",
            Self::Reserved => "by",
        }
    }
}
