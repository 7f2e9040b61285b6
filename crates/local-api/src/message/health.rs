//! What is wrong with the service as a whole, or with one resource, in words that a person can act on.
//!
//! The sentences are made in [`crate::cause`]; here is only their form.

use postern_proto::{id::ResourceId, time::UnixMillis};
use serde::{Deserialize, Serialize};

/// How much something matters. Ordered: what comes later is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know; nothing is to be done soon.
    Info,
    /// Something does not work, or soon will not, and the rest goes on.
    Warn,
    /// Nothing can be carried.
    Error,
}

/// Something that deserves a person's attention for as long as it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthItem {
    /// A stable word, such as `port_taken`: for programs, and for a person to quote.
    pub code: String,
    pub severity: Severity,
    /// What failed, one sentence.
    pub what: String,
    /// Why, one or two sentences.
    pub why: String,
    /// What to do.
    pub remedy: String,
    /// Set when it is about one resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceId>,
    /// Since when it has been so.
    pub since: UnixMillis,
    /// When what it warns of happens: clients count down to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMillis>,
}

/// What keeps one resource from being used, or kept its last stream from getting through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// As in [`HealthItem`].
    pub code: String,
    pub what: String,
    pub why: String,
    pub remedy: String,
    /// When it was met.
    pub at: UnixMillis,
    /// When it is tried again by itself; `None`: with the next connection of a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<UnixMillis>,
}
