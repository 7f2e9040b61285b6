//! What the resolver knows.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hickory_proto::{
    ProtoError,
    rr::{Name, RData, Record, rdata::SOA},
    serialize::binary::{BinEncodable as _, BinEncoder, NameEncoding},
};
use postern_proto::{bind::Cidr, name::DnsName};

use super::{
    HostPart, NEGATIVE_TTL, Notice, PROBE,
    key::{self, Key},
};

/// The addresses of the virtual network. A resource keeps its host part when the network moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub v4: Cidr,
    /// The address of a /48. The last 32 bits of an address in it are the host part of its IPv4 twin.
    pub v6: Option<Ipv6Addr>,
}

/// The bits of an IPv6 address that are the network's.
const V6_PREFIX: u32 = 48;

impl Range {
    /// The IPv4 address of a host; `None` when the subnet is too small for it.
    #[must_use]
    pub fn v4(&self, part: HostPart) -> Option<Ipv4Addr> {
        let ip = Ipv4Addr::from_bits(self.v4.network().to_bits() | part.0);
        (self.v4.contains(ip) && self.part(ip.into()) == Some(part)).then_some(ip)
    }

    /// The IPv6 address of a host; `None` without IPv6, and for a host that could have no IPv4 address.
    #[must_use]
    pub fn v6(&self, part: HostPart) -> Option<Ipv6Addr> {
        self.v4(part)?;
        self.v6.map(|network| Ipv6Addr::from_bits(network.to_bits() | u128::from(part.0)))
    }

    /// The host part of an address; `None` for one that is none of the virtual network.
    #[must_use]
    pub fn part(&self, ip: IpAddr) -> Option<HostPart> {
        match ip {
            IpAddr::V4(ip) => self.v4.contains(ip).then(|| HostPart(ip.to_bits() ^ self.v4.network().to_bits())),
            IpAddr::V6(ip) => {
                let rest = ip.to_bits() ^ self.v6?.to_bits();
                let part = HostPart(u32::try_from(rest).ok()?);
                self.v4(part).is_some().then_some(part)
            }
        }
    }

    /// Whether an address is one of the virtual network's, be it a host's or not.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4.contains(ip),
            IpAddr::V6(ip) => {
                self.v6.is_some_and(|network| (ip.to_bits() ^ network.to_bits()) >> (u128::BITS - V6_PREFIX) == 0)
            }
        }
    }
}

/// What a [`Table`] is made of.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The names below which we answer, each itself counted in.
    pub zones: Vec<DnsName>,
    pub names: Vec<Known>,
    pub wildcards: Vec<Wildcard>,
    /// The control plane's and gateways' own names. These are answered by nobody here, not even from a zone.
    pub bypass: Vec<DnsName>,
    /// The addresses at which the resolver itself is asked.
    pub resolver: Vec<IpAddr>,
    pub range: Range,
    /// What all answers from zones say.
    pub notice: Option<Notice>,
    /// The serial number in SOA records; grows with each table.
    pub serial: u32,
}

/// A name and its addresses.
#[derive(Clone, Debug)]
pub struct Known {
    pub name: DnsName,
    /// In the order in which they are answered. A family without any is answered as missing.
    pub addresses: Vec<IpAddr>,
    /// What answers for this name say instead of [`Contents::notice`].
    pub notice: Option<Notice>,
}

/// Any host below a name, such as `*.kafka.internal`: its addresses come from [`super::Hosts`].
#[derive(Clone, Debug)]
pub struct Wildcard {
    /// `kafka.internal`.
    pub parent: DnsName,
    pub notice: Option<Notice>,
}

/// Contents that contradict themselves. The table in use had better stay in use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("{0} is there twice")]
    NameTwice(DnsName),
    #[error("{0} is in none of the zones")]
    NoZone(DnsName),
    #[error("{0} cannot be encoded")]
    Encoding(DnsName),
}

/// Names, ready for look-up. Does not change; a change makes a new one.
#[derive(Debug)]
pub struct Table {
    nodes: HashMap<Box<[u8]>, Node>,
    names: HashMap<IpAddr, Box<[u8]>>,
    resolver: Addresses,
    range: Range,
    notice: Option<Notice>,
    serial: u32,
}

/// What is at one name. One with nothing is there because a name below it is.
#[derive(Debug, Default)]
struct Node {
    /// The SOA record, when a zone begins here.
    zone: Option<Box<[u8]>>,
    known: Option<Addresses>,
    /// When hosts below have addresses of their own.
    wildcard: Option<Wildcard>,
    bypass: bool,
    /// `in-addr.arpa` and `ip6.arpa`.
    reverse: bool,
}

#[derive(Debug, Default)]
pub(super) struct Addresses {
    pub(super) v4: Box<[Ipv4Addr]>,
    pub(super) v6: Box<[Ipv6Addr]>,
    pub(super) notice: Option<Notice>,
}

/// Where a name is.
pub(super) enum Found<'a> {
    /// In no zone.
    Nothing,
    Bypass,
    /// Below `in-addr.arpa` or `ip6.arpa`.
    Reverse,
    In {
        soa: &'a [u8],
        place: Place<'a>,
    },
}

/// What a zone has at a name.
pub(super) enum Place<'a> {
    Name(&'a Addresses),
    /// A name that is asked only to see who answers; the resolver's addresses.
    Probe(&'a Addresses),
    Host {
        wildcard: &'a Wildcard,
    },
    /// There is such a name, and nothing at it.
    Empty {
        apex: bool,
    },
    Missing,
}

impl Table {
    /// # Errors
    ///
    /// When a name is there twice, or in no zone. Several names may have one address: the first is its PTR record.
    pub fn new(contents: Contents) -> Result<Self, TableError> {
        let Contents { zones, names, wildcards, bypass, resolver, range, notice, serial } = contents;
        let resolver = Addresses::of(&resolver, None);
        let mut table = Self { nodes: HashMap::new(), names: HashMap::new(), resolver, range, notice, serial };
        for zone in &zones {
            let soa = Name::from_ascii(zone.as_str()).and_then(|name| soa(&name, serial));
            let soa = soa.map_err(|_| TableError::Encoding(zone.clone()))?;
            table.node(zone)?.zone = Some(soa.into());
        }
        for name in &bypass {
            table.node(name)?.bypass = true;
        }
        for label in ["in-addr.arpa", "ip6.arpa"] {
            if let Ok(name) = label.parse() {
                table.node(&name)?.reverse = true;
            }
        }
        for known in &names {
            table.add(known)?;
        }
        for wildcard in wildcards {
            table.add_ancestors(&wildcard.parent)?;
            let node = table.node(&wildcard.parent)?;
            if node.wildcard.is_some() {
                return Err(TableError::NameTwice(wildcard.parent));
            }
            node.wildcard = Some(wildcard);
        }
        Ok(table)
    }

    pub fn notice(&self) -> Option<Notice> {
        self.notice
    }

    #[must_use]
    pub fn range(&self) -> &Range {
        &self.range
    }

    fn add(&mut self, known: &Known) -> Result<(), TableError> {
        self.add_ancestors(&known.name)?;
        let encoded = Key::of_dns_name(&known.name).ok_or_else(|| TableError::Encoding(known.name.clone()))?;
        for ip in &known.addresses {
            self.names.entry(*ip).or_insert_with(|| encoded.to_wire());
        }
        let node = self.node(&known.name)?;
        if node.known.is_some() {
            return Err(TableError::NameTwice(known.name.clone()));
        }
        node.known = Some(Addresses::of(&known.addresses, known.notice));
        Ok(())
    }

    /// Makes the names between `name` and the zone that it is in.
    fn add_ancestors(&mut self, name: &DnsName) -> Result<(), TableError> {
        let key = Key::of_dns_name(name).ok_or_else(|| TableError::Encoding(name.clone()))?;
        let in_zone = |key: &[u8]| self.nodes.get(key).is_some_and(|node| node.zone.is_some());
        let depth = key.ancestors().position(in_zone).ok_or_else(|| TableError::NoZone(name.clone()))?;
        for ancestor in key.ancestors().take(depth) {
            self.nodes.entry(ancestor.into()).or_default();
        }
        Ok(())
    }

    fn node(&mut self, name: &DnsName) -> Result<&mut Node, TableError> {
        let key = Key::of_dns_name(name).ok_or_else(|| TableError::Encoding(name.clone()))?;
        Ok(self.nodes.entry(key.as_bytes().into()).or_default())
    }

    /// An exact name wins over a wildcard, a nearer wildcard over a farther one, and both are looked for in the nearest
    /// zone only. Labels are compared whole.
    pub(super) fn find(&self, key: &Key) -> Found<'_> {
        let (mut exact, mut wildcard) = (None, None);
        for (depth, ancestor) in key.ancestors().enumerate() {
            let Some(node) = self.nodes.get(ancestor) else { continue };
            if depth == 0 {
                if node.bypass {
                    return Found::Bypass;
                }
                exact = Some(node);
            } else if wildcard.is_none() {
                wildcard = node.wildcard.as_ref();
            }
            if let Some(soa) = &node.zone {
                let probe = depth == 1 && key::first_label(key.as_bytes()).starts_with(PROBE.as_bytes());
                let place = match (exact.and_then(|node| node.known.as_ref()), wildcard, exact) {
                    (Some(addresses), ..) => Place::Name(addresses),
                    _ if probe => Place::Probe(&self.resolver),
                    (None, Some(wildcard), _) => Place::Host { wildcard },
                    (None, None, Some(_)) => Place::Empty { apex: depth == 0 },
                    (None, None, None) => Place::Missing,
                };
                return Found::In { soa, place };
            }
            if node.reverse {
                return Found::Reverse;
            }
        }
        Found::Nothing
    }

    pub(super) fn is_zone(&self, key: &Key) -> bool {
        self.nodes.get(key.as_bytes()).is_some_and(|node| node.zone.is_some())
    }

    /// The name of an address as data of a PTR record.
    pub(super) fn name_of(&self, ip: IpAddr) -> Option<&[u8]> {
        self.names.get(&ip).map(|name| &**name)
    }

    /// The SOA record of a zone that is not in the table.
    pub(super) fn soa(&self, zone: &Name) -> Result<Vec<u8>, ProtoError> {
        soa(zone, self.serial)
    }
}

impl Addresses {
    fn of(addresses: &[IpAddr], notice: Option<Notice>) -> Self {
        let mut found = (Vec::new(), Vec::new());
        for ip in addresses {
            match ip {
                IpAddr::V4(ip) => found.0.push(*ip),
                IpAddr::V6(ip) => found.1.push(*ip),
            }
        }
        Self { v4: found.0.into(), v6: found.1.into(), notice }
    }
}

/// Encodes a SOA record in a form that may stand anywhere in a message. Its times but the last are for servers that copy
/// zones, which nobody does here.
fn soa(zone: &Name, serial: u32) -> Result<Vec<u8>, ProtoError> {
    let mut zone = zone.clone();
    zone.set_fqdn(true);
    let nobody = Name::from_ascii("nobody.invalid.")?;
    let (refresh, retry, expire) = (3600, 600, 86_400);
    let data = SOA::new(zone.clone(), nobody, serial, refresh, retry, expire, NEGATIVE_TTL);
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    Record::from_rdata(zone, NEGATIVE_TTL, RData::SOA(data)).emit(&mut encoder)?;
    Ok(bytes)
}
