//! How many idle connections an entry keeps ready: one when quiet, more after a burst, none when long idle.
//!
//! Sans-IO: the caller says what happens and when.

use std::time::{Duration, Instant};

/// More than this are never made ahead; a larger burst dials the rest itself.
const MOST: usize = 16;
/// After so long without a stream that had to wait for a handshake, half as many are kept.
const CALM: Duration = Duration::from_secs(30);
/// After so long without any stream none is kept.
const UNUSED: Duration = Duration::from_secs(10 * 60);

#[derive(Debug, Default)]
pub(super) struct Spares {
    /// When a stream last asked for a connection, or somebody expected one to.
    used: Option<Instant>,
    /// When a stream last found none, or the number was last halved.
    short: Option<Instant>,
    wanted: usize,
}

impl Spares {
    /// A stream took an idle connection, or is expected.
    pub(super) fn on_use(&mut self, now: Instant) {
        self.used = Some(now);
        self.wanted = self.wanted.max(1);
    }

    /// A stream found no idle connection and has to dial.
    pub(super) fn on_shortage(&mut self, now: Instant) {
        self.used = Some(now);
        self.short = Some(now);
        self.wanted = (self.wanted + 1).min(MOST);
    }

    /// How many connections should stand idle now.
    pub(super) fn wanted(&mut self, now: Instant) -> usize {
        if self.used.is_none_or(|used| now.duration_since(used) >= UNUSED) {
            self.wanted = 0;
        }
        if self.wanted > 1 && self.short.is_none_or(|short| now.duration_since(short) >= CALM) {
            self.wanted = (self.wanted / 2).max(1);
            self.short = Some(now);
        }
        self.wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_ready_before_the_first_stream() {
        assert_eq!(Spares::default().wanted(Instant::now()), 0);
    }

    #[test]
    fn one_is_kept_ready_while_streams_come_quietly() {
        let (mut spares, now) = (Spares::default(), Instant::now());
        for minute in 0..60 {
            spares.on_use(now + Duration::from_secs(minute * 60));
            assert_eq!(spares.wanted(now + Duration::from_secs(minute * 60 + 59)), 1);
        }
    }

    #[test]
    fn a_burst_raises_the_number_to_its_limit_and_calm_halves_it_down_to_one() {
        let (mut spares, now) = (Spares::default(), Instant::now());
        for _ in 0..1000 {
            spares.on_shortage(now);
        }
        assert_eq!(spares.wanted(now), MOST);
        let seen: Vec<_> = (1..=6).map(|step| spares.wanted(now + CALM * step)).collect();
        assert_eq!(seen, [8, 4, 2, 1, 1, 1]);
    }

    #[test]
    fn none_is_kept_when_long_unused_and_one_again_with_the_next_stream() {
        let (mut spares, now) = (Spares::default(), Instant::now());
        spares.on_shortage(now);
        assert_eq!(spares.wanted(now + UNUSED), 0);
        spares.on_use(now + UNUSED * 2);
        assert_eq!(spares.wanted(now + UNUSED * 2), 1);
    }
}
