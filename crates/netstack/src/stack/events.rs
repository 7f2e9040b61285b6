//! Events that wait for the owner.

use std::collections::VecDeque;

use super::Stack;
use crate::{Event, flow::Phase};

/// What a flow has to tell, in the order in which it is told.
pub(super) mod signal {
    pub(crate) const SYN: u8 = 1;
    pub(crate) const WRITABLE: u8 = 2;
    pub(crate) const READABLE: u8 = 4;
    pub(crate) const PEER_CLOSED: u8 = 8;
    pub(crate) const OVER: u8 = 16;
}

/// Answers that may wait for the owner's word; the oldest is forgotten for the next.
pub(super) const MAX_ASKED: usize = 256;

/// Slots with signals, each once, and events that belong to no flow. So it is bounded by the number of flows, of
/// datagrams, and of answers.
pub(super) struct EventQueue {
    slots: VecDeque<u32>,
    datagrams: VecDeque<Event>,
    max_datagrams: usize,
    answers: VecDeque<Event>,
}

impl EventQueue {
    pub(super) fn new(max_datagrams: usize) -> Self {
        Self { slots: VecDeque::new(), datagrams: VecDeque::new(), max_datagrams, answers: VecDeque::new() }
    }

    /// `false` when there is no room.
    pub(super) fn push_datagram(&mut self, event: Event) -> bool {
        let room = self.datagrams.len() < self.max_datagrams;
        if room {
            self.datagrams.push_back(event);
        }
        room
    }

    /// The oldest one makes room for it.
    pub(super) fn push_answer(&mut self, event: Event) {
        if self.answers.len() >= MAX_ASKED {
            self.answers.pop_front();
        }
        self.answers.push_back(event);
    }
}

impl Stack {
    pub(super) fn signal(&mut self, slot: u32, signals: u8) {
        let Some(place) = self.flows.slot_mut(slot) else { return };
        place.signals |= signals;
        if !place.queued && signals != 0 {
            place.queued = true;
            self.events.slots.push_back(slot);
        }
    }

    pub(super) fn next_event(&mut self) -> Option<Event> {
        while let Some(&slot) = self.events.slots.front() {
            if let Some(event) = self.next_of_flow(slot) {
                return Some(event);
            }
            self.events.slots.pop_front();
            if let Some(place) = self.flows.slot_mut(slot) {
                place.queued = false;
            }
        }
        self.events.datagrams.pop_front().or_else(|| self.events.answers.pop_front())
    }

    fn next_of_flow(&mut self, slot: u32) -> Option<Event> {
        let flow = self.flows.id(slot)?;
        let place = self.flows.slot_mut(slot)?;
        let next = place.signals & place.signals.wrapping_neg();
        place.signals &= !next;
        match next {
            signal::SYN => Some(Event::Syn { flow, source: place.ends.source, destination: place.ends.destination }),
            signal::WRITABLE => Some(Event::Writable(flow)),
            signal::READABLE => Some(Event::Readable(flow)),
            signal::PEER_CLOSED => Some(Event::PeerClosed(flow)),
            signal::OVER => {
                let Phase::Over(reason) = place.phase else { return None };
                self.flows.free(slot);
                Some(Event::Closed { flow, reason })
            }
            _ => None,
        }
    }
}
