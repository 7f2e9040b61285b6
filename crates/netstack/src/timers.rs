//! When which flow wants to be looked at: one entry for each flow at most.

use std::collections::BTreeSet;

/// Deadlines in microseconds, with the slot they are for.
#[derive(Default)]
pub(crate) struct Timers {
    entries: BTreeSet<(u64, u32)>,
}

impl Timers {
    /// Sees to it that the slot is looked at no later than `at`. An earlier entry stays: a flow is looked at too early
    /// once, instead of moving its entry with each packet.
    pub(crate) fn arm(&mut self, slot: u32, armed: &mut Option<u64>, at: u64) {
        match *armed {
            Some(earlier) if earlier <= at => return,
            Some(later) => {
                self.entries.remove(&(later, slot));
            }
            None => {}
        }
        self.entries.insert((at, slot));
        *armed = Some(at);
    }

    pub(crate) fn disarm(&mut self, slot: u32, armed: &mut Option<u64>) {
        if let Some(at) = armed.take() {
            self.entries.remove(&(at, slot));
        }
    }

    /// The next slot whose time has come, without its entry: `armed` is to be cleared.
    pub(crate) fn pop(&mut self, now: u64) -> Option<u32> {
        let &(at, slot) = self.entries.first()?;
        if at > now {
            return None;
        }
        self.entries.pop_first();
        Some(slot)
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.entries.first().map(|&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_entry_the_earliest_asked_for() {
        let mut timers = Timers::default();
        let (mut one, mut two) = (None, None);
        timers.arm(1, &mut one, 50);
        timers.arm(1, &mut one, 80);
        timers.arm(2, &mut two, 60);
        timers.arm(1, &mut one, 30);
        assert_eq!(timers.entries.len(), 2);
        assert_eq!(timers.next(), Some(30));
        assert_eq!(timers.pop(29), None);
        assert_eq!(timers.pop(100), Some(1));
        timers.disarm(2, &mut two);
        assert_eq!((timers.pop(100), two), (None, None));
    }
}
