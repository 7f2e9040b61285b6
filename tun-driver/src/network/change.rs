//! Changes of the machine's network, gathered until they settle. Sans-IO.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// One event is rarely alone: a cable pulled is a link, an address and several routes. Reported this long after the last.
const QUIET: Duration = Duration::from_millis(250);
/// Reported at the latest this long after the first, however long the network goes on moving.
const LIMIT: Duration = Duration::from_secs(2);

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// An interface came, went, or went up or down.
    Link,
    Address,
    /// Routes or rules.
    Route,
    /// The system's name servers.
    Resolver,
}

impl Change {
    pub const ALL: [Self; 4] = [Self::Link, Self::Address, Self::Route, Self::Resolver];
}

/// Holds changes back until none has come for a quarter of a second, two seconds at most.
#[derive(Debug, Default)]
pub struct Settle {
    pending: BTreeSet<Change>,
    /// When the first and the last of the pending ones came.
    span: Option<(Instant, Instant)>,
}

impl Settle {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn handle_change(&mut self, change: Change, now: Instant) {
        self.pending.insert(change);
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
    }

    /// When [`Self::poll_changes`] will have something to say.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.span.map(|(first, last)| (last + QUIET).min(first + LIMIT))
    }

    /// What changed, once it has settled.
    pub fn poll_changes(&mut self, now: Instant) -> Option<BTreeSet<Change>> {
        self.poll_timeout().filter(|due| *due <= now)?;
        self.span = None;
        Some(std::mem::take(&mut self.pending))
    }
}
