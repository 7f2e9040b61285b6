//! How many handshakes may be under way: in all, and for one address, so that nobody takes the place of everybody else
//! before it has shown who it is.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Handshakes under way; further connections are closed at once. One that has sent nothing yet costs about 1 KiB.
const MOST: usize = 8192;
/// The same from one address: far more than the devices behind one router begin within the same milliseconds.
const MOST_FROM_ONE: usize = 1024;

/// Counts handshakes. Clones count together.
#[derive(Clone, Default)]
pub(super) struct Admission(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// A handshake that counts until this is dropped.
pub(super) struct Admitted {
    admission: Admission,
    /// `None` while a balancer has not said whose it is.
    source: Option<IpAddr>,
}

impl Admission {
    /// `None` when too many are under way.
    pub(super) fn admit(&self, client: IpAddr) -> Option<Admitted> {
        self.admit_balancer()?.known_as(client)
    }

    /// A connection that a balancer passes on, and has not said yet for whom.
    pub(super) fn admit_balancer(&self) -> Option<Admitted> {
        let mut counts = self.counts();
        if counts.all >= MOST {
            return None;
        }
        counts.all += 1;
        Some(Admitted { admission: self.clone(), source: None })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
    /// Counts for this address from now on. `None` when too many of it are under way.
    pub(super) fn known_as(mut self, client: IpAddr) -> Option<Self> {
        let source = source_of(client);
        {
            let mut counts = self.admission.counts();
            let from_one = counts.by_source.entry(source).or_default();
            if *from_one >= MOST_FROM_ONE {
                return None;
            }
            *from_one += 1;
        }
        self.source = Some(source);
        Some(self)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.all = counts.all.saturating_sub(1);
        if let Some(source) = self.source
            && let Some(count) = counts.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                counts.by_source.remove(&source);
            }
        }
    }
}

/// What counts as one address: of IPv6 the network of 64 bits, all of which a host has to itself.
fn source_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(admission: &Admission, client: IpAddr) -> Vec<Admitted> {
        std::iter::from_fn(|| admission.admit(client)).collect()
    }

    #[test]
    fn one_address_leaves_room_for_others_and_all_together_end_at_the_limit() {
        let admission = Admission::default();
        let client = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut held: Vec<_> = (0..8).map(|n| fill(&admission, client(n))).collect();
        assert!(held.iter().all(|held| held.len() == MOST_FROM_ONE));
        assert!(admission.admit(client(9)).is_none(), "all places are taken");
        drop(held.pop());
        assert!(admission.admit(client(0)).is_none(), "its own are taken still");
        assert!(admission.admit(client(9)).is_some());
        drop(held);
        assert_eq!(admission.counts().all, 0);
        assert!(admission.counts().by_source.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address_and_ipv4_in_ipv6_as_ipv4() {
        let admission = Admission::default();
        let held = fill(&admission, "2001:db8::1".parse().unwrap());
        assert_eq!(held.len(), MOST_FROM_ONE);
        assert!(admission.admit("2001:db8::ffff:2".parse().unwrap()).is_none());
        assert!(admission.admit("2001:db8:0:1::1".parse().unwrap()).is_some());
        let _four = fill(&admission, "192.0.2.1".parse().unwrap());
        assert!(admission.admit("::ffff:192.0.2.1".parse().unwrap()).is_none());
    }
}
