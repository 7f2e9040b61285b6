//! Which sessions may begin without waiting for the disk: a durable record says who may reach what from now on, and so
//! many sessions begin with it (docs/decisions/0012-prepared-session-records.md).
//!
//! Sans-IO: the caller writes the records, and says what time it is and how far the disk is.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use postern_proto::{
    id::{DeviceId, ResourceId},
    record::{Preparation, SessionStart, Settlement},
};

/// Pairs of device and target that are prepared for; others wait for the disk.
const MAX_SUBJECTS: usize = 4096;
/// Sessions of one preparation at most.
const MAX_SESSIONS: u32 = 256;
/// The next preparation holds more when half of one was used up so quickly: a few writes' time.
const HURRY: Duration = Duration::from_millis(20);
/// The next one holds fewer when half of one lasted for so long.
const CALM: Duration = Duration::from_secs(1);
/// What a burst has left unused for so long gives way to a preparation of one session.
const LEISURE: Duration = Duration::from_secs(60);
/// Nothing is prepared for those who have begun no session for so long: as long as spare connections are kept.
const UNUSED: Duration = Duration::from_secs(10 * 60);

#[derive(Default)]
pub(super) struct Preparations {
    subjects: HashMap<Key, Subject>,
}

/// Who reaches what; a resource may have several targets.
type Key = (DeviceId, ResourceId, String);

struct Subject {
    used: Instant,
    /// The second one is written when half of the first is used up.
    prepared: [Option<Prepared>; 2],
}

struct Prepared {
    seq: u64,
    content: Preparation,
    begun: u32,
    made: Instant,
}

impl Preparations {
    /// The number of a durable preparation for this session, which is counted as begun with it.
    pub(super) fn take(&mut self, start: &SessionStart, durable: u64, now: Instant) -> Option<u64> {
        let subject = self.subjects.get_mut(&key_of(start))?;
        let mut usable = subject.prepared.iter_mut().flatten();
        let found = usable.find(|found| found.seq <= durable && found.left() > 0 && found.is_for(start))?;
        found.begun += 1;
        subject.used = now;
        Some(found.seq)
    }

    /// How many sessions are to be prepared for, after one that began like `start`; `None` when enough are.
    pub(super) fn wish(&self, start: &SessionStart, now: Instant) -> Option<u32> {
        let Some(subject) = self.subjects.get(&key_of(start)) else {
            return (self.subjects.len() < MAX_SUBJECTS).then_some(1);
        };
        let fitting = || subject.prepared.iter().flatten().filter(|found| found.is_for(start));
        let Some(youngest) = fitting().max_by_key(|found| found.seq) else { return Some(1) };
        let left: u32 = fitting().map(Prepared::left).sum();
        if left * 2 > youngest.content.sessions {
            return None;
        }
        let (sessions, lasted) = (youngest.content.sessions, now.duration_since(youngest.made));
        Some(match lasted {
            _ if lasted < HURRY => (sessions * 2).min(MAX_SESSIONS),
            _ if lasted < CALM => sessions,
            _ => (sessions / 4).max(1),
        })
    }

    /// Takes up a preparation that was written as record `seq`, and hands back what it replaces.
    pub(super) fn put(&mut self, seq: u64, content: Preparation, now: Instant) -> Option<Settlement> {
        let key = (content.device, content.resource, content.target.clone());
        let subject = self.subjects.entry(key).or_insert_with(|| Subject { used: now, prepared: [None, None] });
        let prepared = Prepared { seq, content, begun: 0, made: now };
        let free = |place: &Option<Prepared>| match place {
            None => true,
            Some(held) => held.left() == 0,
        };
        let at = subject.prepared.iter().position(free);
        // None is free: what was prepared for is different now, and the older one goes.
        let at = at.unwrap_or_else(|| usize::from(seq_of(&subject.prepared[1]) < seq_of(&subject.prepared[0])));
        let place = subject.prepared.get_mut(at)?;
        place.replace(prepared).and_then(|old| old.settle())
    }

    /// Those that are given up because they were not used for long; what they leave is to be written down. A device that
    /// was there lately keeps one session: `(what to settle, what to prepare)`.
    pub(super) fn sweep(&mut self, now: Instant) -> (Vec<Settlement>, Vec<Preparation>) {
        let (mut settled, mut smaller) = (Vec::new(), Vec::new());
        self.subjects.retain(|_, subject| {
            let idle = now.duration_since(subject.used);
            let left: u32 = subject.prepared.iter().flatten().map(Prepared::left).sum();
            if idle < LEISURE || (idle < UNUSED && left <= 1) {
                return true;
            }
            let given_up = subject.prepared.iter_mut().filter_map(Option::take);
            let last = given_up.inspect(|old| settled.extend(old.settle())).max_by_key(|old| old.seq);
            if idle < UNUSED {
                smaller.extend(last.map(|last| Preparation { sessions: 1, ..last.content }));
            }
            idle < UNUSED
        });
        (settled, smaller)
    }

    /// Gives up all of them, and says what is unused.
    pub(super) fn clear(&mut self) -> Vec<Settlement> {
        let all = self.subjects.drain().flat_map(|(_, subject)| subject.prepared).flatten();
        all.filter_map(|prepared| prepared.settle()).collect()
    }

    /// Gives up all of them, because the file is full that they stand in; hands back what those in use are to be prepared
    /// for in the next one. Of the others nothing need be written down (see `recover`).
    pub(super) fn move_on(&mut self, now: Instant) -> Vec<Preparation> {
        let used = self.subjects.drain().filter(|(_, subject)| now.duration_since(subject.used) < CALM);
        let youngest =
            used.filter_map(|(_, subject)| subject.prepared.into_iter().flatten().max_by_key(|held| held.seq));
        youngest.map(|prepared| prepared.content).collect()
    }
}

fn key_of(start: &SessionStart) -> Key {
    (start.device, start.resource, start.target.clone())
}

fn seq_of(place: &Option<Prepared>) -> u64 {
    place.as_ref().map_or(0, |held| held.seq)
}

impl Prepared {
    const fn left(&self) -> u32 {
        self.content.sessions.saturating_sub(self.begun)
    }

    /// Whether the record says about this session what its start record will say.
    fn is_for(&self, start: &SessionStart) -> bool {
        let Preparation { account, grant, resource_name, resource_tags, target, .. } = &self.content;
        (account, grant, target) == (&start.account, &start.grant, &start.target)
            && (resource_name, resource_tags) == (&start.resource_name, &start.resource_tags)
    }

    fn settle(&self) -> Option<Settlement> {
        (self.left() > 0).then(|| settlement(self.seq, &self.content, 0))
    }
}

pub(super) fn settlement(seq: u64, of: &Preparation, unaccounted: u32) -> Settlement {
    Settlement {
        prepared: seq,
        account: of.account,
        device: of.device,
        resource: of.resource,
        resource_name: of.resource_name.clone(),
        unaccounted,
    }
}

/// What is prepared for sessions that begin like `start`.
pub(super) fn preparation(start: &SessionStart, sessions: u32, boot: &str) -> Preparation {
    Preparation {
        account: start.account,
        device: start.device,
        resource: start.resource,
        resource_name: start.resource_name.clone(),
        resource_tags: start.resource_tags.clone(),
        grant: start.grant.clone(),
        target: start.target.clone(),
        sessions,
        boot: boot.to_owned(),
    }
}

#[cfg(test)]
mod tests;
