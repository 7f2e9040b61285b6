//! The addresses of hosts under wildcard aliases. One is given when a host is first asked for, and is on disk before it is
//! answered: an address that a program has seen never means another host, whatever happens to this process.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use postern_netstack::dns::{HostAddresses, HostPart, HostRecord, Hosts, NoAddress};
use postern_proto::{bind::Cidr, id::OrgId, name::DnsName};

use crate::store::{SaveError, Store, WildcardHosts};

/// See the module.
#[derive(Debug)]
pub struct HostBook {
    org: OrgId,
    store: Store,
    given: Mutex<HostAddresses>,
    /// How many there are on disk. Held while the file is written.
    saved: tokio::sync::Mutex<usize>,
    /// How many of them may be told of.
    settled: AtomicUsize,
}

/// What was given, for answering one question; whoever has no address gets one. Only questions about hosts under wildcard
/// aliases touch what all threads share: another one would wait for a thread that its core has been taken from.
pub struct Giving<'a> {
    book: &'a HostBook,
    settled: usize,
    unsettled: bool,
}

impl HostBook {
    /// What an earlier run gave in this organisation counts on. `subnet`: where, or of which size.
    #[must_use]
    pub fn open(store: &Store, org: OrgId, subnet: Cidr, warnings: &mut Vec<String>) -> Self {
        let kept = store.load_or_warn::<WildcardHosts>(warnings).filter(|kept| kept.org == org);
        let mut given = HostAddresses::new(subnet);
        let useless = given.import(kept.map(|kept| kept.hosts).unwrap_or_default());
        if useless > 0 {
            tracing::warn!(useless, "kept addresses of hosts that make no sense are left out");
        }
        let count = given.len();
        let (saved, settled) = (tokio::sync::Mutex::new(count), AtomicUsize::new(count));
        Self { org, store: store.clone(), given: Mutex::new(given), saved, settled }
    }

    #[must_use]
    pub fn give(&self) -> Giving<'_> {
        Giving { settled: self.settled.load(Ordering::Acquire), book: self, unsettled: false }
    }

    /// The addresses that are in force.
    #[must_use]
    pub fn records(&self) -> Vec<HostRecord> {
        self.given().usable()
    }

    /// The network is here now, or of this size.
    pub fn fit(&self, subnet: Cidr) {
        self.given().fit(subnet);
    }

    /// Makes sure that what was given before this call is on disk, and says how many that are.
    ///
    /// # Errors
    /// What the system says. What was given stays given.
    pub async fn save(&self) -> Result<usize, SaveError> {
        let wanted = self.given().len();
        let mut saved = self.saved.lock().await;
        if *saved < wanted {
            let hosts = self.given().export();
            let count = hosts.len();
            let (store, kept) = (self.store.clone(), WildcardHosts { org: self.org, hosts });
            // Otherwise the runtime stops, and so does the network.
            if let Ok(written) = tokio::task::spawn_blocking(move || store.save(&kept)).await {
                written?;
            }
            *saved = count;
        }
        Ok(*saved)
    }

    /// So many are on disk and in the directory.
    pub fn settle(&self, count: usize) {
        self.settled.fetch_max(count, Ordering::AcqRel);
    }

    fn given(&self) -> MutexGuard<'_, HostAddresses> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Giving<'_> {
    /// Whether an address was told of that is not on disk, or not in the directory yet. Nothing may be answered before
    /// that.
    #[must_use]
    pub const fn is_unsettled(&self) -> bool {
        self.unsettled
    }
}

impl Hosts for Giving<'_> {
    fn assign(&mut self, parent: &DnsName, host: &str) -> Result<HostPart, NoAddress> {
        let mut given = self.book.given();
        let part = given.assign(parent, host)?;
        self.unsettled |= given.len() > self.settled;
        Ok(part)
    }

    fn name(&self, part: HostPart) -> Option<String> {
        self.book.given().name(part)
    }
}
