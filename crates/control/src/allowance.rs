//! How much each device may write into the audit: enough for anything that happens, too little to fill the disk.
//!
//! Pure: instants are arguments.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use postern_proto::id::DeviceId;

/// Events that a device may send at once; as many come back within [`REFILL`].
pub const BURST: u32 = 1000;
/// How long it takes until a device that has used all may send as many again.
pub const REFILL: Duration = Duration::from_secs(3600);

/// What each device has left. A device that has all of it takes no memory for long.
#[derive(Debug, Default)]
pub struct Allowance {
    used: HashMap<DeviceId, Used>,
    swept: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Used {
    events: f64,
    at: Instant,
}

impl Allowance {
    /// Takes `events` from what the device has left. False, and nothing is taken, when that is less.
    pub fn take(&mut self, device: DeviceId, events: usize, now: Instant) -> bool {
        self.sweep(now);
        let used = self.used.entry(device).or_insert(Used { events: 0.0, at: now });
        let before = used.left_of(now);
        let after = before + f64::from(u32::try_from(events).unwrap_or(u32::MAX));
        let fits = after <= f64::from(BURST);
        *used = Used { events: if fits { after } else { before }, at: now };
        fits
    }

    /// Forgets devices that have all back.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < REFILL) {
            return;
        }
        self.swept = Some(now);
        self.used.retain(|_, used| used.left_of(now) > 0.0);
    }
}

impl Used {
    /// What is still used at an instant.
    fn left_of(self, now: Instant) -> f64 {
        let back = now.saturating_duration_since(self.at).as_secs_f64() / REFILL.as_secs_f64() * f64::from(BURST);
        (self.events - back).max(0.0)
    }
}
