//! The stack: its interface to whoever owns it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    time::{Duration, Instant},
};

use smoltcp::{
    iface::{Config, Interface},
    time::Instant as WireInstant,
    wire::HardwareAddress,
};
use thiserror::Error;

use self::{answers::Answering, events::EventQueue, ingress::Strays};
use crate::{
    AddressTable, AnswerId, Event, FlowId, FlowInfo, Offload, StackConfig, Stats,
    device::Link,
    flow::{Phase, table::FlowTable},
    pool::Pool,
    shard::mix,
    timers::Timers,
};

mod answers;
mod coupling;
mod events;
mod flows;
mod ingress;
mod polling;
mod streams;

/// One shard of the virtual network. See the crate's documentation for how it is used.
///
/// After each call of `handle_packet` (or a batch of them), `handle_timeout`, or a method that takes a [`FlowId`], poll
/// packets and then events until both give `None` in one round: a packet that leaves may end its flow, and what the owner
/// does about an event may make packets.
pub struct Stack {
    config: StackConfig,
    epoch: Instant,
    /// The latest time given, in microseconds since the epoch.
    now: u64,
    addresses: AddressTable,
    link: Link,
    interface: Interface,
    flows: FlowTable,
    /// Flows that want to be polled, each once.
    dirty: VecDeque<u32>,
    /// Packets of the first of them since its turn began.
    burst: usize,
    events: EventQueue,
    answering: Answering,
    timers: Timers,
    pool: Pool,
    /// Held SYNs, and those of them that are claimed, by uid.
    held: usize,
    held_by_uid: BTreeMap<u32, usize>,
    /// Flows with a socket.
    open: usize,
    stats: Stats,
}

/// A packet to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Its length, from the buffer's start.
    pub len: usize,
    /// What is left to do for it.
    pub offload: Offload,
}

/// A TCP segment that belongs to no flow of the stack it was offered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Who sent it.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
    /// Whether it opens a connection, to a port that somebody listens on.
    pub opens: bool,
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
    pub fn new(mut config: StackConfig, seed: u64, now: Instant) -> Self {
        config.mtu = config.mtu.clamp(MIN_MTU, crate::MAX_PACKET);
        config.largest = config.largest.clamp(crate::MAX_PACKET, crate::MAX_COUPLED);
        let link = Link::new(&config);
        let mut interface_config = Config::new(HardwareAddress::Ip);
        interface_config.random_seed = mix(seed, 1);
        let mut interface = Interface::new(interface_config, &mut link.port(None, &mut []), WireInstant::ZERO);
        interface.set_any_ip(true);
        Self {
            epoch: now,
            now: 0,
            addresses: AddressTable::default(),
            link,
            interface,
            flows: FlowTable::new(config.max_flows, mix(seed, 2)),
            dirty: VecDeque::new(),
            burst: 0,
            events: EventQueue::new(config.max_datagrams),
            answering: Answering::new(config.max_answers),
            timers: Timers::default(),
            pool: Pool::new(config.pool),
            held: 0,
            held_by_uid: BTreeMap::new(),
            open: 0,
            stats: Stats::default(),
            config,
        }
    }

    /// Replaces the addresses that exist.
    pub fn set_addresses(&mut self, table: AddressTable) {
        self.addresses = table;
    }

    /// The addresses that exist.
    pub fn addresses(&self) -> &AddressTable {
        &self.addresses
    }

    /// Takes a packet from the device. `offload` is what came with it, default where there is none.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8], offload: Offload) {
        self.take_packet(now, packet, offload, Strays::Take);
    }

    /// The same for an owner with several stacks, where a flow may be in another one than the packet's queue says: a
    /// TCP segment that belongs to no flow here is given back instead, untouched, and is for `handle_packet` of the
    /// stack that the owner chooses.
    pub fn offer_packet(&mut self, now: Instant, packet: &[u8], offload: Offload) -> Option<Stray> {
        self.take_packet(now, packet, offload, Strays::GiveBack)
    }

    #[inline]
    fn take_packet(&mut self, now: Instant, packet: &[u8], offload: Offload, strays: Strays) -> Option<Stray> {
        // Nothing of it changes how a packet is read: segments are taken whole, checksums of this machine's kernel as
        // they are.
        let _ = offload;
        self.advance(now);
        let stray = self.ingress(packet, strays);
        if stray.is_none() {
            self.stats.packets_in += 1;
        }
        stray
    }

    /// Does what was due until `now`. May be called at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        while let Some(slot) = self.timers.pop(self.now) {
            self.expire(slot);
        }
    }

    /// When to call `handle_timeout`, once `poll_transmit` and `poll_event` gave `None`. It may lie in the past. `None`:
    /// never, until another call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.dirty.is_empty() || !self.answering.is_empty() {
            return self.instant(self.now);
        }
        self.instant(self.timers.next()?)
    }

    /// Whether the next packet is an answer that belongs to no flow.
    pub fn has_answers(&self) -> bool {
        !self.answering.is_empty()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.next_event()
    }

    /// Aborts every flow that `keep` does not keep, and gives their number: after a grant or an address went away.
    pub fn retain_flows(&mut self, mut keep: impl FnMut(&FlowInfo) -> bool) -> usize {
        let ended: Vec<FlowId> = self.flows.iter().filter(|info| !keep(info)).map(|info| info.flow).collect();
        ended.iter().filter(|flow| self.abort(**flow).is_ok()).count()
    }

    /// All flows, in no particular order.
    pub fn flows(&self) -> impl Iterator<Item = FlowInfo> {
        self.flows.iter()
    }

    /// What is known of a flow.
    pub fn flow(&self, flow: FlowId) -> Option<FlowInfo> {
        self.flows.live(flow)?.info(flow.slot)
    }

    /// Sends a datagram from an address of ours. Dropped when too many answers wait.
    pub fn send_datagram(&mut self, source: SocketAddr, destination: SocketAddr, payload: &[u8]) {
        self.queue_datagram(source, destination, payload);
    }

    /// Tells the sender of a datagram that its port is unreachable. `source` is that sender, `destination` where the
    /// datagram went, as in [`Event::Datagram`].
    pub fn reply_unreachable(&mut self, source: SocketAddr, destination: SocketAddr) {
        self.queue_unreachable(source, destination);
    }

    /// Sends an answer that [`Event::Answer`] told of. Nothing happens when it is gone.
    pub fn release(&mut self, answer: AnswerId) {
        if !self.answering.release(answer) {
            self.stats.dropped_answers += 1;
        }
    }

    /// Forgets an answer that [`Event::Answer`] told of.
    pub fn discard(&mut self, answer: AnswerId) {
        self.answering.discard(answer);
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        Stats { flows: self.flows.len(), held: self.held, pooled: self.pool.len(), ..self.stats }
    }

    /// The configuration, with values out of range corrected.
    pub fn config(&self) -> &StackConfig {
        &self.config
    }

    /// Time never runs backwards here, whatever is given.
    fn advance(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.epoch);
        self.now = self.now.max(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
    }

    fn instant(&self, at: u64) -> Option<Instant> {
        self.epoch.checked_add(Duration::from_micros(at))
    }

    fn wire_now(&self) -> WireInstant {
        WireInstant::from_micros(i64::try_from(self.now).unwrap_or(i64::MAX))
    }

    /// Puts a flow in the queue of those to poll.
    #[inline]
    fn mark(&mut self, slot: u32) {
        if let Some(place) = self.flows.slot_mut(slot)
            && !place.dirty
        {
            place.dirty = true;
            self.dirty.push_back(slot);
        }
    }

    /// The time of one slot has come.
    fn expire(&mut self, slot: u32) {
        let Some(place) = self.flows.slot_mut(slot) else { return };
        place.armed = None;
        match place.phase {
            Phase::Held(_) => self.give_up_dial(slot),
            Phase::Open(_) => self.mark(slot),
            Phase::Free | Phase::Over(_) => {}
        }
    }
}

/// RFC 8200 5: what IPv6 needs.
const MIN_MTU: usize = 1280;

/// Runs what is not ours, so that a fault of it ends one flow only.
fn guard<R>(run: impl FnOnce() -> R) -> Option<R> {
    panic::catch_unwind(AssertUnwindSafe(run)).ok()
}
