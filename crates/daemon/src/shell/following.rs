//! Following the control plane.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use postern_local_api::{cause::Cause, message::ControlLink};
use postern_proto::{
    frame::ResetCode,
    lease::Verifier,
    replica::{Change, Replica},
    resource::ClientResource,
    sync::{Item, ItemKey, NetworkSettings, RelayInfo},
    time::UnixMillis,
};
use postern_tunnel::control::{CallError, ControlClient, SyncEvent, SyncHandle, SyncLoop, SyncTiming};
use tokio_util::sync::CancellationToken;

use super::{Destination, Shell};
use crate::{carriage::printable, clock, engine::Input, gateways::Listed, store::LastReplica};

/// A clock that differs by more is told of: certificates begin and end by it.
const MAX_SKEW_SECONDS: u64 = 300;
/// Changes that are taken together at most.
const AT_ONCE: usize = 10_000;
/// How long after a refusal the sign-in is checked again.
const CHECK_APART: std::time::Duration = std::time::Duration::from_secs(30);

/// The sync connection of one account.
pub(super) struct Following {
    handle: SyncHandle,
    cancel: CancellationToken,
    /// Taken from the queue already.
    next: Option<SyncEvent>,
}

impl Following {
    pub(super) fn start(control: &Arc<ControlClient>, replica: Replica) -> Self {
        let agent = concat!("posternd/", env!("CARGO_PKG_VERSION"));
        let (sync, handle) = SyncLoop::new(Arc::clone(control), agent, replica, SyncTiming::default());
        let cancel = CancellationToken::new();
        tokio::spawn(sync.run(cancel.clone()));
        Self { handle, cancel, next: None }
    }

    pub(super) fn stop(self) {
        self.cancel.cancel();
    }

    pub(super) fn replica(&self) -> Replica {
        self.handle.replica().clone()
    }
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Following")
    }
}

/// The next event; never, while nothing is followed.
pub(super) async fn next(following: &mut Option<Following>) -> SyncEvent {
    let event = match following {
        Some(following) => match following.next.take() {
            Some(event) => Some(event),
            None => following.handle.events.recv().await,
        },
        None => None,
    };
    match event {
        Some(event) => event,
        None => std::future::pending().await,
    }
}

impl Shell {
    pub(super) async fn follow(&mut self, event: SyncEvent) {
        match event {
            SyncEvent::Connected { now, .. } => {
                if let Some(account) = &self.account {
                    self.link =
                        ControlLink::Connected { url: account.control().url().to_string(), since: clock::wall() };
                }
                self.parts.skew.note(now, clock::wall());
                self.notes.skew = skew(now, clock::wall());
                self.tell(Input::ControlReached).await;
            }
            SyncEvent::Changed(changes) => self.take_changes(changes).await,
            SyncEvent::Revoked(revocations) => {
                tracing::info!(count = revocations.len(), "access was revoked");
                self.tell(Input::Revoked(revocations)).await;
            }
            SyncEvent::Away { error, retry_in } => self.lose_control(&error, retry_in),
            // For nodes.
            SyncEvent::Complete | SyncEvent::Checked | SyncEvent::CheckHealth(_) => {}
        }
    }

    /// A control plane that is away is tried now.
    pub(super) fn retry_control(&mut self) {
        let (Some(account), ControlLink::Away { .. }) = (&self.account, &self.link) else { return };
        let Some(before) = self.following.take() else { return };
        let replica = before.replica();
        before.stop();
        self.following = Some(Following::start(account.control(), replica));
        self.link = ControlLink::Connecting { url: account.control().url().to_string() };
    }

    /// Brings engine, gateways and destinations to what the replica holds.
    pub(super) async fn take_replica(&mut self) {
        let Some(following) = &self.following else { return };
        let (access, gateways, settings) = held(&following.handle.replica());
        let there: HashSet<_> = access.iter().map(|resource| resource.id).collect();
        self.destinations.retain(|id, _| there.contains(id));
        self.note_destinations(&access);
        if let Some(settings) = settings {
            self.note_network_settings(&settings, &gateways);
        }
        self.set_gateways(gateways);
        (self.upkeep.replica_changed, self.upkeep.access_changed) = (true, true);
        self.tell(Input::Access(access)).await;
    }

    /// The same for changes, and for those that have come meanwhile: a thousand changes one after another would each
    /// look at everything.
    async fn take_changes(&mut self, first: Vec<Change>) {
        let mut changes = first;
        while let Some(following) = &mut self.following
            && changes.len() < AT_ONCE
        {
            match following.handle.events.try_recv() {
                Ok(SyncEvent::Changed(more)) => changes.extend(more),
                Ok(other) => {
                    following.next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        if changes.iter().any(|change| change.snapshot) {
            return self.take_replica().await;
        }
        let (mut put, mut removed) = (BTreeMap::new(), BTreeSet::new());
        let mut gateways = false;
        for change in changes {
            for key in change.removed {
                match key {
                    ItemKey::Access { id } => {
                        put.remove(&id);
                        removed.insert(id);
                    }
                    ItemKey::Gateway { .. } | ItemKey::Relay { .. } | ItemKey::Cluster { .. } => gateways = true,
                    _ => {}
                }
            }
            for item in change.put {
                match item {
                    Item::Access(resource) => {
                        put.insert(resource.id, resource);
                    }
                    // The names of gateways are kept out of the virtual network.
                    Item::Gateway(_) | Item::Relay(_) | Item::Cluster(_) | Item::Settings(_) => gateways = true,
                    _ => {}
                }
            }
        }
        if gateways && let Some(following) = &self.following {
            let (_, gateways, settings) = held(&following.handle.replica());
            if let Some(settings) = settings {
                self.note_network_settings(&settings, &gateways);
            }
            self.set_gateways(gateways);
        }
        let put: Vec<_> = put.into_values().collect();
        for id in &removed {
            self.destinations.remove(id);
        }
        let is_new = |resource: &ClientResource| !self.destinations.contains_key(&resource.id);
        self.upkeep.access_changed |= gateways || !removed.is_empty() || put.iter().any(is_new);
        self.upkeep.replica_changed = true;
        self.note_destinations(&put);
        // First what is gone: a resource that went and came back loses its streams in between.
        self.tell(Input::AccessChanged { put, removed: removed.into_iter().collect() }).await;
    }

    fn note_destinations(&mut self, access: &[ClientResource]) {
        for resource in access {
            let destination = self
                .destinations
                .entry(resource.id)
                .or_insert_with(|| Arc::new(Destination::new(resource.id, resource.ends())));
            destination.set_via(resource.ends());
            if let Some(at) = self.last_used.get(&resource.id) {
                destination.note_used(*at);
            }
        }
    }

    fn set_gateways(&self, gateways: Vec<Listed>) {
        let Some(following) = &self.following else { return };
        let relays = relays(&following.handle.replica());
        if let Err(error) = self.parts.carriage.gateways().set(gateways, relays) {
            tracing::error!("a gateway cannot be dialled: {error}");
        }
        let removed = self.parts.carriage.gateways().removed();
        let cut = self.parts.carriage.streams.cut_over(&removed, ResetCode::Revoked);
        if cut > 0 {
            tracing::info!(cut, "streams cut because their worker was removed from its cluster");
        }
    }

    pub(super) async fn save_replica(&mut self) {
        (self.upkeep.replica_changed, self.upkeep.access_changed) = (false, false);
        let Some(following) = &self.following else { return };
        let (store, replica) = (self.parts.store.clone(), LastReplica(following.replica()));
        self.saver.run(move || store.save(&replica)).await;
    }

    /// The keys that leases are signed with, as the control plane announced them.
    pub(super) fn lease_keys(&self) -> Verifier {
        let Some(following) = &self.following else { return Verifier::default() };
        let replica = following.handle.replica();
        let keys: Vec<(String, Vec<u8>)> = replica
            .items()
            .filter_map(|item| match item {
                Item::LeaseKey { id, public } => Some((id.clone(), unhex(public)?)),
                _ => None,
            })
            .collect();
        Verifier::new(keys.iter().map(|(id, key)| (id.as_str(), key.as_slice())))
    }

    fn lose_control(&mut self, error: &CallError, retry_in: std::time::Duration) {
        let Some(account) = &self.account else { return };
        let now = clock::now();
        let since = match &self.link {
            ControlLink::Away { since, .. } => *since,
            _ => now.wall,
        };
        self.link = ControlLink::Away {
            url: account.control().url().to_string(),
            since,
            error: printable(&error.to_string()),
            retry_at: now.wall.plus(retry_in),
        };
        let refused = error.problem().is_some_and(|problem| [401, 403].contains(&problem.status));
        if refused && !self.upkeep.checking_sign_in && self.upkeep.check_sign_in_at <= now.boot {
            self.upkeep.checking_sign_in = true;
            self.upkeep.check_sign_in_at = now.boot + CHECK_APART;
            self.check_sign_in();
        }
    }
}

/// What concerns us of a replica: what may be reached, the gateways, and the organisation's network settings.
fn held(replica: &Replica) -> (Vec<ClientResource>, Vec<Listed>, Option<NetworkSettings>) {
    let (mut access, mut gateways, mut settings) = (Vec::new(), Vec::new(), None);
    for item in replica.items() {
        match item {
            Item::Access(resource) => access.push(resource.clone()),
            Item::Gateway(gateway) => gateways.push(Listed::Gateway(gateway.clone())),
            Item::Cluster(cluster) => gateways.push(Listed::Cluster(cluster.clone())),
            Item::Settings(found) => settings = Some(found.clone()),
            _ => {}
        }
    }
    (access, gateways, settings)
}

fn relays(replica: &Replica) -> Vec<RelayInfo> {
    let relay = |item: &Item| if let Item::Relay(relay) = item { Some(relay.clone()) } else { None };
    replica.items().filter_map(relay).collect()
}

/// A clock that is far off.
fn skew(theirs: UnixMillis, ours: UnixMillis) -> Option<Cause> {
    let (ahead, behind) = (ours.since(theirs).as_secs(), theirs.since(ours).as_secs());
    let (seconds, slow) = (ahead.max(behind), behind > ahead);
    (seconds > MAX_SKEW_SECONDS).then_some(Cause::ClockSkew { minutes: seconds / 60, slow })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_far_off_is_told_of_with_its_direction() {
        let minutes = |n: u64| UnixMillis(1_000_000_000 + n * 60_000);
        assert_eq!(skew(minutes(10), minutes(14)), None);
        assert_eq!(skew(minutes(10), minutes(20)), Some(Cause::ClockSkew { minutes: 10, slow: false }));
        assert_eq!(skew(minutes(20), minutes(10)), Some(Cause::ClockSkew { minutes: 10, slow: true }));
    }

    #[test]
    fn keys_are_read_from_hex() {
        assert_eq!(unhex("00ff").unwrap(), [0, 255]);
        assert_eq!(unhex("0g"), None);
    }
}
