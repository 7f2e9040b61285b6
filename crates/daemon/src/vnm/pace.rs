//! How much a shard has to do: whether the first one can take what begins, and whether another one may lend its queue.

use std::time::{Duration, Instant};

use super::neighbours::{GATHERED_FLOWS, GATHERED_HELD};

/// Over so long the processor time of a thread is looked at.
const WINDOW: Duration = Duration::from_millis(50);
/// Shares of a processor, in percent: with the one a thread has enough to do, until all together use less than the other.
/// What several do costs a third more than the same done by one (docs/benchmarks.md), so that one would use some 85 then.
const FULL: u128 = 97;
const RELIEVED: u128 = 110;

/// So long a shard without flows keeps its queue.
const LULL: Duration = Duration::from_millis(100);
/// As many packets within a lull say that it is none: somebody asks for many names.
const QUIET: u64 = 200;

/// So long a shard with flows has what comes through its queue begin in the first shard, since it may be without flows then;
/// and tries it again after so long. What begins there is handed over packet by packet wherever the kernel goes on to
/// use the same queue: it remembers another one for 4,096 connections at most (`MAX_TAP_FLOWS`).
const YIELDING: Duration = Duration::from_millis(100);
const YIELDS_AGAIN: Duration = Duration::from_secs(1);

/// The kernel remembers the queue that a flow is answered through for so many flows (`MAX_TAP_FLOWS`), each until three
/// seconds after its last packet (`TUN_FLOW_EXPIRE`, which it looks at once a second). A flow beyond comes through its home
/// queue whatever is written, until it ends or others are forgotten. Some begin while one is placed.
const REMEMBERED_FLOWS: u32 = 4096 - 256;
const REMEMBERED_SECONDS: usize = 4;

/// How many flows began lately in all shards, each of which the kernel remembers.
#[derive(Debug)]
pub(super) struct Begun {
    start: Instant,
    /// By seconds; the oldest makes room for the present one, which is not over.
    seconds: [u32; REMEMBERED_SECONDS + 1],
    /// The present one, counted from the start.
    present: u64,
}

impl Begun {
    pub(super) const fn new(now: Instant) -> Self {
        Self { start: now, seconds: [0; REMEMBERED_SECONDS + 1], present: 0 }
    }

    /// One begins.
    pub(super) fn note(&mut self, now: Instant) {
        self.go_on(now);
        let count = self.seconds.len() as u64;
        if let Some(second) = self.seconds.get_mut(usize::try_from(self.present % count).unwrap_or(0)) {
            *second = second.saturating_add(1);
        }
    }

    /// Whether the kernel may remember no further one.
    pub(super) fn are_too_many(&mut self, now: Instant) -> bool {
        self.go_on(now);
        self.seconds.iter().fold(0_u32, |sum, second| sum.saturating_add(*second)) >= REMEMBERED_FLOWS
    }

    fn go_on(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.start).as_secs();
        let count = self.seconds.len() as u64;
        // What is passed over is over.
        for over in (self.present + 1..=second).rev().take(self.seconds.len()) {
            if let Some(over) = self.seconds.get_mut(usize::try_from(over % count).unwrap_or(0)) {
                *over = 0;
            }
        }
        self.present = self.present.max(second);
    }
}

/// How much of a processor the thread of the first shard uses, and all together.
#[derive(Debug)]
pub(super) struct Load {
    since: Instant,
    own: Duration,
    all: Duration,
    full: bool,
}

impl Load {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, own: Duration::ZERO, all: Duration::ZERO, full: false }
    }

    /// Whether it is time to give [`look`](Self::look) the times that were used.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }

    /// The thread itself, and all together, have used so much of their processors since they began.
    pub(super) fn look(&mut self, now: Instant, own: Duration, all: Duration) {
        let elapsed = now.saturating_duration_since(self.since).as_nanos().max(1);
        let share = |used: Duration, before: Duration| used.saturating_sub(before).as_nanos() * 100 / elapsed;
        self.full = if self.full { share(all, self.all) >= RELIEVED } else { share(own, self.own) >= FULL };
        *self = Self { since: now, own, all, full: self.full };
    }

    /// Whether a shard with so many flows and held SYNs has enough to do.
    pub(super) const fn is_full(&self, flows: usize, held: usize) -> bool {
        self.full || flows >= GATHERED_FLOWS || held >= GATHERED_HELD
    }
}

/// The processor time of this thread.
#[cfg(unix)]
pub(super) fn processor_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(used).unwrap_or_default()
}

/// Not asked for: a device has one queue there.
#[cfg(not(unix))]
pub(super) fn processor_time() -> Duration {
    Duration::ZERO
}

/// Whether a shard that reads its own queue leaves what begins to the first one.
#[derive(Debug)]
pub(super) struct Yielding {
    since: Instant,
}

impl Yielding {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now }
    }

    /// Whether it does now, with so many flows.
    pub(super) fn look(&mut self, now: Instant, flows: usize) -> bool {
        if flows == 0 || now.saturating_duration_since(self.since) >= YIELDS_AGAIN {
            self.since = now;
        }
        now.saturating_duration_since(self.since) < YIELDING
    }
}

/// How long a shard has had nothing to do.
#[derive(Debug, Default)]
pub(super) struct Lull {
    since: Option<Instant>,
    packets: u64,
}

/// What a lull comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// There is none.
    Busy,
    /// It may be one then.
    Until(Instant),
    /// It is one.
    Reached,
}

impl Lull {
    /// So many packets came.
    pub(super) const fn note_packets(&mut self, count: u64) {
        self.packets = self.packets.saturating_add(count);
    }

    /// What it is now, with so many flows.
    pub(super) fn look(&mut self, now: Instant, flows: usize) -> Rest {
        if flows > 0 {
            *self = Self::default();
            return Rest::Busy;
        }
        let end = *self.since.get_or_insert(now) + LULL;
        if now < end {
            return Rest::Until(end);
        }
        let quiet = self.packets < QUIET;
        *self = Self { since: Some(now), packets: 0 };
        if quiet { Rest::Reached } else { Rest::Until(now + LULL) }
    }
}

/// How many names are asked for through a queue.
#[derive(Debug)]
pub(super) struct Questions {
    since: Instant,
    count: u64,
}

impl Questions {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    /// So many came. Whether these are many, more than in a [`Lull`].
    pub(super) fn note(&mut self, now: Instant, count: u64) -> bool {
        if now.saturating_duration_since(self.since) >= LULL {
            *self = Self::new(now);
        }
        self.count = self.count.saturating_add(count);
        self.count >= QUIET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_thread_that_is_full_has_others_take_part_until_all_of_them_do_what_one_can() {
        let start = Instant::now();
        let mut load = Load::new(start);
        // At, used by itself and by all in milliseconds, full.
        let steps = [
            (100, 96, 96, false),
            (200, 193, 193, true),
            // The others have most of it now.
            (300, 223, 310, true),
            (400, 240, 418, false),
            (500, 336, 514, false),
            (600, 434, 612, true),
        ];
        for (at, own, all, full) in steps {
            assert!(load.is_due(start + ms(at)));
            load.look(start + ms(at), ms(own), ms(all));
            assert_eq!(load.is_full(0, 0), full, "at {at} ms");
            assert!(!load.is_due(start + ms(at + 49)));
        }
    }

    #[test]
    fn many_flows_or_held_ones_are_enough_to_do() {
        let load = Load::new(Instant::now());
        assert!(load.is_full(GATHERED_FLOWS, 0));
        assert!(load.is_full(0, GATHERED_HELD));
        assert!(!load.is_full(GATHERED_FLOWS - 1, GATHERED_HELD - 1));
    }

    #[test]
    fn a_shard_rests_after_a_while_without_flows_and_with_few_packets() {
        let start = Instant::now();
        let mut lull = Lull::default();
        assert_eq!(lull.look(start, 1), Rest::Busy);
        assert_eq!(lull.look(start, 0), Rest::Until(start + LULL));
        assert_eq!(lull.look(start + ms(50), 1), Rest::Busy);
        let again = start + ms(60);
        assert_eq!(lull.look(again, 0), Rest::Until(again + LULL));
        lull.note_packets(QUIET);
        assert_eq!(lull.look(again + LULL, 0), Rest::Until(again + LULL + LULL), "somebody asks for names");
        lull.note_packets(QUIET - 1);
        assert_eq!(lull.look(again + LULL + LULL, 0), Rest::Reached);
    }
    #[test]
    fn a_shard_yields_until_it_is_seen_to_have_flows_that_stay() {
        let start = Instant::now();
        let mut yielding = Yielding::new(start);
        let steps = [
            (0, 3, true),
            (99, 1, true),
            (100, 1, false),
            (900, 1, false),
            (1_000, 1, true),
            (1_100, 1, false),
            (1_200, 0, true),
        ];
        for (at, flows, yields) in steps {
            assert_eq!(yielding.look(start + ms(at), flows), yields, "at {at} ms");
        }
    }

    #[test]
    fn flows_that_begin_within_some_seconds_are_too_many_until_they_are_forgotten() {
        let start = Instant::now();
        let mut begun = Begun::new(start);
        let at = |millis| start + ms(millis);
        for flow in 0..REMEMBERED_FLOWS {
            assert!(!begun.are_too_many(at(500)), "{flow} flows");
            begun.note(at(500));
        }
        for (millis, too_many) in [(500, true), (3_600, true), (4_999, true), (5_000, false)] {
            assert_eq!(begun.are_too_many(at(millis)), too_many, "at {millis} ms");
        }
        // As many again, evenly: never too many where four seconds hold fewer.
        for flow in 0..u64::from(REMEMBERED_FLOWS) {
            begun.note(at(6_000 + flow * 2));
            assert!(!begun.are_too_many(at(6_000 + flow * 2)));
        }
        for flow in 0..u64::from(REMEMBERED_FLOWS) {
            begun.note(at(20_000 + flow));
        }
        assert!(begun.are_too_many(at(23_839)), "a thousand a second");
        assert!(!begun.are_too_many(at(3_600_000)), "after an hour of silence");
    }

    #[test]
    fn many_questions_within_a_lull_are_many() {
        let start = Instant::now();
        let mut questions = Questions::new(start);
        assert!(!questions.note(start, QUIET - 1));
        assert!(!questions.note(start + LULL, 1), "a new lull");
        assert!(questions.note(start + LULL, QUIET));
    }
}
