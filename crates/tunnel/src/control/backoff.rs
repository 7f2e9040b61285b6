use std::time::Duration;

/// How long the first attempts wait at most, so that a restart of the control plane is noticed at once.
const QUICK: Duration = Duration::from_millis(250);
/// How many attempts are quick.
const QUICK_ATTEMPTS: u32 = 4;
/// No attempt waits longer.
///
/// Ten thousand clients come back at some 1,000 a second then, which one control plane takes.
const CAP: Duration = Duration::from_secs(10);

/// How long to wait before the next attempt: exponential with full jitter, so that ten thousand clients that lost the
/// same control plane do not come back in one wave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The wait before the next attempt. `random` is uniform in 0 to `u32::MAX`.
    pub fn next(&mut self, random: u32) -> Duration {
        let doublings = self.attempts.saturating_sub(QUICK_ATTEMPTS - 1).min(16);
        self.attempts = self.attempts.saturating_add(1);
        let longest = CAP.min(QUICK.saturating_mul(1 << doublings));
        longest.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// The attempt succeeded and stayed up: begin anew.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempts_are_quick_and_none_waits_above_the_cap() {
        let mut backoff = Backoff::default();
        let longest: Vec<Duration> = (0..40).map(|_| backoff.next(u32::MAX)).collect();
        assert!(longest.iter().take(4).all(|wait| *wait == QUICK), "{longest:?}");
        assert!(longest.is_sorted());
        assert_eq!(longest[39], CAP);
        backoff.reset();
        assert_eq!(backoff.next(u32::MAX), QUICK);
    }

    #[test]
    fn the_wait_is_spread_from_zero_to_the_longest() {
        let mut backoff = Backoff { attempts: 30 };
        assert_eq!(backoff.next(0), Duration::ZERO);
        let middle = backoff.next(u32::MAX / 2);
        assert!(middle > CAP / 3 && middle < CAP / 3 * 2, "{middle:?}");
    }
}
