//! What a node says at `/liveness` and `/metrics`; served by [`postern_monitor`].

use std::sync::{Arc, Mutex, PoisonError};

use postern_monitor::{Answer, Standing, Subject};
use serde::Serialize;

pub use postern_monitor::{MonitorError, MonitorPlaces, Place};

use crate::{
    clock,
    metrics::{Metrics, Parts},
};

/// What the node says of itself. Dropping it ends the thread.
pub struct Monitor {
    shared: Arc<Shared>,
    served: postern_monitor::Monitor,
}

struct Shared {
    metrics: Arc<Metrics>,
    /// `None`: the node does not run yet.
    parts: Mutex<Option<Parts>>,
}

/// The body of an answer about liveness.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Liveness {
    serving: bool,
    /// Why it is not serving: `starting`, `draining`, `certificate_ended`.
    reasons: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<usize>,
    /// While it drains: when what still runs is cut, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    drain_ends_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_plane: Option<&'static str>,
}

impl Monitor {
    /// Listens at once, so that an address that cannot be had is told before anything else is done.
    pub fn start(liveness: Place, metrics: Place) -> Result<Self, MonitorError> {
        let shared = Arc::new(Shared { metrics: Arc::new(Metrics::default()), parts: Mutex::default() });
        let served = postern_monitor::Monitor::start(liveness, metrics, Arc::clone(&shared) as _)?;
        Ok(Self { shared, served })
    }

    #[must_use]
    pub const fn places(&self) -> MonitorPlaces {
        self.served.places()
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> Arc<Metrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// The node runs; from now on these are asked.
    pub fn attach(&self, parts: Parts) {
        self.shared.metrics.attach(parts.clone());
        *self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner) = Some(parts);
    }
}

impl Subject for Shared {
    fn liveness(&self) -> Answer {
        let liveness = self.look();
        let standing = match liveness.reasons.as_slice() {
            [] => Standing::Serving,
            ["draining"] => Standing::Leaving,
            _ => Standing::Not,
        };
        Answer { standing, body: serde_json::to_string(&liveness).unwrap_or_default() }
    }

    fn metrics(&self) -> String {
        self.metrics.text()
    }
}

impl Shared {
    fn look(&self) -> Liveness {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(parts) = &*parts else {
            let reasons = vec!["starting"];
            return Liveness { serving: false, reasons, streams: None, drain_ends_at: None, control_plane: None };
        };
        let (leave, now) = (parts.drain.now(), clock::now());
        let mut reasons = Vec::new();
        if leave.is_on() {
            reasons.push("draining");
        }
        if parts.validity.ends() <= now {
            reasons.push("certificate_ended");
        }
        Liveness {
            serving: reasons.is_empty(),
            reasons,
            streams: Some(parts.live.len()),
            drain_ends_at: leave.ends().map(|ends| ends.0),
            // Streams go on without it, so that is no reason.
            control_plane: Some(if parts.contact.is_up() { "connected" } else { "away" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_run_yet_is_not_serving() {
        let shared = Shared { metrics: Arc::default(), parts: Mutex::default() };
        assert_eq!(shared.look().reasons, ["starting"]);
        assert_eq!(Subject::liveness(&shared).standing, Standing::Not);
    }
}
