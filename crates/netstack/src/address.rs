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
