//! How flows begin and end.

use smoltcp::wire::IpListenEndpoint;

use super::{FlowError, Stack, events::signal, guard, ingress::REPLY};
use crate::{
    CloseReason, FlowId, RingSizes,
    flow::{Ends, Open, Phase, Socket},
    packet::{Syn, build},
};

impl Stack {
    /// Says whose held SYN it is. With too many SYNs of this uid already, the flow is dropped without an answer, and its
    /// sender tries again later.
    pub fn claim(&mut self, flow: FlowId, uid: u32) -> Result<(), FlowError> {
        self.held_syn(flow)?;
        let others = self.held_by_uid.get(&uid).copied().unwrap_or(0);
        if others >= self.config.max_held - self.config.max_held / 3 {
            self.stats.dropped_syns += 1;
            self.forget(flow.slot);
            return Err(FlowError::TooManyHeld);
        }
        let place = self.flows.live_mut(flow).ok_or(FlowError::Unknown)?;
        let before = place.uid.replace(uid);
        if let Some(before) = before {
            self.unclaim(before);
        }
        *self.held_by_uid.entry(uid).or_default() += 1;
        Ok(())
    }

    /// Lets a held SYN in: the peer sees its connection established.
    pub fn accept(&mut self, flow: FlowId) -> Result<(), FlowError> {
        let syn = self.held_syn(flow)?;
        let slot = flow.slot;
        let ends = self.flows.live(flow).ok_or(FlowError::Unknown)?.ends;
        self.release_hold(slot);
        let max_segment = self.link.max_segment(ends.source.ip(), &syn);
        let mut socket = self.socket();
        let listen = IpListenEndpoint { addr: Some(ends.destination.ip().into()), port: ends.destination.port() };
        let listens = socket.tcp_mut().listen(listen).is_ok();
        self.open += 1;
        let opening = syn.sequence.wrapping_add(1).wrapping_add(socket.opening());
        if let Some(place) = self.flows.slot_mut(slot) {
            place.phase = Phase::Open(Open {
                socket,
                max_segment,
                established: false,
                closing: false,
                peer_closed: false,
                wants_room: false,
                finished: false,
                touched: true,
                moved_at: self.now,
                lacks_fin: (0, 0),
                opening,
                unscaled: true,
                couples: true,
                coupled: None,
            });
        }
        let believed = self.link.believed_segment(ends.source.ip(), max_segment);
        if let Some(packet) = build::syn(ends.source, ends.destination, &syn, believed).filter(|_| listens) {
            self.deliver(slot, &packet, false);
        } else {
            self.fail(slot);
        }
        Ok(())
    }

    /// Answers a held SYN with RST.
    pub fn refuse(&mut self, flow: FlowId) -> Result<(), FlowError> {
        self.held_syn(flow)?;
        self.refuse_slot(flow.slot);
        self.forget(flow.slot);
        Ok(())
    }

    /// Forgets a flow without telling the peer: for a SYN that must get no answer.
    pub fn drop_flow(&mut self, flow: FlowId) -> Result<(), FlowError> {
        self.flows.live(flow).ok_or(FlowError::Unknown)?;
        self.forget(flow.slot);
        Ok(())
    }

    /// Resets the flow at once, held or not: nothing written before leaves any more, nothing can be read any more.
    pub fn abort(&mut self, flow: FlowId) -> Result<(), FlowError> {
        let place = self.flows.live(flow).ok_or(FlowError::Unknown)?;
        match place.phase {
            Phase::Held(_) => self.refuse_slot(flow.slot),
            _ => self.reset(flow.slot),
        }
        self.forget(flow.slot);
        Ok(())
    }

    /// Holds a SYN, or drops it when there are too many.
    pub(super) fn hold(&mut self, ends: Ends, syn: Syn) {
        let slot = if self.held < self.config.max_held { self.flows.insert(ends, Phase::Held(syn)) } else { None };
        let Some(slot) = slot else {
            self.stats.dropped_syns += 1;
            return;
        };
        self.held += 1;
        self.arm(slot, self.now.saturating_add(micros(self.config.dial_timeout)));
        self.signal(slot, signal::SYN);
    }

    /// Nobody decided about a held SYN in time.
    pub(super) fn give_up_dial(&mut self, slot: u32) {
        self.refuse_slot(slot);
        self.end(slot, CloseReason::DialTimeout);
    }

    /// A flow is over, and the owner is to hear of it, if it has heard of the flow.
    pub(super) fn end(&mut self, slot: u32, reason: CloseReason) {
        self.detach(slot);
        let Some(place) = self.flows.slot_mut(slot) else { return };
        if place.signals & signal::SYN != 0 {
            place.signals = 0;
            return self.flows.free(slot);
        }
        place.signals = 0;
        place.phase = Phase::Over(reason);
        self.signal(slot, signal::OVER);
    }

    /// Both directions of a flow are closed: it ends once the owner has read all.
    pub(super) fn finish(&mut self, slot: u32) {
        self.flows.unmap(slot);
        let Some(place) = self.flows.slot_mut(slot) else { return };
        let Phase::Open(open) = &mut place.phase else { return };
        open.finished = true;
        if open.socket.tcp().recv_queue() == 0 {
            return self.end(slot, CloseReason::Finished);
        }
        if !open.peer_closed {
            open.peer_closed = true;
            self.signal(slot, signal::PEER_CLOSED);
        }
        self.mark(slot);
    }

    /// The TCP implementation failed on a flow; its socket is not used again.
    pub(super) fn fail(&mut self, slot: u32) {
        self.stats.faults += 1;
        if let Some(place) = self.flows.slot_mut(slot)
            && matches!(place.phase, Phase::Open(_))
        {
            place.phase = Phase::Over(CloseReason::Fault);
            self.open = self.open.saturating_sub(1);
        }
        self.end(slot, CloseReason::Fault);
    }

    /// Sends the RST of a flow with a socket.
    pub(super) fn reset(&mut self, slot: u32) {
        let now = self.wire_now();
        let Some(place) = self.flows.slot_mut(slot) else { return };
        let Phase::Open(open) = &mut place.phase else { return };
        open.socket.tcp_mut().abort();
        let mut buffer = [0; REPLY];
        let mut port = self.link.port(None, &mut buffer);
        let interface = &mut self.interface;
        let set = open.socket.set();
        guard(|| interface.poll_egress(now, &mut port, set));
        if let Some(packet) = port.written().and_then(|length| buffer.get_mut(..length)) {
            let offload = self.link.finish(packet, open.max_segment);
            self.answering.push_reset(packet.to_vec(), offload);
        }
    }

    /// A flow is over, and the owner knows.
    fn forget(&mut self, slot: u32) {
        self.detach(slot);
        if let Some(place) = self.flows.slot_mut(slot) {
            place.signals = 0;
        }
        self.flows.free(slot);
    }

    /// Takes from a flow all that it has outside its slot, and its socket.
    fn detach(&mut self, slot: u32) {
        self.flows.unmap(slot);
        self.release_hold(slot);
        let Some(place) = self.flows.slot_mut(slot) else { return };
        self.timers.disarm(slot, &mut place.armed);
        if matches!(place.phase, Phase::Open(_))
            && let Phase::Open(open) = std::mem::replace(&mut place.phase, Phase::Free)
        {
            self.open = self.open.saturating_sub(1);
            self.pool.put(open.socket);
        }
    }

    /// A held SYN counts no more, and its dial has no limit any more.
    fn release_hold(&mut self, slot: u32) {
        let Some(place) = self.flows.slot_mut(slot) else { return };
        if !matches!(place.phase, Phase::Held(_)) {
            return;
        }
        self.timers.disarm(slot, &mut place.armed);
        self.held = self.held.saturating_sub(1);
        let uid = place.uid;
        place.phase = Phase::Free;
        if let Some(uid) = uid {
            self.unclaim(uid);
        }
    }

    fn unclaim(&mut self, uid: u32) {
        if let Some(count) = self.held_by_uid.get_mut(&uid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.held_by_uid.remove(&uid);
            }
        }
    }

    fn refuse_slot(&mut self, slot: u32) {
        let Some(place) = self.flows.slot(slot) else { return };
        let Phase::Held(syn) = &place.phase else { return };
        if let Some(packet) = build::refusal(place.ends.source, place.ends.destination, syn) {
            self.answering.push_reset(packet, Default::default());
        }
    }

    fn held_syn(&self, flow: FlowId) -> Result<Syn, FlowError> {
        match self.flows.live(flow).ok_or(FlowError::Unknown)?.phase {
            Phase::Held(syn) => Ok(syn),
            _ => Err(FlowError::State),
        }
    }

    fn socket(&mut self) -> Socket {
        let ring = self.config.rings.size(self.open);
        self.pool.take(ring).unwrap_or_else(|| {
            let mut socket = Socket::new(ring);
            let tcp = socket.tcp_mut();
            // The link is this machine: waiting for more to send or to acknowledge only costs time.
            tcp.set_nagle_enabled(false);
            tcp.set_ack_delay(None);
            tcp.set_keep_alive(Some(self.config.keepalive.into()));
            tcp.set_timeout(Some(self.config.dead_after.into()));
            socket
        })
    }

    pub(super) fn arm(&mut self, slot: u32, at: u64) {
        if let Some(place) = self.flows.slot_mut(slot) {
            self.timers.arm(slot, &mut place.armed, at);
        }
    }
}

impl RingSizes {
    /// The size for a new socket beside `open` others. Never so small or large that TCP could not work with it.
    fn size(&self, open: usize) -> usize {
        let size = match open {
            open if open < self.few_flows => self.large,
            open if open < self.many_flows => self.medium,
            _ => self.small,
        };
        size.clamp(4096, 64 << 20)
    }
}

pub(super) fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
