//! Flows and their ids.

use std::net::SocketAddr;

/// Names a flow of one stack. Never valid for another flow, even when its slot is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowInfo {
    /// Which one.
    pub flow: FlowId,
    /// The program's end.
    pub source: SocketAddr,
    /// The virtual address and port.
    pub destination: SocketAddr,
    /// Whose it is, when [`Stack::claim`](crate::Stack::claim) said so.
    pub uid: Option<u32>,
    /// Whether its SYN is held still.
    pub held: bool,
}
