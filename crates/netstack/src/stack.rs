//! The stack: its interface to whoever owns it.

use std::{net::SocketAddr, time::Instant};

use thiserror::Error;

use crate::{AddressTable, AnswerId, Event, FlowId, FlowInfo, Offload, StackConfig, Stats};

/// One shard of the virtual network. See the crate's documentation for how it is used.
///
/// After each call of `handle_packet` (or a batch of them), `handle_timeout`, or a method that takes a [`FlowId`], poll
/// events and then packets until both give `None`.
pub struct Stack {
    config: StackConfig,
}

/// A packet to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Its length, from the buffer's start.
    pub len: usize,
    /// What is left to do for it.
    pub offload: Offload,
}

/// Why a flow could not be worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FlowError {
    /// The flow is over, or there never was one.
    #[error("the flow is over")]
    Unknown,
    /// The flow is in another state than the call is for: held, or not held any more.
    #[error("the flow's state does not allow this")]
    State,
    /// The uid holds two thirds of all SYNs that can be held already. The SYN has been dropped.
    #[error("too many connections of one user wait to be opened")]
    TooManyHeld,
}

/// Why nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecvError {
    /// There is nothing to read now; [`Event::Readable`] or [`Event::PeerClosed`] will tell.
    #[error("nothing to read yet")]
    Empty,
    /// The peer has closed its direction, and all of it was read.
    #[error("the peer sends no more")]
    Finished,
    /// The flow is over, or there never was one.
    #[error("the flow is over")]
    Unknown,
}

/// Why nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// There is no room now; [`Event::Writable`] will tell.
    #[error("no room yet")]
    Full,
    /// This direction was closed with [`Stack::close`].
    #[error("this direction is closed")]
    Closed,
    /// The flow is over, or there never was one.
    #[error("the flow is over")]
    Unknown,
}

impl Stack {
    /// A stack without addresses. `now` is when its time starts; later calls give the same clock's time.
    pub fn new(config: StackConfig, seed: u64, now: Instant) -> Self {
        let _ = (seed, now);
        Self { config }
    }

    /// Replaces the addresses that exist.
    pub fn set_addresses(&mut self, table: AddressTable) {
        let _ = table;
    }

    /// Takes a packet from the device.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8], offload: Offload) {
        let _ = (now, packet, offload);
    }

    /// Does what was due until `now`. May be called at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// Writes the next packet into `buffer`, which has to hold [`MAX_PACKET`](crate::MAX_PACKET) bytes (with a smaller
    /// one nothing is written). Only flows with something to do are looked at.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        let _ = (now, buffer);
        None
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// When to call `handle_timeout`, once `poll_transmit` gave `None`. It may lie in the past. `None`: never, until
    /// another call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Says whose held SYN it is. With too many SYNs of this uid already, the flow is dropped without an answer, and its
    /// sender tries again later.
    pub fn claim(&mut self, flow: FlowId, uid: u32) -> Result<(), FlowError> {
        let _ = uid;
        Err(unknown(flow))
    }

    /// Lets a held SYN in: the peer sees its connection established.
    pub fn accept(&mut self, flow: FlowId) -> Result<(), FlowError> {
        Err(unknown(flow))
    }

    /// Answers a held SYN with RST.
    pub fn refuse(&mut self, flow: FlowId) -> Result<(), FlowError> {
        Err(unknown(flow))
    }

    /// Forgets a flow without telling the peer: for a SYN that must get no answer.
    pub fn drop_flow(&mut self, flow: FlowId) -> Result<(), FlowError> {
        Err(unknown(flow))
    }

    /// Gives `read` the first contiguous part of what arrived; as many bytes as it returns are gone after that. Call
    /// again for the part behind the ring's end. Bytes that it takes may be changed in place.
    pub fn recv(&mut self, flow: FlowId, read: impl FnOnce(&mut [u8]) -> usize) -> Result<usize, RecvError> {
        let _ = (flow, read);
        Err(RecvError::Unknown)
    }

    /// Gives `write` the first contiguous part of the free room; as many bytes as it returns will be sent. Call again for
    /// the part behind the ring's end.
    pub fn send(&mut self, flow: FlowId, write: impl FnOnce(&mut [u8]) -> usize) -> Result<usize, SendError> {
        let _ = (flow, write);
        Err(SendError::Unknown)
    }

    /// Bytes that can be read now.
    pub fn readable(&self, flow: FlowId) -> usize {
        let _ = flow;
        0
    }

    /// Bytes that can be written now.
    pub fn writable(&self, flow: FlowId) -> usize {
        let _ = flow;
        0
    }

    /// Ends our direction, after what was written. Reading goes on.
    pub fn close(&mut self, flow: FlowId) -> Result<(), FlowError> {
        Err(unknown(flow))
    }

    /// Resets the flow at once, held or not: nothing written before leaves any more, nothing can be read any more.
    pub fn abort(&mut self, flow: FlowId) -> Result<(), FlowError> {
        Err(unknown(flow))
    }

    /// Aborts every flow that `keep` does not keep, and gives their number: after a grant or an address went away.
    pub fn retain_flows(&mut self, keep: impl FnMut(&FlowInfo) -> bool) -> usize {
        let _ = keep;
        0
    }

    /// What is known of a flow.
    pub fn flow(&self, flow: FlowId) -> Option<FlowInfo> {
        let _ = flow;
        None
    }

    /// Sends a datagram from an address of ours. Dropped when too many answers wait.
    pub fn send_datagram(&mut self, source: SocketAddr, destination: SocketAddr, payload: &[u8]) {
        let _ = (source, destination, payload);
    }

    /// Tells the sender of a datagram that its port is unreachable. `source` is that sender, `destination` where the
    /// datagram went, as in [`Event::Datagram`].
    pub fn reply_unreachable(&mut self, source: SocketAddr, destination: SocketAddr) {
        let _ = (source, destination);
    }

    /// Sends an answer that [`Event::Answer`] told of. Nothing happens when it is gone.
    pub fn release(&mut self, answer: AnswerId) {
        let _ = answer;
    }

    /// Forgets an answer that [`Event::Answer`] told of.
    pub fn discard(&mut self, answer: AnswerId) {
        let _ = answer;
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }

    /// The configuration, with values out of range corrected.
    pub fn config(&self) -> &StackConfig {
        &self.config
    }
}

fn unknown(_: FlowId) -> FlowError {
    FlowError::Unknown
}
