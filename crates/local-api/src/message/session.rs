//! The streams that are carried now.

use std::net::SocketAddr;

use super::Route;
use postern_proto::{
    door::Door,
    id::{ResourceId, StreamId},
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// A stream that is carried now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSession {
    pub stream: StreamId,
    pub resource: ResourceId,
    pub resource_name: String,
    pub peer: SocketAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Door>,
    /// The nodes that it runs over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    pub started_at: UnixMillis,
    /// When it is cut, because a node that it runs over goes out of service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<UnixMillis>,
    pub bytes_up: u64,
    pub bytes_down: u64,
}
