//! The gateways, as this machine sees them.

use postern_proto::door::Door;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// A gateway, or a cluster of workers.
    pub id: Door,
    pub name: String,
    pub address: String,
    pub state: GatewayState,
    /// Established connections that wait for a stream.
    pub spares: u32,
    /// Time of the last connect and handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_micros: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum GatewayState {
    /// Not tried yet.
    Unknown,
    Reachable,
    Draining,
    Unreachable {
        error: String,
    },
}
