//! What an exchange holds, and how a change of the store changes it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::{Deref, DerefMut},
    sync::{Arc, MutexGuard},
    time::Instant,
};

use postern_proto::{
    id::{NodeId, ResourceId},
    lease::RevokedSubject,
    sync::{CLUSTERS, Item, ItemKey, ParkedAt, Peer},
    time::UnixMillis,
};
use tokio::sync::Notify;

use super::{
    super::{
        hub::{ConnectionId, Hub, ORG, account_scope, is_of_account},
        views::{SharedItems, Sources},
    },
    Presence,
    remote::Remote,
};
use crate::{
    access,
    catalogue::{Catalogue, Leaving},
    health::{attendance::Roll, board::HealthBoard},
    store::{Changes, Store},
};

pub(super) struct State {
    pub(super) hub: Hub,
    pub(super) wakers: HashMap<ConnectionId, Arc<Notify>>,
    pub(super) lease_keys: Vec<Item>,
    pub(super) health: HealthBoard,
    pub(super) draining: BTreeMap<NodeId, Leaving>,
    pub(super) parked: BTreeMap<NodeId, Vec<ParkedAt>>,
    pub(super) presence: BTreeMap<NodeId, Presence>,
    pub(super) shared: SharedItems,
    /// Which nodes were noted as here or away.
    pub(super) roll: Roll,
    /// What other control planes of the database know of nodes, and what they are to be told; see [`super::remote`].
    pub(super) remote: Remote,
}

/// The state under its lock. When it is released, those who have something to send are woken.
pub(super) struct Locked<'a>(pub(super) MutexGuard<'a, State>);

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for Locked<'_> {
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
    pub(super) fn new(hub: Hub, lease_keys: Vec<Item>, shared: bool) -> Self {
        Self {
            hub,
            wakers: HashMap::new(),
            lease_keys,
            health: HealthBoard::default(),
            draining: BTreeMap::new(),
            parked: BTreeMap::new(),
            presence: BTreeMap::new(),
            shared: SharedItems::default(),
            roll: Roll::default(),
            remote: Remote::new(shared),
        }
    }

    /// Passes a change on to those that it concerns. Items are made from the newest catalogue, so that a scope that was
    /// loaded between commit and this call never goes back.
    pub(super) fn follow(&mut self, store: &Store, changes: &Changes) {
        self.hub.revoke(&changes.revocations);
        let catalogue = store.catalogue();
        for entry in &changes.entries {
            if self.hub.view(&entry.scope).is_none() {
                continue;
            }
            let item = self.sources(&catalogue, store.clock().now()).item(&entry.scope, &entry.key);
            let del = if item.is_none() { vec![entry.key.clone()] } else { vec![] };
            self.hub.patch(&entry.scope, item.into_iter().collect(), del);
        }
        // Which nodes may dial what, and which belong together, hangs on all nodes. They seldom change.
        if changes.entries.iter().any(|entry| matches!(entry.key, ItemKey::Node { .. })) {
            let scopes: Vec<String> = self.hub.scopes().filter(|scope| !is_of_account(scope)).cloned().collect();
            self.refresh(store, &scopes);
            self.resources_changed(store, self.shared.held());
        }
        self.close_revoked(changes.revocations.iter().map(|revocation| &revocation.subject));
    }

    /// Notes what a node says of taking no new streams; whether that is news.
    pub(super) fn note_leaving(&mut self, node: NodeId, leaving: Leaving) -> bool {
        let before = if leaving.draining { self.draining.insert(node, leaving) } else { self.draining.remove(&node) };
        before.unwrap_or_default() != leaving
    }

    /// Tells everybody of gateways, relays and clusters anew.
    pub(super) fn refresh_entries(&mut self, store: &Store) {
        let scopes = [ORG, CLUSTERS].into_iter().filter(|scope| self.hub.view(scope).is_some());
        let scopes: Vec<String> = scopes.map(str::to_owned).collect();
        self.refresh(store, &scopes);
    }

    /// Makes sure that these scopes are kept.
    pub(super) fn load(&mut self, store: &Store, scopes: &[String]) {
        let missing: Vec<String> = scopes.iter().filter(|scope| self.hub.view(scope).is_none()).cloned().collect();
        self.refresh(store, &missing);
    }

    /// Makes scopes anew.
    pub(super) fn refresh(&mut self, store: &Store, scopes: &[String]) {
        let catalogue = store.catalogue();
        for scope in scopes {
            let view = self.sources(&catalogue, store.clock().now()).view(scope);
            self.hub.publish(scope, view, Instant::now());
        }
    }

    /// Tells all who may reach these resources how they are now.
    pub(super) fn resources_changed(&mut self, store: &Store, resources: impl IntoIterator<Item = ResourceId>) {
        let catalogue = store.catalogue();
        for resource in resources {
            let key = ItemKey::Access { id: resource };
            // Made once for all who hold it. Who holds it and may reach it no more is told by the change that took it away.
            let Some(item) = self.sources(&catalogue, store.clock().now()).access(resource) else { continue };
            for account in access::reachers(&catalogue, resource).collect::<BTreeSet<_>>() {
                let scope = account_scope(account);
                if self.hub.view(&scope).is_some_and(|view| view.contains_key(&key)) {
                    self.hub.patch(&scope, vec![Arc::clone(&item)], vec![]);
                }
            }
        }
    }

    pub(super) fn close_revoked<'a>(&mut self, subjects: impl Iterator<Item = &'a RevokedSubject>) {
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
                    self.hub.close_where("node_revoked", "The node was deleted or enrolled anew", of);
                }
                RevokedSubject::Grant { .. } | RevokedSubject::Resource { .. } | RevokedSubject::Access { .. } => {}
            }
        }
    }

    fn sources<'a>(&'a self, catalogue: &'a Catalogue, now: UnixMillis) -> Sources<'a> {
        Sources {
            catalogue,
            lease_keys: &self.lease_keys,
            health: &self.health,
            draining: &self.draining,
            parked: &self.parked,
            shared: &self.shared,
            now,
        }
    }
}
