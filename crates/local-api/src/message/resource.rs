//! One resource, and how it stands.

use std::net::SocketAddr;

use postern_proto::{resource::ClientResource, time::UnixMillis};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceStatus {
    #[serde(flatten)]
    pub resource: ClientResource,
    pub connection: Connection,
    /// The name that its address answers to, while it is in the virtual network; a wildcard as `*.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_name: Option<String>,
    /// A loopback address where it is too, beside the one in the virtual network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub also_at: Option<SocketAddr>,
    /// Why it is not in the virtual network, although that is where it belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// Streams carried right now.
    pub streams: u32,
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// When the grant ends, where it has an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_ends: Option<UnixMillis>,
    /// What the last failed stream met, until one succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "connection_state")]
pub enum Connection {
    Disconnected,
    /// Programs reach it at this address: a loopback listener, or a place in the virtual network.
    Listening {
        address: SocketAddr,
    },
    /// Somebody else has the port; tried again at `retry_at`.
    PortInUse {
        address: SocketAddr,
        holder: Option<PortHolder>,
        retry_at: UnixMillis,
    },
    /// The address cannot be bound for another reason.
    Failed {
        address: SocketAddr,
        error: String,
        retry_at: UnixMillis,
    },
    /// Wanted, but held back while locked.
    Suspended,
}

/// The process that has a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortHolder {
    pub uid: u32,
    /// Known where the process is ours to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}
