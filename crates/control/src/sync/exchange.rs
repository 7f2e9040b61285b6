//! The hub beside the store: follows each change after its commit, and lets connections wait for their frames.

pub mod bulletin;
mod remote;
mod state;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use postern_proto::{
    id::{NodeId, ResourceId},
    lease::{self, Revocation},
    resource::Health,
    sync::{HealthReport, Hello, Item, NodeLoad, ParkedAt, Peer, ServerFrame},
    time::UnixMillis,
};
use tokio::sync::{
    Notify,
    broadcast::{self, error::RecvError},
};
use tokio_util::sync::CancellationToken;

use self::{
    bulletin::News,
    state::{Locked, State},
};
use super::hub::{ConnectionId, Hub, Next, ORG, scopes_of};
use crate::{
    catalogue::{Catalogue, Leaving},
    health::{
        attendance::{Attendance, NodeTurn},
        history::{History, HistoryWriter},
    },
    secret::{self, NoEntropy},
    store::{Changes, Store, StoreError},
};

/// Revocations younger than this can still matter to somebody's lease: they are told to each node that connects.
pub const REVOCATIONS_MATTER: Duration =
    Duration::from_secs(lease::LIFETIME.as_secs() + lease::FAIL_STATIC.as_secs() + 2 * lease::CLOCK_SKEW.as_secs());
/// How long a connection waits for the next long poll of its peer.
const REST: Duration = Duration::from_secs(30);
/// How often what is too old is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Shared by all connections.
#[derive(Clone)]
pub struct Exchange {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    state: Mutex<State>,
    history: History,
    /// Wakes those who wait for a health report.
    reported: Notify,
    /// Connections between two long polls.
    resting: Mutex<HashMap<Peer, (Subscription, Instant)>>,
}

/// Passes changes of the store on to an [`Exchange`]. Changes since it was made are not missed.
pub struct Follower {
    exchange: Exchange,
    changes: broadcast::Receiver<Arc<Changes>>,
    history: HistoryWriter,
}

/// What is known of a node's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Whether it is connected now.
    pub connected: bool,
    /// The program and its version, as it says.
    pub agent: String,
    pub last_seen: UnixMillis,
    /// What it says of taking no new streams.
    pub leaving: Leaving,
    /// How much it has to do, as it said last.
    pub load: Option<NodeLoad>,
}

/// One admitted connection. Dropping it ends it.
pub struct Subscription {
    exchange: Exchange,
    id: ConnectionId,
    peer: Peer,
    woken: Arc<Notify>,
}

impl Exchange {
    /// An exchange for this run of the program, and what keeps it up to date. `lease_keys`: the announced keys.
    pub fn new(store: Store, lease_keys: Vec<Item>) -> Result<(Self, Follower), NoEntropy> {
        let changes = store.follow();
        let org = store.org();
        let hub = Hub::new(org.id, epoch_of(&store, &org.epoch), first_revision(store.clock().now())?);
        let state = Mutex::new(State::new(hub, lease_keys, store.reader().is_shared()));
        let (history, writer) = History::new(store.clone());
        let shared = Shared { store, state, history, reported: Notify::new(), resting: Mutex::default() };
        let exchange = Self { shared: Arc::new(shared) };
        Ok((exchange.clone(), Follower { exchange, changes, history: writer }))
    }

    /// Takes over another epoch of the database.
    fn follow_epoch(&self, known: &mut String) -> Result<(), NoEntropy> {
        let epoch = self.shared.store.org().epoch.clone();
        if epoch != *known {
            let first = first_revision(self.shared.store.clock().now())?;
            let mut state = self.lock();
            state.hub.begin_epoch(epoch_of(&self.shared.store, &epoch), first);
            let scopes: Vec<String> = state.hub.scopes().cloned().collect();
            state.refresh(&self.shared.store, &scopes);
            *known = epoch;
        }
        Ok(())
    }

    /// Admits a peer whose certificate and standing were checked.
    #[must_use]
    pub fn admit(&self, peer: Peer, hello: &Hello) -> Subscription {
        let woken = Arc::new(Notify::new());
        let now = self.shared.store.clock().now();
        let mut state = self.lock();
        let catalogue = self.shared.store.catalogue();
        let cluster = match peer {
            Peer::Node { node } => catalogue.nodes.get(&node).and_then(|node| node.cluster),
            Peer::Device { .. } => None,
        };
        let scopes = scopes_of(peer, cluster, hello);
        state.load(&self.shared.store, &scopes);
        let id = state.hub.connect(peer, scopes, hello, now);
        state.wakers.insert(id, Arc::clone(&woken));
        if let Peer::Node { node } = peer {
            state.health.node_came(node);
            let leaving = state.draining.get(&node).copied().unwrap_or_default();
            let presence =
                Presence { connected: true, agent: shown(&hello.agent), last_seen: now, leaving, load: None };
            state.presence.insert(node, presence);
            state.tell_presence(node);
        }
        drop(state);
        Subscription { exchange: self.clone(), id, peer, woken }
    }

    /// Admits a long poll: goes on with the connection of the poll before if the receiver has all that was sent on it.
    #[must_use]
    pub fn admit_poll(&self, peer: Peer, hello: &Hello) -> Subscription {
        let rested = self.resting().remove(&peer).map(|(subscription, _)| subscription);
        match rested.filter(|subscription| subscription.holds(hello)) {
            Some(subscription) => {
                subscription.greet();
                subscription
            }
            None => self.admit(peer, hello),
        }
    }

    /// Keeps a connection until the next long poll of its peer.
    pub fn rest(&self, subscription: Subscription) {
        let before = self.resting().insert(subscription.peer, (subscription, Instant::now()));
        drop(before);
    }

    /// The revocations that a node which connects now is told.
    pub async fn backlog(&self) -> Result<Vec<Revocation>, StoreError> {
        let now = self.shared.store.clock().now();
        let since = UnixMillis(now.0.saturating_sub(u64::try_from(REVOCATIONS_MATTER.as_millis()).unwrap_or(u64::MAX)));
        self.shared.store.revocations_since(since).await
    }

    /// Announces other lease keys.
    pub fn announce_lease_keys(&self, keys: Vec<Item>) {
        let mut state = self.lock();
        state.lease_keys = keys;
        state.refresh(&self.shared.store, &[ORG.to_owned()]);
    }

    /// How a resource is.
    #[must_use]
    pub fn health(&self, resource: ResourceId) -> Health {
        self.lock().health.health(resource)
    }

    /// What each node says about a resource.
    #[must_use]
    pub fn reports(&self, resource: ResourceId) -> Vec<(NodeId, HealthReport)> {
        self.lock().health.reports(resource).map(|(node, report)| (node, report.clone())).collect()
    }

    /// Asks all connected nodes to check a resource, and waits until each has reported or `patience` is over.
    pub async fn check(&self, resource: ResourceId, patience: Duration) -> Health {
        let (asked, deadline) = (Instant::now(), tokio::time::Instant::now() + patience);
        let nodes = {
            let mut state = self.lock();
            state.hub.send_to_nodes(&ServerFrame::CheckHealth { resource });
            state.tell(None, News::Check { resource });
            state.connected_nodes()
        };
        loop {
            let reported = self.shared.reported.notified();
            tokio::pin!(reported);
            reported.as_mut().enable();
            let all = {
                let state = self.lock();
                nodes.iter().all(|node| state.health.has_reported(*node, resource, asked))
            };
            if all || tokio::time::timeout_at(deadline, reported).await.is_err() {
                return self.health(resource);
            }
        }
    }

    /// Takes a node's health reports.
    pub fn report_health(&self, node: NodeId, reports: Vec<HealthReport>) {
        let catalogue = self.shared.store.catalogue();
        let known = |resource| catalogue.resources.contains_key(&resource);
        let mut state = self.lock();
        state.tell_reports(node, &reports);
        let said = |state: &State, resource| {
            state.health.reports(resource).find(|(of, _)| *of == node).map(|(_, report)| report.clone())
        };
        let before: Vec<_> = reports.iter().map(|report| (report.resource, said(&state, report.resource))).collect();
        let changed = state.health.report(node, reports, known, Instant::now());
        for (resource, before) in before {
            if let Some(report) = said(&state, resource) {
                self.shared.history.note(node, before.as_ref().map(|before| &before.health), &report);
            }
        }
        state.resources_changed(&self.shared.store, changed);
        drop(state);
        self.shared.reported.notify_waiters();
    }

    /// The node takes no new streams, or takes them again.
    pub fn set_leaving(&self, node: NodeId, leaving: Leaving) {
        let mut state = self.lock();
        if let Some(presence) = state.presence.get_mut(&node) {
            presence.leaving = leaving;
        }
        if state.note_leaving(node, leaving) {
            state.tell_presence(node);
            state.refresh_entries(&self.shared.store);
        }
    }

    /// How much the node has to do.
    pub fn set_load(&self, node: NodeId, load: NodeLoad) {
        let catalogue = self.shared.store.catalogue();
        // Whoever begins drains in their windows has to know at once whether it is idle.
        let waits = catalogue.nodes.get(&node).is_some_and(|node| node.planned_drain.is_some());
        let mut state = self.lock();
        let Some(presence) = state.presence.get_mut(&node) else { return };
        let before = presence.load.replace(load).map(|before| before.streams > 0);
        let turned = before != Some(load.streams > 0);
        // Others hear of the rest with the presence, which is told every half minute.
        if turned && (waits || presence.leaving.draining && load.streams == 0) {
            state.tell_presence(node);
        }
    }

    /// A relay has parked links there, and nowhere else.
    pub fn set_parked(&self, node: NodeId, at: Vec<ParkedAt>) {
        let mut state = self.lock();
        let before = if at.is_empty() { state.parked.remove(&node) } else { state.parked.insert(node, at.clone()) };
        let changed = before.unwrap_or_default() != at;
        if changed {
            state.tell(Some(node), News::Parked { at });
        }
        if changed {
            state.refresh_entries(&self.shared.store);
        }
    }

    /// What is known of a node's connection; `None` when it has not connected since this program started.
    #[must_use]
    pub fn presence(&self, node: NodeId) -> Option<Presence> {
        let state = self.lock();
        let mut presence = state.presence_of(node)?;
        if presence.connected {
            presence.last_seen = self.shared.store.clock().now();
        }
        Some(presence)
    }

    /// How many follow here, by what they are.
    #[must_use]
    pub fn connections(&self) -> [(&'static str, usize); 4] {
        let catalogue = self.shared.store.catalogue();
        let peers = self.lock().hub.peers();
        let kind = |peer: &Peer| match peer {
            Peer::Device { .. } => "device",
            Peer::Node { node } => catalogue.nodes.get(node).map_or("gateway", |node| node.kind.as_str()),
        };
        ["device", "gateway", "relay", "worker"]
            .map(|wanted| (wanted, peers.iter().filter(|peer| kind(peer) == wanted).count()))
    }

    /// How much other control planes are to be told yet.
    #[must_use]
    pub fn news_waiting(&self) -> u64 {
        self.lock().remote.waiting() as u64
    }

    /// Ends the connections of a node after saying why.
    pub fn close_node(&self, node: NodeId, code: &str, title: &str) {
        self.lock().hub.close_where(code, title, |peer| peer == Peer::Node { node });
    }

    /// The store fell too far ahead to follow: every scope is made anew, and revocations are told again.
    async fn catch_up(&self, heard: UnixMillis) {
        let revocations = self.shared.store.revocations_since(heard).await.unwrap_or_else(|error| {
            tracing::error!(%error, "revocations could not be read; nodes learn of them by the scopes");
            Vec::new()
        });
        let mut state = self.lock();
        let scopes: Vec<String> = state.hub.scopes().cloned().collect();
        state.hub.revoke(&revocations);
        state.refresh(&self.shared.store, &scopes);
        state.close_revoked(revocations.iter().map(|revocation| &revocation.subject));
    }

    fn resting(&self) -> MutexGuard<'_, HashMap<Peer, (Subscription, Instant)>> {
        self.shared.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what is too old, and notes which nodes have come and which are away. The [`Follower`] does it every few seconds.
    pub fn sweep(&self, now: Instant) {
        let over = |since: Instant| now.saturating_duration_since(since) >= REST;
        let left: Vec<_> = self.resting().extract_if(|_, (_, since)| over(*since)).collect();
        drop(left);
        let catalogue = self.shared.store.catalogue();
        let mut state = self.lock();
        state.hub.sweep(now);
        state.sweep_remote(now);
        let changed = state.health.sweep(|resource| catalogue.resources.contains_key(&resource), now);
        state.resources_changed(&self.shared.store, changed);
        state.shared.sweep();
        self.call_roll(&catalogue, &mut state, now);
        state.presence.retain(|node, _| catalogue.nodes.contains_key(node));
        state.draining.retain(|node, _| catalogue.nodes.contains_key(node));
        state.parked.retain(|node, _| catalogue.nodes.contains_key(node));
    }

    /// Notes which nodes have come and which are away.
    fn call_roll(&self, catalogue: &Catalogue, state: &mut State, now: Instant) {
        let enrolled = catalogue.nodes.values().filter(|node| node.enrolled_at.is_some()).map(|node| node.id).collect();
        let here = state.connected_nodes();
        for (node, attendance) in state.roll.call(&enrolled, &here, now) {
            let now = self.shared.store.clock().now();
            let at = match attendance {
                Attendance::Up => now,
                Attendance::Away => state.presence_of(node).map_or(now, |presence| presence.last_seen),
            };
            self.shared.history.note_node(NodeTurn { node, at, state: attendance });
        }
    }

    fn lock(&self) -> Locked<'_> {
        Locked(self.shared.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Follower {
    /// Follows the store, and writes what nodes find out, until it is cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let Self { exchange, changes, history } = self;
        let followed = Followed { exchange, changes };
        tokio::join!(followed.follow(cancel.clone()), history.run(cancel));
    }
}

/// The part of a [`Follower`] that follows.
struct Followed {
    exchange: Exchange,
    changes: broadcast::Receiver<Arc<Changes>>,
}

impl Followed {
    async fn follow(mut self, cancel: CancellationToken) {
        let store = self.exchange.shared.store.clone();
        let mut sweeps = tokio::time::interval(SWEEP_EVERY);
        let mut heard = store.clock().now();
        let (mut catalogue, mut epoch) = (store.watch(), store.org().epoch.clone());
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = sweeps.tick() => self.exchange.sweep(Instant::now()),
                Ok(()) = catalogue.changed() => {
                    catalogue.mark_unchanged();
                    if let Err(error) = self.exchange.follow_epoch(&mut epoch) {
                        tracing::error!(%error, "another epoch could not be begun");
                    }
                }
                changes = self.changes.recv() => match changes {
                    Ok(changes) => {
                        heard = store.clock().now();
                        self.exchange.lock().follow(&store, &changes);
                    }
                    Err(RecvError::Lagged(_)) => self.exchange.catch_up(heard).await,
                    Err(RecvError::Closed) => break,
                },
            }
        }
        // They hold the exchange that holds them.
        let rested = std::mem::take(&mut *self.exchange.resting());
        drop(rested);
    }
}

impl Subscription {
    /// What to do next; see [`Subscription::woken`].
    pub fn next(&self) -> Next {
        self.exchange.lock().hub.next(self.id)
    }

    /// Completes when there may be more to do, also when that came about before the call.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Sends one frame on this connection.
    pub fn send(&self, frame: &ServerFrame) {
        self.exchange.lock().hub.send(self.id, frame);
    }

    /// Sends revocations on this connection.
    pub fn send_revocations(&self, revocations: &[Revocation]) {
        self.exchange.lock().hub.send_revocations(self.id, revocations);
    }

    /// Greets once more, before everything else (long polling).
    pub fn greet(&self) {
        let now = self.exchange.shared.store.clock().now();
        self.exchange.lock().hub.greet(self.id, now);
    }

    /// Ends the connection after saying why.
    pub fn close(&self, code: &str, title: &str) {
        self.exchange.lock().hub.close(self.id, code, title);
    }

    /// Whether the receiver has what was sent, going by what it says.
    #[must_use]
    pub fn holds(&self, hello: &Hello) -> bool {
        self.exchange.lock().hub.holds(self.id, hello)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.exchange.lock();
        state.wakers.remove(&self.id);
        state.hub.disconnect(self.id, Instant::now());
        let Peer::Node { node } = self.peer else { return };
        if !state.hub.nodes().contains(&node) {
            state.health.node_went(node, Instant::now());
            let now = self.exchange.shared.store.clock().now();
            if let Some(presence) = state.presence.get_mut(&node) {
                presence.connected = false;
                presence.last_seen = now;
            }
            state.tell_presence(node);
        }
    }
}

/// The epoch that receivers are told. Each of several control planes counts revisions of its own, so what one of them
/// gave out means nothing at another.
fn epoch_of(store: &Store, epoch: &str) -> String {
    if store.reader().is_shared() { format!("{epoch}.{}", store.replica()) } else { epoch.to_owned() }
}

/// Revisions go up within a run and from one run to the next (milliseconds since 1970 in the upper bits). The lower
/// bits begin at random, so that a run on a restored copy of the database, or after the clock was set back, gives out
/// no revision that somebody holds from another run. All stay below 2^53.
fn first_revision(now: UnixMillis) -> Result<u64, NoEntropy> {
    let random = u64::from(u16::from_be_bytes(secret::entropy::<2>()?));
    Ok(((now.0 & ((1 << 42) - 1)) << 11) | (random & 0x3ff))
}

/// What a peer calls itself, fit for lists and logs.
fn shown(agent: &str) -> String {
    agent.chars().filter(|c| !c.is_control()).take(80).collect()
}
