//! Refused connections, counted until they are reported to the control plane.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use postern_proto::{
    api::{DeviceEvent, DeviceEventKind},
    id::ResourceId,
    time::UnixMillis,
};

/// Different refusals that are told apart before a report; what goes beyond is counted with "nobody could be named".
const MAX_KINDS: usize = 500;

/// What was refused where, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    pub resource: ResourceId,
    pub bind: SocketAddr,
    pub uid: Option<u32>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Refusals {
    counted: Mutex<BTreeMap<Refusal, Count>>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    first: UnixMillis,
    times: u64,
}

impl Refusals {
    /// Counts one, and says whether it is the first of its kind since the last report.
    pub fn count(&self, refusal: Refusal, now: UnixMillis) -> bool {
        self.add(refusal, Count { first: now, times: 1 })
    }

    /// Takes what was counted, as events for the control plane.
    #[must_use]
    pub fn take(&self) -> Vec<DeviceEvent> {
        let counted = std::mem::take(&mut *self.counted.lock().unwrap_or_else(PoisonError::into_inner));
        counted
            .into_iter()
            .map(|(Refusal { resource, bind, uid }, Count { first, times })| DeviceEvent {
                at: first,
                what: DeviceEventKind::PeerRefused { resource, bind, uid, count: times },
            })
            .collect()
    }

    /// Counts again what could not be reported.
    pub fn put_back(&self, events: &[DeviceEvent]) {
        for event in events {
            if let DeviceEventKind::PeerRefused { resource, bind, uid, count } = event.what {
                self.add(Refusal { resource, bind, uid }, Count { first: event.at, times: count });
            }
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn add(&self, refusal: Refusal, more: Count) -> bool {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let room = counted.len() < MAX_KINDS || counted.contains_key(&refusal);
        let refusal = if room { refusal } else { Refusal { uid: None, ..refusal } };
        if counted.len() >= 2 * MAX_KINDS && !counted.contains_key(&refusal) {
            return false;
        }
        let mut is_first = false;
        let count = counted.entry(refusal).or_insert_with(|| {
            is_first = true;
            Count { first: more.first, times: 0 }
        });
        count.first = count.first.min(more.first);
        count.times = count.times.saturating_add(more.times);
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(uid: u32) -> Refusal {
        Refusal {
            resource: ResourceId::from_ulid(1.into()),
            bind: SocketAddr::from(([127, 0, 0, 1], 2000)),
            uid: Some(uid),
        }
    }

    fn counts(events: &[DeviceEvent]) -> Vec<(u64, Option<u32>, u64)> {
        events
            .iter()
            .map(|event| match event.what {
                DeviceEventKind::PeerRefused { uid, count, .. } => (event.at.0, uid, count),
                DeviceEventKind::PeersAllowed { .. } => panic!("not a refusal"),
            })
            .collect()
    }

    #[test]
    fn the_same_refusal_is_one_event_with_a_count() {
        let refusals = Refusals::default();
        assert!(refusals.count(refusal(7), UnixMillis(5)));
        assert!(!refusals.count(refusal(7), UnixMillis(9)));
        assert!(refusals.count(refusal(8), UnixMillis(9)));
        assert_eq!(counts(&refusals.take()), [(5, Some(7), 2), (9, Some(8), 1)]);
        assert!(refusals.is_empty());
    }

    #[test]
    fn what_could_not_be_reported_is_counted_on() {
        let refusals = Refusals::default();
        refusals.count(refusal(7), UnixMillis(5));
        let unsent = refusals.take();
        refusals.count(refusal(7), UnixMillis(9));
        refusals.put_back(&unsent);
        assert_eq!(counts(&refusals.take()), [(5, Some(7), 2)]);
    }

    #[test]
    fn a_flood_of_different_users_stays_bounded_and_is_still_counted() {
        let refusals = Refusals::default();
        for uid in 0..10_000 {
            refusals.count(refusal(uid), UnixMillis(1));
        }
        let events = refusals.take();
        assert!(events.len() <= 1000);
        assert_eq!(counts(&events).iter().map(|(_, _, count)| count).sum::<u64>(), 10_000);
    }
}
