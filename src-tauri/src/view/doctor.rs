//! The diagnostics screen: the doctor as it goes, and the log export.

use serde::{Deserialize, Serialize};

/// A run of the doctor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Doctor {
    pub state: DoctorState,
    pub started_at: u64,
    pub ended_at: Option<u64>,
    /// In the order in which they are shown.
    pub groups: Vec<DoctorGroup>,
    /// Why it broke off.
    pub problem: Option<super::Problem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum DoctorState {
    Running,
    Done,
    /// Somebody stopped it; checks that had not ended stay `waiting`.
    Stopped,
    /// See `problem`.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct DoctorGroup {
    /// A stable word of the service: `this_computer`, `identity`, `gateways`, `resources`, `names_and_routes`.
    pub id: String,
    /// The service's heading for it: `This computer`.
    pub title: String,
    pub checks: Vec<DoctorCheck>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct DoctorCheck {
    /// A stable word, unique in a run.
    pub id: String,
    pub title: String,
    pub verdict: Verdict,
    /// What was seen; empty while it is not done.
    pub detail: String,
    /// What to do about it.
    pub advice: Option<String>,
    /// Commands that look at the same by hand.
    pub commands: Vec<String>,
    /// How long it took.
    pub took_micros: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Verdict {
    Waiting,
    Running,
    Ok,
    Warning,
    Failed,
    Skipped,
}

/// How much of the logs can be recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Redaction {
    /// Names kept: for one's own admins.
    Names,
    /// Same name, same stand-in.
    Pseudonyms,
    /// Counts and codes only.
    Strict,
}

/// Exactly what would be written. Keys, tokens and payloads are never part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct LogExport {
    pub redaction: Redaction,
    /// What the file holds, in order.
    pub parts: Vec<LogPart>,
    /// Of the whole file.
    pub bytes: u64,
    /// How many words were replaced.
    pub replaced: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct LogPart {
    /// `service.log`, `doctor.json` …
    pub name: String,
    pub bytes: u64,
    /// All its lines, or the last 2,000 of them.
    pub lines: Vec<String>,
    /// How many lines it has in all.
    pub line_count: u32,
    /// How many older lines the service no longer keeps.
    pub forgotten: u64,
}

/// A file that `save_logs` wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct SavedFile {
    pub path: String,
    pub bytes: u64,
}
