//! [`Host`] on macOS and Windows: one routing table for everybody.
//!
//! There are no routes of one user alone, so a subnet is one user's at a time, and whose packets these are is left to
//! posternd's look-up of each sender. Streams that are open when the network moves end, because nothing could lead to
//! the old network beside whoever has it now.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use ipnet::{IpNet, Ipv6Net};

use super::{
    super::{options::Options, place::Place},
    Applied, Doing as _, HostError, Repair, Seat,
};
use crate::{
    dns::DnsState,
    interface::{Interface, InterfaceConfig},
    sys::{Handover, User},
};

/// What a device should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Its own addresses, each the only one of its network.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// The networks that lead to it.
    pub(crate) routes: BTreeSet<IpNet>,
    pub(crate) mtu: u32,
}

/// A device as the system gives it. Dropping it takes its addresses and routes away, and the device itself where it does
/// not belong to the asker already.
pub(crate) trait Device: Sized {
    /// Makes a device for this user, with what is to be handed over.
    fn create(mtu: u32, user: &User) -> io::Result<(Self, Vec<Handover>)>;

    fn index(&self) -> u32;

    fn name(&self) -> &str;

    /// Whether it is there still: whoever has it may have closed it.
    fn is_there(&self) -> bool;

    /// Whether this machine gives it IPv6.
    fn has_ipv6(&self) -> bool;

    /// Makes the device look like `wanted`, whatever it looked like, and puts back what somebody else took away. Says
    /// how much it changed.
    fn settle(&mut self, wanted: &Settings) -> io::Result<usize>;
}

#[derive(Debug)]
struct Tenant<D> {
    user: User,
    place: Place,
    wish: InterfaceConfig,
    device: D,
}

impl<D> Tenant<D> {
    fn settings(&self) -> Settings {
        let ipv6 = self.place.ipv6;
        let addresses = [Some(self.place.ipv4.device.into()), ipv6.map(|part| part.addresses.device.into())];
        let routes = [Some(IpNet::V4(self.place.subnet.trunc())), ipv6.map(|part| IpNet::V6(part.network.trunc()))];
        Settings {
            addresses: addresses.into_iter().flatten().collect(),
            routes: routes.into_iter().flatten().collect(),
            mtu: self.wish.mtu,
        }
    }
}

/// Everything that netd has set up.
#[derive(Debug)]
pub(crate) struct Host<D> {
    tenants: BTreeMap<Seat, Tenant<D>>,
}

impl<D: Device> Host<D> {
    /// Devices of an earlier run are gone with it, or with the asker who has them.
    #[expect(clippy::unnecessary_wraps, reason = "other platforms may fail")]
    pub(crate) fn open(_: &Options) -> Result<Self, HostError> {
        Ok(Self { tenants: BTreeMap::new() })
    }

    /// The numbers of our devices.
    pub(crate) fn indices(&self) -> Vec<u32> {
        self.tenants.values().map(|tenant| tenant.device.index()).collect()
    }

    /// The number of this connection's device, if it has one.
    pub(crate) fn index(&self, seat: Seat) -> Option<u32> {
        self.tenants.get(&seat).map(|tenant| tenant.device.index())
    }

    /// What this connection has, if anything.
    pub(crate) fn wish(&self, seat: Seat) -> Option<&InterfaceConfig> {
        self.tenants.get(&seat).map(|tenant| &tenant.wish)
    }

    /// Makes the connection's network look like `wish`, for this user. When a step fails, what this connection had is
    /// taken back altogether: half a network would be worse than none.
    pub(crate) fn apply(&mut self, seat: Seat, user: &User, wish: &InterfaceConfig) -> Result<Applied, HostError> {
        let mut others = self.tenants.iter().filter(|(other, _)| **other != seat);
        if others.clone().any(|(_, tenant)| tenant.user == *user) {
            return Err(HostError::AlreadyInUse);
        }
        let wanted = wish.subnet.trunc();
        let overlaps = |place: &Place| place.subnet.contains(&wanted) || wanted.contains(&place.subnet);
        if others.any(|(_, tenant)| overlaps(&tenant.place)) {
            return Err(HostError::TakenByAnother(wanted));
        }
        // Users of one organisation have the same one; the first has it.
        let taken = |ipv6: &Ipv6Net| {
            let others = self.tenants.iter().filter(|(other, _)| **other != seat);
            others
                .filter_map(|(_, tenant)| tenant.place.ipv6)
                .any(|part| part.network.contains(&ipv6.network()) || ipv6.contains(&part.network.network()))
        };
        let ipv6 = wish.ipv6.filter(|ipv6| !taken(ipv6));
        let kept = self.tenants.remove(&seat);
        let place = Place::find(wanted, ipv6, kept.as_ref().map(|tenant| tenant.place.slot), &[]);
        let place = place.ok_or(HostError::NoFreeSlot)?;
        let (device, queues) = match kept.map(|tenant| tenant.device).filter(Device::is_there) {
            Some(device) => (device, Vec::new()),
            None => D::create(wish.mtu, user).map_err(HostError::NoTun)?,
        };
        let place = if device.has_ipv6() { place } else { Place { ipv6: None, ..place } };
        let mut tenant = Tenant { user: user.clone(), place, wish: wish.clone(), device };
        let settings = tenant.settings();
        tenant.device.settle(&settings).doing("set the device up")?;
        let interface = interface_of(&tenant);
        self.tenants.insert(seat, tenant);
        Ok(Applied { interface, queues })
    }

    /// Puts back what somebody else took away. Says how much it had to put back.
    pub(crate) fn repair(&mut self) -> Repair {
        let mut repair = Repair::default();
        for tenant in self.tenants.values_mut().filter(|tenant| tenant.device.is_there()) {
            let settings = tenant.settings();
            repair.note(tenant.device.settle(&settings).doing("put addresses and routes back"));
        }
        repair
    }

    /// Takes back what was set up for the connection. Idempotent.
    #[expect(clippy::unnecessary_wraps, reason = "other platforms may fail")]
    pub(crate) fn remove(&mut self, seat: Seat) -> Result<(), HostError> {
        self.tenants.remove(&seat);
        Ok(())
    }

    /// Takes everything back.
    #[expect(clippy::unnecessary_wraps, reason = "other platforms may fail")]
    pub(crate) fn remove_all(&mut self) -> Result<(), HostError> {
        self.tenants.clear();
        Ok(())
    }
}

fn interface_of<D: Device>(tenant: &Tenant<D>) -> Interface {
    let Place { slot, subnet, ipv4, ipv6 } = tenant.place;
    Interface {
        index: tenant.device.index(),
        name: tenant.device.name().to_owned(),
        slot,
        subnet,
        addresses: ipv4,
        ipv6,
        mtu: tenant.wish.mtu,
        dns: DnsState::NoZones,
        second_lock: false,
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
