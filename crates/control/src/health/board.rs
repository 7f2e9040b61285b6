//! What the gateways last said about each resource, and what that comes to.
//!
//! Pure: instants are arguments. Nothing is stored: after a restart a resource is unknown until a gateway that can
//! reach the control plane has said how it is.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use postern_proto::{
    id::{NodeId, ResourceId},
    resource::Health,
    sync::{HEALTH_AGAIN, HealthReport},
};

/// A report counts this long: of what a node says again and again, one saying may be missed. That it is gone shows sooner, by
/// its connection ([`GRACE`]).
pub const FRESH: Duration = HEALTH_AGAIN.saturating_mul(2).saturating_add(Duration::from_secs(120));
/// How long the reports of a gateway count after its connection is gone; a restart takes less.
pub const GRACE: Duration = Duration::from_secs(15);
/// The longest error that is kept, in characters.
const MAX_ERROR: usize = 300;
/// The longest code that is kept; ours are shorter.
const MAX_CODE: usize = 64;

/// All reports that count.
#[derive(Debug, Default)]
pub struct HealthBoard {
    reports: BTreeMap<ResourceId, BTreeMap<NodeId, Received>>,
    gone: BTreeMap<NodeId, Instant>,
}

#[derive(Clone, Debug)]
struct Received {
    report: HealthReport,
    at: Instant,
}

impl HealthBoard {
    /// Healthy if a gateway reaches it; else what the gateway says that looked last; else unknown.
    #[must_use]
    pub fn health(&self, resource: ResourceId) -> Health {
        let Some(reports) = self.reports.get(&resource) else { return Health::Unknown };
        if reports.values().any(|received| received.report.health == Health::Healthy) {
            return Health::Healthy;
        }
        let last = reports.values().max_by_key(|received| received.at);
        last.map(|received| received.report.health.clone()).unwrap_or_default()
    }

    /// What each gateway says about a resource.
    pub fn reports(&self, resource: ResourceId) -> impl Iterator<Item = (NodeId, &HealthReport)> {
        let reports = self.reports.get(&resource).into_iter().flatten();
        reports.map(|(node, received)| (*node, &received.report))
    }

    /// Its health, and who reaches it and who does not.
    fn standing(&self, resource: ResourceId) -> (Health, BTreeMap<NodeId, bool>) {
        let reports = self.reports(resource);
        let reached = reports.map(|(node, report)| (node, report.health == Health::Healthy)).collect();
        (self.health(resource), reached)
    }

    /// Takes what a gateway saw. The resources whose health, or the nodes that reach them, are others now; reports on resources that `known`
    /// denies are dropped.
    pub fn report(
        &mut self,
        node: NodeId,
        reports: Vec<HealthReport>,
        known: impl Fn(ResourceId) -> bool,
        now: Instant,
    ) -> BTreeSet<ResourceId> {
        let mut changed = BTreeSet::new();
        for mut report in reports {
            let resource = report.resource;
            if !known(resource) {
                continue;
            }
            if let Health::Unhealthy { error, code } = &mut report.health {
                code.take_if(|code| {
                    code.len() > MAX_CODE || !code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                });
                *error = error.chars().filter(|c| !c.is_control()).take(MAX_ERROR).collect();
            }
            let before = self.standing(resource);
            self.reports.entry(resource).or_default().insert(node, Received { report, at: now });
            if self.standing(resource) != before {
                changed.insert(resource);
            }
        }
        changed
    }

    /// Whether a gateway has reported on a resource at or after an instant.
    #[must_use]
    pub fn has_reported(&self, node: NodeId, resource: ResourceId, since: Instant) -> bool {
        self.reports.get(&resource).and_then(|reports| reports.get(&node)).is_some_and(|received| received.at >= since)
    }

    /// The gateway is still there, and sees everything as it last said.
    pub fn node_lives(&mut self, node: NodeId, now: Instant) {
        for received in self.reports.values_mut().filter_map(|reports| reports.get_mut(&node)) {
            received.at = now;
        }
    }

    /// The gateway has a connection again.
    pub fn node_came(&mut self, node: NodeId) {
        self.gone.remove(&node);
    }

    /// The gateway's last connection is gone.
    pub fn node_went(&mut self, node: NodeId, now: Instant) {
        self.gone.insert(node, now);
    }

    /// Drops what is too old and what gateways said that are gone, and everything about resources that `known` denies.
    /// The resources whose health is another one now.
    pub fn sweep(&mut self, known: impl Fn(ResourceId) -> bool, now: Instant) -> BTreeSet<ResourceId> {
        let age = |at: Instant| now.saturating_duration_since(at);
        let lost: BTreeSet<NodeId> =
            self.gone.iter().filter(|(_, since)| age(**since) >= GRACE).map(|(node, _)| *node).collect();
        let resources: Vec<ResourceId> = self.reports.keys().copied().collect();
        let mut changed = BTreeSet::new();
        for resource in resources {
            let before = self.standing(resource);
            if let Some(reports) = self.reports.get_mut(&resource) {
                reports.retain(|node, received| age(received.at) < FRESH && !lost.contains(node) && known(resource));
                if reports.is_empty() {
                    self.reports.remove(&resource);
                }
            }
            if self.standing(resource) != before {
                changed.insert(resource);
            }
        }
        self.gone.retain(|node, _| !lost.contains(node));
        changed
    }
}
