//! Addresses of hosts under wildcard aliases.
//!
//! A host gets its address when it is first asked for, from the upper half of the virtual subnet, and keeps it for ever: an
//! application that remembers an address must never reach another host with it. (The lower half is the control plane's to
//! assign.) Which address it gets depends on its name first, so that it is likely the same after the state was lost.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
};

use postern_proto::{
    bind::Cidr,
    name::{DnsName, check_host},
};
use serde::{Deserialize, Serialize};

/// Hosts that get an address, at most. **When all are given, further hosts get none** until the table is emptied by hand;
/// none is ever taken away. 8,192 take about a mebibyte.
pub const MAX_HOSTS: usize = 8192;

/// Where in the virtual subnet a host is: its address without the network's bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPart(pub u32);

/// Gives addresses to hosts under wildcard aliases.
pub trait Hosts {
    /// The address of `host` (a host name in lower case) below `parent`. Gives one if it has none; the same each time.
    ///
    /// # Errors
    ///
    /// When it gets none.
    fn assign(&mut self, parent: &DnsName, host: &str) -> Result<HostPart, NoAddress>;

    /// The host that has an address.
    fn name(&self, part: HostPart) -> Option<String>;
}

/// Why a host gets no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// It is answered as a name that is not there.
    #[error("the resource does not allow this host")]
    NotAllowed,
    #[error("all addresses for hosts under wildcard aliases are given")]
    Full,
}

/// The addresses that were given. Every host is allowed; who knows better wraps it.
#[derive(Clone, Debug)]
pub struct HostAddresses {
    /// What may be given.
    parts: RangeInclusive<u32>,
    by_name: HashMap<String, HostPart>,
    by_part: BTreeMap<HostPart, String>,
}

/// One given address, to be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    pub host: String,
    pub part: HostPart,
}

impl HostAddresses {
    /// Gives addresses of the upper half of `subnet`, without its broadcast address.
    #[must_use]
    pub fn new(subnet: Cidr) -> Self {
        let size = 1_u64 << (32 - u32::from(subnet.prefix()).min(32));
        let part = |offset: u64| u32::try_from(offset).unwrap_or(u32::MAX);
        let parts = part((size / 2).max(1))..=part(size.saturating_sub(2));
        Self { parts, by_name: HashMap::new(), by_part: BTreeMap::new() }
    }

    /// Takes over what [`HostAddresses::export`] gave. Of two records for one address the first counts, and so of two for
    /// one host. Those that lie outside of what may be given are given to nobody else either, and their hosts get another.
    /// Answers how many records were of no use.
    pub fn import(&mut self, records: impl IntoIterator<Item = HostRecord>) -> usize {
        let mut useless = 0;
        for HostRecord { host, part } in records {
            let valid = check_host(&host).is_ok_and(|canonical| canonical == host);
            if !valid || self.by_part.len() >= MAX_HOSTS || self.by_part.contains_key(&part) {
                useless += 1;
                continue;
            }
            if self.parts.contains(&part.0) {
                self.by_name.entry(host.clone()).or_insert(part);
            }
            self.by_part.insert(part, host);
        }
        useless
    }

    /// All that was ever given, by address.
    #[must_use]
    pub fn export(&self) -> Vec<HostRecord> {
        self.by_part.iter().map(|(part, host)| HostRecord { host: host.clone(), part: *part }).collect()
    }

    /// Those that are in force, by address: of a host that has had another before, only the present one.
    #[must_use]
    pub fn usable(&self) -> Vec<HostRecord> {
        let usable = self.by_part.iter().filter(|(part, host)| self.by_name.get(*host) == Some(*part));
        usable.map(|(part, host)| HostRecord { host: host.clone(), part: *part }).collect()
    }

    /// From now on addresses are given in `subnet`, and what was given counts on as far as [`HostAddresses::import`]
    /// takes it over.
    pub fn fit(&mut self, subnet: Cidr) {
        let mut fitted = Self::new(subnet);
        if fitted.parts != self.parts {
            fitted.import(self.export());
            *self = fitted;
        }
    }

    /// How many addresses were given; grows with each new host.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_part.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_part.is_empty()
    }

    /// The address that a host has.
    #[must_use]
    pub fn get(&self, host: &str) -> Option<HostPart> {
        self.by_name.get(host).copied()
    }

    /// The address of a host, a new one if it has none.
    ///
    /// # Errors
    ///
    /// [`NoAddress::Full`].
    pub fn give(&mut self, host: &str) -> Result<HostPart, NoAddress> {
        if let Some(part) = self.by_name.get(host) {
            return Ok(*part);
        }
        if self.by_part.len() >= MAX_HOSTS {
            return Err(NoAddress::Full);
        }
        let (first, span) = (*self.parts.start(), u64::from(self.parts.end().saturating_sub(*self.parts.start())) + 1);
        if self.parts.is_empty() {
            return Err(NoAddress::Full);
        }
        let start = hash(host) % span;
        let candidates = (0..span).filter_map(|step| u32::try_from((start + step) % span).ok());
        let part = candidates
            .map(|offset| HostPart(first.saturating_add(offset)))
            .find(|part| !self.by_part.contains_key(part))
            .ok_or(NoAddress::Full)?;
        self.by_name.insert(host.to_owned(), part);
        self.by_part.insert(part, host.to_owned());
        Ok(part)
    }
}

impl Hosts for HostAddresses {
    fn assign(&mut self, _parent: &DnsName, host: &str) -> Result<HostPart, NoAddress> {
        self.give(host)
    }

    fn name(&self, part: HostPart) -> Option<String> {
        self.by_part.get(&part).filter(|host| self.by_name.get(*host) == Some(&part)).cloned()
    }
}

/// FNV-1a: the same on every machine and in every version, which the standard library's hash is not.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
