//! The rules for names in the virtual network: the organisation's zone, aliases, and the hosts under wildcard aliases.
//!
//! Aliases may overlap: `*.internal`, `*.kafka.internal` and `b1.kafka.internal` may belong to three resources, and the one
//! with the highest [`HostPattern::rank`] answers for a host. No two resources have the same alias.

use super::{Broken, Taken, rule::Rule};
use crate::name::{DnsName, HostPattern, MAX_DNS_NAME};

/// The zone of an organisation whose name gives none.
pub const DEFAULT_ZONE: &str = "my-org";
/// Hosts that the allow-list of one resource may name.
pub const MAX_HOSTS: usize = 64;
/// A label of 63 characters and its dot must fit before it.
const MAX_ZONE: usize = MAX_DNS_NAME - 64;

/// A name that no zone and no alias may cover: the control plane's or a gateway's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnName {
    pub name: DnsName,
    /// For example `the control plane`.
    pub whose: String,
}

/// The zone for an organisation with this name: `acme-inc` for `Acme Inc.`.
#[must_use]
pub fn zone_for(org: &str) -> String {
    let label = DnsName::label_for(org).unwrap_or_else(|| DEFAULT_ZONE.to_owned());
    let fits = |zone: &str| check_zone(zone).is_ok();
    [label.clone(), format!("{}-org", label.get(..59).unwrap_or(&label))]
        .into_iter()
        .find(|zone| fits(zone))
        .unwrap_or_else(|| DEFAULT_ZONE.to_owned())
}

/// Whether a text may be the organisation's zone.
pub fn check_zone(text: &str) -> Result<DnsName, Rule> {
    let zone: DnsName = text.parse()?;
    check_meaning(&zone)?;
    if zone.as_str().len() > MAX_ZONE { Err(Rule::ZoneTooLong(MAX_ZONE)) } else { Ok(zone) }
}

/// Whether a zone leaves our own names alone.
pub fn check_covers(zone: &DnsName, own_names: &[OwnName]) -> Result<(), Rule> {
    match own_names.iter().find(|own| own.name == *zone || own.name.is_under(zone)) {
        Some(own) => Err(Rule::CoversOwn { name: own.name.to_string(), whose: own.whose.clone() }),
        None => Ok(()),
    }
}

/// Whether a text may be the alias of a resource.
pub(super) fn check_alias(text: &str, taken: &Taken<'_>) -> Result<HostPattern, Rule> {
    let alias: HostPattern = text.parse().map_err(|error| match error {
        crate::name::HostPatternError::Name(error) => Rule::Name(error),
        error => Rule::Pattern(error),
    })?;
    check_meaning(alias.name())?;
    check_covers(alias.name(), taken.own_names)?;
    match taken.names.get(&alias) {
        Some(holder) => Err(Rule::NameTaken((*holder).to_owned())),
        None => Ok(alias),
    }
}

/// The alias for a resource that was given none: a label made of its name in the organisation's zone, with a number
/// where that is taken.
pub(super) fn default_alias(name: &str, zone: &DnsName, taken: &Taken<'_>) -> Result<HostPattern, Rule> {
    let label = DnsName::label_for(name).unwrap_or_else(|| "resource".to_owned());
    let numbered = (2_u32..).map(|number| {
        let suffix = format!("-{number}");
        let stem = label.get(..63 - suffix.len()).unwrap_or(&label).trim_end_matches('-');
        format!("{stem}{suffix}")
    });
    // More names than are taken are tried, so that one is free.
    let tries = taken.names.len() + taken.own_names.len() + 1;
    let mut names = std::iter::once(label.clone()).chain(numbered).take(tries);
    names.find_map(|label| check_alias(&format!("{label}.{zone}"), taken).ok()).ok_or(Rule::NoneLeft)
}

/// Reads the allow-list of hosts of a resource with this alias. An empty list means all that lie under the alias.
pub fn check_hosts(hosts: &[String], alias: Option<&HostPattern>) -> Result<Vec<HostPattern>, Vec<Broken>> {
    let alias = alias.filter(|alias| alias.is_wildcard());
    let (mut broken, mut checked) = (Vec::new(), Vec::new());
    let mut refuse = |value: &str, rule| broken.push(Broken { field: "hosts", value: value.to_owned(), rule });
    if hosts.len() > MAX_HOSTS {
        refuse(&hosts.len().to_string(), Rule::TooManyHosts);
    }
    for host in hosts.iter().take(MAX_HOSTS) {
        match (host.parse::<HostPattern>(), alias) {
            (Err(error), _) => refuse(host, error.into()),
            (Ok(_), None) => refuse(host, Rule::HostsWithoutWildcard),
            (Ok(pattern), Some(alias)) if !alias.covers(&pattern) => refuse(host, Rule::OutsideAlias(alias.clone())),
            (Ok(pattern), Some(_)) => checked.push(pattern),
        }
    }
    checked.sort_unstable();
    checked.dedup();
    if broken.is_empty() { Ok(checked) } else { Err(broken) }
}

/// Names that mean something else to everybody.
fn check_meaning(name: &DnsName) -> Result<(), Rule> {
    let last = name.labels().last();
    match name.as_str() {
        _ if name.is_localhost() => Err(Rule::Localhost),
        "local" => Err(Rule::SpecialUse),
        _ if last == Some("arpa") => Err(Rule::SpecialUse),
        _ if name.is_public_suffix() => Err(Rule::PublicSuffix),
        _ => Ok(()),
    }
}
