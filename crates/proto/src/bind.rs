//! Where resources appear on users' machines: the rules for bind addresses, and the assignment of free ones.
//!
//! | mode | address | ports | unique | empty means |
//! |---|---|---|---|---|
//! | loopback | in the loopback range; only its first unless multi-loopback is on | 1024–64999 | port per IP | the next free |
//! | VNM | in the virtual subnet | 1–65535 | port per IP, DNS name | next free address, the resource's own port |
//!
//! Pure: what is asked and what is taken go in, an address or every broken rule comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    str::FromStr,
};

use crate::{
    name::{DnsName, DnsNameError},
    resource::{BindAddress, BindMode},
    sync::NetworkSettings,
};

/// Ports in loopback mode. Those below are the system's; those above are Postern's own (65220, 65230) and ephemeral.
pub const LOOPBACK_PORTS: RangeInclusive<u16> = 1024..=64999;
/// Where the search for a free loopback port begins.
pub const FIRST_ASSIGNED: u16 = 10000;
/// Ports in Virtual Networking Mode.
pub const VNM_PORTS: RangeInclusive<u16> = 1..=65535;
/// Addresses at the beginning of the virtual subnet, the network address counted in, that no resource gets: the
/// device's own and the resolver's.
pub const RESERVED: u32 = 3;
/// The smallest virtual subnet.
const MAX_VNM_PREFIX: u8 = 29;

/// An IPv4 network in CIDR form, for example `127.0.0.0/24`. No host bit is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: u32,
    prefix: u8,
}

/// A text that is no IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    #[error("must be an IPv4 network in CIDR form, for example 100.72.0.0/16")]
    Form,
    #[error("must be the address of a network: with this prefix it is {0}")]
    HostBits(Cidr),
}

impl Cidr {
    const fn literal(network: Ipv4Addr, prefix: u8) -> Self {
        Self { network: network.to_bits(), prefix }
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or_default()
    }

    /// Its first address, the network's own.
    #[must_use]
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network)
    }

    /// How many bits are the network's, 0 to 32.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    #[must_use]
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        ip.to_bits() & self.mask() == self.network
    }

    /// Whether `other` lies wholly within.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(Ipv4Addr::from_bits(other.network))
    }

    /// The addresses that hosts may have: all but the network's own and the broadcast address, where there are these.
    fn hosts(self) -> RangeInclusive<u32> {
        let last = self.network | !self.mask();
        if self.prefix >= 31 { self.network..=last } else { self.network + 1..=last - 1 }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (ip, prefix) = text.split_once('/').ok_or(CidrError::Form)?;
        let ip: Ipv4Addr = ip.parse().map_err(|_| CidrError::Form)?;
        let digits = !prefix.is_empty() && prefix.len() <= 2 && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|prefix| digits && *prefix <= 32).ok_or(CidrError::Form)?;
        let asked = Self { network: ip.to_bits(), prefix };
        let network = Self { network: asked.network & asked.mask(), prefix };
        if network == asked { Ok(network) } else { Err(CidrError::HostBits(network)) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.network), self.prefix)
    }
}

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub loopback_range: Cidr,
    pub multi_loopback: bool,
    pub vnm_subnet: Cidr,
}

/// A rule that network settings or a bind address break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The field as the API names it.
    pub field: &'static str,
    pub value: String,
    pub rule: Rule,
}

/// The rules of this module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    #[error(transparent)]
    Cidr(#[from] CidrError),
    #[error("must lie within 127.0.0.0/8")]
    NotLoopback,
    #[error("must be, or lie within, 100.64.0.0/10, 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16")]
    NotVirtual,
    #[error("must not be smaller than /{MAX_VNM_PREFIX}")]
    SubnetTooSmall,
    #[error("must be an address of the loopback range {0}")]
    OutsideRange(Cidr),
    #[error("must be {0} while multi-loopback is off")]
    NotFirst(Ipv4Addr),
    #[error("must be an address of the virtual subnet {0}")]
    OutsideSubnet(Cidr),
    #[error("must not be the address of the network itself or its broadcast address")]
    NotAHost,
    #[error("must not be one of the first {n} addresses of the virtual subnet, which Postern itself uses", n = RESERVED - 1)]
    Reserved,
    #[error("must be from {} to {} in loopback mode", LOOPBACK_PORTS.start(), LOOPBACK_PORTS.end())]
    LoopbackPort,
    #[error("must be from {} to {}", VNM_PORTS.start(), VNM_PORTS.end())]
    VnmPort,
    #[error("must be free at {ip}: resource {holder} has it")]
    PortTaken { ip: Ipv4Addr, holder: String },
    #[error("must not have belonged to another resource: virtual addresses are never used again")]
    Retired,
    #[error("must be given or something be freed: no address and port is free")]
    NoneLeft,
    #[error("must be left out in loopback mode: only resources in Virtual Networking Mode have a DNS name")]
    NameInLoopback,
    #[error(transparent)]
    Name(#[from] DnsNameError),
    #[error("must not be localhost or end in .localhost")]
    Localhost,
    #[error("must be unique: resource {0} has it")]
    NameTaken(String),
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
            match subnet.prefix <= MAX_VNM_PREFIX {
                _ if !VIRTUAL.iter().any(|space| space.covers(subnet)) => Err(Rule::NotVirtual),
                false => Err(Rule::SubnetTooSmall),
                true => Ok(subnet),
            }
        });
        let loopback_range = note(&mut broken, "loopback_range", &settings.loopback_range, loopback_range);
        let vnm_subnet = note(&mut broken, "vnm_subnet", &settings.vnm_subnet, vnm_subnet);
        match (loopback_range, vnm_subnet) {
            (Some(loopback_range), Some(vnm_subnet)) => {
                Ok(Self { loopback_range, multi_loopback: settings.multi_loopback, vnm_subnet })
            }
            _ => Err(broken),
        }
    }

    /// The addresses that loopback mode binds.
    fn loopback_hosts(&self) -> RangeInclusive<u32> {
        let hosts = self.loopback_range.hosts();
        if self.multi_loopback { hosts } else { *hosts.start()..=*hosts.start() }
    }

    /// The addresses that resources in Virtual Networking Mode may have.
    fn vnm_hosts(&self) -> RangeInclusive<u32> {
        let hosts = self.vnm_subnet.hosts();
        self.vnm_subnet.network + RESERVED..=*hosts.end()
    }

    fn check_ip(&self, mode: BindMode, ip: IpAddr) -> Result<Ipv4Addr, Rule> {
        let outside = match mode {
            BindMode::Loopback => Rule::OutsideRange(self.loopback_range),
            BindMode::Vnm => Rule::OutsideSubnet(self.vnm_subnet),
        };
        let IpAddr::V4(ip) = ip else { return Err(outside) };
        let (range, hosts) = match mode {
            BindMode::Loopback => (self.loopback_range, self.loopback_hosts()),
            BindMode::Vnm => (self.vnm_subnet, self.vnm_hosts()),
        };
        if hosts.contains(&ip.to_bits()) {
            return Ok(ip);
        }
        Err(match mode {
            _ if !range.contains(ip) => outside,
            _ if !range.hosts().contains(&ip.to_bits()) => Rule::NotAHost,
            BindMode::Loopback => Rule::NotFirst(Ipv4Addr::from_bits(*hosts.start())),
            BindMode::Vnm => Rule::Reserved,
        })
    }

    /// Whether an address that was assigned under other settings fits these.
    pub fn check(&self, bind: &BindAddress) -> Result<(), Rule> {
        self.check_ip(bind.mode, bind.ip).map(drop)
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
}

/// What other resources have.
#[derive(Clone, Debug, Default)]
pub struct Taken<'a> {
    loopback: BTreeMap<u32, BTreeMap<u16, &'a str>>,
    vnm: BTreeMap<u32, BTreeMap<u16, &'a str>>,
    retired: BTreeSet<u32>,
    names: BTreeMap<&'a str, &'a str>,
}

impl<'a> Taken<'a> {
    /// Notes the bind address of another resource called `holder`.
    pub fn add(&mut self, bind: &'a BindAddress, holder: &'a str) {
        let table = match bind.mode {
            BindMode::Loopback => &mut self.loopback,
            BindMode::Vnm => &mut self.vnm,
        };
        if let IpAddr::V4(ip) = bind.ip {
            table.entry(ip.to_bits()).or_default().insert(bind.port, holder);
        }
        if let Some(name) = &bind.dns_name {
            self.names.insert(name, holder);
        }
    }

    /// Notes a virtual address that another resource had and has no more.
    pub fn retire(&mut self, ip: IpAddr) {
        if let IpAddr::V4(ip) = ip {
            self.retired.insert(ip.to_bits());
        }
    }
}

/// Finds the bind address for a wish, or every rule that it breaks. `own_port` is the port of the resource itself.
pub fn assign(wish: &Wish, own_port: u16, network: &Network, taken: &Taken<'_>) -> Result<BindAddress, Vec<Broken>> {
    let mut broken = Vec::new();
    let dns_name = wish.dns_name.as_ref().and_then(|name| {
        let checked = check_name(name, wish.mode, taken);
        note(&mut broken, "bind.dns_name", name, checked)
    });
    let ip = wish.ip.map(|ip| {
        let checked = network.check_ip(wish.mode, ip).and_then(|ip| check_retired(ip, wish.mode, taken));
        note(&mut broken, "bind.ip", ip, checked)
    });
    let port = wish.port.map(|port| note(&mut broken, "bind.port", port, check_port(port, wish.mode)));
    // A wish that broke a rule on its own is not searched for: `Some(None)`.
    let (Some(ip), Some(port)) = (all_or_nothing(ip), all_or_nothing(port)) else { return Err(broken) };
    let found = match wish.mode {
        BindMode::Loopback => find_loopback(ip, port, network, taken),
        BindMode::Vnm => find_vnm(ip, port.unwrap_or(own_port), network, taken),
    };
    match found {
        Ok((ip, port)) if broken.is_empty() => Ok(BindAddress { mode: wish.mode, ip: ip.into(), port, dns_name }),
        Ok(_) => Err(broken),
        Err(rule) => {
            let value = port.map_or_else(String::new, |port| port.to_string());
            broken.push(Broken { field: "bind.port", value, rule });
            Err(broken)
        }
    }
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

fn check_name(name: &str, mode: BindMode, taken: &Taken<'_>) -> Result<String, Rule> {
    if mode == BindMode::Loopback {
        return Err(Rule::NameInLoopback);
    }
    let name: DnsName = name.parse()?;
    if name.is_localhost() {
        return Err(Rule::Localhost);
    }
    match taken.names.get(name.as_str()) {
        Some(holder) => Err(Rule::NameTaken((*holder).to_owned())),
        None => Ok(name.to_string()),
    }
}

fn check_retired(ip: Ipv4Addr, mode: BindMode, taken: &Taken<'_>) -> Result<Ipv4Addr, Rule> {
    if mode == BindMode::Vnm && taken.retired.contains(&ip.to_bits()) { Err(Rule::Retired) } else { Ok(ip) }
}

fn check_port(port: i64, mode: BindMode) -> Result<u16, Rule> {
    let (allowed, rule) = match mode {
        BindMode::Loopback => (LOOPBACK_PORTS, Rule::LoopbackPort),
        BindMode::Vnm => (VNM_PORTS, Rule::VnmPort),
    };
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

/// What is asked, or the next address that no resource has or had.
fn find_vnm(ip: Option<Ipv4Addr>, port: u16, network: &Network, taken: &Taken<'_>) -> Result<(Ipv4Addr, u16), Rule> {
    if let Some(ip) = ip {
        let bits = ip.to_bits();
        let free = taken.vnm.get(&bits).is_none_or(|ports| !ports.contains_key(&port));
        return if free { Ok((ip, port)) } else { Err(held(&taken.vnm, bits, port)) };
    }
    let used: BTreeSet<u32> = taken.vnm.keys().chain(&taken.retired).copied().collect();
    let hosts = network.vnm_hosts();
    first_gap(hosts.clone(), used.range(hosts).copied()).map(|ip| (ip, port)).ok_or(Rule::NoneLeft)
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
