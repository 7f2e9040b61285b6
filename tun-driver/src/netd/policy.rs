//! What an asker may have: ranges, zones, bounds. Pure, but for reading the administrator's file.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    net::Ipv4Addr,
    path::Path,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use super::message::{Code, MAX_LOOPBACK, Problem};
use crate::{
    interface::{IPV6_PREFIX, InterfaceConfig, MAX_QUEUES, MAX_ZONES, MTU, SUBNET_PREFIX, Zone},
    sys::is_the_administrators,
};

/// Where the administrator's file lies.
#[cfg(unix)]
pub(super) const DEFAULT_CONFIG: &str = "/etc/postern/netd.toml";
/// Where the administrator's file lies. Users and groups in it mean nothing here: the pipe's rights say who may ask.
#[cfg(windows)]
pub(super) const DEFAULT_CONFIG: &str = r"C:\ProgramData\Postern\netd.toml";
/// No sensible file is longer.
const MAX_CONFIG_BYTES: u64 = 64 * 1024;

/// Ranges that are nobody's on the internet. No configuration goes beyond them.
const PRIVATE_IPV4: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
];
const PRIVATE_IPV6: Ipv6Net = Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 8);
/// Names that mean something on every machine, beside the public suffixes.
const RESERVED_ZONES: [&str; 4] = ["localhost", "local", "arpa", "onion"];

/// The administrator's file: who may ask, and for what.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Policy {
    /// Users, by number.
    pub(crate) allow_uids: Vec<u32>,
    /// Groups, by name or number: members may ask.
    pub(crate) allow_groups: Vec<Group>,
    /// Whether polkit is asked for everybody else: by default it allows whoever sits at the machine.
    pub(crate) polkit: bool,
    /// The only ranges that may be used, inside the private ones. Empty: all private ranges.
    pub(crate) allowed_ranges: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Group {
    Number(u32),
    Name(String),
}

impl Default for Policy {
    fn default() -> Self {
        Self { allow_uids: Vec::new(), allow_groups: Vec::new(), polkit: true, allowed_ranges: Vec::new() }
    }
}

/// Why the administrator's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PolicyError {
    #[error("cannot read {path}: {source}")]
    Unreadable { path: String, source: io::Error },
    #[error(
        "{path} must belong to the administrator (root) and be writable by nobody else: whoever writes it decides who gets a network"
    )]
    NotTrusted { path: String },
    #[error("{path}: {reason}")]
    Invalid { path: String, reason: String },
}

impl Policy {
    /// Reads the file; without one the default holds: root, and whom polkit allows.
    pub(crate) fn read(path: &Path) -> Result<Self, PolicyError> {
        let shown = || path.display().to_string();
        let unreadable = |source| PolicyError::Unreadable { path: shown(), source };
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(unreadable)?,
        };
        if !is_the_administrators(&file).map_err(unreadable)? {
            return Err(PolicyError::NotTrusted { path: shown() });
        }
        let mut text = String::new();
        file.by_ref().take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_CONFIG_BYTES {
            return Err(PolicyError::Invalid { path: shown(), reason: "longer than any sensible file".to_owned() });
        }
        Self::parse(&text).map_err(|reason| PolicyError::Invalid { path: shown(), reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut policy: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for range in &mut policy.allowed_ranges {
            *range = range.trunc();
            if !is_private(*range) {
                return Err(format!("allowed_ranges: {range} is not inside a private range ({PRIVATE_RANGES})"));
            }
        }
        for group in &mut policy.allow_groups {
            if let Group::Name(name) = group {
                let number = group_number(name).ok_or_else(|| format!("allow_groups: there is no group {name:?}"))?;
                *group = Group::Number(number);
            }
        }
        Ok(policy)
    }

    /// Whether the file names this user or one of his groups. Root always may.
    #[cfg(unix)]
    pub(crate) fn names(&self, uid: u32, groups: &[u32]) -> bool {
        let by_group = || self.allow_groups.iter().any(|group| matches!(group, Group::Number(n) if groups.contains(n)));
        uid == 0 || self.allow_uids.contains(&uid) || by_group()
    }

    /// Checks a wish against everything but the machine's own networks.
    pub(crate) fn check(&self, wish: &InterfaceConfig) -> Result<(), Problem> {
        check_bounds(wish)?;
        let networks = std::iter::once(IpNet::V4(wish.subnet)).chain(wish.ipv6.map(IpNet::V6));
        networks.map(|network| network.trunc()).try_for_each(|network| self.check_range(network))?;
        wish.zones.iter().try_for_each(|zone| check_zone(zone, &wish.kept_out))
    }

    fn check_range(&self, network: IpNet) -> Result<(), Problem> {
        if !is_private(network) {
            let title = format!("{network} is not a private network.");
            let remedy = format!("Choose a virtual subnet inside {PRIVATE_RANGES}.");
            return Err(Problem::new(Code::RangeForbidden, title, remedy));
        }
        let of_family = |range: &&IpNet| range.addr().is_ipv4() == network.addr().is_ipv4();
        let allowed: Vec<String> = self.allowed_ranges.iter().filter(of_family).map(ToString::to_string).collect();
        let free = self.allowed_ranges.is_empty() || self.allowed_ranges.iter().any(|range| range.contains(&network));
        if free {
            return Ok(());
        }
        let title = format!("This machine's administrator does not allow the network {network}.");
        let remedy = match allowed.as_slice() {
            [] => format!("No range of this family is allowed: change allowed_ranges in {DEFAULT_CONFIG}."),
            ranges => format!("Choose one inside {}, or change allowed_ranges in {DEFAULT_CONFIG}.", ranges.join(", ")),
        };
        Err(Problem::new(Code::RangeForbidden, title, remedy))
    }
}

/// Checks addresses that are to be usable beside 127.0.0.1.
pub(super) fn check_loopback(addresses: &[Ipv4Addr]) -> Result<(), Problem> {
    if let Some(address) = addresses.iter().find(|address| !address.is_loopback()) {
        let title = format!("{address} is no loopback address.");
        return Err(Problem::new(Code::RangeForbidden, title, "Choose addresses inside 127.0.0.0/8.".to_owned()));
    }
    if addresses.len() > MAX_LOOPBACK {
        let title = format!("{} loopback addresses were asked for; {MAX_LOOPBACK} are possible.", addresses.len());
        return Err(Problem::new(Code::OutOfBounds, title, "Use a smaller loopback range.".to_owned()));
    }
    Ok(())
}

const PRIVATE_RANGES: &str = "10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 or fd00::/8";

fn is_private(network: IpNet) -> bool {
    match network {
        IpNet::V4(network) => PRIVATE_IPV4.iter().any(|range| range.contains(&network)),
        IpNet::V6(network) => PRIVATE_IPV6.contains(&network),
    }
}

fn check_bounds(wish: &InterfaceConfig) -> Result<(), Problem> {
    let complain =
        |title: String| Err(Problem::new(Code::OutOfBounds, title, "This is a fault of posternd.".to_owned()));
    if !SUBNET_PREFIX.contains(&wish.subnet.prefix_len()) {
        let title = format!("The virtual subnet {} is too large or too small.", wish.subnet);
        let (low, high) = (SUBNET_PREFIX.start(), SUBNET_PREFIX.end());
        return Err(Problem::new(Code::OutOfBounds, title, format!("Choose a prefix length from {low} to {high}.")));
    }
    if let Some(ipv6) = wish.ipv6.filter(|network| !IPV6_PREFIX.contains(&network.prefix_len())) {
        return complain(format!("The virtual IPv6 network {ipv6} is too large or too small."));
    }
    if wish.queues == 0 || wish.queues > MAX_QUEUES {
        return complain(format!("{} queues were asked for; 1 to {MAX_QUEUES} are possible.", wish.queues));
    }
    if !MTU.contains(&wish.mtu) {
        return complain(format!(
            "An MTU of {} was asked for; {} to {} are possible.",
            wish.mtu,
            MTU.start(),
            MTU.end()
        ));
    }
    if wish.zones.len() > MAX_ZONES {
        return complain(format!("{} zones were asked for; {MAX_ZONES} are possible.", wish.zones.len()));
    }
    Ok(())
}

fn check_zone(zone: &Zone, kept_out: &[Zone]) -> Result<(), Problem> {
    let complain = |title, remedy: &str| Err(Problem::new(Code::ZoneForbidden, title, remedy.to_owned()));
    let name = zone.as_str();
    if RESERVED_ZONES.contains(&name) {
        return complain(format!("The name {name} belongs to every machine."), "Choose another name for the zone.");
    }
    if is_public_suffix(name) {
        let remedy = "Choose a name of the organisation's own, or one below it.";
        return complain(format!("{name} is a public suffix: names of others lie below it."), remedy);
    }
    if let Some(kept) = kept_out.iter().find(|kept| zone.covers(kept)) {
        let title = format!("The zone {name} would cover {kept}, which this machine needs to reach Postern itself.");
        return complain(title, "Choose a name that does not lead there, or name the hosts one by one.");
    }
    Ok(())
}

/// Whether the compiled-in list of public suffixes names it. A single label that is on no list ("my-org") is free.
fn is_public_suffix(name: &str) -> bool {
    psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.is_known() && suffix.as_bytes() == name.as_bytes())
}

/// From `/etc/group`, which is where the groups of a machine for its services are.
fn group_number(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        fields.nth(1).filter(|_| found)?.parse().ok()
    })
}

#[cfg(test)]
mod tests;
