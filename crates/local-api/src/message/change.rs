//! Which resources a command is about, and what it changed.

use serde::{Deserialize, Serialize};

use super::ResourceStatus;

/// Which resources a command is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "select")]
pub enum Selection {
    All,
    /// By name, or by id.
    Name {
        name: String,
    },
    /// The filter grammar of `postern_proto::filter`.
    Filter {
        filter: String,
    },
}

/// What `connect` or `disconnect` changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    pub resources: Vec<ResourceStatus>,
    /// How many of them are in another state than before.
    pub changed: u32,
}
