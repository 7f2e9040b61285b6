//! When the device certificate is renewed.

use std::time::Duration;

use postern_proto::time::UnixMillis;

use super::{
    Now,
    backoff::{Jitter, backoff},
};

const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(300);

/// What a certificate says of its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateSpan {
    pub not_before: UnixMillis,
    pub not_after: UnixMillis,
}

impl CertificateSpan {
    fn life(self) -> Duration {
        self.not_after.since(self.not_before)
    }
}

#[derive(Debug)]
pub(super) struct CertificatePlan {
    /// Boot clock; `None` while a renewal is under way.
    due: Option<Duration>,
    failures: u32,
}

impl CertificatePlan {
    /// For a certificate that was signed just now: due at two thirds of its life, up to a tenth of it earlier, whatever
    /// our wall clock says.
    pub(super) fn fresh(span: CertificateSpan, now: Now, jitter: &mut Jitter) -> Self {
        Self::with_left(span, span.life(), now, jitter)
    }

    /// The same for a certificate of an earlier run, whose age only the wall clock tells.
    pub(super) fn kept(span: CertificateSpan, now: Now, jitter: &mut Jitter) -> Self {
        Self::with_left(span, span.not_after.since(now.wall).min(span.life()), now, jitter)
    }

    fn with_left(span: CertificateSpan, left: Duration, now: Now, jitter: &mut Jitter) -> Self {
        let early = jitter.between(Duration::ZERO, span.life() / 10);
        let wait = left.saturating_sub(span.life() / 3).saturating_sub(early);
        Self { due: Some(now.boot.saturating_add(wait)), failures: 0 }
    }

    pub(super) const fn due(&self) -> Option<Duration> {
        self.due
    }

    pub(super) fn take_due(&mut self, now: Now) -> bool {
        self.due.take_if(|due| *due <= now.boot).is_some()
    }

    pub(super) fn failed(&mut self, now: Now, jitter: &mut Jitter) {
        self.failures = self.failures.saturating_add(1);
        let wait = backoff(self.failures, FIRST_RETRY, LAST_RETRY, jitter);
        self.due = Some(now.boot.saturating_add(wait));
    }

    /// Tries again at once if it had failed.
    pub(super) fn retry_now(&mut self, now: Now) {
        if self.failures > 0 && self.due.is_some() {
            self.due = Some(now.boot);
        }
    }

    pub(super) const fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000;

    fn now(hours: u64) -> Now {
        Now { boot: Duration::from_secs(hours * 3600), wall: UnixMillis(hours * HOUR) }
    }

    proptest! {
        #[test]
        fn renewal_is_due_around_two_thirds_of_the_life(seed: u64) {
            let span = CertificateSpan { not_before: UnixMillis(0), not_after: UnixMillis(12 * HOUR) };
            let plan = CertificatePlan::fresh(span, now(999), &mut Jitter::new(seed));
            let due = plan.due().unwrap();
            let due = due - now(999).boot;
            prop_assert!(due <= Duration::from_secs(8 * 3600));
            prop_assert!(due >= Duration::from_secs(6 * 3600));
        }
    }

    #[test]
    fn an_old_certificate_is_renewed_at_once_and_only_once_at_a_time() {
        let span = CertificateSpan { not_before: UnixMillis(0), not_after: UnixMillis(12 * HOUR) };
        let mut plan = CertificatePlan::kept(span, now(11), &mut Jitter::new(1));
        assert!(plan.take_due(now(11)));
        assert!(!plan.take_due(now(11)));
        plan.failed(now(11), &mut Jitter::new(1));
        assert!(plan.is_failing());
        assert!(!plan.take_due(now(11)));
        plan.retry_now(now(11));
        assert!(plan.take_due(now(11)));
    }

    #[test]
    fn a_clock_far_in_the_past_does_not_put_renewal_off_for_ever() {
        let span = CertificateSpan { not_before: UnixMillis(1000 * HOUR), not_after: UnixMillis(1012 * HOUR) };
        let plan = CertificatePlan::kept(span, now(0), &mut Jitter::new(1));
        assert!(plan.due().unwrap() <= Duration::from_secs(8 * 3600));
    }
}
