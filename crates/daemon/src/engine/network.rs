//! Whether there is a virtual network, where it lies, and who is where in it.
//!
//! It is asked for while the user has switched it on and somebody is signed in. Every answer carries the ticket of its
//! question, so that one to an older question changes nothing. A network that is up stays up when a later change of it,
//! such as one more zone, cannot be made.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use postern_local_api::message::NetworkFault;
use postern_proto::{
    bind::{Cidr, ipv6_network},
    id::{OrgId, ResourceId},
    name::{DnsName, HostPattern},
    port::PortSet,
    resource::{ClientResource, Health},
    sync::NetworkSettings,
    time::UnixMillis,
};
use tun_driver::{
    dns::DnsState,
    interface::{Interface, MAX_ZONES},
    network::{HostInterface, Landscape, NoFreeSubnet, choose_subnet, rebase},
};

use super::{
    Now,
    backoff::{Jitter, backoff},
};

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// A network that was up for so long and is lost is asked for again at once, as if for the first time.
const STABLE: Duration = Duration::from_secs(10);

/// Names one question to netd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkTicket(pub(super) u64);

/// What the organisation wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkWish {
    pub subnet: Cidr,
    /// Of a /48.
    pub ipv6: Option<Ipv6Addr>,
    pub zone: DnsName,
}

impl NetworkWish {
    /// # Errors
    /// A sentence about what is wrong with the settings.
    pub fn read(settings: &NetworkSettings, org: OrgId) -> Result<Self, String> {
        let NetworkSettings { vnm_subnet, dns_zone, vnm_ipv6, .. } = settings;
        let subnet = vnm_subnet
            .parse()
            .map_err(|error| format!("the organisation's virtual subnet {vnm_subnet:?} cannot be used: it {error}"))?;
        let zone = dns_zone
            .parse()
            .map_err(|error| format!("the organisation's zone {dns_zone:?} cannot be used: it {error}"))?;
        Ok(Self { subnet, ipv6: vnm_ipv6.then(|| ipv6_network(org)), zone })
    }
}

/// What netd is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPlan {
    pub subnet: Cidr,
    /// Of a /48.
    pub ipv6: Option<Ipv6Addr>,
    /// Each covers what is below it; none covers another. In the order of [`zones`].
    pub zones: Vec<DnsName>,
    /// Names that no zone covers: the control plane's and the gateways' own.
    pub kept_out: Vec<DnsName>,
}

/// The virtual network as it is now: for the stack and for the resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    pub interface: Interface,
    pub plan: NetworkPlan,
    /// The organisation's subnet, when the network is elsewhere.
    pub moved_from: Option<Cidr>,
    /// Nothing may be used until `unlock`.
    pub locked: bool,
    pub places: Vec<Place>,
}

/// One resource in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub resource: ResourceId,
    /// Of the resource's own host.
    pub address: Ipv4Addr,
    /// The port that leads to the resource's own.
    pub port: u16,
    /// Ports that lead to the same ports of the resource.
    pub ports: PortSet,
    pub alias: Option<HostPattern>,
    pub standing: Standing,
}

/// Whether a place may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Open,
    /// It may be used; its nodes say that it does not answer.
    Unhealthy,
    /// The user has disconnected it.
    Disconnected,
}

/// The state of the network.
#[derive(Debug, Default)]
pub(super) struct Network {
    pub(super) enabled: bool,
    pub(super) wish: Option<Result<NetworkWish, String>>,
    pub(super) own_names: Vec<DnsName>,
    pub(super) landscape: Landscape,
    phase: Phase,
    /// The phase is another one than when it was last asked for.
    news: bool,
    last_ticket: u64,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Off,
    Asking {
        ticket: NetworkTicket,
        plan: NetworkPlan,
        wished: Cidr,
        conflicts: Vec<String>,
        before: Before,
    },
    Up(Box<Up>),
    Down(Down),
}

/// How it was when netd was asked.
#[derive(Debug)]
enum Before {
    Off,
    /// It is up, and to be changed.
    Up(Box<Up>),
    /// It could not be had, and perhaps still cannot.
    Down(Down),
}

#[derive(Clone, Debug)]
pub(super) struct Up {
    pub(super) plan: NetworkPlan,
    /// The organisation's subnet when this was planned.
    wished: Cidr,
    /// What has the addresses that the organisation wishes.
    pub(super) conflicts: Vec<String>,
    pub(super) interface: Interface,
    pub(super) since: Now,
    /// Why the latest change is not made.
    pub(super) behind: Option<Behind>,
    /// The device has lost or got IPv6 since netd answered: it is asked again.
    other_families: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Behind {
    pub(super) reason: String,
    retry_at: Duration,
    failures: u32,
}

#[derive(Debug)]
pub(super) struct Down {
    pub(super) fault: NetworkFault,
    pub(super) reason: String,
    retry_at: Duration,
    failures: u32,
}

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Ask(NetworkTicket, NetworkPlan),
    Release,
}

/// What the user may be told.
pub(super) enum View<'a> {
    Off,
    Waiting,
    Starting,
    Up(&'a Up),
    Down(&'a Down, UnixMillis),
}

impl Network {
    /// Goes a step towards what should be. `zones`: what is to be answered for, `None` while nobody is signed in.
    pub(super) fn step(&mut self, zones: Option<Vec<DnsName>>, now: Now) -> Step {
        let Some((zones, wish)) = zones.filter(|_| self.enabled).zip(self.wish.as_ref()) else {
            return self.end(Phase::Off);
        };
        let wish = match wish {
            Ok(wish) => wish.clone(),
            Err(reason) => {
                let reason = reason.clone();
                return self.give_up(NetworkFault::BadSettings, reason, now);
            }
        };
        if !self.may_ask(now) {
            return Step::Nothing;
        }
        // A new wish is looked at afresh; with an old one, staying is better than moving twice.
        let current = self.up().filter(|up| up.wished == wish.subnet).map(|up| net(up.plan.subnet));
        // Where the system names devices its own way, ours is known by its number alone.
        let mut ours = self.landscape.ours();
        ours.extend(self.up().map(|up| up.interface.index));
        let choice = match choose_subnet(&self.landscape, net(wish.subnet), current, &ours) {
            Ok(choice) => choice,
            Err(none) => return self.give_up(NetworkFault::NoSubnet, no_subnet(&none), now),
        };
        let Some(subnet) = cidr(choice.subnet) else { return Step::Nothing };
        let plan = NetworkPlan { subnet, ipv6: wish.ipv6, zones, kept_out: self.own_names.clone() };
        let conflicts: Vec<_> = choice.conflicts.iter().map(ToString::to_string).collect();
        self.ask(plan, wish.subnet, conflicts)
    }

    /// netd did what was asked.
    pub(super) fn configured(&mut self, ticket: NetworkTicket, interface: Interface, now: Now) {
        self.phase = match std::mem::take(&mut self.phase) {
            Phase::Asking { ticket: asked, plan, wished, conflicts, before } if asked == ticket => {
                self.news = true;
                let since = if let Before::Up(up) = before { up.since } else { now };
                Phase::Up(Box::new(Up {
                    plan,
                    wished,
                    conflicts,
                    interface,
                    since,
                    behind: None,
                    other_families: false,
                }))
            }
            other => other,
        };
    }

    /// netd did not. Only a failure that leaves nothing takes a network down that is up.
    pub(super) fn failed(
        &mut self,
        ticket: NetworkTicket,
        fault: NetworkFault,
        reason: String,
        now: Now,
        jitter: &mut Jitter,
    ) {
        self.phase = match std::mem::take(&mut self.phase) {
            Phase::Asking { ticket: asked, before, .. } if asked == ticket => {
                self.news = true;
                let failures = before.failures().saturating_add(1);
                let retry_at = now.boot.saturating_add(backoff(failures, FIRST_RETRY, LAST_RETRY, jitter));
                match before {
                    Before::Up(up) if fault != NetworkFault::NoService => {
                        Phase::Up(Box::new(Up { behind: Some(Behind { reason, retry_at, failures }), ..*up }))
                    }
                    Before::Off | Before::Up(_) | Before::Down(_) => {
                        Phase::Down(Down { fault, reason, retry_at, failures })
                    }
                }
            }
            other => other,
        };
    }

    /// The system's resolver asks for our names in another way than when they were registered, or not any more.
    pub(super) fn names_stand(&mut self, dns: DnsState) {
        if let Phase::Up(up) | Phase::Asking { before: Before::Up(up), .. } = &mut self.phase {
            self.news |= up.interface.dns != dns;
            up.interface.dns = dns;
        }
    }

    /// The device is gone, or netd is.
    pub(super) fn lost(&mut self, reason: String, now: Now, jitter: &mut Jitter) {
        let up = match &self.phase {
            Phase::Off | Phase::Down(_) => return,
            Phase::Asking { before: Before::Up(up), .. } | Phase::Up(up) => Some(up),
            Phase::Asking { .. } => None,
        };
        let stable = up.is_some_and(|up| now.boot.saturating_sub(up.since.boot) >= STABLE);
        let failures = if stable { 1 } else { 3 };
        let retry_at = now.boot.saturating_add(backoff(failures, FIRST_RETRY, LAST_RETRY, jitter));
        self.news = true;
        self.phase = Phase::Down(Down { fault: NetworkFault::Failed, reason, retry_at, failures });
    }

    /// Something changed that may help: what failed is tried at once.
    pub(super) fn retry_now(&mut self) {
        match &mut self.phase {
            Phase::Down(Down { retry_at, failures, .. }) => {
                *retry_at = Duration::ZERO;
                *failures = 0;
            }
            Phase::Up(up) => {
                if let Some(behind) = &mut up.behind {
                    behind.retry_at = Duration::ZERO;
                }
            }
            Phase::Off | Phase::Asking { .. } => {}
        }
    }

    pub(super) const fn retry_at(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Down(down) => Some(down.retry_at),
            Phase::Up(up) => match &up.behind {
                Some(behind) => Some(behind.retry_at),
                None => None,
            },
            Phase::Off | Phase::Asking { .. } => None,
        }
    }

    /// The networks of this machine. What failed may work now.
    pub(super) fn set_landscape(&mut self, landscape: Landscape) {
        if self.landscape != landscape {
            let before = std::mem::replace(&mut self.landscape, landscape);
            if matches!(self.phase, Phase::Down(Down { fault: NetworkFault::NoSubnet, .. })) {
                self.retry_now();
            }
            if let Phase::Up(up) | Phase::Asking { before: Before::Up(up), .. } = &mut self.phase {
                up.other_families |= up.may_have_other_families(&before, &self.landscape);
            }
        }
    }

    /// Whether it changed since this was last asked.
    pub(super) const fn take_news(&mut self) -> bool {
        std::mem::replace(&mut self.news, false)
    }

    /// It is switched on and cannot be had.
    pub(super) const fn is_missing(&self) -> bool {
        matches!(self.phase, Phase::Down(_) | Phase::Asking { before: Before::Down(_), .. })
    }

    pub(super) const fn up(&self) -> Option<&Up> {
        match &self.phase {
            Phase::Up(up) | Phase::Asking { before: Before::Up(up), .. } => Some(up),
            Phase::Off | Phase::Asking { .. } | Phase::Down(_) => None,
        }
    }

    /// netd was asked for the first time, and has not answered.
    pub(super) const fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Asking { before: Before::Off, .. })
    }

    pub(super) const fn is_asking(&self) -> bool {
        matches!(self.phase, Phase::Asking { .. })
    }

    /// netd was asked, and whether there is a network depends on its answer.
    pub(super) const fn is_undecided(&self) -> bool {
        matches!(self.phase, Phase::Asking { before: Before::Off | Before::Down(_), .. })
    }

    /// Why resources are not where they belong; `None` while they are, or will be in a moment.
    pub(super) fn absence(&self) -> Option<String> {
        match &self.phase {
            Phase::Down(down) | Phase::Asking { before: Before::Down(down), .. } => {
                Some(format!("the virtual network cannot be had: {}", down.reason))
            }
            Phase::Up(_) | Phase::Asking { .. } => None,
            Phase::Off if self.enabled => Some("the virtual network is not up yet".to_owned()),
            Phase::Off => Some("the virtual network is off; switch it on with postern network enable".to_owned()),
        }
    }

    pub(super) fn view(&self, now: Now) -> View<'_> {
        match &self.phase {
            Phase::Off if self.enabled => View::Waiting,
            Phase::Off => View::Off,
            Phase::Asking { before: Before::Off, .. } => View::Starting,
            Phase::Asking { before: Before::Up(up), .. } | Phase::Up(up) => View::Up(up),
            Phase::Asking { before: Before::Down(down), .. } | Phase::Down(down) => {
                View::Down(down, now.wall.plus(down.retry_at.saturating_sub(now.boot)))
            }
        }
    }

    /// What the organisation wishes, when that is not where the network is.
    pub(super) fn moved_from(&self) -> Option<Cidr> {
        let wish = self.wish.as_ref()?.as_ref().ok()?;
        self.up().filter(|up| up.plan.subnet != wish.subnet).map(|_| wish.subnet)
    }

    /// Where a resource is in the network that is up.
    pub(super) fn address(&self, resource: &ClientResource) -> Option<Ipv4Addr> {
        let up = self.up()?;
        let wish = self.wish.as_ref()?.as_ref().ok()?;
        let std::net::IpAddr::V4(address) = resource.bind.virtual_address()?.ip() else { return None };
        rebase(address, net(wish.subnet), net(up.plan.subnet))
    }

    /// Whether a name is answered in the network that is up.
    pub(super) fn answers(&self, name: &DnsName) -> bool {
        self.up().is_some_and(|up| up.plan.answers(name))
    }

    /// The network as it is, for the stack and the resolver.
    pub(super) fn places(&self, locked: bool, places: Vec<Place>) -> Option<Arc<Places>> {
        let up = self.up()?;
        let (interface, plan) = (up.interface.clone(), up.plan.clone());
        Some(Arc::new(Places { interface, plan, moved_from: self.moved_from(), locked, places }))
    }

    fn may_ask(&self, now: Now) -> bool {
        match &self.phase {
            Phase::Off => true,
            Phase::Up(up) => up.behind.as_ref().is_none_or(|behind| behind.retry_at <= now.boot),
            Phase::Down(down) => down.retry_at <= now.boot,
            Phase::Asking { .. } => false,
        }
    }

    fn ask(&mut self, plan: NetworkPlan, wished: Cidr, conflicts: Vec<String>) -> Step {
        let before = match std::mem::take(&mut self.phase) {
            Phase::Up(up) if up.plan == plan && !up.other_families => {
                self.news |= up.conflicts != conflicts || up.behind.is_some();
                self.phase = Phase::Up(Box::new(Up { wished, conflicts, behind: None, ..*up }));
                return Step::Nothing;
            }
            Phase::Up(up) => Before::Up(up),
            Phase::Down(down) => Before::Down(down),
            Phase::Off | Phase::Asking { .. } => Before::Off,
        };
        self.news = true;
        self.last_ticket += 1;
        let ticket = NetworkTicket(self.last_ticket);
        self.phase = Phase::Asking { ticket, plan: plan.clone(), wished, conflicts, before };
        Step::Ask(ticket, plan)
    }

    fn give_up(&mut self, fault: NetworkFault, reason: String, now: Now) -> Step {
        let retry_at = now.boot.saturating_add(LAST_RETRY);
        if let Phase::Down(down) = &mut self.phase
            && (down.fault, &down.reason) == (fault, &reason)
        {
            down.retry_at = retry_at;
            return Step::Nothing;
        }
        self.end(Phase::Down(Down { fault, reason, retry_at, failures: 0 }))
    }

    fn end(&mut self, phase: Phase) -> Step {
        self.news |= !matches!((&self.phase, &phase), (Phase::Off, Phase::Off));
        match std::mem::replace(&mut self.phase, phase) {
            Phase::Off | Phase::Down(_) => Step::Nothing,
            Phase::Asking { .. } | Phase::Up(_) => Step::Release,
        }
    }
}

impl NetworkPlan {
    /// Whether a zone covers a name.
    #[must_use]
    pub fn answers(&self, name: &DnsName) -> bool {
        is_covered(name, |zone| self.zones.binary_search_by_key(&order(zone), |known| order(known.as_str())).is_ok())
    }
}

impl Before {
    fn failures(&self) -> u32 {
        match self {
            Self::Off => 0,
            Self::Up(up) => up.behind.as_ref().map_or(0, |behind| behind.failures),
            Self::Down(down) => down.failures,
        }
    }
}

impl Up {
    /// Whether the device has lost the IPv6 that netd gave it; or may have some now although netd left it out, since
    /// this machine has an IPv6 address that it did not have.
    fn may_have_other_families(&self, before: &Landscape, now: &Landscape) -> bool {
        match self.interface.ipv6 {
            Some(part) => {
                let mut devices = now.interfaces.iter().filter(|device| device.index == self.interface.index);
                let has = |device: &HostInterface| {
                    device.addresses.iter().any(|address| address.addr() == part.addresses.device)
                };
                devices.next().is_some_and(|device| !has(device))
            }
            None => self.plan.ipv6.is_some() && !ipv6_addresses(now).is_subset(&ipv6_addresses(before)),
        }
    }
}

fn ipv6_addresses(landscape: &Landscape) -> BTreeSet<IpNet> {
    let all = landscape.interfaces.iter().flat_map(|interface| &interface.addresses);
    all.filter(|address| address.addr().is_ipv6()).copied().collect()
}

/// The zones that are answered for: the organisation's, and each alias outside of it (its parent, for a wildcard). None
/// covers another or one of `kept_out`.
pub(super) fn zones<'a>(
    org: &'a DnsName,
    aliases: impl Iterator<Item = &'a HostPattern>,
    kept_out: &[DnsName],
) -> Vec<DnsName> {
    let mut wanted: Vec<&DnsName> = aliases.map(HostPattern::name).chain([org]).collect();
    wanted.sort_by_key(|name| order(name.as_str()));
    let covers = |zone: &DnsName, name: &DnsName| zone == name || name.is_under(zone);
    let mut zones: Vec<DnsName> = Vec::new();
    let mut known = BTreeSet::new();
    for name in wanted {
        let covered = is_covered(name, |zone| known.contains(zone)) || kept_out.iter().any(|own| covers(name, own));
        if !covered && zones.len() < MAX_ZONES {
            zones.push(name.clone());
            known.insert(name.as_str());
        }
    }
    zones
}

/// Those that may cover others come first.
fn order(zone: &str) -> (usize, &str) {
    (zone.split('.').count(), zone)
}

/// Whether a name, or one above it, is a zone.
fn is_covered(name: &DnsName, is_zone: impl Fn(&str) -> bool) -> bool {
    let mut rest = Some(name.as_str());
    while let Some(zone) = rest {
        if is_zone(zone) {
            return true;
        }
        rest = zone.split_once('.').map(|(_, parent)| parent);
    }
    false
}

impl Place {
    /// The place of a resource at this address.
    pub(super) fn new(resource: &ClientResource, address: Ipv4Addr, connected: bool) -> Self {
        let standing = match (&resource.health, connected) {
            (_, false) => Standing::Disconnected,
            (Health::Unhealthy { .. }, true) => Standing::Unhealthy,
            (Health::Healthy | Health::Unknown, true) => Standing::Open,
        };
        Self {
            resource: resource.id,
            address,
            port: resource.bind.port,
            ports: resource.ports.clone(),
            alias: resource.bind.dns_name.clone(),
            standing,
        }
    }
}

fn no_subnet(none: &NoFreeSubnet) -> String {
    format!("{none}. Disconnect other VPNs, or ask an administrator for a smaller virtual subnet")
}

fn net(cidr: Cidr) -> Ipv4Net {
    // A prefix of more than 32 bits is no value of `Cidr`.
    Ipv4Net::new(cidr.network(), cidr.prefix()).unwrap_or_default()
}

fn cidr(net: Ipv4Net) -> Option<Cidr> {
    IpNet::V4(net).to_string().parse().ok()
}

#[cfg(test)]
pub(super) mod tests;
