//! Which addresses exist.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

/// What exists in the virtual network: all that the stack answers for.
///
/// A change ([`Stack::set_addresses`](crate::Stack::set_addresses)) concerns packets from then on. Flows that exist, held
/// ones included, are left alone: whoever takes an address away also ends its flows, with
/// [`Stack::retain_flows`](crate::Stack::retain_flows).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressTable {
    /// Our own networks, as address and prefix length. A packet to anywhere else is dropped without an answer.
    pub networks: Vec<(IpAddr, u8)>,
    /// Addresses of the TUN device, the only ones that packets may come from. Empty: any.
    pub device: Vec<IpAddr>,
    /// Where the resolver answers. Datagrams to it become [`Event::Datagram`](crate::Event::Datagram), connections to it
    /// are flows like any other, and it answers echo requests.
    pub resolvers: Vec<SocketAddr>,
    /// The resources' addresses.
    pub addresses: BTreeMap<IpAddr, Address>,
}

/// One address of the virtual network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// TCP ports that exist; a SYN to any other is answered with RST.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Whether echo requests are answered.
    pub reachable: bool,
}

/// What an address is to us.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// A resolver's.
    Resolver,
    /// A resource's.
    Resource(&'a Address),
    /// In our networks, and nobody's.
    Vacant,
    /// Not ours.
    Foreign,
}

impl AddressTable {
    pub(crate) fn place(&self, address: IpAddr) -> Place<'_> {
        if let Some(resource) = self.addresses.get(&address) {
            Place::Resource(resource)
        } else if self.resolvers.iter().any(|resolver| resolver.ip() == address) {
            Place::Resolver
        } else if self.networks.iter().any(|&(network, length)| contains(network, length, address)) {
            Place::Vacant
        } else {
            Place::Foreign
        }
    }

    pub(crate) fn admits_source(&self, address: IpAddr) -> bool {
        self.device.is_empty() || self.device.contains(&address)
    }

    pub(crate) fn is_resolver(&self, endpoint: SocketAddr) -> bool {
        self.resolvers.contains(&endpoint)
    }

    /// Whether a connection to there may be asked for.
    pub(crate) fn listens(&self, endpoint: SocketAddr) -> bool {
        let resource = self.addresses.get(&endpoint.ip());
        // Port 0 is no port, whatever the table says.
        endpoint.port() != 0
            && (self.is_resolver(endpoint)
                || resource.is_some_and(|address| address.ports.iter().any(|ports| ports.contains(&endpoint.port()))))
    }

    pub(crate) fn answers_echo(&self, address: IpAddr) -> bool {
        match self.place(address) {
            Place::Resolver => true,
            Place::Resource(resource) => resource.reachable,
            Place::Vacant | Place::Foreign => false,
        }
    }
}

fn contains(network: IpAddr, length: u8, address: IpAddr) -> bool {
    let shift = |bits: u32| bits.saturating_sub(u32::from(length));
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differing = network.to_bits() ^ address.to_bits();
            differing.checked_shr(shift(32)).unwrap_or(0) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differing = network.to_bits() ^ address.to_bits();
            differing.checked_shr(shift(128)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_what_its_prefix_says() {
        let holds =
            |network: &str, length, address: &str| contains(network.parse().unwrap(), length, address.parse().unwrap());
        assert!(holds("100.72.0.0", 16, "100.72.255.255"));
        assert!(!holds("100.72.0.0", 16, "100.73.0.0"));
        assert!(holds("0.0.0.0", 0, "8.8.8.8"));
        assert!(holds("10.0.0.1", 32, "10.0.0.1") && !holds("10.0.0.1", 32, "10.0.0.0"));
        assert!(holds("fd00:1::", 48, "fd00:1:0:ffff::1") && !holds("fd00:1::", 48, "fd00:1:1::"));
        assert!(holds("::", 0, "fd00::") && !holds("::", 0, "10.0.0.1"));
    }
}
