//! At which gateways a relay parks its links: the nearest few of its group that answer.
//!
//! Pure: what happened is told to it, with the time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use postern_proto::{id::NodeId, sync::GatewayInfo};

/// So many gateways hold links: one may die and one may drain.
pub(super) const BERTHS: usize = 3;
/// Latencies that differ by less count as equal; the order then is that of the ids, which spreads relays at random.
const SAME: Duration = Duration::from_millis(2);

#[derive(Debug, Default)]
pub(super) struct Choice {
    gateways: BTreeMap<NodeId, Candidate>,
}

#[derive(Debug)]
struct Candidate {
    info: GatewayInfo,
    latency: Option<Duration>,
    /// It failed, and is left alone until then.
    rest_until: Option<Instant>,
}

impl Choice {
    /// The gateways where links may be parked now.
    pub(super) fn set<'a>(&mut self, gateways: impl Iterator<Item = &'a GatewayInfo>) {
        let mut before = std::mem::take(&mut self.gateways);
        for info in gateways {
            let known = before.remove(&info.id).filter(|known| known.info.address == info.address);
            let (latency, rest_until) = known.map_or((None, None), |known| (known.latency, known.rest_until));
            self.gateways.insert(info.id, Candidate { info: info.clone(), latency, rest_until });
        }
    }

    pub(super) fn knows(&self, gateway: NodeId) -> bool {
        self.gateways.contains_key(&gateway)
    }

    pub(super) fn note_latency(&mut self, gateway: NodeId, latency: Duration) {
        if let Some(candidate) = self.gateways.get_mut(&gateway) {
            candidate.latency = Some(latency);
            candidate.rest_until = None;
        }
    }

    pub(super) fn note_failed(&mut self, gateway: NodeId, rest_until: Instant) {
        if let Some(candidate) = self.gateways.get_mut(&gateway) {
            candidate.rest_until = Some(rest_until);
        }
    }

    /// Where links are to be parked beside those in `held`, of which `leaving` are about to end.
    pub(super) fn next(&self, held: &[NodeId], leaving: usize, now: Instant) -> Vec<GatewayInfo> {
        let free = BERTHS.saturating_sub(held.len().saturating_sub(leaving));
        let rests = |candidate: &&Candidate| candidate.rest_until.is_some_and(|until| until > now);
        let mut free_ones: Vec<&Candidate> = self
            .gateways
            .values()
            .filter(|candidate| !held.contains(&candidate.info.id) && !candidate.info.draining && !rests(candidate))
            .collect();
        // What was never measured is tried first.
        free_ones.sort_by_key(|candidate| {
            (candidate.latency.map(|latency| latency.as_nanos() / SAME.as_nanos()), candidate.info.id.ulid().random())
        });
        free_ones.into_iter().take(free).map(|candidate| candidate.info.clone()).collect()
    }

    /// When a gateway that failed may be tried again.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        self.gateways.values().filter_map(|candidate| candidate.rest_until).filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    fn gateway(n: u128) -> GatewayInfo {
        let id = NodeId::from_ulid(Ulid(n));
        GatewayInfo { id, name: format!("g{n}"), address: format!("g{n}:5000"), draining: false, drain_ends: None }
    }

    fn names(chosen: &[GatewayInfo]) -> Vec<&str> {
        chosen.iter().map(|gateway| gateway.name.as_str()).collect()
    }

    #[test]
    fn the_nearest_three_are_chosen_and_one_that_fails_or_leaves_is_replaced() {
        let (mut choice, now) = (Choice::default(), Instant::now());
        let all: Vec<_> = (1..=5).map(gateway).collect();
        choice.set(all.iter());
        for (gateway, millis) in all.iter().zip([50, 10, 40, 20, 30]) {
            choice.note_latency(gateway.id, Duration::from_millis(millis));
        }
        assert_eq!(names(&choice.next(&[], 0, now)), ["g2", "g4", "g5"]);
        let held = [all[1].id, all[3].id, all[4].id];
        assert!(choice.next(&held, 0, now).is_empty());
        assert_eq!(names(&choice.next(&held, 1, now)), ["g3"], "one of them drains");
        choice.note_failed(all[1].id, now + Duration::from_secs(1));
        assert_eq!(names(&choice.next(&held[1..], 0, now)), ["g3"]);
        assert_eq!(choice.next_at(now), Some(now + Duration::from_secs(1)));
        assert_eq!(names(&choice.next(&held[1..], 0, now + Duration::from_secs(1))), ["g2"]);
    }

    #[test]
    fn a_gateway_that_drains_or_has_left_the_group_is_not_chosen() {
        let (mut choice, now) = (Choice::default(), Instant::now());
        let draining = GatewayInfo { draining: true, ..gateway(1) };
        choice.set([&draining, &gateway(2)].into_iter());
        assert_eq!(names(&choice.next(&[], 0, now)), ["g2"]);
        choice.set(std::iter::empty());
        assert!(choice.next(&[], 0, now).is_empty() && !choice.knows(gateway(2).id));
    }
}
