//! The way of a resource's streams.

use serde::{Deserialize, Serialize};

/// From this computer to the resource. This computer itself is no hop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The nearest first.
    pub hops: Vec<Hop>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Of the gateway, or of a node behind it.
    pub name: String,
    /// From the hop before it: time of the last connect and handshake. `None` where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_micros: Option<u64>,
    /// Whether it answered when it was last tried. One that was not tried yet counts as up.
    pub up: bool,
}
