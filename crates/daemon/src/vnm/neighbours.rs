//! What the shards of one device know of each other, and hand to each other.
//!
//! The kernel spreads connections over the queues of the device by their addresses and ports, and a shard for each queue
//! carries much at once. Short streams cost least where one thread has them all: it is seldom idle, and one wake-up serves
//! several (decision 0039). So connections *gather* in the first shard. Where much was carried for their destination lately
//! they begin in the shard that has fewest such flows, and where the first one has enough to do in their *home*, the shard of
//! the queue they came through. There, too, where so many began lately that the kernel would not learn where another is.
//!
//! A shard that has no flow lends its queue to the first one. Where the kernel delivers a packet to another shard than
//! that of its flow (it forgets after three seconds of silence where it heard of a flow), it is handed on.

use std::{
    cell::Cell,
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use postern_netstack::{Offload, Stray};
use tokio::sync::mpsc;
use tun_driver::interface::Queue;

use super::pace::Begun;

/// What may wait for a shard. Packets beyond [`MOST_PACKETS`] are dropped, their senders repeat them; the rest is for
/// queues, of which there are few.
const INBOX: usize = 512;
const MOST_PACKETS: usize = INBOX - 64;

/// As many flows, or held ones, gather at most; the limits of a whole network are for all shards together.
pub(super) const GATHERED_FLOWS: usize = 1024;
pub(super) const GATHERED_HELD: usize = 128;

/// Destinations that are remembered for what they carry. With more, all are forgotten: they are soon known again.
const MOST_HABITS: usize = 1024;
/// So many bytes within [`SOON`] are much, and worth a thread that others do not wait for.
const MUCH: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(1);
/// So many connections in a row that carry little make a destination one for short streams again.
const FORGIVEN: u8 = 8;

/// The number of a shard, and of its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShardNumber(usize);

impl ShardNumber {
    /// The shard in which short streams gather.
    pub(super) const GATHERING: Self = Self(0);
}

/// A place among the shards of a device: what [`Shard::run`](super::Shard::run) begins with.
#[derive(Debug)]
pub struct Seat {
    pub(super) number: ShardNumber,
    pub(super) neighbours: Arc<Neighbours>,
    pub(super) inbox: mpsc::Receiver<Handover>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Neighbours {
    owners: Mutex<Owners>,
    habits: Habits,
    /// The first shard has enough to do.
    crowded: AtomicBool,
    /// Nanoseconds of a processor that each shard has used.
    used: Vec<AtomicU64>,
    /// Flows of each shard to destinations that much is carried for, and where to look first for the next.
    heavy: Vec<AtomicUsize>,
    next: AtomicUsize,
    inboxes: Vec<mpsc::Sender<Handover>>,
}

/// The two ends of a flow: the program's and where it connects to.
type Ends = (SocketAddr, SocketAddr);

/// Whose each flow is.
#[derive(Debug)]
struct Owners {
    by_ends: HashMap<Ends, Owner>,
    /// How many there were.
    count: u64,
    begun: Begun,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    shard: ShardNumber,
    /// Tells two flows apart that have the same ends one after the other.
    ticket: u64,
}

impl Owners {
    fn new(now: Instant) -> Self {
        Self { by_ends: HashMap::new(), count: 0, begun: Begun::new(now) }
    }

    fn insert(&mut self, ends: Ends, shard: ShardNumber, now: Instant) -> u64 {
        self.count += 1;
        self.begun.note(now);
        self.by_ends.insert(ends, Owner { shard, ticket: self.count });
        self.count
    }

    fn find(&self, ends: &Ends) -> Option<ShardNumber> {
        self.by_ends.get(ends).map(|owner| owner.shard)
    }

    fn remove(&mut self, ends: &Ends, ticket: u64) {
        // The same program may be back already, from the same port.
        if self.by_ends.get(ends).is_some_and(|owner| owner.ticket == ticket) {
            self.by_ends.remove(ends);
        }
    }
}

/// What one shard gives another.
#[derive(Debug)]
pub(super) enum Handover {
    /// A packet of a flow that is the other's, or may become one there; or, with enough to do there, `at_home`.
    Packet { packet: Box<[u8]>, offload: Offload, at_home: Option<ShardNumber> },
    /// The queue of this shard is the other's to read, and to write to where it is the other's own.
    Queue { number: ShardNumber, queue: Queue },
    /// This shard wants its queue back.
    Wanted { number: ShardNumber },
}

impl Seat {
    /// For so many shards.
    #[must_use]
    pub fn all(shards: usize) -> Vec<Self> {
        let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::channel(INBOX)).unzip();
        let neighbours = Arc::new(Neighbours {
            owners: Mutex::new(Owners::new(Instant::now())),
            habits: Habits::default(),
            crowded: AtomicBool::new(false),
            used: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            heavy: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            next: AtomicUsize::new(0),
            inboxes,
        });
        let seat = |(number, inbox)| Self { number: ShardNumber(number), neighbours: Arc::clone(&neighbours), inbox };
        receivers.into_iter().enumerate().map(seat).collect()
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.neighbours.inboxes.len()
    }

    /// Whether short streams gather here.
    #[must_use]
    pub fn gathers(&self) -> bool {
        self.number == ShardNumber::GATHERING && self.neighbours.are_several()
    }
}

impl Neighbours {
    pub(super) fn are_several(&self) -> bool {
        self.inboxes.len() > 1
    }

    /// Which shard is to have a packet that belongs to no flow of the shard `here`, and came through the queue `home`;
    /// `crowded` says whether the first one has enough to do.
    pub(super) fn place(&self, stray: &Stray, here: ShardNumber, home: ShardNumber, crowded: bool) -> ShardNumber {
        let owner = lock(&self.owners).find(&(stray.source, stray.destination));
        match owner {
            Some(owner) => owner,
            None if !stray.opens => here,
            None if self.habits.carries_much(stray.destination) => self.idlest().unwrap_or(home),
            None if crowded => home,
            None => ShardNumber::GATHERING,
        }
    }

    /// The shard with the fewest flows that may carry much. Of equal ones each in turn: those that begin at the same moment
    /// are not counted yet. None where the kernel would go on to deliver to the home shard, which then had to hand over each
    /// packet.
    fn idlest(&self) -> Option<ShardNumber> {
        if lock(&self.owners).begun.are_too_many(Instant::now()) {
            return None;
        }
        let count = self.heavy.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(count)?;
        let flows = |number: &usize| self.heavy.get(*number).map(|flows| flows.load(Ordering::Relaxed));
        (0..count).map(|offset| (first + offset) % count).min_by_key(flows).map(ShardNumber)
    }

    /// The first shard says whether it has enough to do.
    pub(super) fn set_crowded(&self, crowded: bool) {
        if self.crowded.load(Ordering::Relaxed) != crowded {
            self.crowded.store(crowded, Ordering::Relaxed);
        }
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// A shard has used so much of a processor since it began. What all have used.
    pub(super) fn note_used(&self, number: ShardNumber, used: Duration) -> Duration {
        if let Some(place) = self.used.get(number.0) {
            place.store(u64::try_from(used.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        Duration::from_nanos(self.used.iter().map(|used| used.load(Ordering::Relaxed)).sum())
    }

    /// A flow of the shard `number`, for as long as what is given back lives.
    pub(super) fn settle(self: &Arc<Self>, number: ShardNumber, source: SocketAddr, destination: SocketAddr) -> Tenure {
        let (ends, now) = ((source, destination), Instant::now());
        let holding = self.are_several().then(|| Holding {
            neighbours: Arc::clone(self),
            number,
            ticket: lock(&self.owners).insert(ends, number, now),
            heavy: Cell::new(false),
        });
        if let Some(holding) = holding.as_ref().filter(|_| self.habits.carries_much(destination)) {
            holding.count_as_heavy();
        }
        Tenure { holding, ends, moved: Cell::new(0), since: Cell::new(now), much: Cell::new(false) }
    }

    /// Hands a packet on, for good or until it is sent home. Dropped where too much waits: its sender repeats it.
    pub(super) fn pass(&self, to: ShardNumber, (packet, offload): (&[u8], Offload), at_home: Option<ShardNumber>) {
        let Some(inbox) = self.inboxes.get(to.0) else { return };
        if inbox.max_capacity() - inbox.capacity() < MOST_PACKETS {
            // Who is gone needs nothing any more.
            let _ = inbox.try_send(Handover::Packet { packet: packet.into(), offload, at_home });
        }
    }

    /// Room in the inbox of a shard, if there is any now.
    pub(super) fn room_at(&self, to: ShardNumber) -> Option<mpsc::Permit<'_, Handover>> {
        self.inboxes.get(to.0)?.try_reserve().ok()
    }
}

/// That a flow is in a shard; dropped with the flow.
pub(super) struct Tenure {
    /// None where a shard is alone.
    holding: Option<Holding>,
    ends: Ends,
    /// Bytes since `since`.
    moved: Cell<u64>,
    since: Cell<Instant>,
    much: Cell<bool>,
}

/// Where a flow is.
struct Holding {
    neighbours: Arc<Neighbours>,
    number: ShardNumber,
    ticket: u64,
    /// It counts among those that may carry much.
    heavy: Cell<bool>,
}

impl Holding {
    fn count_as_heavy(&self) {
        if !self.heavy.replace(true)
            && let Some(flows) = self.neighbours.heavy.get(self.number.0)
        {
            flows.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if self.heavy.get()
            && let Some(flows) = self.neighbours.heavy.get(self.number.0)
        {
            flows.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Tenure {
    /// The program's end.
    pub(super) const fn source(&self) -> SocketAddr {
        self.ends.0
    }

    /// Where it connects to.
    pub(super) const fn destination(&self) -> SocketAddr {
        self.ends.1
    }

    /// Bytes that the flow carried, either way.
    #[inline]
    pub(super) fn note_moved(&self, count: usize) {
        let moved = self.moved.get().saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        self.moved.set(moved);
        if moved >= MUCH && !self.much.get() {
            self.weigh(Instant::now());
        }
    }

    /// Another [`MUCH`] bytes have been carried.
    fn weigh(&self, now: Instant) {
        self.moved.set(0);
        if now.saturating_duration_since(self.since.replace(now)) > SOON {
            return;
        }
        self.much.set(true);
        if let Some(holding) = &self.holding {
            holding.neighbours.habits.note_much(self.ends.1);
            holding.count_as_heavy();
        }
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        let Some(Holding { neighbours, ticket, .. }) = &self.holding else { return };
        lock(&neighbours.owners).remove(&self.ends, *ticket);
        if !self.much.get() {
            neighbours.habits.note_little(self.ends.1);
        }
    }
}

impl fmt::Debug for Tenure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ends: (source, destination), much, .. } = self;
        let mut text = f.debug_struct("Tenure");
        text.field("source", source).field("destination", destination).field("much", much).finish_non_exhaustive()
    }
}

/// Destinations for which much was carried, and how many connections in a row carried little since.
#[derive(Debug, Default)]
struct Habits {
    busy: Mutex<HashMap<SocketAddr, u8>>,
    /// Whether there are any.
    any: AtomicBool,
}

impl Habits {
    fn carries_much(&self, destination: SocketAddr) -> bool {
        self.any.load(Ordering::Relaxed) && lock(&self.busy).contains_key(&destination)
    }

    fn note_much(&self, destination: SocketAddr) {
        let mut busy = lock(&self.busy);
        if busy.len() >= MOST_HABITS {
            busy.clear();
        }
        busy.insert(destination, 0);
        self.any.store(true, Ordering::Relaxed);
    }

    fn note_little(&self, destination: SocketAddr) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let mut busy = lock(&self.busy);
        let Some(count) = busy.get_mut(&destination) else { return };
        *count += 1;
        if *count >= FORGIVEN {
            busy.remove(&destination);
            self.any.store(!busy.is_empty(), Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ShardNumber = ShardNumber(2);
    const HOME: ShardNumber = ShardNumber(3);

    fn neighbours() -> Arc<Neighbours> {
        Arc::clone(&Seat::all(4).first().expect("four").neighbours)
    }

    fn ends(port: u16) -> Ends {
        (SocketAddr::from(([100, 64, 0, 1], port)), SocketAddr::from(([100, 64, 1, 1], 5432)))
    }

    fn stray(port: u16, opens: bool) -> Stray {
        let (source, destination) = ends(port);
        Stray { source, destination, opens }
    }

    fn settle(neighbours: &Arc<Neighbours>, shard: ShardNumber, port: u16) -> Tenure {
        let (source, destination) = ends(port);
        neighbours.settle(shard, source, destination)
    }

    #[test]
    fn what_begins_gathers_until_the_first_shard_has_enough_to_do() {
        let neighbours = neighbours();
        assert_eq!(neighbours.place(&stray(1, true), HERE, HOME, false), ShardNumber::GATHERING);
        assert_eq!(neighbours.place(&stray(1, true), HERE, HOME, true), HOME);
        assert_eq!(neighbours.place(&stray(1, false), HERE, HOME, true), HERE, "nobody's");
    }

    #[test]
    fn every_packet_of_a_flow_goes_to_its_shard_while_it_lives() {
        let neighbours = neighbours();
        let flow = settle(&neighbours, ShardNumber(1), 1);
        for (opens, crowded) in [(true, true), (true, false), (false, true)] {
            assert_eq!(neighbours.place(&stray(1, opens), HERE, HOME, crowded), ShardNumber(1));
        }
        drop(flow);
        assert_eq!(neighbours.place(&stray(1, true), HERE, HOME, true), HOME);
    }

    #[test]
    fn a_flow_that_ends_late_does_not_take_the_place_of_the_next_from_the_same_port() {
        let neighbours = neighbours();
        let late = settle(&neighbours, ShardNumber(1), 1);
        let next = settle(&neighbours, ShardNumber(1), 1);
        drop(late);
        assert_eq!(neighbours.place(&stray(1, false), HERE, HOME, false), ShardNumber(1));
        drop(next);
        assert_eq!(neighbours.place(&stray(1, false), HERE, HOME, false), HERE);
    }

    #[test]
    fn connections_to_where_much_was_carried_spread_until_eight_of_them_carried_little() {
        let neighbours = neighbours();
        let bulk = settle(&neighbours, HERE, 1);
        (0..16).for_each(|_| bulk.note_moved(1 << 16));
        let place = |port| neighbours.place(&stray(port, true), HERE, HOME, false);
        assert_eq!([0; 4].map(|_| place(2)).map(|shard| shard.0), [0, 1, 3, 3], "wherever there is none yet");
        drop(bulk);
        let spread: Vec<_> = (0..7).map(|port| (place(port), settle(&neighbours, place(port), port))).collect();
        assert!(spread.iter().any(|(shard, _)| *shard != ShardNumber::GATHERING));
        drop(spread);
        assert!((0..4).any(|_| place(8) != ShardNumber::GATHERING), "seven are not enough");
        settle(&neighbours, HOME, 8).note_moved(4096);
        assert!((0..8).all(|_| place(9) == ShardNumber::GATHERING));
    }

    #[test]
    fn what_is_carried_slowly_is_not_much() {
        let neighbours = neighbours();
        let flow = settle(&neighbours, HERE, 1);
        let long_ago = Instant::now().checked_sub(2 * SOON).expect("the clock has run for that long");
        flow.since.set(long_ago);
        flow.note_moved(1 << 20);
        assert_eq!(neighbours.place(&stray(2, true), HERE, HOME, false), ShardNumber::GATHERING);
        flow.note_moved(1 << 20);
        let spread: Vec<_> = (0..3).map(|port| neighbours.place(&stray(port + 2, true), HERE, HOME, false).0).collect();
        assert!(spread.iter().any(|shard| *shard != 0), "{spread:?}");
    }

    #[test]
    fn flows_that_carry_much_are_shared_out_evenly() {
        let neighbours = neighbours();
        settle(&neighbours, HERE, 99).note_moved(1 << 20);
        let mut flows = HashMap::new();
        for port in 0..40 {
            let shard = neighbours.place(&stray(port, true), HERE, HOME, false);
            flows.insert(port, settle(&neighbours, shard, port));
            if port % 3 == 0 {
                flows.remove(&(port / 2)).inspect(|flow| flow.much.set(true));
            }
        }
        let loads: Vec<_> = neighbours.heavy.iter().map(|flows| flows.load(Ordering::Relaxed)).collect();
        let (least, most) = (loads.iter().min().copied(), loads.iter().max().copied());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 2), "{loads:?}");
        drop(flows);
        assert!(neighbours.heavy.iter().all(|flows| flows.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn where_thousands_began_lately_what_may_carry_much_begins_where_the_kernel_delivers_it() {
        let neighbours = neighbours();
        settle(&neighbours, HERE, 1).note_moved(1 << 20);
        // Not of this destination, which is to be one that much is carried for.
        let elsewhere = SocketAddr::from(([100, 64, 1, 2], 80));
        let place = |port| neighbours.place(&stray(port, true), HERE, HOME, false);
        assert!((0..4).any(|_| place(2) != HOME));
        for port in 0..4096 {
            drop(neighbours.settle(ShardNumber::GATHERING, ends(port).0, elsewhere));
        }
        assert!((0..8).all(|_| place(3) == HOME));
        let flow = settle(&neighbours, ShardNumber(1), 4);
        assert_eq!(place(4), ShardNumber(1), "what has begun stays");
        drop(flow);
    }

    #[test]
    fn an_inbox_that_is_full_of_packets_has_room_for_queues() {
        let seats = Seat::all(2);
        let neighbours = Arc::clone(&seats.first().expect("two").neighbours);
        (0..INBOX).for_each(|_| neighbours.pass(ShardNumber(1), (&[0; 40], Offload::default()), None));
        assert!(neighbours.room_at(ShardNumber(1)).is_some());
        let inbox = &seats.get(1).expect("two").inbox;
        assert_eq!(inbox.len(), MOST_PACKETS);
    }
}
