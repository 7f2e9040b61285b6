//! Reading and writing flows, in place.

use super::{FlowError, RecvError, SendError, Stack};
use crate::{
    FlowId,
    flow::{Open, Phase},
};

impl Stack {
    /// Gives `read` the first contiguous part of what arrived; as many bytes as it returns are gone after that. Call
    /// again for the part behind the ring's end. Bytes that it takes may be changed in place.
    #[inline]
    pub fn recv(&mut self, flow: FlowId, read: impl FnOnce(&mut [u8]) -> usize) -> Result<usize, RecvError> {
        let open = self.open_mut(flow).map_err(|_| RecvError::Unknown)?;
        let tcp = open.socket.tcp_mut();
        if !tcp.can_recv() {
            return Err(if open.has_peer_closed() { RecvError::Finished } else { RecvError::Empty });
        }
        let taken = tcp.recv(|bytes| {
            let length = bytes.len();
            let taken = read(bytes).min(length);
            (taken, taken)
        });
        let taken = taken.map_err(|_| RecvError::Empty)?;
        open.socket.moved.received = open.socket.moved.received.saturating_add(taken);
        if taken > 0 {
            open.touched = true;
            self.mark(flow.slot);
        }
        Ok(taken)
    }

    /// Gives `write` the first contiguous part of the free room; as many bytes as it returns will be sent. Call again for
    /// the part behind the ring's end.
    #[inline]
    pub fn send(&mut self, flow: FlowId, write: impl FnOnce(&mut [u8]) -> usize) -> Result<usize, SendError> {
        let open = self.open_mut(flow).map_err(|_| SendError::Unknown)?;
        if open.closing || open.finished {
            return Err(SendError::Closed);
        }
        if open.room() == 0 {
            open.wants_room = true;
            return Err(SendError::Full);
        }
        let written = open.socket.tcp_mut().send(|room| {
            let length = room.len();
            let written = write(room).min(length);
            (written, written)
        });
        let written = written.map_err(|_| SendError::Closed)?;
        open.socket.moved.sent = open.socket.moved.sent.saturating_add(written);
        if written > 0 {
            open.touched = true;
            self.mark(flow.slot);
        }
        Ok(written)
    }

    /// Bytes that can be written now, when that is worth fetching them: while less than a quarter of the ring is free it is
    /// [`SendError::Full`], and [`Event::Writable`](crate::Event::Writable) tells when that changes.
    #[inline]
    pub fn room(&mut self, flow: FlowId) -> Result<usize, SendError> {
        let open = self.open_mut(flow).map_err(|_| SendError::Unknown)?;
        if open.closing || open.finished {
            return Err(SendError::Closed);
        }
        let room = open.room();
        if room < open.socket.worthwhile() {
            open.wants_room = true;
            return Err(SendError::Full);
        }
        Ok(room)
    }

    /// Bytes that can be read now.
    pub fn readable(&self, flow: FlowId) -> usize {
        self.open_ref(flow).map_or(0, |open| open.socket.tcp().recv_queue())
    }

    /// Bytes that can be written now.
    pub fn writable(&self, flow: FlowId) -> usize {
        self.open_ref(flow).filter(|open| !open.closing).map_or(0, Open::room)
    }

    /// Bytes that were written and that the peer has not acknowledged yet.
    pub fn unacknowledged(&self, flow: FlowId) -> usize {
        self.open_ref(flow).map_or(0, |open| open.socket.tcp().send_queue())
    }

    /// Ends our direction, after what was written. Reading goes on.
    pub fn close(&mut self, flow: FlowId) -> Result<(), FlowError> {
        let open = self.open_mut(flow)?;
        if !open.closing {
            open.closing = true;
            open.touched = true;
            // Before the handshake is done there is nothing to close yet.
            if open.established {
                open.socket.tcp_mut().close();
            }
        }
        self.mark(flow.slot);
        Ok(())
    }

    #[inline]
    fn open_mut(&mut self, flow: FlowId) -> Result<&mut Open, FlowError> {
        match &mut self.flows.live_mut(flow).ok_or(FlowError::Unknown)?.phase {
            Phase::Open(open) => Ok(open),
            _ => Err(FlowError::State),
        }
    }

    fn open_ref(&self, flow: FlowId) -> Option<&Open> {
        match &self.flows.live(flow)?.phase {
            Phase::Open(open) => Some(open),
            _ => None,
        }
    }
}
