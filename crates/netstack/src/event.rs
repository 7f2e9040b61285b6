//! What a stack tells its owner.

use std::net::SocketAddr;

use crate::FlowId;

/// What happened, in the order in which it did for each flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A program wants to connect; the SYN is held until `accept`, `refuse` or `drop_flow`.
    Syn {
        /// The flow that it may become.
        flow: FlowId,
        /// Who asks.
        source: SocketAddr,
        /// Where to.
        destination: SocketAddr,
    },
    /// There is new data to `recv`. Said again only when more arrives, not for what was left unread.
    Readable(FlowId),
    /// The handshake is done, or there is room again after [`SendError::Full`](crate::SendError::Full).
    Writable(FlowId),
    /// The peer sends no more. Data may still be unread; the other direction goes on.
    PeerClosed(FlowId),
    /// The flow is over, its id is void.
    Closed {
        /// Which one.
        flow: FlowId,
        /// Why.
        reason: CloseReason,
    },
    /// A datagram to a resolver's address.
    Datagram {
        /// Who sent it.
        source: SocketAddr,
        /// The resolver's address that it was sent to.
        destination: SocketAddr,
        /// What it holds.
        payload: Vec<u8>,
    },
    /// An answer waits for `release` or `discard` (only with [`Answers::Asked`](crate::Answers::Asked)). An answer that
    /// is neither released nor discarded is forgotten when too many others have come after it.
    Answer {
        /// The answer.
        answer: AnswerId,
        /// What kind of packet is answered.
        protocol: Protocol,
        /// Who sent that packet; the port is the identifier of an echo request, 0 where there is none.
        source: SocketAddr,
        /// Where it went.
        destination: SocketAddr,
    },
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloseReason {
    /// Both directions were closed and all data was delivered.
    Finished,
    /// The peer reset it, or took its SYN back.
    Reset,
    /// Nobody accepted or refused it in time.
    DialTimeout,
    /// The peer gave no sign of life.
    Dead,
    /// It carried no data for too long.
    Idle,
    /// The TCP implementation failed on it; no other flow is concerned.
    Fault,
}

/// An answer that waits for its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AnswerId(pub(crate) u64);

/// The kind of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// An echo request.
    Echo,
}

impl Event {
    /// The flow that the event is about.
    pub fn flow(&self) -> Option<FlowId> {
        match self {
            Self::Syn { flow, .. }
            | Self::Readable(flow)
            | Self::Writable(flow)
            | Self::PeerClosed(flow)
            | Self::Closed { flow, .. } => Some(*flow),
            Self::Datagram { .. } | Self::Answer { .. } => None,
        }
    }
}
