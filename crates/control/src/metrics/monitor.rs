//! Whether a control plane serves.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use postern_monitor::{Answer, Standing, Subject};
use serde::Serialize;

use super::Metrics;
use crate::state::AppState;

/// A database that has not answered for so long counts as away: it is asked several times a second.
const AWAY: Duration = Duration::from_secs(10);

/// A control plane as its monitor sees it.
#[derive(Default)]
pub struct Watched(OnceLock<(Arc<Metrics>, AppState)>);

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Liveness {
    serving: bool,
    /// Why it is not serving: `starting`, `stopping`, `database_away`.
    reasons: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'static str>,
}

impl Watched {
    /// The control plane runs; from now on it is asked.
    pub fn attach(&self, state: AppState) {
        let _once = self.0.set((Arc::clone(&state.metrics), state));
    }

    fn look(&self) -> Liveness {
        let Some((_, state)) = self.0.get() else {
            return Liveness { reasons: vec!["starting"], ..Liveness::default() };
        };
        let away = state.store.unseen_for() >= AWAY;
        let stopping = state.stop.is_cancelled();
        let reasons: Vec<_> = [(stopping, "stopping"), (away, "database_away")]
            .into_iter()
            .filter_map(|(is, reason)| is.then_some(reason))
            .collect();
        let database = Some(if away { "away" } else { "here" });
        Liveness { serving: reasons.is_empty(), reasons, database }
    }
}

impl Subject for Watched {
    fn liveness(&self) -> Answer {
        let liveness = self.look();
        let standing = if liveness.serving { Standing::Serving } else { Standing::Not };
        Answer { standing, body: serde_json::to_string(&liveness).unwrap_or_default() }
    }

    fn metrics(&self) -> String {
        self.0.get().map_or_else(|| "# EOF\n".to_owned(), |(metrics, _)| metrics.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_plane_that_does_not_run_yet_is_not_serving() {
        let watched = Watched::default();
        assert_eq!(watched.look().reasons, ["starting"]);
        assert_eq!((watched.liveness().standing, watched.metrics().as_str()), (Standing::Not, "# EOF\n"));
    }
}
