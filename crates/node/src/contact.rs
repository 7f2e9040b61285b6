//! How lately the control plane was heard from.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use postern_proto::{
    lease::{Contact, FAIL_STATIC_STRICT},
    time::UnixMillis,
};

/// Kept by the sync task, asked by every stream.
#[derive(Debug)]
pub struct ContactRecord {
    up: AtomicBool,
    heard: AtomicU64,
}

impl ContactRecord {
    /// `heard`: when the run before this one last heard from it.
    #[must_use]
    pub const fn new(heard: UnixMillis) -> Self {
        Self { up: AtomicBool::new(false), heard: AtomicU64::new(heard.0) }
    }

    pub fn hear(&self, now: UnixMillis) {
        self.heard.fetch_max(now.0, Ordering::AcqRel);
    }

    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Release);
    }

    /// Whether there is a connection, as far as is known.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn heard(&self) -> UnixMillis {
        UnixMillis(self.heard.load(Ordering::Acquire))
    }

    /// Connected only while it is really heard: a connection that is silent for as long as strict resources tolerate
    /// counts as lost, before anybody has noticed.
    #[must_use]
    pub fn at(&self, now: UnixMillis) -> Contact {
        let heard = self.heard();
        if self.up.load(Ordering::Acquire) && now.since(heard) <= FAIL_STATIC_STRICT {
            Contact::Connected
        } else {
            Contact::AwaySince(heard)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_connection_counts_as_lost_since_it_was_last_heard() {
        let contact = ContactRecord::new(UnixMillis(0));
        assert_eq!(contact.at(UnixMillis(1)), Contact::AwaySince(UnixMillis(0)));
        contact.hear(UnixMillis(1000));
        contact.set_up(true);
        let limit = UnixMillis(1000).plus(FAIL_STATIC_STRICT);
        assert_eq!(contact.at(limit), Contact::Connected);
        assert_eq!(contact.at(UnixMillis(limit.0 + 1)), Contact::AwaySince(UnixMillis(1000)));
        contact.set_up(false);
        assert_eq!(contact.at(UnixMillis(1001)), Contact::AwaySince(UnixMillis(1000)));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_take_back_what_was_heard() {
        let contact = ContactRecord::new(UnixMillis(5000));
        contact.hear(UnixMillis(10));
        assert_eq!(contact.heard(), UnixMillis(5000));
    }
}
