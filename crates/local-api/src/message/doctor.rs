//! What the doctor looked at, and what it saw.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReport {
    pub checks: Vec<Check>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// A stable word, for scripts.
    pub id: String,
    pub title: String,
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// What to do about it; only where something is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Commands that look at the same by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    #[serde(default)]
    pub group: CheckGroup,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_micros: Option<u64>,
}

/// What a check is about; shown in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckGroup {
    #[default]
    ThisComputer,
    Identity,
    Gateways,
    Resources,
    NamesAndRoutes,
}

impl CheckGroup {
    /// As it is shown.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::ThisComputer => "This computer",
            Self::Identity => "Identity",
            Self::Gateways => "Gateways",
            Self::Resources => "Resources",
            Self::NamesAndRoutes => "Names and routes",
        }
    }
}

/// A line of `POST /v1/doctor/stream`. Each check begins once and finishes once; the answer ends after the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum DoctorLine {
    Started { id: String, title: String, group: CheckGroup },
    Finished(Check),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    Warning,
    Failed,
    Skipped,
}
