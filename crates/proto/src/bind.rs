//! Where resources appear on users' machines: the rules for bind addresses, and the assignment of free ones.
//!
//! | mode | address | ports | unique | empty means |
//! |---|---|---|---|---|
//! | loopback | in the loopback range; only its first unless multi-loopback is on | 1024–64999 | port per IP | the next free |
//! | VNM | in the lower half of the virtual subnet, but its first | 1–65535 | ports per IP, DNS name | next free address, the resource's own port, a name in the organisation's zone |
//!
//! Every resource has a loopback address: those in Virtual Networking Mode fall back to it, or have it besides.
//!
//! Pure: what is asked and what is taken go in, an address or every broken rule comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
};

pub use self::{
    alias::{DEFAULT_ZONE, MAX_HOSTS, OwnName, check_covers, check_hosts, check_zone, zone_for},
    cidr::{Cidr, CidrError},
    ipv6::{IPV6_PREFIX, ipv6_address, ipv6_network},
    rule::{Broken, Rule},
};
use crate::{
    name::{DnsName, HostPattern},
    port::PortSet,
    resource::{BindAddress, BindMode, LoopbackAddress},
    sync::NetworkSettings,
};

mod alias;
mod cidr;
mod ipv6;
mod rule;

/// Ports in loopback mode. Those below are the system's; those above are Postern's own (65220, 65230) and ephemeral.
pub const LOOPBACK_PORTS: RangeInclusive<u16> = 1024..=64999;
/// Where the search for a free loopback port begins.
pub const FIRST_ASSIGNED: u16 = 10000;
/// Ports in Virtual Networking Mode.
pub const VNM_PORTS: RangeInclusive<u16> = 1..=65535;
/// The smallest virtual subnet.
const MAX_VNM_PREFIX: u8 = 29;

/// All of loopback.
const LOOPBACK: Cidr = Cidr::literal(Ipv4Addr::new(127, 0, 0, 0), 8);
/// What a virtual subnet may be, or be a part of.
const VIRTUAL: [Cidr; 4] = [
    Cidr::literal(Ipv4Addr::new(100, 64, 0, 0), 10),
    Cidr::literal(Ipv4Addr::new(10, 0, 0, 0), 8),
    Cidr::literal(Ipv4Addr::new(172, 16, 0, 0), 12),
    Cidr::literal(Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// The organisation's network settings, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub loopback_range: Cidr,
    pub multi_loopback: bool,
    pub vnm_subnet: Cidr,
    pub dns_zone: DnsName,
}

impl Network {
    /// Reads settings; every broken rule is told.
    pub fn read(settings: &NetworkSettings) -> Result<Self, Vec<Broken>> {
        let mut broken = Vec::new();
        let loopback_range = settings
            .loopback_range
            .parse()
            .map_err(Rule::from)
            .and_then(|range| if LOOPBACK.covers(range) { Ok(range) } else { Err(Rule::NotLoopback) });
        let vnm_subnet = settings.vnm_subnet.parse().map_err(Rule::from).and_then(|subnet: Cidr| {
            match subnet.prefix() <= MAX_VNM_PREFIX {
                _ if !VIRTUAL.iter().any(|space| space.covers(subnet)) => Err(Rule::NotVirtual),
                false => Err(Rule::SubnetTooSmall),
                true => Ok(subnet),
            }
        });
        let loopback_range = note(&mut broken, "loopback_range", &settings.loopback_range, loopback_range);
        let vnm_subnet = note(&mut broken, "vnm_subnet", &settings.vnm_subnet, vnm_subnet);
        let dns_zone = note(&mut broken, "dns_zone", &settings.dns_zone, check_zone(&settings.dns_zone));
        match (loopback_range, vnm_subnet, dns_zone) {
            (Some(loopback_range), Some(vnm_subnet), Some(dns_zone)) => {
                Ok(Self { loopback_range, multi_loopback: settings.multi_loopback, vnm_subnet, dns_zone })
            }
            _ => Err(broken),
        }
    }

    /// The addresses that loopback mode binds.
    fn loopback_hosts(&self) -> RangeInclusive<u32> {
        let hosts = self.loopback_range.hosts();
        if self.multi_loopback { hosts } else { *hosts.start()..=*hosts.start() }
    }

    fn check_loopback_ip(&self, ip: IpAddr) -> Result<Ipv4Addr, Rule> {
        let hosts = self.loopback_hosts();
        match ip {
            IpAddr::V4(ip) if hosts.contains(&ip.to_bits()) => Ok(ip),
            IpAddr::V4(ip) if self.loopback_range.hosts().contains(&ip.to_bits()) => {
                Err(Rule::NotFirst(Ipv4Addr::from_bits(*hosts.start())))
            }
            IpAddr::V4(ip) if self.loopback_range.contains(ip) => Err(Rule::NotAHost),
            _ => Err(Rule::OutsideRange(self.loopback_range)),
        }
    }

    fn check_virtual_ip(&self, ip: IpAddr) -> Result<Ipv4Addr, Rule> {
        let subnet = self.vnm_subnet;
        match ip {
            IpAddr::V4(ip) if subnet.assigned_hosts().contains(&ip.to_bits()) => Ok(ip),
            IpAddr::V4(ip) if !subnet.contains(ip) => Err(Rule::OutsideSubnet(subnet)),
            IpAddr::V4(ip) if !subnet.hosts().contains(&ip.to_bits()) => Err(Rule::NotAHost),
            IpAddr::V4(ip) if subnet.dynamic_hosts().contains(&ip.to_bits()) => Err(Rule::UpperHalf),
            IpAddr::V4(_) => Err(Rule::Reserved { count: subnet.reserved() }),
            IpAddr::V6(_) => Err(Rule::OutsideSubnet(subnet)),
        }
    }

    /// The addresses of a resource that do not fit these settings, each with the setting that it breaks.
    #[must_use]
    pub fn misfits(&self, bind: &BindAddress) -> Vec<(&'static str, IpAddr, Rule)> {
        let mut misfits = Vec::new();
        if let Some(address) = bind.loopback_address()
            && let Err(rule) = self.check_loopback_ip(address.ip())
        {
            misfits.push(("loopback_range", address.ip(), rule));
        }
        if let Some(address) = bind.virtual_address()
            && let Err(rule) = self.check_virtual_ip(address.ip())
        {
            misfits.push(("vnm_subnet", address.ip(), rule));
        }
        misfits
    }
}

/// What is asked for a resource; what is `None` is assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub mode: BindMode,
    pub ip: Option<IpAddr>,
    /// As it was written, to be told back when it is no port.
    pub port: Option<i64>,
    pub dns_name: Option<String>,
    /// The loopback address of a resource in Virtual Networking Mode.
    pub loopback_ip: Option<IpAddr>,
    pub loopback_port: Option<i64>,
}

impl Wish {
    /// Asks for nothing but a mode.
    #[must_use]
    pub const fn any(mode: BindMode) -> Self {
        Self { mode, ip: None, port: None, dns_name: None, loopback_ip: None, loopback_port: None }
    }

    /// Asks for what a resource has.
    #[must_use]
    pub fn keep(bind: &BindAddress) -> Self {
        Self {
            mode: bind.mode,
            ip: Some(bind.ip),
            port: Some(bind.port.into()),
            dns_name: bind.dns_name.as_ref().map(ToString::to_string),
            loopback_ip: bind.loopback.map(|loopback| loopback.ip),
            loopback_port: bind.loopback.map(|loopback| loopback.port.into()),
        }
    }
}

/// What the resource that asks is.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub name: &'a str,
    /// Its own port.
    pub port: u16,
    /// Its further ports.
    pub ports: &'a PortSet,
}

/// What other resources have, and the names that nobody may have.
#[derive(Clone, Debug, Default)]
pub struct Taken<'a> {
    loopback: BTreeMap<u32, BTreeMap<u16, &'a str>>,
    vnm: BTreeMap<u32, Vec<(PortSet, &'a str)>>,
    retired: BTreeSet<u32>,
    /// Where the asker is, and the ports that it has there.
    stays: Option<(u32, PortSet)>,
    names: BTreeMap<HostPattern, &'a str>,
    own_names: &'a [OwnName],
}

impl<'a> Taken<'a> {
    /// `own_names` are those of the control plane and its gateways.
    #[must_use]
    pub fn new(own_names: &'a [OwnName]) -> Self {
        Self { own_names, ..Self::default() }
    }

    /// Notes the bind address of another resource called `holder`, which has these further ports.
    pub fn add(&mut self, bind: &BindAddress, ports: &PortSet, holder: &'a str) {
        if let Some(address) = bind.loopback_address()
            && let IpAddr::V4(ip) = address.ip()
        {
            self.loopback.entry(ip.to_bits()).or_default().insert(address.port(), holder);
        }
        if let Some(address) = bind.virtual_address()
            && let IpAddr::V4(ip) = address.ip()
        {
            self.vnm.entry(ip.to_bits()).or_default().push((ports.with(address.port()), holder));
        }
        if let Some(name) = &bind.dns_name {
            self.names.insert(name.clone(), holder);
        }
    }

    /// Notes the bind address of the asker itself, which has these further ports: where another resource was beside it that
    /// is gone, it may stay.
    pub fn stay(&mut self, bind: &BindAddress, ports: &PortSet) {
        if let Some(address) = bind.virtual_address()
            && let IpAddr::V4(ip) = address.ip()
        {
            self.stays = Some((ip.to_bits(), ports.with(address.port())));
        }
    }

    /// Notes a virtual address that another resource had and has no more.
    pub fn retire(&mut self, ip: IpAddr) {
        if let IpAddr::V4(ip) = ip {
            self.retired.insert(ip.to_bits());
        }
    }
}

/// Finds the bind address for a wish, or every rule that it breaks.
pub fn assign(
    wish: &Wish,
    asker: &Asker<'_>,
    network: &Network,
    taken: &Taken<'_>,
) -> Result<BindAddress, Vec<Broken>> {
    let mut broken = Vec::new();
    let bind = match wish.mode {
        BindMode::Loopback => assign_loopback(wish, network, taken, &mut broken),
        BindMode::Vnm | BindMode::Both => assign_virtual(wish, asker, network, taken, &mut broken),
    };
    bind.filter(|_| broken.is_empty()).ok_or(broken)
}

fn assign_loopback(wish: &Wish, network: &Network, taken: &Taken<'_>, broken: &mut Vec<Broken>) -> Option<BindAddress> {
    if let Some(name) = &wish.dns_name {
        note::<()>(broken, "bind.dns_name", name, Err(Rule::NameInLoopback));
    }
    let second = wish.loopback_ip.map(|ip| ip.to_string()).or_else(|| wish.loopback_port.map(|port| port.to_string()));
    if let Some(second) = second {
        note::<()>(broken, "bind.loopback", second, Err(Rule::SecondLoopback));
    }
    let (ip, port) = place_loopback((wish.ip, wish.port), ["bind.ip", "bind.port"], network, taken, broken)?;
    Some(BindAddress::loopback(ip.into(), port))
}

fn assign_virtual(
    wish: &Wish,
    asker: &Asker<'_>,
    network: &Network,
    taken: &Taken<'_>,
    broken: &mut Vec<Broken>,
) -> Option<BindAddress> {
    let dns_name = match &wish.dns_name {
        Some(name) => note(broken, "bind.dns_name", name, alias::check_alias(name, taken)),
        None => note(broken, "bind.dns_name", "", alias::default_alias(asker.name, &network.dns_zone, taken)),
    };
    let place = place_virtual(wish, asker, network, taken, broken);
    let fields = ["bind.loopback.ip", "bind.loopback.port"];
    let loopback = place_loopback((wish.loopback_ip, wish.loopback_port), fields, network, taken, broken);
    let ((ip, port), (loopback_ip, loopback_port)) = place.zip(loopback)?;
    let loopback = Some(LoopbackAddress { ip: loopback_ip.into(), port: loopback_port });
    Some(BindAddress { mode: wish.mode, ip: ip.into(), port, dns_name, loopback })
}

/// The loopback address for what is asked; `fields` are the names of its parts.
fn place_loopback(
    (ip, port): (Option<IpAddr>, Option<i64>),
    fields: [&'static str; 2],
    network: &Network,
    taken: &Taken<'_>,
    broken: &mut Vec<Broken>,
) -> Option<(Ipv4Addr, u16)> {
    let [ip_field, port_field] = fields;
    let ip = ip.map(|ip| note(broken, ip_field, ip, network.check_loopback_ip(ip)));
    let port = port.map(|port| note(broken, port_field, port, check_port(port, &LOOPBACK_PORTS, Rule::LoopbackPort)));
    // A wish that broke a rule on its own is not searched for.
    let (ip, port) = all_or_nothing(ip).zip(all_or_nothing(port))?;
    let value = port.map_or_else(String::new, |port| port.to_string());
    note(broken, port_field, value, find_loopback(ip, port, network, taken))
}

fn place_virtual(
    wish: &Wish,
    asker: &Asker<'_>,
    network: &Network,
    taken: &Taken<'_>,
    broken: &mut Vec<Broken>,
) -> Option<(Ipv4Addr, u16)> {
    let ip = wish.ip.map(|ip| {
        let checked = network.check_virtual_ip(ip).and_then(|ip| check_retired(ip, taken));
        note(broken, "bind.ip", ip, checked)
    });
    let port = wish.port.map(|port| {
        let checked = check_port(port, &VNM_PORTS, Rule::VnmPort);
        let two = |port: &u16| *port != asker.port && asker.ports.contains(*port);
        let checked = checked.and_then(|port| if two(&port) { Err(Rule::PortMeansTwo) } else { Ok(port) });
        note(broken, "bind.port", port, checked)
    });
    let (ip, port) = all_or_nothing(ip).zip(all_or_nothing(port))?;
    let port = port.unwrap_or(asker.port);
    let Some(ip) = ip else {
        return note(broken, "bind.ip", "", find_virtual(network, taken)).map(|ip| (ip, port));
    };
    let ports = asker.ports.with(port);
    if let Some((_, had)) =
        taken.stays.as_ref().filter(|(at, _)| taken.retired.contains(&ip.to_bits()) && *at == ip.to_bits())
        && let Some(new) = ports.beyond(had)
    {
        let (field, value) = if had.contains(port) { ("ports", new) } else { ("bind.port", port) };
        note::<()>(broken, field, value, Err(Rule::PortRetired(ip)));
    }
    for (held, holder) in taken.vnm.get(&ip.to_bits()).into_iter().flatten() {
        let Some(shared) = held.shared(&ports) else { continue };
        let rule = Rule::PortTaken { ip, holder: (*holder).to_owned() };
        let (field, value) = if held.contains(port) { ("bind.port", port) } else { ("ports", shared) };
        note::<()>(broken, field, value, Err(rule));
    }
    Some((ip, port))
}

fn note<T>(
    broken: &mut Vec<Broken>,
    field: &'static str,
    value: impl fmt::Display,
    checked: Result<T, Rule>,
) -> Option<T> {
    checked.map_err(|rule| broken.push(Broken { field, value: value.to_string(), rule })).ok()
}

/// `None` when something was given and is wrong.
#[expect(clippy::option_option, reason = "outside: usable; inside: given")]
const fn all_or_nothing<T: Copy>(checked: Option<Option<T>>) -> Option<Option<T>> {
    match checked {
        None => Some(None),
        Some(None) => None,
        Some(Some(value)) => Some(Some(value)),
    }
}

fn check_retired(ip: Ipv4Addr, taken: &Taken<'_>) -> Result<Ipv4Addr, Rule> {
    let stays = taken.stays.as_ref().is_some_and(|(at, _)| *at == ip.to_bits());
    if taken.retired.contains(&ip.to_bits()) && !stays { Err(Rule::Retired) } else { Ok(ip) }
}

fn check_port(port: i64, allowed: &RangeInclusive<u16>, rule: Rule) -> Result<u16, Rule> {
    u16::try_from(port).ok().filter(|port| allowed.contains(port)).ok_or(rule)
}

/// The ports in the order in which they are assigned.
fn assigned_ports() -> impl Iterator<Item = u16> {
    (FIRST_ASSIGNED..=*LOOPBACK_PORTS.end()).chain(*LOOPBACK_PORTS.start()..FIRST_ASSIGNED)
}

/// What is asked, or the next free: of the addresses of the range the first that has the lowest free port, so that with
/// multi-loopback each new resource walks on to the next address.
fn find_loopback(
    ip: Option<Ipv4Addr>,
    port: Option<u16>,
    network: &Network,
    taken: &Taken<'_>,
) -> Result<(Ipv4Addr, u16), Rule> {
    let hosts = ip.map_or_else(|| network.loopback_hosts(), |ip| ip.to_bits()..=ip.to_bits());
    if let Some(port) = port {
        let with_port = taken.loopback.range(hosts.clone()).filter(|(_, ports)| ports.contains_key(&port));
        let free = first_gap(hosts.clone(), with_port.map(|(ip, _)| *ip));
        return free.map(|ip| (ip, port)).ok_or_else(|| match (hosts.start() == hosts.end(), hosts.start()) {
            (true, ip) => held(&taken.loopback, *ip, port),
            (false, _) => Rule::NoneLeft,
        });
    }
    let mut holders: BTreeMap<u16, BTreeSet<u32>> = BTreeMap::new();
    for (ip, ports) in taken.loopback.range(hosts.clone()) {
        for port in ports.keys() {
            holders.entry(*port).or_default().insert(*ip);
        }
    }
    let free = assigned_ports().find_map(|port| {
        let held = holders.get(&port).into_iter().flatten().copied();
        first_gap(hosts.clone(), held).map(|ip| (ip, port))
    });
    free.ok_or(Rule::NoneLeft)
}

/// The next virtual address that no resource has or had.
fn find_virtual(network: &Network, taken: &Taken<'_>) -> Result<Ipv4Addr, Rule> {
    let used: BTreeSet<u32> = taken.vnm.keys().chain(&taken.retired).copied().collect();
    let hosts = network.vnm_subnet.assigned_hosts();
    first_gap(hosts.clone(), used.range(hosts).copied()).ok_or(Rule::NoneLeft)
}

fn held(table: &BTreeMap<u32, BTreeMap<u16, &str>>, ip: u32, port: u16) -> Rule {
    let holder = table.get(&ip).and_then(|ports| ports.get(&port)).copied().unwrap_or_default();
    Rule::PortTaken { ip: Ipv4Addr::from_bits(ip), holder: holder.to_owned() }
}

/// The first address of `hosts` that is not in `used`, which is in rising order and within `hosts`.
fn first_gap(hosts: RangeInclusive<u32>, used: impl Iterator<Item = u32>) -> Option<Ipv4Addr> {
    let mut free = *hosts.start();
    for used in used {
        if used != free {
            break;
        }
        free = free.checked_add(1)?;
    }
    hosts.contains(&free).then(|| Ipv4Addr::from_bits(free))
}

#[cfg(test)]
mod tests;
