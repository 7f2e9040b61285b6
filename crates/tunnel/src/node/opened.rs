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

#[derive(Default)]
pub(super) struct OpenedLately(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashSet<(Peer, StreamId)>,
    old: HashSet<(Peer, StreamId)>,
    since: Option<Instant>,
}

impl OpenedLately {
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
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= REMEMBERED || self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
            self.since = Some(now);
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
        let (opened, begin) = (OpenedLately::default(), Instant::now());
        assert!(opened.insert(peer(1), stream(1), begin));
        assert!(!opened.insert(peer(1), stream(1), begin));
        assert!(opened.insert(peer(2), stream(1), begin), "another peer's identifiers are its own");
        assert!(opened.insert(peer(1), stream(2), begin + REMEMBERED));
        assert!(opened.contains(peer(1), stream(1)));
        assert!(opened.insert(peer(1), stream(3), begin + REMEMBERED * 2));
        assert!(!opened.contains(peer(1), stream(1)));
    }

    #[test]
    fn no_more_are_remembered_than_the_bound() {
        let (opened, now) = (OpenedLately::default(), Instant::now());
        for number in 0..3 * MOST as u128 {
            assert!(opened.insert(peer(1), stream(number), now));
        }
        let count = opened.with(|generations| generations.young.len() + generations.old.len());
        assert!(count <= 2 * MOST);
        assert!(opened.contains(peer(1), stream(3 * MOST as u128 - 1)));
    }
}
