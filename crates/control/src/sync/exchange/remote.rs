//! What other control planes of the database know of nodes, and what they are to be told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use postern_proto::{
    id::{NodeId, ResourceId},
    sync::{HealthReport, ServerFrame},
};

use super::{
    Exchange, Presence,
    bulletin::{News, STALE},
    state::State,
};
use crate::catalogue::Leaving;

/// News that wait to be written; more are dropped, and told again with the next change. Each takes the place of earlier
/// ones of its topic, so only more nodes times resources than this can fill it.
const MOST_WAITING: usize = 100_000;
/// For how long after somebody asked for a check each report on it is told, also when it says nothing new.
const ASKED: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Remote {
    /// Whether there can be others.
    shared: bool,
    waiting: BTreeMap<(Option<NodeId>, String), News>,
    nodes: BTreeMap<NodeId, (Presence, Instant)>,
    asked: BTreeMap<ResourceId, Instant>,
}

impl Remote {
    pub(super) fn new(shared: bool) -> Self {
        Self { shared, ..Self::default() }
    }

    /// How many news wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl State {
    /// Has something told to the others.
    pub(super) fn tell(&mut self, node: Option<NodeId>, news: News) {
        if !self.remote.shared {
            return;
        }
        if self.remote.waiting.len() >= MOST_WAITING {
            return tracing::warn!(?node, "what a node says is not shared: too much waits to be written");
        }
        self.remote.waiting.insert((node, news.topic()), news);
    }

    /// Tells whether a node is connected here.
    pub(super) fn tell_presence(&mut self, node: NodeId) {
        if let Some(presence) = self.presence.get(&node) {
            let Presence { connected, agent, leaving: Leaving { draining, ends: drain_ends }, load, .. } =
                presence.clone();
            self.tell(Some(node), News::Presence { connected, agent, draining, drain_ends, load });
        }
    }

    /// Tells those reports that say something new, or that somebody asked for. To be called before they are taken.
    pub(super) fn tell_reports(&mut self, node: NodeId, reports: &[HealthReport]) {
        if !self.remote.shared {
            return;
        }
        for report in reports {
            let known = self.health.reports(report.resource).find(|(of, _)| *of == node);
            let is_new = known.is_none_or(|(_, known)| known.health != report.health);
            let asked = self.remote.asked.get(&report.resource).is_some_and(|asked| asked.elapsed() < ASKED);
            if is_new || asked {
                self.tell(Some(node), News::Health(report.clone()));
            }
        }
    }

    /// What is known of a node's connection here or elsewhere.
    pub(super) fn presence_of(&self, node: NodeId) -> Option<Presence> {
        let (here, there) = (self.presence.get(&node), self.remote.nodes.get(&node).map(|(presence, _)| presence));
        let newest = |presence: &&Presence| (presence.connected, presence.last_seen);
        here.into_iter().chain(there).max_by_key(newest).cloned()
    }

    /// The nodes that are connected here or elsewhere.
    pub(super) fn connected_nodes(&self) -> BTreeSet<NodeId> {
        let there = self.remote.nodes.iter().filter(|(_, (presence, _))| presence.connected).map(|(node, _)| *node);
        self.hub.nodes().into_iter().chain(there).collect()
    }

    /// Forgets the presence of nodes that nobody has told of for too long: their control plane is gone.
    pub(super) fn sweep_remote(&mut self, now: Instant) {
        let over = |at: Instant| now.saturating_duration_since(at) >= STALE;
        let here = self.hub.nodes();
        for (node, (presence, heard)) in &mut self.remote.nodes {
            if presence.connected && over(*heard) {
                presence.connected = false;
                if !here.contains(node) {
                    self.health.node_went(*node, now);
                }
            }
        }
        self.remote.asked.retain(|_, asked| asked.elapsed() < ASKED);
    }
}

impl Exchange {
    /// What is to be told to the others, at most so much.
    pub(super) fn take_news(&self, most: usize) -> Vec<(Option<NodeId>, News)> {
        let mut state = self.lock();
        let waiting = &mut state.remote.waiting;
        let mut news = Vec::new();
        while news.len() < most
            && let Some(((node, _), what)) = waiting.pop_first()
        {
            news.push((node, what));
        }
        news
    }

    /// Takes news back that could not be told, but for those that newer ones have taken the place of.
    pub(super) fn give_back(&self, news: Vec<(Option<NodeId>, News)>) {
        let mut state = self.lock();
        for (node, what) in news {
            state.remote.waiting.entry((node, what.topic())).or_insert(what);
        }
    }

    /// Says again which nodes are connected here.
    pub(super) fn tell_presence_again(&self) {
        let mut state = self.lock();
        for node in state.hub.nodes() {
            state.tell_presence(node);
        }
    }

    /// Takes what another control plane tells of a node. What the node says here itself counts more.
    pub(super) fn hear(&self, node: Option<NodeId>, news: News) {
        let store = &self.shared.store;
        let (catalogue, now) = (store.catalogue(), Instant::now());
        let mut state = self.lock();
        let Some(node) = node else {
            if let News::Check { resource } = news {
                state.remote.asked.insert(resource, now);
                state.hub.send_to_nodes(&ServerFrame::CheckHealth { resource });
            }
            return;
        };
        if state.hub.nodes().contains(&node) || !catalogue.nodes.contains_key(&node) {
            return;
        }
        match news {
            News::Presence { connected, agent, draining, drain_ends, load } => {
                if connected {
                    state.health.node_came(node);
                    state.health.node_lives(node, now);
                } else {
                    state.health.node_went(node, now);
                }
                let leaving = Leaving { draining, ends: drain_ends };
                let presence = Presence { connected, agent, last_seen: store.clock().now(), leaving, load };
                state.remote.nodes.insert(node, (presence, now));
                if state.note_leaving(node, leaving) {
                    state.refresh_entries(store);
                }
            }
            News::Health(report) => {
                let known = |resource| catalogue.resources.contains_key(&resource);
                let changed = state.health.report(node, vec![report], known, now);
                state.resources_changed(store, changed);
                drop(state);
                self.shared.reported.notify_waiters();
            }
            News::Parked { at } => {
                let before =
                    if at.is_empty() { state.parked.remove(&node) } else { state.parked.insert(node, at.clone()) };
                if before.unwrap_or_default() != at {
                    state.refresh_entries(store);
                }
            }
            News::Check { .. } => {}
        }
    }
}
