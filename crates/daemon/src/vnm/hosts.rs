//! The addresses of hosts under wildcard aliases. One is given when a host is first asked for, and is on disk before it is
//! answered: an address that a program may remember never means another host, whatever happens to this process.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use postern_netstack::dns::{HostAddresses, HostPart, HostRecord, Hosts, NoAddress};
use postern_proto::{bind::Cidr, id::OrgId, name::DnsName};
use tokio::time::Instant;

use crate::store::{SaveError, Store, WildcardHosts};

/// See the module.
#[derive(Debug)]
pub struct HostBook {
    org: OrgId,
    store: Store,
    begun: Instant,
    given: Mutex<HostAddresses>,
    /// What is on disk. Held while the file is written.
    saved: tokio::sync::Mutex<Saved>,
    /// How many hosts were reached for the first time.
    reached: AtomicUsize,
    /// How many of the given addresses may be told of.
    settled: AtomicUsize,
}

/// How many addresses were given, and hosts reached, when the file was last written.
#[derive(Clone, Copy, Debug)]
struct Saved {
    given: usize,
    reached: usize,
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
        let saved = Saved { given: given.given(), reached: 0 };
        Self {
            org,
            store: store.clone(),
            begun: Instant::now(),
            settled: AtomicUsize::new(saved.given),
            given: Mutex::new(given),
            saved: tokio::sync::Mutex::new(saved),
            reached: AtomicUsize::new(0),
        }
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

    /// A program wants to connect to a host at its address. False when that is not the host's any more.
    #[must_use]
    pub fn try_out(&self, host: &DnsName) -> bool {
        self.given_now().try_out(host.as_str())
    }

    /// A program gets through to a host, which keeps its address from now on. Whether that is new, and to be saved.
    pub fn reach(&self, host: &DnsName) -> bool {
        let is_new = self.given().reach(host.as_str());
        if is_new {
            self.reached.fetch_add(1, Ordering::AcqRel);
        }
        is_new
    }

    /// Makes sure that what was given and reached before this call is on disk, and says how many were given.
    ///
    /// # Errors
    /// What the system says. What was given stays given.
    pub async fn save(&self) -> Result<usize, SaveError> {
        let wanted = self.count(&self.given());
        let mut saved = self.saved.lock().await;
        if saved.given < wanted.given || saved.reached < wanted.reached {
            let (count, hosts) = {
                let given = self.given();
                (self.count(&given), given.export())
            };
            let (store, kept) = (self.store.clone(), WildcardHosts { org: self.org, hosts });
            // Otherwise the runtime stops, and so does the network.
            if let Ok(written) = tokio::task::spawn_blocking(move || store.save(&kept)).await {
                written?;
            }
            *saved = count;
        }
        Ok(saved.given)
    }

    /// So many are on disk and in the directory.
    pub fn settle(&self, count: usize) {
        self.settled.fetch_max(count, Ordering::AcqRel);
    }

    fn count(&self, given: &HostAddresses) -> Saved {
        Saved { given: given.given(), reached: self.reached.load(Ordering::Acquire) }
    }

    fn given_now(&self) -> MutexGuard<'_, HostAddresses> {
        let mut given = self.given();
        given.at(self.begun.elapsed());
        given
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
        let mut given = self.book.given_now();
        let part = given.assign(parent, host)?;
        self.unsettled |= given.given() > self.settled;
        Ok(part)
    }

    fn name(&self, part: HostPart) -> Option<String> {
        let mut given = self.book.given_now();
        let name = given.name(part)?;
        // Whoever asks for its name remembers the address.
        given.try_out(&name).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use postern_netstack::dns::{FORGOTTEN_AFTER, MAX_HOSTS};

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let home = tempfile::tempdir().unwrap();
        let paths = postern_local_api::paths::Paths::under(home.path()).unwrap();
        crate::instance::make_private_folder(&paths.state).unwrap();
        (home, Store::new(&paths))
    }

    fn book(store: &Store) -> HostBook {
        let (org, subnet) = (OrgId::from_ulid(1.into()), "100.72.0.0/16".parse().unwrap());
        let mut warnings = Vec::new();
        let book = HostBook::open(store, org, subnet, &mut warnings);
        assert!(warnings.is_empty(), "{warnings:?}");
        book
    }

    /// As a question does that waits for the disk.
    async fn ask(book: &HostBook, host: &str) -> Result<HostPart, NoAddress> {
        let mut giving = book.give();
        let part = giving.assign(&"x".parse().unwrap(), host)?;
        if giving.is_unsettled() {
            let count = book.save().await.unwrap();
            book.settle(count);
        }
        Ok(part)
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_names_passes_and_who_was_reached_keeps_his_address_over_restarts() {
        let (_home, store) = store();
        let first = book(&store);
        let real: DnsName = "real.x".parse().unwrap();
        let part = ask(&first, "real.x").await.unwrap();
        assert!(first.try_out(&real) && first.reach(&real) && !first.reach(&real));
        for host in 1..MAX_HOSTS {
            first.give().assign(&"x".parse().unwrap(), &format!("h{host}.x")).unwrap();
        }
        assert_eq!(ask(&first, "new.x").await, Err(NoAddress::Full));
        first.save().await.unwrap();

        let second = book(&store);
        assert_eq!(ask(&second, "new.x").await, Err(NoAddress::Full), "the flood may be remembered");
        tokio::time::advance(FORGOTTEN_AFTER).await;
        for host in 0..20 {
            ask(&second, &format!("new{host}.x")).await.unwrap();
        }
        assert_eq!(second.records().len(), MAX_HOSTS);
        tokio::time::advance(Duration::from_secs(1)).await;

        let third = book(&store);
        let new: DnsName = "new7.x".parse().unwrap();
        assert!(third.try_out(&new) && third.records().iter().any(|record| record.host == "real.x" && record.reached));
        assert_eq!((ask(&third, "real.x").await, third.give().name(part)), (Ok(part), Some("real.x".to_owned())));
    }

    #[tokio::test]
    async fn a_new_host_in_the_place_of_a_forgotten_one_is_on_disk_before_it_is_answered() {
        tokio::time::pause();
        let (_home, store) = store();
        let book = book(&store);
        book.fit("192.168.0.0/29".parse().unwrap());
        for host in ["a.x", "b.x", "c.x"] {
            ask(&book, host).await.unwrap();
        }
        tokio::time::advance(FORGOTTEN_AFTER).await;
        let mut giving = book.give();
        let part = giving.assign(&"x".parse().unwrap(), "d.x").unwrap();
        assert!(giving.is_unsettled());
        let count = book.save().await.unwrap();
        let kept = store.load_or_warn::<WildcardHosts>(&mut Vec::new()).unwrap().hosts;
        assert!(kept.iter().any(|record| record.host == "d.x" && record.part == part) && kept.len() == 3);
        book.settle(count);
        let mut giving = book.give();
        giving.assign(&"x".parse().unwrap(), "d.x").unwrap();
        assert!(!giving.is_unsettled());
    }
}
