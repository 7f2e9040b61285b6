//! Where flows are kept and found.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, Hasher},
};

use super::{Ends, FlowId, FlowInfo, Phase};
use crate::{
    packet::address_bits,
    shard::{halves, mix},
};

/// A 4-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowKey {
    source: u128,
    destination: u128,
    ports: u32,
}

impl From<&Ends> for FlowKey {
    #[inline]
    fn from(ends: &Ends) -> Self {
        Self {
            source: address_bits(ends.source.ip()),
            destination: address_bits(ends.destination.ip()),
            ports: u32::from(ends.source.port()) << 16 | u32::from(ends.destination.port()),
        }
    }
}

impl Hash for FlowKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (s0, s1) = halves(self.source);
        let (d0, d1) = halves(self.destination);
        state.write_u64(s0 ^ d0.rotate_left(32));
        state.write_u64(s1 ^ d1.rotate_left(32));
        state.write_u64(u64::from(self.ports) | d1 << 32);
    }
}

/// Hashes 4-tuples with a secret, so that programs cannot choose ports that meet in one bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secret(pub(crate) u64);

/// A hash in the making.
pub(crate) struct Mixer(u64);

impl BuildHasher for Secret {
    type Hasher = Mixer;

    #[inline]
    fn build_hasher(&self) -> Mixer {
        Mixer(self.0)
    }
}

impl Hasher for Mixer {
    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0 ^ word, self.0.rotate_left(29));
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// One place for a flow.
pub(crate) struct Slot {
    generation: u32,
    /// Whether it is in the queue of flows to poll.
    pub(crate) dirty: bool,
    /// Whether it is in the queue of flows with events.
    pub(crate) queued: bool,
    /// Events that wait.
    pub(crate) signals: u8,
    /// The entry in the timers.
    pub(crate) armed: Option<u64>,
    pub(crate) uid: Option<u32>,
    pub(crate) ends: Ends,
    pub(crate) phase: Phase,
}

/// All flows of a stack.
pub(crate) struct FlowTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_key: HashMap<FlowKey, u32, Secret>,
    limit: usize,
}

impl FlowTable {
    pub(crate) fn new(limit: usize, secret: u64) -> Self {
        let limit = limit.min(usize::try_from(u32::MAX).unwrap_or(usize::MAX));
        Self { slots: Vec::new(), free: Vec::new(), by_key: HashMap::with_hasher(Secret(secret)), limit }
    }

    /// Flows, those that are over and not told yet included.
    pub(crate) fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    #[inline]
    pub(crate) fn find(&self, ends: &Ends) -> Option<u32> {
        self.by_key.get(&FlowKey::from(ends)).copied()
    }

    #[inline]
    pub(crate) fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(usize::try_from(slot).ok()?)
    }

    #[inline]
    pub(crate) fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(slot).ok()?)
    }

    /// The slot of a flow that is not over.
    #[inline]
    pub(crate) fn live(&self, flow: FlowId) -> Option<&Slot> {
        let slot = self.slot(flow.slot)?;
        let live = slot.generation == flow.generation && matches!(slot.phase, Phase::Held(_) | Phase::Open(_));
        live.then_some(slot)
    }

    /// See `live`.
    #[inline]
    pub(crate) fn live_mut(&mut self, flow: FlowId) -> Option<&mut Slot> {
        self.live(flow)?;
        self.slot_mut(flow.slot)
    }

    /// A slot for a new flow, reachable by its 4-tuple; `None` when there are too many.
    pub(crate) fn insert(&mut self, ends: Ends, phase: Phase) -> Option<u32> {
        let slot = match self.free.pop() {
            Some(slot) => {
                let place = self.slot_mut(slot)?;
                place.ends = ends;
                place.phase = phase;
                place.uid = None;
                slot
            }
            None if self.slots.len() < self.limit => {
                let slot = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(Slot {
                    generation: 0,
                    dirty: false,
                    queued: false,
                    signals: 0,
                    armed: None,
                    uid: None,
                    ends,
                    phase,
                });
                slot
            }
            None => return None,
        };
        self.by_key.insert(FlowKey::from(&ends), slot);
        Some(slot)
    }

    /// Gives the 4-tuple free, if it is this flow's.
    pub(crate) fn unmap(&mut self, slot: u32) {
        let Some(place) = self.slot(slot) else { return };
        let key = FlowKey::from(&place.ends);
        if self.by_key.get(&key) == Some(&slot) {
            self.by_key.remove(&key);
        }
    }

    /// Makes the slot free for the next flow: no id of the last one is valid after that. It must be unmapped, without
    /// events and without timer.
    pub(crate) fn free(&mut self, slot: u32) {
        let Some(place) = self.slot_mut(slot) else { return };
        place.phase = Phase::Free;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot);
    }

    pub(crate) fn id(&self, slot: u32) -> Option<FlowId> {
        self.slot(slot).map(|place| FlowId { slot, generation: place.generation })
    }

    /// All flows that are not over.
    pub(crate) fn iter(&self) -> impl Iterator<Item = FlowInfo> {
        (0u32..).zip(&self.slots).filter_map(|(slot, place)| place.info(slot))
    }
}

impl Slot {
    /// `None` when no flow is there, or it is over.
    pub(crate) fn info(&self, slot: u32) -> Option<FlowInfo> {
        let held = match self.phase {
            Phase::Held(_) => true,
            Phase::Open(_) => false,
            Phase::Free | Phase::Over(_) => return None,
        };
        Some(FlowInfo {
            flow: FlowId { slot, generation: self.generation },
            source: self.ends.source,
            destination: self.ends.destination,
            uid: self.uid,
            held,
        })
    }
}
