//! A bound on how many refusals are recorded: an attacker must not fill the disk with them.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use postern_proto::time::UnixMillis;

/// How many may come at once.
const BURST: u64 = 100;
/// After that, one each so often.
const EVERY: Duration = Duration::from_millis(100);

/// Lets through a burst, then a trickle.
pub(super) struct Throttle {
    /// The instant at which the bucket would be full again.
    full_at: Mutex<UnixMillis>,
}

impl Throttle {
    pub(super) const fn new() -> Self {
        Self { full_at: Mutex::new(UnixMillis(0)) }
    }

    pub(super) fn allow(&self, now: UnixMillis) -> bool {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let debt = full_at.since(now);
        if debt > EVERY.saturating_mul(u32::try_from(BURST).unwrap_or(u32::MAX)) {
            return false;
        }
        *full_at = now.plus(debt + EVERY);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_a_trickle() {
        let throttle = Throttle::new();
        let now = UnixMillis(1_000_000);
        let passed = (0..1000).filter(|_| throttle.allow(now)).count() as u64;
        assert!(passed > 0 && passed <= BURST + 1, "{passed}");
        assert!(!throttle.allow(now));
        let later = (1..=10).filter(|n| throttle.allow(now.plus(EVERY * *n))).count();
        assert_eq!(later, 10);
    }
}
