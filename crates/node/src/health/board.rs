use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use postern_proto::{
    id::ResourceId,
    sync::{HEALTH_AGAIN, HealthReport},
};
use tokio::time::Instant;

/// A resource is checked this often, give or take [`JITTER`].
const EVERY: Duration = Duration::from_secs(30);
/// So that a thousand resources are not checked in the same second.
const JITTER: Duration = Duration::from_secs(5);
/// A new resource is checked within this time.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// Between two checks of a resource, whatever its streams meet.
const CALM: Duration = Duration::from_secs(3);
/// Checks that run at the same time.
pub const MAX_RUNNING: usize = 64;

/// What is checked when, and what is worth a report. Pure: time and chance are arguments.
#[derive(Debug, Default)]
pub struct HealthBoard {
    watched: BTreeMap<ResourceId, Watched>,
    due: BTreeSet<(Instant, ResourceId)>,
    running: BTreeSet<ResourceId>,
}

#[derive(Debug)]
struct Watched {
    due: Instant,
    last: Option<HealthReport>,
    reported_at: Option<Instant>,
    checked_at: Option<Instant>,
    /// Somebody waits for the outcome, whatever it is.
    asked: bool,
}

impl HealthBoard {
    /// Begins to watch a resource, or checks it again soon because it has changed.
    pub fn watch(&mut self, resource: ResourceId, now: Instant, random: u32) {
        let due = now + spread(FIRST_WITHIN, random);
        let watched = Watched { due, last: None, reported_at: None, checked_at: None, asked: false };
        let before = self.watched.insert(resource, watched);
        self.reschedule(resource, before.map(|before| before.due), due);
    }

    pub fn forget(&mut self, resource: ResourceId) {
        self.running.remove(&resource);
        if let Some(watched) = self.watched.remove(&resource) {
            self.due.remove(&(watched.due, resource));
        }
    }

    /// Checks a resource at once; one that is not watched is left alone.
    pub fn check_now(&mut self, resource: ResourceId, now: Instant) {
        let Some(watched) = self.watched.get_mut(&resource) else { return };
        watched.asked = true;
        let before = std::mem::replace(&mut watched.due, now);
        self.reschedule(resource, Some(before), now);
    }

    /// Checks a resource at once, unless that was done a moment ago; one that is not watched is left alone.
    pub fn check_soon(&mut self, resource: ResourceId, now: Instant) {
        let Some(watched) = self.watched.get_mut(&resource) else { return };
        let due = watched.checked_at.map_or(now, |at| now.max(at + CALM));
        if due < watched.due {
            let before = std::mem::replace(&mut watched.due, due);
            self.reschedule(resource, Some(before), due);
        }
    }

    /// The resources to check now. Each comes back through [`HealthBoard::done`] or [`HealthBoard::forget`].
    pub fn due(&mut self, now: Instant) -> Vec<ResourceId> {
        let mut begun = Vec::new();
        while self.running.len() < MAX_RUNNING
            && let Some((at, resource)) = self.due.first().copied()
            && at <= now
        {
            self.due.remove(&(at, resource));
            if self.running.insert(resource) {
                begun.push(resource);
            }
        }
        begun
    }

    /// When [`HealthBoard::due`] has something next; `None` while checks must end first.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        if self.running.len() >= MAX_RUNNING {
            return None;
        }
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes what a check saw; hands it back when it is news, was asked for, or was not said for long.
    pub fn done(&mut self, report: HealthReport, now: Instant, random: u32) -> Option<HealthReport> {
        let resource = report.resource;
        if !self.running.remove(&resource) {
            return None;
        }
        let watched = self.watched.get_mut(&resource)?;
        let changed = watched.last.as_ref().is_none_or(|last| last.health != report.health);
        let stale = watched.reported_at.is_none_or(|at| now.duration_since(at) >= HEALTH_AGAIN);
        let worth = changed || stale || std::mem::take(&mut watched.asked);
        watched.last = Some(report.clone());
        watched.checked_at = Some(now);
        if worth {
            watched.reported_at = Some(now);
        }
        let due = now + EVERY - JITTER + spread(2 * JITTER, random);
        let before = std::mem::replace(&mut watched.due, due);
        self.reschedule(resource, Some(before), due);
        worth.then_some(report)
    }

    /// These reports did not get through: the next checks are reported, whatever they find.
    pub fn not_sent(&mut self, reports: &[HealthReport]) {
        for report in reports {
            if let Some(watched) = self.watched.get_mut(&report.resource) {
                watched.reported_at = None;
            }
        }
    }

    /// Everything that is known.
    #[must_use]
    pub fn report_all(&self) -> Vec<HealthReport> {
        self.watched.values().filter_map(|watched| watched.last.clone()).collect()
    }

    fn reschedule(&mut self, resource: ResourceId, before: Option<Instant>, due: Instant) {
        if let Some(before) = before {
            self.due.remove(&(before, resource));
        }
        self.due.insert((due, resource));
    }
}

fn spread(span: Duration, random: u32) -> Duration {
    span.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use postern_proto::{resource::Health, time::UnixMillis};
    use ulid::Ulid;

    use super::*;

    fn resource(n: u128) -> ResourceId {
        ResourceId::from_ulid(Ulid::from_parts(1, n))
    }

    fn report(n: u128, health: Health) -> HealthReport {
        HealthReport { resource: resource(n), health, checked_at: UnixMillis(0), connect_micros: None }
    }

    fn down() -> Health {
        Health::unhealthy("refused")
    }

    /// Checks resource 1 once and says what it reported.
    fn check(board: &mut HealthBoard, now: Instant, health: Health) -> Option<HealthReport> {
        assert_eq!(board.due(now), [resource(1)]);
        board.done(report(1, health), now, 0)
    }

    #[test]
    fn only_news_are_reported_and_the_rest_again_after_a_while() {
        let (mut board, begin) = (HealthBoard::default(), Instant::now());
        board.watch(resource(1), begin, 0);
        assert!(check(&mut board, begin, Health::Healthy).is_some());
        assert!(board.due(begin).is_empty());
        let next = |board: &HealthBoard| board.next_due().unwrap();
        let second = next(&board);
        assert!(second >= begin + EVERY - JITTER && second <= begin + EVERY + JITTER);
        assert!(check(&mut board, second, Health::Healthy).is_none());
        let third = next(&board);
        assert!(check(&mut board, third, down()).is_some());
        assert!(check(&mut board, third + HEALTH_AGAIN, down()).is_some());
    }

    #[test]
    fn what_did_not_get_through_is_said_after_the_next_check() {
        let (mut board, now) = (HealthBoard::default(), Instant::now());
        board.watch(resource(1), now, 0);
        let lost = check(&mut board, now, Health::Healthy).unwrap();
        board.not_sent(&[lost]);
        assert!(check(&mut board, now + EVERY, Health::Healthy).is_some());
        assert!(check(&mut board, now + 2 * EVERY, Health::Healthy).is_none());
    }

    #[test]
    fn a_thousand_resources_are_each_said_again_in_time() {
        let (mut board, begin) = (HealthBoard::default(), Instant::now());
        (0..1000).for_each(|n| board.watch(resource(n), begin, u32::MAX / 1000 * n as u32));
        let mut said = BTreeMap::new();
        for second in 0..3600 {
            let now = begin + Duration::from_secs(second);
            loop {
                let due = board.due(now);
                if due.is_empty() {
                    break;
                }
                for resource in due {
                    let report = HealthReport { resource, ..report(0, Health::Healthy) };
                    if board.done(report, now, resource.ulid().0 as u32).is_some() {
                        said.insert(resource, now);
                    }
                }
            }
            let late = said.values().filter(|at| now - **at > HEALTH_AGAIN + EVERY + JITTER);
            assert_eq!((late.count(), second < 2 || said.len() == 1000), (0, true), "after {second} s");
        }
    }

    #[test]
    fn a_check_that_was_asked_for_is_made_at_once_and_always_reported() {
        let (mut board, now) = (HealthBoard::default(), Instant::now());
        board.watch(resource(1), now, u32::MAX);
        assert!(board.due(now).is_empty());
        board.check_now(resource(1), now);
        board.check_now(resource(2), now);
        assert!(check(&mut board, now, down()).is_some());
        board.check_now(resource(1), now);
        assert!(check(&mut board, now, down()).is_some());
        assert_eq!(board.report_all(), [report(1, down())]);
    }

    #[test]
    fn what_streams_meet_brings_a_check_forward_and_no_flood() {
        let (mut board, now) = (HealthBoard::default(), Instant::now());
        board.watch(resource(1), now, 0);
        assert!(check(&mut board, now, Health::Healthy).is_some());
        (0..1000).for_each(|_| board.check_soon(resource(1), now));
        assert!(board.due(now).is_empty(), "it was checked just now");
        assert_eq!(board.next_due(), Some(now + CALM));
        assert!(check(&mut board, now + CALM, Health::Healthy).is_none(), "no news, and nobody asked");
        board.check_soon(resource(1), now + 3 * CALM);
        assert!(check(&mut board, now + 3 * CALM, down()).is_some());
        board.check_soon(resource(2), now);
    }

    #[test]
    fn checks_are_bounded_and_none_is_forgotten() {
        let (mut board, now) = (HealthBoard::default(), Instant::now());
        let all = MAX_RUNNING as u128 + 10;
        (0..all).for_each(|n| board.watch(resource(n), now, 0));
        let first = board.due(now);
        assert_eq!((first.len(), board.next_due()), (MAX_RUNNING, None));
        for begun in &first {
            board.done(HealthReport { resource: *begun, ..report(0, Health::Healthy) }, now, 0);
        }
        assert_eq!(board.due(now).len(), 10);
    }

    #[test]
    fn a_resource_that_is_gone_is_neither_checked_nor_reported() {
        let (mut board, now) = (HealthBoard::default(), Instant::now());
        board.watch(resource(1), now, 0);
        board.watch(resource(2), now, 0);
        board.forget(resource(2));
        assert_eq!(board.due(now), [resource(1)]);
        board.forget(resource(1));
        assert_eq!(board.done(report(1, Health::Healthy), now, 0), None);
        assert_eq!(board.next_due(), None);
    }

    #[test]
    fn a_change_during_a_check_leads_to_another_check() {
        let (mut board, now) = (HealthBoard::default(), Instant::now());
        board.watch(resource(1), now, 0);
        assert_eq!(board.due(now), [resource(1)]);
        board.watch(resource(1), now, 0);
        assert!(board.due(now).is_empty(), "one at a time");
        assert!(board.done(report(1, Health::Healthy), now, 0).is_some());
        assert!(board.next_due().is_some());
    }
}
