//! The two clocks of the shell.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postern_proto::time::UnixMillis;
use rustix::time::{ClockId, clock_gettime};

use crate::engine::Now;

/// The time now. The boot clock goes on while the machine sleeps, unlike [`std::time::Instant`].
#[must_use]
pub fn now() -> Now {
    Now { boot: boot(), wall: wall() }
}

#[cfg(target_os = "linux")]
const BOOT: ClockId = ClockId::Boottime;
/// Elsewhere this one goes on while the machine sleeps.
#[cfg(not(target_os = "linux"))]
const BOOT: ClockId = ClockId::Monotonic;

fn boot() -> Duration {
    let time = clock_gettime(BOOT);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The wall clock alone.
#[must_use]
pub fn wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
