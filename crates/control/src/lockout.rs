//! Counts failed sign-ins and locks after the fifth, for names of accounts and for names of nothing alike.
//!
//! A pure state: time is an argument. Its shell is [`crate::password`].

mod shared;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use postern_proto::record::hex;

pub use self::shared::SharedLockout;

/// So many failures in a row lock.
pub const FAILURES: u32 = 5;
/// How long a lock lasts, and how long failures are remembered.
pub const LOCK: Duration = Duration::from_secs(5 * 60);
/// How many names are remembered. To push one out before its lock ends takes this many password checks within
/// [`LOCK`]: 218 a second, more than four cores can do at 20 ms each.
pub const MAX_NAMES: usize = 65_536;

/// What a name in canonical form is remembered as; always 32 bytes, however long the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NameKey([u8; 32]);

impl NameKey {
    /// `canonical` is the one form that all spellings of a name share.
    #[must_use]
    pub fn of(canonical: &str) -> Self {
        let mut key = [0; 32];
        key.copy_from_slice(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        Self(key)
    }

    /// In lower-case hex.
    #[must_use]
    pub fn to_text(self) -> String {
        hex(&self.0)
    }
}

/// Whether a sign-in may be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may, and must be reported with [`Lockout::finish`].
    Try,
    /// As many tries are under way as failures are left: wait for one of them to finish.
    Wait,
    /// Not before this has passed.
    Locked { left: Duration },
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The password was right.
    Success,
    /// It was not, or there is no such account.
    Failure,
    /// Nothing was learnt: the try broke off.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    failures: u32,
    pending: u32,
    /// When the last try ended, or began while it is the first.
    last: Instant,
}

/// The table of names with failures or tries under way.
#[derive(Debug)]
pub struct Lockout {
    entries: HashMap<NameKey, Entry>,
    capacity: usize,
}

impl Default for Lockout {
    fn default() -> Self {
        Self::with_capacity(MAX_NAMES)
    }
}

impl Lockout {
    /// A table that remembers at most `capacity` names; when it is full, the one tried least lately is forgotten, and
    /// a locked one only when all are locked.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity: capacity.max(1) }
    }

    /// Asks to try a sign-in. Tries under way count as failures until they are finished, so that a thousand parallel
    /// tries are no more than five.
    pub fn begin(&mut self, name: NameKey, now: Instant) -> Admission {
        if !self.entries.contains_key(&name) {
            self.make_room(now);
        }
        let entry = self.entries.entry(name).or_insert(Entry { failures: 0, pending: 0, last: now });
        if entry.is_over(now) {
            entry.failures = 0;
        }
        if entry.failures >= FAILURES {
            return Admission::Locked { left: LOCK.saturating_sub(now.saturating_duration_since(entry.last)) };
        }
        if entry.failures + entry.pending >= FAILURES {
            return Admission::Wait;
        }
        entry.pending += 1;
        Admission::Try
    }

    /// Reports how a try ended that [`Lockout::begin`] admitted.
    pub fn finish(&mut self, name: NameKey, outcome: Outcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(&name) else { return };
        entry.pending = entry.pending.saturating_sub(1);
        match outcome {
            Outcome::Failure => {
                entry.failures = entry.failures.saturating_add(1);
                entry.last = now;
            }
            // A right password clears what came before it, but never a lock that tries beside it have brought about.
            Outcome::Success if entry.failures < FAILURES => entry.failures = 0,
            Outcome::Success | Outcome::Unknown => {}
        }
        if entry.failures == 0 && entry.pending == 0 {
            self.entries.remove(&name);
        }
    }

    /// Forgets all failures of a name, because an administrator gave it a new password.
    pub fn clear(&mut self, name: NameKey) {
        if let Some(entry) = self.entries.get_mut(&name) {
            entry.failures = 0;
        }
    }

    fn make_room(&mut self, now: Instant) {
        if self.entries.len() < self.capacity {
            return;
        }
        self.entries.retain(|_, entry| entry.pending > 0 || !entry.is_over(now));
        while self.entries.len() >= self.capacity {
            let oldest = self.entries.iter().min_by_key(|(_, e)| (e.pending > 0, e.failures >= FAILURES, e.last));
            let Some(name) = oldest.map(|(name, _)| *name) else { return };
            self.entries.remove(&name);
        }
    }
}

impl Entry {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= LOCK
    }
}
