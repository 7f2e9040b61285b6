//! What happens, line by line.

use postern_proto::id::ResourceId;
use serde::{Deserialize, Serialize};

use super::{ResourceStatus, Status};

/// A line of `GET /v1/events`. Numbers go up by one; the first line is a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    pub seq: u64,
    #[serde(flatten)]
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    Snapshot {
        status: Box<Status>,
    },
    /// The parts of the status that are not resources changed.
    Service {
        status: Box<Status>,
    },
    ResourceChanged {
        resource: Box<ResourceStatus>,
    },
    ResourceRemoved {
        id: ResourceId,
    },
    /// Something a person should see once.
    Notice {
        level: NoticeLevel,
        text: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeLevel {
    Info,
    Warning,
    Error,
}
