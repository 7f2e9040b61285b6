//! The streams that were opened lately. A client whose connection broke before the answer sends its first bytes again
//! under the same identifier; if the answer was only lost on the way, those bytes are with the target already, and must
//! not get there twice.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use postern_proto::{id::StreamId, sync::Peer};

/// At least so long an identifier is remembered. A client tries again within seconds.
const REMEMBERED: Duration = Duration::from_secs(60);
/// With so many at once they are remembered for a shorter time: 2 × 64 Ki entries are 8 MiB.
const MOST: usize = 64 * 1024;

pub(super) struct OpenedLately(Mutex<Generations>);

struct Generations {
    young: HashSet<(Peer, StreamId)>,
    old: HashSet<(Peer, StreamId)>,
    /// When the younger one began.
    since: Instant,
    /// When the older one began: everything that was opened after this is known.
    reach: Instant,
}

impl OpenedLately {
    /// Nothing can have been opened here before `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Generations { young: HashSet::new(), old: HashSet::new(), since: now, reach: now }))
    }

    /// Whether everything is known that was opened since `then`.
    pub(super) fn reaches_back_to(&self, then: Option<Instant>) -> bool {
        self.with(|generations| then.is_some_and(|then| generations.reach <= then))
    }

    pub(super) fn contains(&self, peer: Peer, stream: StreamId) -> bool {
        self.with(|generations| generations.contains(&(peer, stream)))
    }

    /// Notes the stream; false when it was noted before.
    pub(super) fn insert(&self, peer: Peer, stream: StreamId, now: Instant) -> bool {
        self.with(|generations| {
            if generations.contains(&(peer, stream)) {
                return false;
            }
            generations.age(now);
            generations.young.insert((peer, stream))
        })
    }

    fn with<R>(&self, work: impl FnOnce(&mut Generations) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Generations {
    fn contains(&self, key: &(Peer, StreamId)) -> bool {
        self.young.contains(key) || self.old.contains(key)
    }

    fn age(&mut self, now: Instant) {
        if now.duration_since(self.since) >= REMEMBERED || self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
            self.reach = self.since;
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use postern_proto::id::NodeId;
    use ulid::Ulid;

    use super::*;

    fn peer(number: u128) -> Peer {
        Peer::Node { node: NodeId::from_ulid(Ulid(number)) }
    }

    fn stream(number: u128) -> StreamId {
        StreamId::from_ulid(Ulid(number))
    }

    #[test]
    fn a_stream_is_known_for_a_minute_at_least_and_forgotten_some_time() {
        let begin = Instant::now();
        let opened = OpenedLately::new(begin);
        assert!(opened.insert(peer(1), stream(1), begin));
        assert!(!opened.insert(peer(1), stream(1), begin));
        assert!(opened.insert(peer(2), stream(1), begin), "another peer's identifiers are its own");
        assert!(opened.insert(peer(1), stream(2), begin + REMEMBERED));
        assert!(opened.contains(peer(1), stream(1)));
        assert!(opened.insert(peer(1), stream(3), begin + REMEMBERED * 2));
        assert!(!opened.contains(peer(1), stream(1)));
    }

    #[test]
    fn it_is_known_how_far_the_memory_reaches() {
        let begin = Instant::now();
        let opened = OpenedLately::new(begin);
        assert!(opened.reaches_back_to(Some(begin)));
        assert!(!opened.reaches_back_to(begin.checked_sub(Duration::from_millis(1))), "it was another process then");
        assert!(!opened.reaches_back_to(None), "before the machine was started");
        let minute = |minutes: u32| begin + REMEMBERED * minutes;
        for number in 1..=3 {
            assert!(opened.insert(peer(1), stream(u128::from(number)), minute(number)));
        }
        assert!(opened.reaches_back_to(Some(minute(2))));
        assert!(!opened.reaches_back_to(Some(minute(1))), "the first one is forgotten");
    }

    #[test]
    fn no_more_are_remembered_than_the_bound() {
        let now = Instant::now();
        let opened = OpenedLately::new(now);
        for number in 0..3 * MOST as u128 {
            assert!(opened.insert(peer(1), stream(number), now));
        }
        let count = opened.with(|generations| generations.young.len() + generations.old.len());
        assert!(count <= 2 * MOST);
        assert!(opened.contains(peer(1), stream(3 * MOST as u128 - 1)));
    }
}
