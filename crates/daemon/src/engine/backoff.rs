//! How long to wait before the next try.

use std::time::Duration;

/// Chance that is handed in: the same seed gives the same run (splitmix64).
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Between `from` and `to`.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let part = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
        from.saturating_add(to.saturating_sub(from).mul_f64(part))
    }
}

/// The wait after `failures` failures in a row (from 1): `first`, doubled each time up to `most`, spread over the upper
/// half so that many clients do not come at once.
pub fn backoff(failures: u32, first: Duration, most: Duration, jitter: &mut Jitter) -> Duration {
    let doubled = first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let span = doubled.min(most);
    jitter.between(span / 2, span)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_wait_grows_to_its_limit_and_never_beyond(failures in 1_u32..200, seed: u64) {
            let (first, most) = (Duration::from_secs(1), Duration::from_secs(30));
            let wait = backoff(failures, first, most, &mut Jitter::new(seed));
            prop_assert!(wait >= first / 2 && wait <= most);
            if failures > 6 {
                prop_assert!(wait >= most / 2);
            }
        }
    }
}
