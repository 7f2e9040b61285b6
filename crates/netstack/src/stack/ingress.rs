//! What happens to a packet from the device.

use std::net::SocketAddr;

use smoltcp::socket::tcp::State;

use super::{Stack, events::signal, guard};
use crate::{
    CloseReason, Event, Protocol, Stray,
    address::Place,
    flow::{Ends, Phase},
    packet::{ICMP4, ICMP6, Packet, RST, Segment, Syn, TCP, UDP, build, build::Unreachable, is_unicast},
};

/// What is to be done with TCP segments that belong to no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strays {
    /// They are dealt with: a SYN is held, others are answered with RST.
    Take,
    /// The owner is asked.
    GiveBack,
}

/// Room for what smoltcp answers to a packet: headers with options, never data.
pub(super) const REPLY: usize = 256;

impl Stack {
    /// Gives a segment of no flow back where `strays` are not to be dealt with here.
    #[inline]
    pub(super) fn ingress(&mut self, bytes: &[u8], strays: Strays) -> Option<Stray> {
        let Some(packet) = Packet::parse(bytes) else {
            self.stats.dropped_packets += 1;
            return None;
        };
        if packet.protocol == TCP {
            return self.tcp(&packet, strays);
        }
        self.other(&packet);
        None
    }

    /// What is no TCP.
    fn other(&mut self, packet: &Packet<'_>) {
        let ours = is_unicast(packet.source) && self.addresses.admits_source(packet.source);
        match packet.protocol {
            _ if !ours || !is_unicast(packet.destination) => self.stats.dropped_packets += 1,
            UDP => self.udp(packet),
            ICMP4 if packet.destination.is_ipv4() => self.echo(packet, 8),
            ICMP6 if packet.destination.is_ipv6() => self.echo(packet, 128),
            _ => self.stats.dropped_packets += 1,
        }
    }

    #[inline]
    fn tcp(&mut self, packet: &Packet<'_>, strays: Strays) -> Option<Stray> {
        let Some(segment) = Segment::parse(packet.payload) else {
            self.stats.dropped_packets += 1;
            return None;
        };
        let ends = Ends {
            source: SocketAddr::new(packet.source, segment.source_port),
            destination: SocketAddr::new(packet.destination, segment.destination_port),
        };
        let Some(slot) = self.flows.find(&ends) else {
            let stray = (strays == Strays::GiveBack).then(|| self.stray_of(ends, &segment)).flatten();
            if stray.is_none() {
                self.stray(ends, &segment);
            }
            return stray;
        };
        let place = self.flows.slot_mut(slot)?;
        match &mut place.phase {
            Phase::Open(open) => {
                if open.reaches_too_far(&segment) {
                    self.stats.dropped_packets += 1;
                } else if !open.passes_over(&segment) {
                    self.deliver(slot, packet.bytes, segment.has(RST));
                }
            }
            &mut Phase::Held(syn) => self.meet_held(slot, &syn, ends, &segment),
            Phase::Free | Phase::Over(_) => {}
        }
        None
    }

    /// What another stack may have to do with a segment that belongs to no flow here; `None` when any stack would do the
    /// same with it.
    fn stray_of(&self, Ends { source, destination }: Ends, segment: &Segment<'_>) -> Option<Stray> {
        let opens = segment.is_syn();
        (!opens || self.addresses.listens(destination)).then_some(Stray { source, destination, opens })
    }

    /// A segment for a flow that has a socket.
    #[inline]
    pub(super) fn deliver(&mut self, slot: u32, bytes: &[u8], reset: bool) {
        let now = self.wire_now();
        let Some(place) = self.flows.slot_mut(slot) else { return };
        let Phase::Open(open) = &mut place.phase else { return };
        let tcp = open.socket.tcp();
        let queued = tcp.recv_queue();
        // All is said and acknowledged but our FIN: an RST then only tells that the peer has forgotten the flow already.
        let said = matches!(tcp.state(), State::LastAck | State::Closing) && tcp.send_queue() == 0;
        let mut buffer = [0; REPLY];
        let mut port = self.link.port(Some(bytes), &mut buffer);
        let interface = &mut self.interface;
        let set = open.socket.set();
        if guard(|| interface.poll_ingress_single(now, &mut port, set)).is_none() {
            return self.fail(slot);
        }
        if let Some(reply) = port.written().and_then(|length| buffer.get_mut(..length)) {
            open.tell_window();
            let offload = self.link.finish(reply, open.max_segment);
            let reply = reply.to_vec();
            self.say(Some(reply), offload);
        }
        self.observe(slot, queued, reset && !said);
    }

    /// Finds out what a segment did to its flow.
    #[inline]
    fn observe(&mut self, slot: u32, queued_before: usize, reset: bool) {
        let now = self.now;
        let Some(place) = self.flows.slot_mut(slot) else { return };
        let Phase::Open(open) = &mut place.phase else { return };
        let mut signals = 0;
        match open.socket.tcp().state() {
            State::Closed | State::Listen if reset => return self.end(slot, CloseReason::Reset),
            State::Closed => return self.finish(slot),
            // Nothing but a SYN is let in to a listening socket.
            State::Listen => return self.end(slot, CloseReason::Fault),
            State::SynReceived | State::SynSent => {}
            _ if !open.established => {
                open.established = true;
                signals |= signal::WRITABLE;
                if open.closing {
                    open.socket.tcp_mut().close();
                }
            }
            _ => {}
        }
        if open.socket.tcp().recv_queue() > queued_before {
            open.moved_at = now;
            signals |= signal::READABLE;
        }
        if !open.peer_closed && open.has_peer_closed() {
            open.peer_closed = true;
            signals |= signal::PEER_CLOSED;
        }
        if open.wants_room && open.room() >= open.socket.worthwhile() {
            open.wants_room = false;
            signals |= signal::WRITABLE;
        }
        if signals != 0 {
            self.signal(slot, signals);
        }
        self.mark(slot);
    }

    /// A segment for a flow whose SYN is held.
    fn meet_held(&mut self, slot: u32, syn: &Syn, ends: Ends, segment: &Segment<'_>) {
        if segment.has(RST) {
            // RFC 9293 3.10.7.4: only one inside the window, which nobody can have been told of yet.
            if segment.sequence.wrapping_sub(syn.sequence) <= 1 {
                self.end(slot, CloseReason::Reset);
            }
        } else if segment.is_syn() && segment.sequence != syn.sequence {
            // The program gave up, and another connection uses its port.
            self.end(slot, CloseReason::Reset);
            self.stray(ends, segment);
        }
        // The same SYN once more is what a held one is for; all else answers what was never said.
    }

    /// A segment without a flow.
    fn stray(&mut self, ends: Ends, segment: &Segment<'_>) {
        let Ends { source, destination } = ends;
        let ours = self.addresses.admits_source(source.ip()) && is_unicast(source.ip());
        let foreign = matches!(self.addresses.place(destination.ip()), Place::Foreign);
        if !ours || foreign || segment.has(RST) || !is_unicast(destination.ip()) {
            self.stats.dropped_packets += 1;
        } else if !segment.is_syn() {
            self.say(build::reset(source, destination, segment), Default::default());
        } else if self.addresses.listens(destination) {
            self.hold(ends, Syn::read(segment));
        } else {
            let packet = build::reset(source, destination, segment);
            self.answer(Protocol::Tcp, source, destination, packet);
        }
    }

    fn udp(&mut self, packet: &Packet<'_>) {
        let &[s0, s1, d0, d1, l0, l1, _, _, ref rest @ ..] = packet.payload else {
            self.stats.dropped_packets += 1;
            return;
        };
        let source = SocketAddr::new(packet.source, u16::from_be_bytes([s0, s1]));
        let destination = SocketAddr::new(packet.destination, u16::from_be_bytes([d0, d1]));
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let Some(payload) = length.checked_sub(8).and_then(|length| rest.get(..length)) else {
            self.stats.dropped_packets += 1;
            return;
        };
        if self.addresses.is_resolver(destination) {
            let fits = payload.len() <= self.config.max_datagram;
            if fits && self.events.push_datagram(Event::Datagram { source, destination, payload: payload.to_vec() }) {
                self.stats.datagrams += 1;
            } else {
                self.stats.dropped_datagrams += 1;
            }
            return;
        }
        let why = match self.addresses.place(packet.destination) {
            Place::Foreign => {
                self.stats.dropped_packets += 1;
                return;
            }
            Place::Vacant => Unreachable::Address,
            Place::Resolver | Place::Resource(_) => Unreachable::Port,
        };
        self.answer(Protocol::Udp, source, destination, build::unreachable(packet, why));
    }

    /// An ICMP message; only echo requests are of interest.
    fn echo(&mut self, packet: &Packet<'_>, request: u8) {
        let identifier = match packet.payload {
            &[kind, 0, _, _, i0, i1, _, _, ..] if kind == request => u16::from_be_bytes([i0, i1]),
            _ => return,
        };
        let answer = if self.addresses.answers_echo(packet.destination) {
            build::echo_reply(packet)
        } else if matches!(self.addresses.place(packet.destination), Place::Foreign) {
            self.stats.dropped_packets += 1;
            return;
        } else {
            build::unreachable(packet, Unreachable::Address)
        };
        let source = SocketAddr::new(packet.source, identifier);
        self.answer(Protocol::Echo, source, SocketAddr::new(packet.destination, 0), answer);
    }
}
