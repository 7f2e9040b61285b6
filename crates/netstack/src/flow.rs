//! Flows and their ids.

use std::net::SocketAddr;

use smoltcp::{
    iface::{SocketHandle, SocketSet},
    socket::tcp,
};

use crate::{
    CloseReason,
    packet::{FIN, RST, SYN, Segment, Syn},
};

pub(crate) mod table;

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

/// The two ends of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The program's.
    pub(crate) source: SocketAddr,
    /// Ours.
    pub(crate) destination: SocketAddr,
}

/// Where a flow stands.
pub(crate) enum Phase {
    /// There is none.
    Free,
    /// Its SYN waits for the owner's word.
    Held(Syn),
    /// It has a socket.
    Open(Open),
    /// It is over, and the owner has not heard of it yet.
    Over(CloseReason),
}

/// A flow with a socket.
pub(crate) struct Open {
    pub(crate) socket: Socket,
    /// Payload bytes of a segment, as both ends can take it.
    pub(crate) max_segment: u16,
    /// The handshake is done.
    pub(crate) established: bool,
    /// Our direction was closed, or is to be once the handshake is done.
    pub(crate) closing: bool,
    /// The owner was told that the peer sends no more.
    pub(crate) peer_closed: bool,
    /// The owner found no room, and waits for it.
    pub(crate) wants_room: bool,
    /// Both directions are closed: what is left is data that the owner has not read. The 4-tuple is free again.
    pub(crate) finished: bool,
    /// The owner moved data since the last poll.
    pub(crate) touched: bool,
    /// When data last moved, in microseconds.
    pub(crate) moved_at: u64,
    /// What the peer acknowledges while our FIN is all it lacks, and how often it did.
    pub(crate) lacks_fin: (u32, u8),
    /// One past the last byte that the peer may send by the window of our SYN.
    pub(crate) opening: u32,
    /// The peer was told of no other window since.
    pub(crate) unscaled: bool,
    /// Its segments may be coupled to packets beyond 64 KiB.
    pub(crate) couples: bool,
    pub(crate) coupled: Option<Coupled>,
}

/// What left in packets beyond 64 KiB, in sequence numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coupled {
    /// Where the data of the first one began.
    pub(crate) first: u32,
    /// Where those of the last one ended.
    pub(crate) edge: u32,
}

/// A socket with its rings, alone in a set of its own.
pub(crate) struct Socket {
    set: SocketSet<'static>,
    handle: SocketHandle,
    /// Size of each ring.
    pub(crate) ring: usize,
    /// How many bytes of each ring may have been used, so that they take memory.
    pub(crate) touched: usize,
    pub(crate) moved: Moved,
}

/// Bytes that a socket has carried since it was last idle in the pool.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moved {
    pub(crate) received: usize,
    pub(crate) sent: usize,
}

impl Socket {
    pub(crate) fn new(ring: usize) -> Self {
        let socket = tcp::Socket::new(tcp::SocketBuffer::new(vec![0; ring]), tcp::SocketBuffer::new(vec![0; ring]));
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Self { set, handle, ring, touched: 0, moved: Moved::default() }
    }

    /// How much room its owner is told of: fewer, larger writes cost less.
    #[inline]
    pub(crate) fn worthwhile(&self) -> usize {
        self.ring / 4
    }

    /// The window that its SYN offers.
    pub(crate) fn opening(&self) -> u32 {
        u32::try_from(self.ring.min(LARGEST_OPENING)).unwrap_or(u32::MAX)
    }

    #[inline]
    pub(crate) fn set(&mut self) -> &mut SocketSet<'static> {
        &mut self.set
    }

    #[inline]
    pub(crate) fn tcp(&self) -> &tcp::Socket<'static> {
        self.set.get(self.handle)
    }

    #[inline]
    pub(crate) fn tcp_mut(&mut self) -> &mut tcp::Socket<'static> {
        self.set.get_mut(self.handle)
    }
}

/// The largest window of a SYN.
const LARGEST_OPENING: usize = 65_535;

/// What smoltcp may see of acknowledgements that say nothing new: with the third it would forget our FIN.
const REPEATS: u8 = 2;

impl Open {
    /// Whether a segment is better not delivered. After three duplicate acknowledgements smoltcp 0.14 sends again what is
    /// missing, at once and never again, and a FIN by itself not at all. Without the third, the FIN is sent again when
    /// the time has come, as long as it takes.
    #[inline]
    pub(crate) fn passes_over(&mut self, segment: &Segment<'_>) -> bool {
        let tcp = self.socket.tcp();
        let last = matches!(tcp.state(), tcp::State::FinWait1 | tcp::State::Closing | tcp::State::LastAck);
        if !last || tcp.send_queue() > 0 || segment.data > 0 || segment.flags & (SYN | FIN | RST) != 0 {
            return false;
        }
        let (acknowledged, times) = self.lacks_fin;
        let times = if acknowledged == segment.acknowledgement { times.saturating_add(1) } else { 1 };
        self.lacks_fin = (segment.acknowledgement, times);
        times > REPEATS
    }

    /// Whether a segment reaches beyond the window of our SYN, which is never scaled (RFC 7323 2.2). smoltcp 0.14 scales it
    /// all the same when it judges what arrives, up to twice what the ring holds, and would count bytes as received that it
    /// could not write. A peer that keeps to the window sends no such segment before it has heard of a larger one.
    #[inline]
    pub(crate) fn reaches_too_far(&self, segment: &Segment<'_>) -> bool {
        let data = u32::try_from(segment.data).unwrap_or(u32::MAX);
        self.unscaled && segment.sequence.wrapping_add(data).wrapping_sub(self.opening).cast_signed() > 0
    }

    /// A segment of ours leaves; but for a SYN, its window is scaled.
    #[inline]
    pub(crate) fn tell_window(&mut self) {
        self.unscaled = self.socket.tcp().state() == tcp::State::SynReceived;
    }

    /// Whether the peer has closed its direction.
    #[inline]
    pub(crate) fn has_peer_closed(&self) -> bool {
        let state = self.socket.tcp().state();
        self.finished
            || matches!(state, tcp::State::CloseWait | tcp::State::LastAck | tcp::State::Closing | tcp::State::TimeWait)
    }

    /// Bytes that can be written.
    pub(crate) fn room(&self) -> usize {
        let tcp = self.socket.tcp();
        if tcp.may_send() { tcp.send_capacity().saturating_sub(tcp.send_queue()) } else { 0 }
    }
}
