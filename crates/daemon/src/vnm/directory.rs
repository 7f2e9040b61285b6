//! Who is where in the virtual network: for the stack (which addresses and ports exist), for the resolver (which names)
//! and for a connection (which resource it means).
//!
//! A directory does not change. Whoever changes something publishes another one; every shard looks for it before it
//! takes further packets.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use postern_netstack::{
    Address, AddressTable,
    dns::{Contents, HostPart, HostRecord, Known, Notice, Range, Table, TableError, Wildcard},
};
use postern_proto::{head::Wanted, id::ResourceId, name::DnsName, port::PortSet};
use tun_driver::interface::Interface;

use crate::{
    carriage::Destination,
    engine::{Place, Places, Standing},
};

/// Where names are asked.
const DNS_PORT: u16 = 53;

/// See the module.
#[derive(Debug)]
pub struct Directory {
    pub interface: Interface,
    pub names: Arc<Table>,
    pub addresses: AddressTable,
    locked: bool,
    spots: HashMap<IpAddr, Spot>,
}

/// What one address means.
#[derive(Clone, Debug)]
struct Spot {
    destination: Arc<Destination>,
    /// Under a wildcard alias: the host that has this address.
    host: Option<DnsName>,
    port: u16,
    ports: PortSet,
    standing: Standing,
}

/// What a connection means.
#[derive(Clone, Debug)]
pub enum Meaning {
    /// The resolver.
    Resolver,
    Resource {
        destination: Arc<Destination>,
        wanted: Wanted,
    },
    /// Nothing that may be used.
    Nothing,
}

/// The directory in force, for every thread.
#[derive(Debug)]
pub struct Published {
    version: AtomicU64,
    directory: RwLock<Arc<Directory>>,
}

impl Published {
    #[must_use]
    pub fn new(directory: Directory) -> Self {
        Self { version: AtomicU64::new(1), directory: RwLock::new(Arc::new(directory)) }
    }

    /// Whoever asks from now on gets this one.
    pub fn publish(&self, directory: Directory) {
        *self.directory.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(directory);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Grows with each one.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn get(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Directory {
    /// `destinations`: what the shell knows of resources; a place whose resource is unknown is left out. `hosts`: the
    /// hosts under wildcard aliases that have addresses.
    ///
    /// # Errors
    /// Names or addresses that contradict each other.
    pub fn new(
        places: &Places,
        destinations: &HashMap<ResourceId, Arc<Destination>>,
        hosts: &[HostRecord],
        serial: u32,
    ) -> Result<Self, TableError> {
        let range = Range { v4: places.plan.subnet, v6: places.interface.ipv6.map(|part| part.network.network()) };
        let mut draft = Draft { range, spots: HashMap::new(), known: Vec::new(), wildcards: BTreeMap::new() };
        for place in &places.places {
            if let Some(destination) = destinations.get(&place.resource) {
                draft.add(place, destination);
            }
        }
        for record in hosts {
            draft.add_host(record, &places.places, destinations);
        }
        draft.finish(places, serial)
    }

    /// What a connection to this address and port means.
    #[must_use]
    pub fn meaning(&self, to: SocketAddr) -> Meaning {
        if self.addresses.resolvers.contains(&to) {
            return Meaning::Resolver;
        }
        match self.spots.get(&to.ip()) {
            Some(spot) if !self.locked && spot.is_open() => spot.wanted(to.port()).map_or(Meaning::Nothing, |wanted| {
                Meaning::Resource { destination: Arc::clone(&spot.destination), wanted }
            }),
            Some(_) | None => Meaning::Nothing,
        }
    }

    /// Whether a connection that was begun to this address may go on to this resource.
    #[must_use]
    pub fn still_means(&self, to: SocketAddr, resource: ResourceId) -> bool {
        matches!(self.meaning(to), Meaning::Resource { destination, .. } if destination.id == resource)
    }
}

impl Spot {
    const fn is_open(&self) -> bool {
        match self.standing {
            Standing::Open | Standing::Unhealthy => true,
            Standing::Disconnected => false,
        }
    }

    fn wanted(&self, port: u16) -> Option<Wanted> {
        let port = match port {
            port if port == self.port => 0,
            port if self.ports.contains(port) => port,
            _ => return None,
        };
        Some(Wanted { port, host: self.host.clone() })
    }

    fn address(&self, locked: bool) -> Address {
        let open = self.is_open() && !locked;
        let ports: Vec<RangeInclusive<u16>> =
            std::iter::once(self.port..=self.port).chain(self.ports.ranges()).collect();
        Address { ports: if open { ports } else { Vec::new() }, reachable: open && self.standing == Standing::Open }
    }
}

struct Draft {
    range: Range,
    spots: HashMap<IpAddr, Spot>,
    known: Vec<Known>,
    wildcards: BTreeMap<DnsName, Wildcard>,
}

impl Draft {
    fn add(&mut self, place: &Place, destination: &Arc<Destination>) {
        let spot = spot(place, destination, None);
        let addresses = self.settle(place.address, &spot);
        let notice = (place.standing == Standing::Disconnected).then_some(Notice::NotConnected);
        match &place.alias {
            Some(alias) if alias.is_wildcard() => {
                let parent = alias.name().clone();
                self.wildcards.insert(parent.clone(), Wildcard { parent, notice });
            }
            Some(alias) => self.known.push(Known { name: alias.name().clone(), addresses, notice }),
            None => {}
        }
    }

    /// A host belongs to the resource whose wildcard alias is the closest to it.
    fn add_host(
        &mut self,
        record: &HostRecord,
        places: &[Place],
        destinations: &HashMap<ResourceId, Arc<Destination>>,
    ) {
        let Ok(host) = record.host.parse::<DnsName>() else { return };
        let Some(address) = self.range.v4(record.part) else { return };
        let alias = |place: &Place| {
            place.alias.as_ref().filter(|alias| alias.is_wildcard() && alias.matches(&host)).map(|alias| alias.rank())
        };
        let closest = places.iter().filter(|place| alias(place).is_some()).max_by_key(|place| alias(place));
        if let Some(place) = closest
            && let Some(destination) = destinations.get(&place.resource)
        {
            self.settle(address, &spot(place, destination, Some(host)));
        }
    }

    /// Puts somebody at an address and its IPv6 twin, unless somebody is there.
    fn settle(&mut self, address: Ipv4Addr, spot: &Spot) -> Vec<IpAddr> {
        let twin = self.range.part(address.into()).and_then(|part: HostPart| self.range.v6(part));
        let addresses: Vec<IpAddr> = [Some(address.into()), twin.map(IpAddr::V6)].into_iter().flatten().collect();
        for address in &addresses {
            self.spots.entry(*address).or_insert_with(|| spot.clone());
        }
        addresses
    }

    fn finish(self, places: &Places, serial: u32) -> Result<Directory, TableError> {
        let Places { interface, plan, moved_from, locked, .. } = places;
        let resolvers = interface.resolvers();
        let notice = match moved_from {
            _ if *locked => Some(Notice::SessionExpired),
            Some(from) => Some(Notice::Moved { from: *from }),
            None => None,
        };
        let names = Table::new(Contents {
            zones: plan.zones.clone(),
            names: self.known,
            wildcards: self.wildcards.into_values().collect(),
            bypass: plan.kept_out.clone(),
            resolver: resolvers.clone(),
            range: self.range,
            notice,
            serial,
        })?;
        let networks = std::iter::once((IpAddr::V4(plan.subnet.network()), plan.subnet.prefix()))
            .chain(interface.ipv6.map(|part| (IpAddr::V6(part.network.network()), part.network.prefix_len())))
            .collect();
        let addresses = AddressTable {
            networks,
            // Programs may come from an address that the device had before the network moved.
            device: Vec::new(),
            resolvers: resolvers.into_iter().map(|ip| SocketAddr::new(ip, DNS_PORT)).collect(),
            addresses: self.spots.iter().map(|(ip, spot)| (*ip, spot.address(*locked))).collect(),
        };
        Ok(Directory {
            interface: interface.clone(),
            names: Arc::new(names),
            addresses,
            locked: *locked,
            spots: self.spots,
        })
    }
}

fn spot(place: &Place, destination: &Arc<Destination>, host: Option<DnsName>) -> Spot {
    Spot {
        destination: Arc::clone(destination),
        host,
        port: place.port,
        ports: place.ports.clone(),
        standing: place.standing,
    }
}

#[cfg(test)]
mod tests;
