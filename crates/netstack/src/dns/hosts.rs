//! Addresses of hosts under wildcard aliases.
//!
//! A host gets its address when it is first asked for, from the upper half of the virtual subnet: an application that
//! remembers an address must never reach another host with it. So a host that was once reached keeps its address for ever,
//! and one that never was loses it only to a new host, when no address is left and for [`FORGOTTEN_AFTER`] nobody was told
//! of it and nobody tried it: names that somebody makes up would use up all addresses otherwise. (The lower half is the
//! control plane's to assign.) Which address a host gets depends on its name first, so that it is likely the same after
//! the state was lost.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::RangeInclusive,
    time::Duration,
};

use postern_proto::{
    bind::Cidr,
    name::{DnsName, check_host},
};
use serde::{Deserialize, Serialize};

/// Hosts that have an address, at most. **When all are given, a further host takes that of the host that was forgotten
/// longest ago**, and gets none while there is none. 8,192 take about a mebibyte.
pub const MAX_HOSTS: usize = 8192;
/// A program may remember for so long an address that it never got through to. Resolvers keep an answer for
/// [`super::TTL`] seconds, browsers and run-times that keep it on their own for a minute or some.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 60);

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
    by_part: BTreeMap<HostPart, Given>,
    /// Those of hosts that were never reached, by when they were last told of or tried.
    unreached: BTreeSet<(Duration, HostPart)>,
    now: Duration,
    given: usize,
}

#[derive(Clone, Debug)]
struct Given {
    host: String,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Reached,
    /// Last told of or tried then.
    Unreached(Duration),
}

/// One given address, to be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    pub host: String,
    pub part: HostPart,
    /// A program has got through to the host there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reached: bool,
}

impl HostAddresses {
    /// Gives addresses of the upper half of `subnet`, without its broadcast address.
    #[must_use]
    pub fn new(subnet: Cidr) -> Self {
        let size = 1_u64 << (32 - u32::from(subnet.prefix()).min(32));
        let part = |offset: u64| u32::try_from(offset).unwrap_or(u32::MAX);
        let parts = part((size / 2).max(1))..=part(size.saturating_sub(2));
        let (by_name, by_part, unreached) = (HashMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { parts, by_name, by_part, unreached, now: Duration::ZERO, given: 0 }
    }

    /// So much time has passed since some instant in the past; it never goes back.
    pub fn at(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// Takes over what [`HostAddresses::export`] gave. Of two records for one address the first counts, and so of two for
    /// one host. Those that lie outside of what may be given are given to nobody else either, and their hosts get another.
    /// When they were last told of is not known any more: somebody may have been just now. Answers how many records were of
    /// no use.
    pub fn import(&mut self, records: impl IntoIterator<Item = HostRecord>) -> usize {
        let mut useless = 0;
        for HostRecord { host, part, reached } in records {
            let valid = check_host(&host).is_ok_and(|canonical| canonical == host);
            if !valid || self.by_part.len() >= MAX_HOSTS || self.by_part.contains_key(&part) {
                useless += 1;
                continue;
            }
            if self.parts.contains(&part.0) {
                self.by_name.entry(host.clone()).or_insert(part);
            }
            self.insert(part, host, reached);
        }
        useless
    }

    /// All that is given, by address.
    #[must_use]
    pub fn export(&self) -> Vec<HostRecord> {
        self.by_part.iter().map(record).collect()
    }

    /// Those that are in force, by address: of a host that has had another before, only the present one.
    #[must_use]
    pub fn usable(&self) -> Vec<HostRecord> {
        let usable = self.by_part.iter().filter(|(part, given)| self.by_name.get(&given.host) == Some(*part));
        usable.map(record).collect()
    }

    /// From now on addresses are given in `subnet`, and what was given counts on as far as [`HostAddresses::import`]
    /// takes it over.
    pub fn fit(&mut self, subnet: Cidr) {
        let mut fitted = Self::new(subnet);
        if fitted.parts != self.parts {
            fitted.at(self.now);
            fitted.import(self.export());
            // Whoever waits for a number waits on.
            fitted.given = fitted.given.max(self.given);
            *self = fitted;
        }
    }

    /// How many addresses are given.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_part.len()
    }

    /// How many were ever given; grows with each new host.
    #[must_use]
    pub const fn given(&self) -> usize {
        self.given
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

    /// The address of a host, a new one if it has none. It is told of, or tried, now.
    ///
    /// # Errors
    ///
    /// [`NoAddress::Full`].
    pub fn give(&mut self, host: &str) -> Result<HostPart, NoAddress> {
        if let Some(part) = self.by_name.get(host).copied() {
            self.touch(part);
            return Ok(part);
        }
        let part = match self.vacant(host) {
            Some(part) => part,
            None => {
                self.forget_one().ok_or(NoAddress::Full)?;
                self.vacant(host).ok_or(NoAddress::Full)?
            }
        };
        self.by_name.insert(host.to_owned(), part);
        self.insert(part, host.to_owned(), false);
        Ok(part)
    }

    /// A program wants to connect to a host's address. False when it has none any more: then it must not.
    pub fn try_out(&mut self, host: &str) -> bool {
        let part = self.by_name.get(host).copied();
        part.inspect(|part| self.touch(*part)).is_some()
    }

    /// A program got through to a host: it keeps its address for ever. Whether that is new.
    pub fn reach(&mut self, host: &str) -> bool {
        let Some(part) = self.by_name.get(host).copied() else { return false };
        let Some(given) = self.by_part.get_mut(&part) else { return false };
        match std::mem::replace(&mut given.standing, Standing::Reached) {
            Standing::Reached => false,
            Standing::Unreached(at) => self.unreached.remove(&(at, part)),
        }
    }

    /// An address that nobody has; the same for the same host as long as that one is vacant.
    fn vacant(&self, host: &str) -> Option<HostPart> {
        if self.by_part.len() >= MAX_HOSTS || self.parts.is_empty() {
            return None;
        }
        let (first, span) = (*self.parts.start(), u64::from(self.parts.end().saturating_sub(*self.parts.start())) + 1);
        let start = hash(host) % span;
        let candidates = (0..span).filter_map(|step| u32::try_from((start + step) % span).ok());
        candidates.map(|offset| HostPart(first.saturating_add(offset))).find(|part| !self.by_part.contains_key(part))
    }

    /// Takes the address away that nobody remembers for the longest time.
    fn forget_one(&mut self) -> Option<()> {
        let (at, part) = self.unreached.first().copied()?;
        if self.now.saturating_sub(at) < FORGOTTEN_AFTER {
            return None;
        }
        self.unreached.remove(&(at, part));
        let given = self.by_part.remove(&part)?;
        if self.by_name.get(&given.host) == Some(&part) {
            self.by_name.remove(&given.host);
        }
        Some(())
    }

    fn insert(&mut self, part: HostPart, host: String, reached: bool) {
        let standing = if reached { Standing::Reached } else { Standing::Unreached(self.now) };
        if !reached {
            self.unreached.insert((self.now, part));
        }
        self.by_part.insert(part, Given { host, standing });
        self.given += 1;
    }

    fn touch(&mut self, part: HostPart) {
        if let Some(Given { standing: Standing::Unreached(at), .. }) = self.by_part.get_mut(&part) {
            self.unreached.remove(&(*at, part));
            *at = self.now;
            self.unreached.insert((self.now, part));
        }
    }
}

impl Hosts for HostAddresses {
    fn assign(&mut self, _parent: &DnsName, host: &str) -> Result<HostPart, NoAddress> {
        self.give(host)
    }

    fn name(&self, part: HostPart) -> Option<String> {
        let given = self.by_part.get(&part)?;
        (self.by_name.get(&given.host) == Some(&part)).then(|| given.host.clone())
    }
}

fn record((part, Given { host, standing }): (&HostPart, &Given)) -> HostRecord {
    HostRecord { host: host.clone(), part: *part, reached: *standing == Standing::Reached }
}

/// FNV-1a: the same on every machine and in every version, which the standard library's hash is not.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
