//! Packets out: only flows with something to do are looked at.

use std::time::Instant;

use smoltcp::{socket::tcp::State, time::Instant as WireInstant};

use super::{Stack, Transmit, flows::micros, guard};
use crate::{CloseReason, MAX_PACKET, flow::Phase};

/// Packets of one flow in a row; after that it is another one's turn.
const BURST: usize = 8;

/// How long to wait at least before a flow is looked at again by itself, in microseconds: whatever smoltcp says, a flow
/// that has nothing to send makes no busy loop.
const LEAST_WAIT: u64 = 1000;

impl Stack {
    /// Writes the next packet into `buffer`, which has to hold [`StackConfig::largest`](crate::StackConfig::largest) bytes
    /// (with a smaller one nothing is written). Only flows with something to do are looked at.
    #[inline]
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        self.advance(now);
        let buffer = buffer.get_mut(..self.config.largest)?;
        loop {
            if let Some((packet, offload)) = self.answering.pop() {
                if let Some(room) = buffer.get_mut(..packet.len()) {
                    room.copy_from_slice(&packet);
                    self.stats.packets_out += 1;
                    return Some(Transmit { len: packet.len(), offload });
                }
                continue;
            }
            let &slot = self.dirty.front()?;
            if let Some(transmit) = self.emit(slot, buffer) {
                self.burst += 1;
                if self.burst >= BURST {
                    self.burst = 0;
                    self.dirty.rotate_left(1);
                }
                return Some(transmit);
            }
            self.burst = 0;
            self.dirty.pop_front();
            if let Some(place) = self.flows.slot_mut(slot) {
                place.dirty = false;
            }
            self.settle(slot);
        }
    }

    /// The next packet of a flow.
    #[inline]
    fn emit(&mut self, slot: u32, buffer: &mut [u8]) -> Option<Transmit> {
        let len = self.write(slot, buffer)?;
        let Phase::Open(open) = &self.flows.slot(slot)?.phase else { return None };
        let offload = self.link.finish(buffer.get_mut(..len)?, open.max_segment);
        let coupled = offload.segmentation.is_some() && buffer.len() > MAX_PACKET;
        let len = if coupled { self.couple(slot, buffer, len, offload) } else { len };
        self.stats.packets_out += 1;
        Some(Transmit { len, offload })
    }

    /// Has smoltcp write the next segment of a flow, and says how long the packet is.
    #[inline]
    pub(super) fn write(&mut self, slot: u32, buffer: &mut [u8]) -> Option<usize> {
        let now = self.wire_now();
        let place = self.flows.slot_mut(slot)?;
        let Phase::Open(open) = &mut place.phase else { return None };
        self.stats.polls += 1;
        let mut port = self.link.port(None, buffer);
        let interface = &mut self.interface;
        let set = open.socket.set();
        if guard(|| interface.poll_egress(now, &mut port, set)).is_none() {
            self.fail(slot);
            return None;
        }
        let written = port.written();
        if written.is_some() {
            open.tell_window();
        }
        written
    }

    /// A flow has nothing more to send for now: sees whether it is over, and when it wants to be looked at again.
    #[inline]
    fn settle(&mut self, slot: u32) {
        let (now, wire_now) = (self.now, self.wire_now());
        let Some(place) = self.flows.slot_mut(slot) else { return };
        let Phase::Open(open) = &mut place.phase else { return };
        if std::mem::take(&mut open.touched) {
            open.moved_at = now;
        }
        let half_closed = open.closing || open.peer_closed;
        let limit = if half_closed { self.config.half_closed_idle } else { self.config.idle };
        let idle_at = limit.map(|limit| open.moved_at.saturating_add(micros(limit)));
        let finished = open.finished;
        match open.socket.tcp().state() {
            _ if idle_at.is_some_and(|at| at <= now) => {
                if !finished {
                    self.reset(slot);
                }
                return self.end(slot, CloseReason::Idle);
            }
            _ if finished && open.socket.tcp().recv_queue() == 0 => return self.end(slot, CloseReason::Finished),
            _ if finished => {}
            // The time for signs of life is up; the RST has been sent.
            State::Closed => return self.end(slot, CloseReason::Dead),
            State::TimeWait => return self.finish(slot),
            _ => {}
        }
        let wire_at = if finished { None } else { self.interface.poll_at(wire_now, open.socket.set()) };
        let next = wire_at.map(|at| wire_micros(at).max(now.saturating_add(LEAST_WAIT)));
        if let Some(at) = next.into_iter().chain(idle_at).min() {
            self.arm(slot, at);
        }
    }
}

fn wire_micros(at: WireInstant) -> u64 {
    u64::try_from(at.total_micros()).unwrap_or(0)
}
