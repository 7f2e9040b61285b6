//! How handshakes with a node went, counted since it was started.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of handshakes by their outcome.
#[derive(Debug, Default)]
pub struct Handshakes([AtomicU64; Outcome::ALL.len()]);

/// What became of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The peer has proven who it is.
    Accepted,
    /// It has shown no certificate.
    Stranger,
    /// Its certificate names nobody who may speak here.
    NoIdentity,
    /// TLS was refused by one of the two, or the connection broke.
    Failed,
    TimedOut,
}

impl Outcome {
    pub const ALL: [Self; 5] = [Self::Accepted, Self::Stranger, Self::NoIdentity, Self::Failed, Self::TimedOut];

    /// A stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Stranger => "stranger",
            Self::NoIdentity => "no_identity",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }
}

impl Handshakes {
    /// How many ended so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.0.get(outcome as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn note(&self, outcome: Outcome) {
        if let Some(count) = self.0.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_counted_by_itself() {
        let handshakes = Handshakes::default();
        handshakes.note(Outcome::TimedOut);
        handshakes.note(Outcome::TimedOut);
        handshakes.note(Outcome::Accepted);
        let counts = Outcome::ALL.map(|outcome| handshakes.count(outcome));
        assert_eq!(counts, [1, 0, 0, 0, 2]);
    }
}
