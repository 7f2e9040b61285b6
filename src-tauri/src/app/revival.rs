//! Starting posternd again after it broke down. One that was stopped in good order has taken its socket with it and is
//! left alone: whoever stopped it wants it stopped.

use std::time::Duration;

/// First systemd has its turn, where it looks after posternd (`RestartSec=2`): two at once would be in each other's way.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(3), Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(120)];
/// One that ran for so long did not break down at once.
const STEADY: Duration = Duration::from_secs(300);

/// How often it was started again. Times are spans since the app's start.
#[derive(Debug, Default)]
pub(super) struct Revival {
    tries: usize,
    last: Duration,
}

impl Revival {
    /// The service was lost: how long to wait before it is started again. `None`: it breaks down again and again, and a
    /// person has to look.
    pub(super) fn pause(&mut self, now: Duration) -> Option<Duration> {
        if now.saturating_sub(self.last) > STEADY {
            self.tries = 0;
        }
        self.last = now;
        self.tries += 1;
        PAUSES.get(self.tries - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_breaks_down_at_once_is_started_more_and_more_rarely_and_then_not_any_more() {
        let mut revival = Revival::default();
        let mut now = Duration::from_secs(1000);
        for pause in PAUSES {
            assert_eq!(revival.pause(now), Some(pause));
            now += pause;
        }
        assert_eq!(revival.pause(now), None);
        assert_eq!(revival.pause(now + STEADY + Duration::from_secs(1)), Some(PAUSES[0]));
    }
}
