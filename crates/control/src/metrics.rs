//! What a control plane has done, for Prometheus: counted as it happens, or read from its parts when it is asked for.
//!
//! No label holds the name or the id of anybody or anything: their number has no bound, and who did what is in the audit.

mod monitor;
mod parts;
mod request;

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::store::StoreError;

pub use self::{
    monitor::Watched,
    parts::Parts,
    request::{RefusalCode, measure},
};

/// Seconds. A long poll takes ten, and what takes longer is given up.
const REQUEST_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];
/// Seconds. Whoever writes waits for the writers before it, at most fifteen.
const DATABASE_BUCKETS: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.025, 0.1, 0.5, 2.5, 15.0];

type BySeconds<L> = Family<L, Histogram, fn() -> Histogram>;

/// The counters of one control plane, and whom to ask for the rest.
pub struct Metrics {
    requests: Family<Answered, Counter>,
    refused: Family<Refused, Counter>,
    request_seconds: BySeconds<Class>,
    leases: Family<Outcome, Counter>,
    sign_ins: Family<Outcome, Counter>,
    registry: Mutex<Registry>,
}

/// How long the database takes, and how it fails; part of the store, which is there before anything else.
#[derive(Clone)]
pub struct DatabaseMeter {
    seconds: BySeconds<Operation>,
    errors: Family<Kind, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    class: &'static str,
    /// `2xx`, and so on.
    status: &'static str,
}

/// The stable word of a problem: one of some dozens that are written in this program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    class: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

impl Metrics {
    #[must_use]
    pub fn new(database: &DatabaseMeter) -> Self {
        let metrics = Self {
            requests: Family::default(),
            refused: Family::default(),
            request_seconds: BySeconds::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS)),
            leases: Family::default(),
            sign_ins: Family::default(),
            registry: Mutex::new(Registry::with_prefix("postern")),
        };
        let mut registry = metrics.registry();
        registry.register("requests", "Requests, by what for and how they were answered", metrics.requests.clone());
        registry.register("requests_refused", "Requests that were refused, by the reason", metrics.refused.clone());
        let help = "Time until a request was answered";
        registry.register_with_unit("request", help, Unit::Seconds, metrics.request_seconds.clone());
        registry.register("leases", "Leases, given out and not", metrics.leases.clone());
        registry.register("sign_ins", "Sign-ins, by how they ended", metrics.sign_ins.clone());
        let help = "Time that the database took: to read, to get the turn to write, to commit";
        registry.register_with_unit("database", help, Unit::Seconds, database.seconds.clone());
        registry.register("database_errors", "What the database did not do", database.errors.clone());
        drop(registry);
        metrics
    }

    /// Adds what is read from the parts of a control plane that runs.
    pub fn attach(&self, parts: Parts) {
        self.registry().register_collector(Box::new(parts));
    }

    /// Leases of one request.
    pub fn note_leases(&self, issued: usize, denied: usize) {
        for (outcome, count) in [("issued", issued), ("denied", denied)] {
            self.leases.get_or_create(&Outcome { outcome: outcome.to_owned() }).inc_by(count as u64);
        }
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

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for DatabaseMeter {
    fn default() -> Self {
        let seconds = BySeconds::new_with_constructor(|| Histogram::new(DATABASE_BUCKETS));
        Self { seconds, errors: Family::default() }
    }
}

impl DatabaseMeter {
    /// Notes how an operation (`read`, `turn`, `commit`) went.
    pub fn note<T>(&self, operation: &'static str, took: Duration, result: &Result<T, StoreError>) {
        match result {
            Ok(_) => self.seconds.get_or_create(&Operation { operation }).observe(took.as_secs_f64()),
            Err(error) => {
                self.errors.get_or_create(&Kind { kind: kind(error) }).inc();
            }
        }
    }
}

const fn kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Taken(_) => "taken",
        StoreError::Busy => "busy",
        StoreError::Database(_) => "other",
        StoreError::Unreadable(_) => "unreadable",
        StoreError::Closed => "closed",
        StoreError::Away(_) => "away",
        StoreError::TooOld { .. } => "too_old",
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
    fn what_happened_is_counted_by_what_for_and_how_it_ended() {
        let database = DatabaseMeter::default();
        let metrics = Metrics::new(&database);
        metrics.note_leases(3, 1);
        metrics.note_request(("sign_in", true), 401, Some("login_failed"), Duration::from_millis(40));
        metrics.note_request(("read", false), 200, None, Duration::from_millis(2));
        database.note("commit", Duration::from_millis(3), &Ok(()));
        database.note::<()>("turn", Duration::ZERO, &Err(StoreError::Busy));
        let text = metrics.text();
        openmetrics::assert_lines(
            &text,
            &[
                "postern_leases_total{outcome=\"issued\"} 3",
                "postern_leases_total{outcome=\"denied\"} 1",
                "postern_sign_ins_total{outcome=\"login_failed\"} 1",
                "postern_requests_total{class=\"sign_in\",status=\"4xx\"} 1",
                "postern_requests_total{class=\"read\",status=\"2xx\"} 1",
                "postern_requests_refused_total{class=\"sign_in\",code=\"login_failed\"} 1",
                "postern_request_seconds_bucket{le=\"0.0025\",class=\"read\"} 1",
                "postern_database_seconds_count{operation=\"commit\"} 1",
                "postern_database_errors_total{kind=\"busy\"} 1",
            ],
        );
    }
}
