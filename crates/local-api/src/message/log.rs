//! The service's own log, to be looked at and handed on.

use serde::{Deserialize, Serialize};

/// `POST /v1/logs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    #[serde(default)]
    pub redaction: Redaction,
}

/// How much of whom and what a log line still tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redaction {
    /// As it was written; secrets are never written.
    Names,
    /// Names, addresses and ids are replaced by stand-ins such as `res-4`, the same one each time within one export.
    #[default]
    Pseudonyms,
    /// Nothing but words of our own: times, levels, codes and counts.
    Strict,
}

/// The newest lines, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogExport {
    pub redaction: Redaction,
    pub lines: Vec<String>,
    /// How many words were replaced.
    pub replaced: u64,
    /// How many older lines were written since the service started and are not kept any more.
    pub forgotten: u64,
}
