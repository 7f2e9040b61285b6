//! How much this node has to do, for whoever looks after many.

use std::time::{Duration, Instant};

use postern_monitor::processor_time;
use postern_proto::sync::NodeLoad;

/// Measures from one reading to the next.
#[derive(Debug, Default)]
pub struct LoadMeter {
    before: Option<(Instant, Duration)>,
    last: NodeLoad,
}

impl LoadMeter {
    /// `streams` run now. The use of processors is that since the last reading; the first one has none.
    pub fn read(&mut self, streams: u64) -> NodeLoad {
        let (at, used) = (Instant::now(), processor_time());
        let cpu_permille =
            self.before.and_then(|(before, had)| share(at.duration_since(before), used.saturating_sub(had)));
        self.before = Some((at, used));
        self.last = NodeLoad { streams, cpu_permille };
        self.last
    }

    /// The last reading.
    #[must_use]
    pub const fn last(&self) -> NodeLoad {
        self.last
    }
}

/// Of all processors, in thousandths.
fn share(wall: Duration, used: Duration) -> Option<u32> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let all = wall.as_micros().checked_mul(processors as u128).filter(|all| *all > 0)?;
    u32::try_from(used.as_micros() * 1000 / all).ok().map(|share| share.min(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_all_processors_and_never_more_than_all() {
        assert_eq!(share(Duration::ZERO, Duration::from_secs(1)), None);
        assert_eq!(share(Duration::from_secs(1), Duration::ZERO), Some(0));
        assert_eq!(share(Duration::from_millis(1), Duration::from_secs(3600)), Some(1000));
    }

    #[test]
    fn the_first_reading_has_no_share() {
        let mut meter = LoadMeter::default();
        assert_eq!(meter.read(3), NodeLoad { streams: 3, cpu_permille: None });
        assert_eq!(meter.read(4).streams, 4);
        assert_eq!(meter.last().streams, 4);
    }
}
