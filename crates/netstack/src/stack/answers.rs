//! Packets that belong to no stream: RST, ICMP, datagrams.

use std::{collections::VecDeque, net::SocketAddr};

use super::{Stack, events::MAX_ASKED};
use crate::{
    AnswerId, Answers, Event, Offload, Protocol,
    packet::{Packet, build, build::Unreachable},
};

/// Answers on their way. Those beyond the limit are dropped and counted: their askers ask again.
pub(super) struct Answering {
    ready: VecDeque<(Vec<u8>, Offload)>,
    limit: usize,
    /// Answers that wait for the owner's word, the oldest first.
    asked: VecDeque<(AnswerId, Vec<u8>)>,
    next: u64,
}

impl Answering {
    pub(super) fn new(limit: usize) -> Self {
        Self { ready: VecDeque::new(), limit, asked: VecDeque::new(), next: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    pub(super) fn pop(&mut self) -> Option<(Vec<u8>, Offload)> {
        self.ready.pop_front()
    }

    /// `false` when there is no room.
    fn push(&mut self, packet: Vec<u8>, offload: Offload) -> bool {
        let room = self.ready.len() < self.limit;
        if room {
            self.ready.push_back((packet, offload));
        }
        room
    }

    fn ask(&mut self, packet: Vec<u8>) -> AnswerId {
        let answer = AnswerId(self.next);
        self.next = self.next.wrapping_add(1);
        if self.asked.len() >= MAX_ASKED {
            self.asked.pop_front();
        }
        self.asked.push_back((answer, packet));
        answer
    }

    fn take(&mut self, answer: AnswerId) -> Option<Vec<u8>> {
        let at = self.asked.iter().position(|(id, _)| *id == answer)?;
        self.asked.remove(at).map(|(_, packet)| packet)
    }

    /// `false` when there was no room for it.
    pub(super) fn release(&mut self, answer: AnswerId) -> bool {
        self.take(answer).is_none_or(|packet| self.push(packet, Offload::default()))
    }

    pub(super) fn discard(&mut self, answer: AnswerId) {
        self.take(answer);
    }

    /// A packet of a flow that left its turn: one at most for each packet that is sent.
    pub(super) fn push_apart(&mut self, packet: Vec<u8>, offload: Offload) {
        self.ready.push_back((packet, offload));
    }

    /// The RST of a flow that the owner aborts: there are as many at most as there were flows, and none may be lost,
    /// because the peer would believe in its connection for ever.
    pub(super) fn push_reset(&mut self, packet: Vec<u8>, offload: Offload) {
        self.ready.push_back((packet, offload));
    }
}

impl Stack {
    /// Answers at once, as what TCP says by itself.
    pub(super) fn say(&mut self, packet: Option<Vec<u8>>, offload: Offload) {
        if let Some(packet) = packet
            && !self.answering.push(packet, offload)
        {
            self.stats.dropped_answers += 1;
        }
    }

    /// Answers, or asks the owner whether to.
    pub(super) fn answer(
        &mut self,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
        packet: Option<Vec<u8>>,
    ) {
        match (self.config.answers, packet) {
            (Answers::Direct, packet) => self.say(packet, Offload::default()),
            (Answers::Asked, Some(packet)) => {
                let answer = self.answering.ask(packet);
                self.events.push_answer(Event::Answer { answer, protocol, source, destination });
            }
            (Answers::Asked, None) => {}
        }
    }

    pub(super) fn queue_datagram(&mut self, source: SocketAddr, destination: SocketAddr, payload: &[u8]) {
        self.say(build::datagram(source, destination, payload), Offload::default());
    }

    pub(super) fn queue_unreachable(&mut self, source: SocketAddr, destination: SocketAddr) {
        // The sender finds its socket by the addresses and ports that are quoted; the rest need not be the same.
        let Some(quoted) = build::datagram(source, destination, &[]) else { return };
        let Some(packet) = Packet::parse(&quoted) else { return };
        self.say(build::unreachable(&packet, Unreachable::Port), Offload::default());
    }
}
