//! [`Host`] on Linux: routes in tables of their own, which rules by uid lead to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::Path,
};

use super::{
    super::{
        options::Options,
        place::Place,
        plan::{LANES, Lane, Plan, Rule},
    },
    Applied, Doing as _, HostError, Repair, Seat,
};
use crate::{
    dns::DnsState,
    interface::{Interface, InterfaceConfig, Pair},
    sys::{Filter, Handover, Kernel, Link, Lock, Tun, User, end_connections_from},
};

/// What was set up for one connection.
#[derive(Debug)]
struct Tenant {
    uid: u32,
    lane: Lane,
    place: Place,
    /// Where it was before it moved, for the streams that were open then. A further move leaves only the last.
    former: Option<Place>,
    /// As it was asked for: `place` leaves IPv6 out where the machine has it off.
    wish: InterfaceConfig,
    link: Link,
    filter: Option<Filter>,
    /// IPv6 was switched off since `place` was given, and that is told.
    ipv6_off: bool,
}

impl Tenant {
    fn plan(&self) -> Plan {
        self.plan_at(self.place)
    }

    /// What can be put back while the device is called `name`: nothing of IPv6 as long as that is switched off.
    fn plan_now(&mut self, name: &str) -> Plan {
        let off = self.place.ipv6.is_some() && !ipv6_works(name);
        if off && !self.ipv6_off {
            tracing::info!(
                "IPv6 is switched off for {name} (net.ipv6.conf.{name}.disable_ipv6): its network has IPv4 alone until it is on again"
            );
        }
        self.ipv6_off = off;
        self.plan_at(if off { Place { ipv6: None, ..self.place } } else { self.place })
    }

    fn plan_at(&self, place: Place) -> Plan {
        let plan = place.plan(self.lane, self.uid);
        match &self.former {
            Some(former) => plan.with(former.farewell(self.lane, self.uid)),
            None => plan,
        }
    }

    /// What programs' connections through the device are bound to.
    fn devices(&self) -> BTreeSet<IpAddr> {
        let ipv6 = self.place.ipv6.map(|part| IpAddr::V6(part.addresses.device));
        self.places().map(|place| IpAddr::V4(place.ipv4.device)).chain(ipv6).collect()
    }

    /// The places whose addresses nobody else may have.
    fn places(&self) -> impl Iterator<Item = Place> {
        [Some(self.place), self.former].into_iter().flatten()
    }
}

/// Everything that netd has set up. Only while the lock file is held: it takes every rule, route and device with our
/// mark for its own.
#[derive(Debug)]
pub(crate) struct Host {
    kernel: Kernel,
    tenants: BTreeMap<Seat, Tenant>,
    /// Whether the second lock is wished for, and how many there were: each has a name of its own.
    filtering: bool,
    filters_made: u64,
}

impl Host {
    /// Connects to the kernel, and takes back what an earlier run left.
    pub(crate) fn open(options: &Options) -> Result<Self, HostError> {
        let kernel = Kernel::open().doing("open a netlink socket")?;
        let mut host = Self { kernel, tenants: BTreeMap::new(), filtering: !options.no_filter, filters_made: 0 };
        host.sweep()?;
        Ok(host)
    }

    /// The numbers of our devices.
    pub(crate) fn indices(&self) -> Vec<u32> {
        self.tenants.values().map(|tenant| tenant.link.index).collect()
    }

    /// The number of this connection's device, if it has one.
    pub(crate) fn index(&self, seat: Seat) -> Option<u32> {
        self.tenants.get(&seat).map(|tenant| tenant.link.index)
    }

    /// What this connection has, if anything.
    pub(crate) fn wish(&self, seat: Seat) -> Option<&InterfaceConfig> {
        self.tenants.get(&seat).map(|tenant| &tenant.wish)
    }

    /// Makes the connection's network look like `wish`, for this user. When a step fails, what this connection had is
    /// taken back altogether: half a network would be worse than none.
    pub(crate) fn apply(&mut self, seat: Seat, user: &User, wish: &InterfaceConfig) -> Result<Applied, HostError> {
        if self.tenants.iter().any(|(other, tenant)| *other != seat && tenant.uid == user.0) {
            return Err(HostError::AlreadyInUse);
        }
        let applied = self.try_apply(seat, user.0, wish);
        // A wish that cannot be met because others are there leaves things as they are.
        if applied.as_ref().is_err_and(|error| !matches!(error, HostError::NoFreeSlot | HostError::NoTun(_))) {
            let _ = self.remove(seat);
        }
        applied
    }

    fn try_apply(&mut self, seat: Seat, uid: u32, wish: &InterfaceConfig) -> Result<Applied, HostError> {
        let links = self.kernel.links().doing("read the network devices")?;
        let kept = self.tenants.get(&seat).filter(|tenant| {
            tenant.wish.queues == wish.queues && links.iter().any(|link| link.index == tenant.link.index)
        });
        let lane = self.tenants.get(&seat).map(|tenant| tenant.lane).or_else(|| self.free_lane());
        let lane = lane.ok_or(HostError::NoFreeSlot)?;
        let kept = kept.map(|tenant| tenant.link.clone());
        let place = self.find_place(seat, wish, kept.as_ref().map(|link| link.name.as_str()))?;
        let (link, queues) = match kept {
            Some(link) => (link, Vec::new()),
            None => self.make_device(seat, wish)?,
        };
        // A new device tells whether it has IPv6.
        let place = if ipv6_works(&link.name) { place } else { Place { ipv6: None, ..place } };
        let previous = self.tenants.remove(&seat);
        let stays = previous.as_ref().filter(|tenant| tenant.link.index == link.index);
        let moved = stays.filter(|tenant| tenant.place.subnet != place.subnet).map(|tenant| tenant.place);
        let former = moved.or_else(|| stays?.former).filter(|former| former.is_apart_from(&place));
        let filter = previous.and_then(|tenant| tenant.filter).filter(|filter| filter.lock.index == link.index);
        let tenant = Tenant { uid, lane, place, former, wish: wish.clone(), link, filter, ipv6_off: false };
        self.tenants.insert(seat, tenant);
        self.settle_link(seat, wish.mtu)?;
        Ok(Applied { interface: self.interface(seat).ok_or(HostError::NoFreeSlot)?, queues })
    }

    fn free_lane(&self) -> Option<Lane> {
        let used: BTreeSet<Lane> = self.tenants.values().map(|tenant| tenant.lane).collect();
        (0..LANES).map(Lane).find(|lane| !used.contains(lane))
    }

    fn find_place(&self, seat: Seat, wish: &InterfaceConfig, device: Option<&str>) -> Result<Place, HostError> {
        let ipv6 = wish.ipv6.filter(|_| device.is_none_or(ipv6_works));
        let own = self.tenants.get(&seat).map(|tenant| tenant.place.slot);
        let others: Vec<Place> =
            self.tenants.iter().filter(|(other, _)| **other != seat).flat_map(|(_, tenant)| tenant.places()).collect();
        Place::find(wish.subnet.trunc(), ipv6, own, &others).ok_or(HostError::NoFreeSlot)
    }

    /// Makes a device, in place of the one that this connection may have had.
    fn make_device(&mut self, seat: Seat, wish: &InterfaceConfig) -> Result<(Link, Vec<Handover>), HostError> {
        if let Some(tenant) = self.tenants.get_mut(&seat) {
            tenant.filter = None;
            self.kernel.delete_link(tenant.link.index).doing("delete the old device")?;
            end_connections(&tenant.devices());
        }
        let tun = Tun::create(wish.queues).map_err(HostError::NoTun)?;
        let link = self.kernel.prepare_link(&tun.name, wish.mtu).doing("set the device up")?;
        Ok((link, tun.queues))
    }

    /// Rules come before the device is up, so that at no moment somebody else's packet finds a way in or a way around.
    fn settle_link(&mut self, seat: Seat, mtu: u32) -> Result<(), HostError> {
        self.add_rules()?;
        self.add_filter(seat);
        let Some(tenant) = self.tenants.get(&seat) else { return Ok(()) };
        let (index, wanted) = (tenant.link.index, tenant.plan());
        if tenant.link.mtu != mtu {
            self.kernel.set_mtu(index, mtu).doing("set the MTU")?;
        }
        for address in &wanted.addresses {
            self.kernel.add_address(index, *address).doing("add the device's address")?;
        }
        self.kernel.set_up(index).doing("start the device")?;
        self.settle_routes(index, &wanted)?;
        for stale in self.kernel.addresses(index).doing("read addresses")?.difference(&wanted.addresses) {
            self.kernel.delete_address(index, *stale).doing("delete an old address")?;
        }
        self.delete_stale_rules()?;
        if let Some(tenant) = self.tenants.get_mut(&seat) {
            (tenant.link.mtu, tenant.link.up) = (mtu, true);
        }
        Ok(())
    }

    fn settle_routes(&mut self, index: u32, wanted: &Plan) -> Result<usize, HostError> {
        let all = self.kernel.routes().doing("read routes")?;
        let there: BTreeSet<_> =
            all.into_iter().filter(|(device, _)| *device == index).map(|(_, route)| route).collect();
        let mut changed = 0;
        for route in wanted.routes.difference(&there) {
            self.kernel.add_route(index, route).doing("add a route")?;
            changed += 1;
        }
        for route in there.difference(&wanted.routes) {
            self.kernel.delete_route(index, route).doing("delete an old route")?;
            changed += 1;
        }
        Ok(changed)
    }

    /// Users with the same subnet share a rule, so rules are settled for all at once.
    fn wanted_rules(&self) -> BTreeSet<Rule> {
        self.tenants.values().flat_map(|tenant| tenant.plan().rules).collect()
    }

    fn add_rules(&mut self) -> Result<usize, HostError> {
        let wanted = self.wanted_rules();
        let there = self.kernel.rules().doing("read rules")?;
        let missing: Vec<&Rule> = wanted.difference(&there).collect();
        // "Unreachable" first: what has no rule of its own yet fails closed.
        for rule in missing.iter().rev() {
            self.kernel.add_rule(rule).doing("add a rule")?;
        }
        Ok(missing.len())
    }

    fn delete_stale_rules(&mut self) -> Result<(), HostError> {
        let wanted = self.wanted_rules();
        for rule in self.kernel.rules().doing("read rules")?.difference(&wanted) {
            self.kernel.delete_rule(rule).doing("delete an old rule")?;
        }
        Ok(())
    }

    fn add_filter(&mut self, seat: Seat) {
        let Some(tenant) = self.tenants.get_mut(&seat) else { return };
        let interface = interface_of(tenant);
        let (mut devices, resolvers) = (interface.devices(), interface.resolvers());
        devices.extend(tenant.former.map(|former| IpAddr::V4(former.ipv4.device)));
        let lock = Lock { index: tenant.link.index, uid: tenant.uid, devices, resolvers };
        if !self.filtering || tenant.filter.as_ref().is_some_and(|filter| filter.lock == lock) {
            return;
        }
        self.filters_made += 1;
        let added = Filter::add(&format!("postern-{}", self.filters_made), lock);
        // The new one stands before the old one goes.
        tenant.filter = added.inspect_err(|error| tracing::info!("no packet filter as a second lock: {error}")).ok();
    }

    /// Puts back what somebody else took away from the networks of the users: routes and addresses vanish when a device
    /// goes down, and stay away when it comes up again. A device that is down, or gone, is left so: its range is
    /// unreachable then; so is that of IPv6 where it is switched off. Says how much it had to put back.
    pub(crate) fn repair(&mut self) -> Repair {
        let mut repair = Repair::default();
        repair.note(self.add_rules());
        match self.kernel.links().doing("read the network devices") {
            Ok(links) => self.repair_devices(&links, &mut repair),
            Err(fault) => repair.note(Err(fault)),
        }
        repair
    }

    fn repair_devices(&mut self, links: &[Link], repair: &mut Repair) {
        let up = |tenant: &Tenant| links.iter().find(|link| link.index == tenant.link.index && link.up);
        let plans: Vec<(u32, Plan)> = self
            .tenants
            .values_mut()
            .filter_map(|tenant| up(tenant).map(|link| (link.index, tenant.plan_now(&link.name))))
            .collect();
        for (index, plan) in plans {
            repair.note(self.add_addresses(index, &plan));
            repair.note(self.settle_routes(index, &plan));
        }
    }

    fn add_addresses(&mut self, index: u32, wanted: &Plan) -> Result<usize, HostError> {
        let there: BTreeSet<IpAddr> = self.kernel.addresses(index).doing("read addresses")?;
        let missing: Vec<&IpAddr> = wanted.addresses.difference(&there).collect();
        for address in &missing {
            self.kernel.add_address(index, **address).doing("add the device's address")?;
        }
        Ok(missing.len())
    }

    /// Takes back what was set up for the connection. Idempotent; goes on after a step that fails, and tells of the
    /// first.
    pub(crate) fn remove(&mut self, seat: Seat) -> Result<(), HostError> {
        let Some(tenant) = self.tenants.remove(&seat) else { return Ok(()) };
        // The device takes its addresses and routes along. It is deleted by number, because whoever holds its queues
        // could have made it persist.
        let deleted = self.kernel.delete_link(tenant.link.index).doing("delete the device");
        end_connections(&tenant.devices());
        drop(tenant.filter);
        let rules = self.delete_stale_rules();
        deleted.and(rules)
    }

    /// Takes everything back.
    pub(crate) fn remove_all(&mut self) -> Result<(), HostError> {
        self.tenants.clear();
        self.sweep()
    }

    /// Deletes every device and rule that bears our mark and belongs to no connection.
    fn sweep(&mut self) -> Result<(), HostError> {
        let kept = self.indices();
        for link in self.kernel.links().doing("read the network devices")? {
            if !kept.contains(&link.index) {
                tracing::info!(device = link.name, "deleting a device that is left over");
                let addresses = self.kernel.addresses(link.index).doing("read addresses")?;
                self.kernel.delete_link(link.index).doing("delete a device that is left over")?;
                end_connections(&addresses);
            }
        }
        self.delete_stale_rules()
    }

    fn interface(&self, seat: Seat) -> Option<Interface> {
        self.tenants.get(&seat).map(interface_of)
    }
}

/// Lets programs know that nobody answers any more; posternd may have had no time to reset what it carried.
fn end_connections(devices: &BTreeSet<IpAddr>) {
    match end_connections_from(devices) {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "ended connections of programs whose device is gone"),
        Err(error) => tracing::info!("connections of programs whose device is gone are left as they are: {error}"),
    }
}

fn interface_of(tenant: &Tenant) -> Interface {
    let Place { slot, subnet, ipv4, ipv6 } = tenant.place;
    Interface {
        index: tenant.link.index,
        name: tenant.link.name.clone(),
        slot,
        subnet,
        addresses: Pair { device: ipv4.device, resolver: ipv4.resolver },
        ipv6,
        mtu: tenant.wish.mtu,
        dns: DnsState::NoZones,
        second_lock: tenant.filter.is_some(),
    }
}

/// Whether the machine gives this device IPv6: not when it has none, nor when the administrator turned it off.
fn ipv6_works(device: &str) -> bool {
    let setting = Path::new("/proc/sys/net/ipv6/conf").join(device).join("disable_ipv6");
    fs::read_to_string(setting).is_ok_and(|value| value.trim() == "0")
}
