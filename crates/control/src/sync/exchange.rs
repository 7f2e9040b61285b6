//! The hub beside the store: follows each change after its commit, and lets connections wait for their frames.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use postern_proto::{
    id::{NodeId, ResourceId},
    lease::{self, Revocation, RevokedSubject},
    resource::Health,
    sync::{HealthReport, Hello, Item, ItemKey, Peer, ServerFrame},
    time::UnixMillis,
};
use tokio::sync::{
    Notify,
    broadcast::{self, error::RecvError},
};
use tokio_util::sync::CancellationToken;

use super::{
    hub::{ConnectionId, Hub, Next, ORG, scopes_of},
    views::Sources,
};
use crate::{
    catalogue::Catalogue,
    health::board::HealthBoard,
    secret::{self, NoEntropy},
    store::{Changes, Op, Store, StoreError},
};

/// Revocations younger than this can still matter to somebody's lease: they are told to each node that connects.
pub const REVOCATIONS_MATTER: Duration =
    Duration::from_secs(lease::LIFETIME.as_secs() + lease::FAIL_STATIC.as_secs() + lease::CLOCK_SKEW.as_secs());
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
    /// Wakes those who wait for a health report.
    reported: Notify,
    /// Connections between two long polls.
    resting: Mutex<HashMap<Peer, (Subscription, Instant)>>,
}

struct State {
    hub: Hub,
    wakers: HashMap<ConnectionId, Arc<Notify>>,
    lease_keys: Vec<Item>,
    health: HealthBoard,
    draining: BTreeSet<NodeId>,
    presence: BTreeMap<NodeId, Presence>,
}

/// Passes changes of the store on to an [`Exchange`]. Changes since it was made are not missed.
pub struct Follower {
    exchange: Exchange,
    changes: broadcast::Receiver<Arc<Changes>>,
}

/// What is known of a node's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Whether it is connected now.
    pub connected: bool,
    /// The program and its version, as it says.
    pub agent: String,
    pub last_seen: UnixMillis,
    /// Whether it has said that it takes no new streams.
    pub draining: bool,
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
        let hub = Hub::new(org.id, org.epoch.clone(), first_revision(store.clock().now())?);
        let state = State {
            hub,
            wakers: HashMap::new(),
            lease_keys,
            health: HealthBoard::default(),
            draining: BTreeSet::new(),
            presence: BTreeMap::new(),
        };
        let shared = Shared { store, state: Mutex::new(state), reported: Notify::new(), resting: Mutex::default() };
        let exchange = Self { shared: Arc::new(shared) };
        Ok((exchange.clone(), Follower { exchange, changes }))
    }

    /// Admits a peer whose certificate and standing were checked.
    #[must_use]
    pub fn admit(&self, peer: Peer, hello: &Hello) -> Subscription {
        let woken = Arc::new(Notify::new());
        let now = self.shared.store.clock().now();
        let mut state = self.lock();
        state.load(&self.shared.store, peer);
        let id = state.hub.connect(peer, hello, now);
        state.wakers.insert(id, Arc::clone(&woken));
        if let Peer::Node { node } = peer {
            state.health.node_came(node);
            let draining = state.draining.contains(&node);
            let presence = Presence { connected: true, agent: shown(&hello.agent), last_seen: now, draining };
            state.presence.insert(node, presence);
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
            state.hub.nodes()
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
        let changed = state.health.report(node, reports, known, Instant::now());
        state.health_changed(&self.shared.store, &changed);
        drop(state);
        self.shared.reported.notify_waiters();
    }

    /// The node takes no new streams, or takes them again.
    pub fn set_draining(&self, node: NodeId, draining: bool) {
        let mut state = self.lock();
        let changed = if draining { state.draining.insert(node) } else { state.draining.remove(&node) };
        if let Some(presence) = state.presence.get_mut(&node) {
            presence.draining = draining;
        }
        if changed && state.hub.view(ORG).is_some() {
            state.refresh(&self.shared.store, &[ORG.to_owned()]);
        }
    }

    /// What is known of a node's connection; `None` when it has not connected since this program started.
    #[must_use]
    pub fn presence(&self, node: NodeId) -> Option<Presence> {
        let state = self.lock();
        let mut presence = state.presence.get(&node).cloned()?;
        if presence.connected {
            presence.last_seen = self.shared.store.clock().now();
        }
        Some(presence)
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

    fn sweep(&self, now: Instant) {
        let over = |since: Instant| now.saturating_duration_since(since) >= REST;
        let left: Vec<_> = self.resting().extract_if(|_, (_, since)| over(*since)).collect();
        drop(left);
        let catalogue = self.shared.store.catalogue();
        let mut state = self.lock();
        state.hub.sweep(now);
        let changed = state.health.sweep(|resource| catalogue.resources.contains_key(&resource), now);
        state.health_changed(&self.shared.store, &changed);
        state.presence.retain(|node, _| catalogue.nodes.contains_key(node));
        state.draining.retain(|node| catalogue.nodes.contains_key(node));
    }

    fn lock(&self) -> Locked<'_> {
        Locked(self.shared.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Follower {
    /// Follows the store until it is cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let store = self.exchange.shared.store.clone();
        let mut sweeps = tokio::time::interval(SWEEP_EVERY);
        let mut heard = store.clock().now();
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = sweeps.tick() => self.exchange.sweep(Instant::now()),
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
        }
    }
}

/// The state under its lock. When it is released, those who have something to send are woken.
struct Locked<'a>(MutexGuard<'a, State>);

impl std::ops::Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl std::ops::DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        for id in self.0.hub.take_woken() {
            if let Some(waker) = self.0.wakers.get(&id) {
                waker.notify_one();
            }
        }
    }
}

impl State {
    /// Passes a change on to those that it concerns. Items are made from the newest catalogue, so that a scope that was
    /// loaded between commit and this call never goes back.
    fn follow(&mut self, store: &Store, changes: &Changes) {
        self.hub.revoke(&changes.revocations);
        let catalogue = store.catalogue();
        for entry in &changes.entries {
            if self.hub.view(&entry.scope).is_none() {
                continue;
            }
            let item = self.sources(&catalogue, store.clock().now()).item(&entry.scope, &entry.key);
            if item.is_none() && entry.op == Op::Put {
                tracing::trace!(scope = %entry.scope, "an item was gone before it was told");
            }
            let del = if item.is_none() { vec![entry.key.clone()] } else { vec![] };
            self.hub.patch(&entry.scope, item.into_iter().collect(), del);
        }
        self.close_revoked(changes.revocations.iter().map(|revocation| &revocation.subject));
    }

    /// Makes sure that the scopes of a peer are kept.
    fn load(&mut self, store: &Store, peer: Peer) {
        let missing: Vec<String> = scopes_of(peer).into_iter().filter(|scope| self.hub.view(scope).is_none()).collect();
        self.refresh(store, &missing);
    }

    /// Makes scopes anew.
    fn refresh(&mut self, store: &Store, scopes: &[String]) {
        let catalogue = store.catalogue();
        for scope in scopes {
            let view = self.sources(&catalogue, store.clock().now()).view(scope);
            self.hub.publish(scope, view, Instant::now());
        }
    }

    /// Tells all who may reach these resources how they are now.
    fn health_changed(&mut self, store: &Store, resources: &BTreeSet<ResourceId>) {
        let catalogue = store.catalogue();
        for resource in resources {
            let key = ItemKey::Access { id: *resource };
            let holding = |scope: &&String| self.hub.view(scope).is_some_and(|view| view.contains_key(&key));
            let scopes: Vec<String> = self.hub.scopes().filter(holding).cloned().collect();
            for scope in scopes {
                let item = self.sources(&catalogue, store.clock().now()).item(&scope, &key);
                self.hub.patch(&scope, item.into_iter().collect(), vec![]);
            }
        }
    }

    fn close_revoked<'a>(&mut self, subjects: impl Iterator<Item = &'a RevokedSubject>) {
        for subject in subjects {
            match subject {
                RevokedSubject::Account { account } => {
                    let of = |peer| matches!(peer, Peer::Device { account: its, .. } if its == *account);
                    self.hub.close_where("account_revoked", "The account was suspended or deleted", of);
                }
                RevokedSubject::Device { device } => {
                    let of = |peer| matches!(peer, Peer::Device { device: its, .. } if its == *device);
                    self.hub.close_where("login_ended", "The device was signed out", of);
                }
                RevokedSubject::Node { node } => {
                    let of = |peer| peer == Peer::Node { node: *node };
                    self.hub.close_where("node_revoked", "The gateway was deleted or enrolled anew", of);
                }
                RevokedSubject::Grant { .. } | RevokedSubject::Resource { .. } | RevokedSubject::Access { .. } => {}
            }
        }
    }

    fn sources<'a>(&'a self, catalogue: &'a Catalogue, now: UnixMillis) -> Sources<'a> {
        Sources { catalogue, lease_keys: &self.lease_keys, health: &self.health, draining: &self.draining, now }
    }
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
