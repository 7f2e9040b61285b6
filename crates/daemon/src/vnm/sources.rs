//! The queues that a shard reads: its own, and those that others lend it.

use std::{
    io,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use postern_netstack::{Offload, Stack, Stray, Transmit};
use tokio::sync::mpsc;
use tun_driver::interface::Queue;

use super::{
    neighbours::{Handover, Seat, ShardNumber},
    pace::{Load, Lull, Questions, Rest, Yielding, processor_time},
    queue::PacketQueue,
};

/// Packets taken from each queue before those who wait for them get their turn.
const BATCH: u64 = 64;
/// When to ask again for a queue, or give it, where there was no room to say so.
const AGAIN: Duration = Duration::from_millis(5);

/// See the module.
pub(super) struct Sources {
    seat: Seat,
    own: Own,
    /// Of other shards, in the first one.
    lent: Vec<Lent>,
    lull: Lull,
    yielding: Yielding,
    load: Load,
}

/// The queue of this shard.
enum Own {
    /// It is read here.
    Here(PacketQueue),
    /// The first shard reads it.
    Away,
    /// The same, and it is wanted back.
    Awaited,
}

struct Lent {
    number: ShardNumber,
    queue: PacketQueue,
    questions: Questions,
    /// It is to go back.
    wanted: bool,
}

impl Sources {
    /// Within a runtime.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(seat: Seat, queue: Queue, now: Instant) -> io::Result<Self> {
        let own = Own::Here(PacketQueue::open(queue)?);
        Ok(Self {
            seat,
            own,
            lent: Vec::new(),
            lull: Lull::default(),
            yielding: Yielding::new(now),
            load: Load::new(now),
        })
    }

    /// Takes what is there for `stack`, some of it: whether there was any.
    ///
    /// # Errors
    /// The device is gone.
    pub(super) fn take(&mut self, cx: &mut Context<'_>, stack: &mut Stack, now: Instant) -> io::Result<bool> {
        let mut taken = self.take_handed_over(cx, stack, now)?;
        let Self { seat, own, lent, lull, yielding, load } = self;
        let yields = yielding.look(now, stack.stats().flows);
        let placing = |home| Placing { seat, load, home, yields };
        if let Own::Here(queue) = own {
            let count = placing(seat.number).take_packets(cx, queue, stack, now)?;
            lull.note_packets(count);
            taken |= count > 0;
        }
        for Lent { number, queue, questions, wanted } in lent {
            let before = stack.stats().datagrams;
            taken |= placing(*number).take_packets(cx, queue, stack, now)? > 0;
            *wanted |= questions.note(now, stack.stats().datagrams - before);
        }
        Ok(taken)
    }

    fn take_handed_over(&mut self, cx: &mut Context<'_>, stack: &mut Stack, now: Instant) -> io::Result<bool> {
        let mut taken = false;
        while let Poll::Ready(Some(handover)) = self.seat.inbox.poll_recv(cx) {
            taken = true;
            match handover {
                Handover::Packet { packet, offload, at_home } => {
                    let stats = stack.stats();
                    let full = self.seat.gathers() && self.load.is_full(stats.flows, stats.held);
                    match (stack.offer_packet(now, &packet, offload), at_home.filter(|_| full)) {
                        (None, _) => {}
                        (Some(Stray { opens: true, .. }), Some(home)) => {
                            self.seat.neighbours.pass(home, (&packet, offload), None);
                        }
                        (Some(_), _) => stack.handle_packet(now, &packet, offload),
                    }
                }
                Handover::Queue { number, queue } => {
                    let queue = PacketQueue::open(queue)?;
                    if number == self.seat.number {
                        self.own = Own::Here(queue);
                    } else {
                        self.lent.push(Lent { number, queue, questions: Questions::new(now), wanted: false });
                    }
                }
                Handover::Wanted { number } => {
                    self.lent.iter_mut().filter(|lent| lent.number == number).for_each(|lent| lent.wanted = true);
                }
            }
        }
        Ok(taken)
    }

    /// Sends a packet, as [`PacketQueue::poll_send`] does.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        make: impl FnOnce(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<io::Result<bool>> {
        match &mut self.own {
            Own::Here(queue) => queue.poll_send(cx, make),
            // It goes out when the queue is back.
            Own::Away | Own::Awaited => Poll::Ready(Ok(false)),
        }
    }

    /// Gives and asks for queues, as `stack` has use for them. When to do so again, if nothing happens before.
    pub(super) fn settle(&mut self, stack: &Stack, now: Instant) -> Option<Instant> {
        let Self { seat: Seat { neighbours, number, .. }, load, .. } = self;
        if neighbours.are_several() && load.is_due(now) {
            let used = processor_time();
            load.look(now, used, neighbours.note_used(*number, used));
        }
        if self.seat.gathers() {
            self.settle_lent(stack, now)
        } else if self.seat.neighbours.are_several() {
            self.settle_own(stack, now)
        } else {
            None
        }
    }

    /// Whether what the stack has to send can leave.
    pub(super) const fn can_send(&self) -> bool {
        matches!(self.own, Own::Here(_))
    }

    /// Gives back what is wanted, and everything where there is enough to do.
    fn settle_lent(&mut self, stack: &Stack, now: Instant) -> Option<Instant> {
        let Self { seat: Seat { neighbours, .. }, lent, load, .. } = self;
        let stats = stack.stats();
        let full = load.is_full(stats.flows, stats.held);
        neighbours.set_crowded(full);
        let mut again = None;
        for at in (0..lent.len()).rev() {
            let Some(Lent { number, wanted, .. }) = lent.get(at) else { continue };
            if !(*wanted || full) {
                continue;
            }
            match neighbours.room_at(*number) {
                Some(room) => {
                    let Lent { number, queue, .. } = lent.swap_remove(at);
                    give(room, number, queue);
                }
                None => again = Some(now + AGAIN),
            }
        }
        again
    }

    /// Lends the queue while there is no flow, and asks for it when there is one.
    fn settle_own(&mut self, stack: &Stack, now: Instant) -> Option<Instant> {
        let Self { seat: Seat { neighbours, number, .. }, own, lull, .. } = self;
        let flows = stack.stats().flows;
        match std::mem::replace(own, Own::Away) {
            Own::Here(queue) => {
                let rest = if neighbours.is_crowded() { Rest::Busy } else { lull.look(now, flows) };
                let room = (rest == Rest::Reached).then(|| neighbours.room_at(ShardNumber::GATHERING)).flatten();
                match room {
                    Some(room) if queue.is_idle() => give(room, *number, queue),
                    Some(_) | None => *own = Own::Here(queue),
                }
                if let Rest::Until(end) = rest { Some(end) } else { None }
            }
            Own::Away if flows > 0 || stack.has_answers() => match neighbours.room_at(ShardNumber::GATHERING) {
                Some(room) => {
                    room.send(Handover::Wanted { number: *number });
                    *own = Own::Awaited;
                    None
                }
                None => Some(now + AGAIN),
            },
            Own::Away => None,
            Own::Awaited => {
                *own = Own::Awaited;
                None
            }
        }
    }
}

/// Gives a queue to where there is room for it. What came through it and was not read waits in it.
fn give(room: mpsc::Permit<'_, Handover>, number: ShardNumber, queue: PacketQueue) {
    room.send(Handover::Queue { number, queue: queue.into_queue() });
}

/// What says where packets of one queue belong.
struct Placing<'a> {
    seat: &'a Seat,
    load: &'a Load,
    /// The queue's.
    home: ShardNumber,
    /// Whether what begins may be left to the first shard.
    yields: bool,
}

impl Placing<'_> {
    /// Takes a batch of what came: how many packets.
    fn take_packets(
        &self,
        cx: &mut Context<'_>,
        queue: &mut PacketQueue,
        stack: &mut Stack,
        now: Instant,
    ) -> io::Result<u64> {
        for count in 0..BATCH {
            let take = |packet: &_, offload| self.take_packet((packet, offload), stack, now);
            match queue.poll_receive(cx, take) {
                Poll::Ready(received) => received?,
                Poll::Pending => return Ok(count),
            }
        }
        Ok(BATCH)
    }

    /// Takes a packet, or hands it on to where it belongs.
    fn take_packet(&self, (packet, offload): (&[u8], Offload), stack: &mut Stack, now: Instant) {
        let Seat { number, neighbours, .. } = self.seat;
        let Some(stray) = stack.offer_packet(now, packet, offload) else { return };
        let place = neighbours.place(&stray, *number, self.home, self.is_crowded(stack));
        if place == *number {
            stack.handle_packet(now, packet, offload);
        } else {
            neighbours.pass(place, (packet, offload), Some(self.home));
        }
    }

    /// Whether the first shard has enough to do, or shall have nothing of this queue; the first it knows best itself.
    fn is_crowded(&self, stack: &Stack) -> bool {
        if self.seat.gathers() {
            let stats = stack.stats();
            self.load.is_full(stats.flows, stats.held)
        } else {
            !self.yields || self.seat.neighbours.is_crowded()
        }
    }
}

#[cfg(test)]
mod tests;
