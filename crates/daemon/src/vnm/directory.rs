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
    engine::{NetworkPlan, Place, Places, Standing},
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
    /// Resources may share an address; they share no port then.
    spots: HashMap<IpAddr, Vec<Spot>>,
}

/// What ports of one address mean.
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
    /// hosts under wildcard aliases that have addresses. A name that no zone covers (its zone is not there yet, or cannot
    /// be had), and the second of two that are the same, is left out: its address stays.
    ///
    /// # Errors
    /// Names that cannot be told.
    pub fn new(
        places: &Places,
        destinations: &HashMap<ResourceId, Arc<Destination>>,
        hosts: &[HostRecord],
        serial: u32,
    ) -> Result<Self, TableError> {
        let range = Range { v4: places.plan.subnet, v6: places.interface.ipv6.map(|part| part.network.network()) };
        let mut draft = Draft::new(range, &places.plan);
        for place in &places.places {
            if let Some(destination) = destinations.get(&place.resource) {
                draft.add(place, destination);
            }
        }
        let wildcards = wildcards(&places.places);
        for record in hosts {
            draft.add_host(record, &wildcards, destinations);
        }
        draft.finish(places, serial)
    }

    /// What a connection to this address and port means.
    #[must_use]
    pub fn meaning(&self, to: SocketAddr) -> Meaning {
        if self.addresses.resolvers.contains(&to) {
            return Meaning::Resolver;
        }
        let spots = self.spots.get(&to.ip()).filter(|_| !self.locked);
        let meant = |spot: &Spot| {
            let wanted = spot.wanted(to.port())?;
            Some(Meaning::Resource { destination: Arc::clone(&spot.destination), wanted })
        };
        let open = spots.into_iter().flatten().filter(|spot| spot.is_open());
        open.filter_map(meant).next().unwrap_or(Meaning::Nothing)
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

    fn all_ports(&self) -> impl Iterator<Item = RangeInclusive<u16>> + '_ {
        std::iter::once(self.port..=self.port).chain(self.ports.ranges())
    }
}

/// What the stack does at an address.
fn address(spots: &[Spot], locked: bool) -> Address {
    let open = || spots.iter().filter(|spot| spot.is_open() && !locked);
    Address {
        ports: open().flat_map(Spot::all_ports).collect(),
        reachable: open().any(|spot| spot.standing == Standing::Open),
    }
}

struct Draft<'a> {
    range: Range,
    plan: &'a NetworkPlan,
    spots: HashMap<IpAddr, Vec<Spot>>,
    known: BTreeMap<DnsName, Known>,
    wildcards: BTreeMap<DnsName, Wildcard>,
}

impl<'a> Draft<'a> {
    fn new(range: Range, plan: &'a NetworkPlan) -> Self {
        Self { range, plan, spots: HashMap::new(), known: BTreeMap::new(), wildcards: BTreeMap::new() }
    }

    fn add(&mut self, place: &Place, destination: &Arc<Destination>) {
        let spot = spot(place, destination, None);
        let addresses = self.addresses(place.address);
        for address in &addresses {
            self.spots.entry(*address).or_default().push(spot.clone());
        }
        let notice = (place.standing == Standing::Disconnected).then_some(Notice::NotConnected);
        let Some(alias) = place.alias.as_ref().filter(|alias| self.plan.answers(alias.name())) else { return };
        let name = alias.name().clone();
        if alias.is_wildcard() {
            self.wildcards.entry(name.clone()).or_insert(Wildcard { parent: name, notice });
        } else {
            self.known.entry(name.clone()).or_insert(Known { name, addresses, notice });
        }
    }

    /// A host belongs to the resource whose wildcard alias is the closest to it.
    fn add_host(
        &mut self,
        record: &HostRecord,
        wildcards: &HashMap<&str, &Place>,
        destinations: &HashMap<ResourceId, Arc<Destination>>,
    ) {
        let Ok(host) = record.host.parse::<DnsName>() else { return };
        let Some(address) = self.range.v4(record.part) else { return };
        let labels = host.as_str().match_indices('.');
        let mut parents = labels.filter_map(|(dot, _)| host.as_str().get(dot + 1..));
        if let Some(place) = parents.find_map(|parent| wildcards.get(parent))
            && let Some(destination) = destinations.get(&place.resource)
        {
            let spot = spot(place, destination, Some(host.clone()));
            for address in self.addresses(address) {
                // No resource's own address ever means a host besides.
                self.spots.entry(address).or_insert_with(|| vec![spot.clone()]);
            }
        }
    }

    /// An address and its IPv6 twin.
    fn addresses(&self, address: Ipv4Addr) -> Vec<IpAddr> {
        let twin = self.range.part(address.into()).and_then(|part: HostPart| self.range.v6(part));
        [Some(address.into()), twin.map(IpAddr::V6)].into_iter().flatten().collect()
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
            names: self.known.into_values().collect(),
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
            addresses: self.spots.iter().map(|(ip, spots)| (*ip, address(spots, *locked))).collect(),
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

/// Who has which wildcard alias, by the name below which it holds. There may be thousands of hosts and of places.
fn wildcards(places: &[Place]) -> HashMap<&str, &Place> {
    let named =
        places.iter().filter_map(|place| Some((place.alias.as_ref().filter(|alias| alias.is_wildcard())?, place)));
    named.map(|(alias, place)| (alias.name().as_str(), place)).collect()
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
