//! What a node has done, for Prometheus: counted as it happens, or read from the parts of the node when it is asked for.
//!
//! No label holds the name of a user, a device or a resource: their number has no bound, and who reaches what belongs into
//! the session records.

mod parts;

use std::{sync::Mutex, time::Duration};

use postern_proto::record::EndReason;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

pub use self::parts::{Parts, Role};

/// Seconds. A resource is dialled within a network or across one; a dial is given up after ten seconds.
const DIAL_BUCKETS: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

/// The counters of one node, and whom to ask for the rest.
pub struct Metrics {
    ended: Family<Cause, Counter>,
    refused: Family<Code, Counter>,
    dials: Histogram,
    failed_dials: Family<Code, Counter>,
    /// Without the parts until the node runs.
    registry: Mutex<Registry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

/// The stable word of a problem: one of some dozens that are written in this program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let (ended, refused, failed_dials) = (Family::default(), Family::default(), Family::default());
        let dials = Histogram::new(DIAL_BUCKETS);
        let mut registry = Registry::with_prefix("postern");
        registry.register("streams_ended", "Streams that are over, by why they ended", Family::clone(&ended));
        registry.register("streams_refused", "Streams that were not opened, by the reason", Family::clone(&refused));
        registry.register_with_unit("dial", "Time until a resource was connected", Unit::Seconds, dials.clone());
        registry.register("dials_failed", "Resources that could not be connected", Family::clone(&failed_dials));
        Self { ended, refused, dials, failed_dials, registry: Mutex::new(registry) }
    }
}

impl Metrics {
    /// Adds what is read from the parts of a node that runs.
    pub fn attach(&self, parts: Parts) {
        self.registry().register_collector(Box::new(parts));
    }

    pub fn note_end(&self, reason: EndReason) {
        self.ended.get_or_create(&Cause { cause: word(reason) }).inc();
    }

    pub fn note_refusal(&self, code: &str) {
        self.refused.get_or_create(&Code { code: code.to_owned() }).inc();
    }

    pub fn note_dial(&self, took: Duration) {
        self.dials.observe(took.as_secs_f64());
    }

    pub fn note_failed_dial(&self, code: &str) {
        self.failed_dials.get_or_create(&Code { code: code.to_owned() }).inc();
    }

    /// Everything in the text form of OpenMetrics.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry()).is_err() {
            tracing::error!("metrics could not be written");
        }
        text
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

const fn word(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Closed => "closed",
        EndReason::ClientReset => "client_reset",
        EndReason::TargetReset => "target_reset",
        EndReason::DialFailed => "dial_failed",
        EndReason::Revoked => "revoked",
        EndReason::GrantEnded => "grant_ended",
        EndReason::Drained => "drained",
        EndReason::NodeLost => "node_lost",
        EndReason::Abandoned => "abandoned",
    }
}

#[cfg(test)]
#[path = "../../../tests/src/openmetrics.rs"]
#[expect(dead_code, unreachable_pub, reason = "made for other tests, too")]
mod openmetrics;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_counted_by_its_cause() {
        let metrics = Metrics::default();
        metrics.note_end(EndReason::Closed);
        metrics.note_end(EndReason::Closed);
        metrics.note_refusal("lease_expired");
        metrics.note_dial(Duration::from_millis(3));
        metrics.note_failed_dial("target_refused");
        let text = metrics.text();
        openmetrics::assert_lines(
            &text,
            &[
                "postern_streams_ended_total{cause=\"closed\"} 2",
                "postern_streams_refused_total{code=\"lease_expired\"} 1",
                "postern_dials_failed_total{code=\"target_refused\"} 1",
                "postern_dial_seconds_bucket{le=\"0.0025\"} 0",
                "postern_dial_seconds_bucket{le=\"0.005\"} 1",
                "postern_dial_seconds_count 1",
            ],
        );
    }
}
