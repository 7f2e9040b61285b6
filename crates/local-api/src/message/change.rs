//! Which resources a command is about, and what it changed.

use postern_proto::id::ResourceId;
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
    /// Exactly these; an unknown one is a refusal, and then nothing is changed.
    Ids {
        ids: Vec<ResourceId>,
    },
}

/// What `connect` or `disconnect` changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    pub resources: Vec<ResourceStatus>,
    /// How many of them are in another state than before.
    pub changed: u32,
}

/// `POST /v1/override`: another port for the address that a resource has now on this machine. In loopback mode 1024 to
/// 64999, in the virtual network 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOverride {
    pub resource: ResourceId,
    /// `None`: the assigned one again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}
