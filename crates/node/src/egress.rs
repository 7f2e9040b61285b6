//! The egress decision: whether a stream may be opened, decided here from the lease that the client shows and from
//! nobody else's word (DESIGN §4.4).
//!
//! Pure: the clock and how lately the control plane was heard from are arguments.

mod cache;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use postern_proto::{
    head::Request,
    id::{ClusterId, NodeId, ResourceId},
    lease::{Claims, Contact, Holder, Refusal, Revocation, StreamSubject},
    problem::Problem,
    replica::Change,
    resource::{NodeResource, OutOfReach},
    time::UnixMillis,
};
use tokio::sync::watch;

use self::cache::LeaseCache;
use crate::{
    catalogue::{Catalogue, Effects},
    dial::Target,
    revocations::{Revocations, StoredRevocations},
};

/// Verified leases that are remembered; an Ed25519 check costs about 40 µs, a look-up 1 µs.
const CACHED_LEASES: usize = 16_384;

/// Decides about streams. Shared by all of them.
pub struct Egress {
    catalogue: Mutex<Catalogue>,
    leases: Mutex<LeaseCache>,
    revocations: Mutex<Revocations>,
    /// Which node this is; `None` dials whatever it knows.
    node: Option<NodeId>,
    /// The cluster that this node is a worker of.
    cluster: Option<ClusterId>,
    changes: watch::Sender<()>,
}

/// A stream that may be opened.
#[derive(Clone, Debug)]
pub struct Permit {
    pub claims: Arc<Claims>,
    pub resource: Arc<NodeResource>,
    /// What is to be dialled: one of the resource's hosts at one of its ports.
    pub target: Target,
}

/// Why a stream may not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    #[error(transparent)]
    Lease(#[from] Refusal),
    #[error("the lease was revoked: {0}")]
    Revoked(String),
    #[error("this node knows no such resource")]
    UnknownResource { leased_at: UnixMillis },
    #[error("resource {name} is reached over other nodes")]
    Elsewhere { name: String, nodes: Vec<NodeId> },
    #[error("the resource is reached over {over}, and not here")]
    OtherDoor { over: String },
    #[error("of resource {name}, {why}")]
    OutOfReach { name: String, why: OutOfReach },
}

impl Egress {
    #[must_use]
    pub fn new(catalogue: Catalogue, revocations: Revocations) -> Self {
        Self {
            catalogue: Mutex::new(catalogue),
            leases: Mutex::new(LeaseCache::new(CACHED_LEASES)),
            revocations: Mutex::new(revocations),
            node: None,
            cluster: None,
            changes: watch::Sender::new(()),
        }
    }

    /// The same as the egress of a node, which dials only the resources that are meant for it.
    #[must_use]
    pub fn at(self, node: NodeId) -> Self {
        Self { node: Some(node), ..self }
    }

    /// The same as that of a worker.
    #[must_use]
    pub fn of(self, cluster: Option<ClusterId>) -> Self {
        Self { cluster, ..self }
    }

    /// Whether `holder` may open the stream that is asked for, which shows its lease.
    pub fn decide(
        &self,
        holder: &Holder,
        request: &Request,
        contact: Contact,
        now: UnixMillis,
    ) -> Result<Permit, Denial> {
        let claims = self.open_lease(request.lease())?;
        let known = lock(&self.catalogue).resource(request.resource());
        let strict = known.as_ref().is_some_and(|resource| resource.strict);
        claims.check(holder, request.resource(), strict, contact, now)?;
        self.not_revoked(&claims)?;
        let resource = known.ok_or_else(|| self.unknown(&claims))?;
        self.is_meant(&resource, self.node)?;
        let target = reach(&resource, request)?;
        Ok(Permit { claims, resource, target })
    }

    /// Whether `holder`, who shows this lease, has something to reach over `relay`; when the lease was signed. What it may
    /// reach there is for the relay to decide.
    pub fn may_pass(
        &self,
        holder: &Holder,
        lease: &str,
        relay: NodeId,
        contact: Contact,
        now: UnixMillis,
    ) -> Result<UnixMillis, Denial> {
        let claims = self.open_lease(lease)?;
        let known = lock(&self.catalogue).resource(claims.resource);
        let strict = known.as_ref().is_some_and(|resource| resource.strict);
        claims.check(holder, claims.resource, strict, contact, now)?;
        self.not_revoked(&claims)?;
        self.is_meant(&*known.ok_or(Denial::UnknownResource { leased_at: claims.issued_at })?, Some(relay))?;
        Ok(claims.issued_at)
    }

    /// Why the control plane tells this node nothing of the resource of a lease that it has signed.
    fn unknown(&self, claims: &Claims) -> Denial {
        match claims.cluster {
            cluster if cluster == self.cluster => Denial::UnknownResource { leased_at: claims.issued_at },
            Some(cluster) => Denial::OtherDoor { over: format!("cluster {cluster}") },
            None => Denial::OtherDoor { over: "gateways".to_owned() },
        }
    }

    /// Whether this node dials the resource.
    #[must_use]
    pub fn dials(&self, id: ResourceId) -> bool {
        self.resource(id).is_some_and(|resource| self.is_meant(&resource, self.node).is_ok())
    }

    fn is_meant(&self, resource: &NodeResource, node: Option<NodeId>) -> Result<(), Denial> {
        match (&resource.egress, node) {
            (Some(nodes), Some(node)) if !nodes.contains(&node) => {
                Err(Denial::Elsewhere { name: resource.name.clone(), nodes: nodes.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Whether neither a revocation nor a change of the resource has come meanwhile. A stream asks again once it can be
    /// found by those, so that none falls between.
    pub fn still_good(&self, permit: &Permit, request: &Request) -> Result<(), Denial> {
        self.not_revoked(&permit.claims)?;
        let known = lock(&self.catalogue).resource(request.resource());
        let known = known.ok_or(Denial::UnknownResource { leased_at: permit.claims.issued_at })?;
        if !Arc::ptr_eq(&known, &permit.resource) {
            self.is_meant(&known, self.node)?;
            reach(&known, request)?;
        }
        Ok(())
    }

    fn not_revoked(&self, claims: &Claims) -> Result<(), Denial> {
        match lock(&self.revocations).voids(claims) {
            Some(reason) => Err(Denial::Revoked(reason.to_owned())),
            None => Ok(()),
        }
    }

    /// Takes a change of what the control plane says.
    pub fn apply(&self, change: &Change) -> Effects {
        let effects = lock(&self.catalogue).apply(change);
        if effects.keys_changed {
            lock(&self.leases).clear();
        }
        self.changes.send_replace(());
        effects
    }

    /// Tells of each [`Self::apply`].
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Voids the leases that match.
    pub fn revoke(&self, revocations: &[Revocation], now: UnixMillis) {
        lock(&self.revocations).add(revocations, now);
    }

    /// This node may serve nothing any more.
    pub fn forget_resources(&self) {
        *lock(&self.catalogue) = Catalogue::default();
        lock(&self.leases).clear();
    }

    #[must_use]
    pub fn stored_revocations(&self) -> StoredRevocations {
        lock(&self.revocations).stored()
    }

    #[must_use]
    pub fn resource(&self, id: ResourceId) -> Option<Arc<NodeResource>> {
        lock(&self.catalogue).resource(id)
    }

    #[must_use]
    pub fn resources(&self) -> Vec<Arc<NodeResource>> {
        lock(&self.catalogue).resources().cloned().collect()
    }

    fn open_lease(&self, token: &str) -> Result<Arc<Claims>, Refusal> {
        let hash = hash_of(token);
        if let Some(claims) = lock(&self.leases).get(&hash) {
            return Ok(claims);
        }
        // Verified without a lock: other streams go on meanwhile.
        let verifier = Arc::clone(lock(&self.catalogue).verifier());
        let claims = Arc::new(verifier.open(token)?);
        let catalogue = lock(&self.catalogue);
        if Arc::ptr_eq(catalogue.verifier(), &verifier) {
            lock(&self.leases).insert(hash, Arc::clone(&claims));
        }
        Ok(claims)
    }
}

impl Permit {
    /// What the stream leaves behind to be found by revocations.
    #[must_use]
    pub fn subject(&self) -> StreamSubject {
        StreamSubject {
            account: self.claims.account,
            device: self.claims.device,
            resource: self.claims.resource,
            grant: self.claims.grant.clone(),
        }
    }
}

impl Denial {
    /// What the client is told. 401: a fresh lease may help, so that it renews and tries once more; the control plane
    /// then has the last word.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (status, code, title) = match self {
            Self::Revoked(_) => (401, "lease_revoked", "Your access was changed"),
            Self::OtherDoor { .. } => (421, "other_door", "The resource is reached another way"),
            Self::Elsewhere { .. } => (421, "other_node", "The resource is reached over another node"),
            Self::UnknownResource { .. } => (404, "unknown_resource", "This node knows no such resource"),
            Self::OutOfReach { why: OutOfReach::Port { .. }, .. } => {
                (403, "port_not_allowed", "The resource does not include this port")
            }
            Self::OutOfReach { why: OutOfReach::Host { .. }, .. } => {
                (403, "host_not_allowed", "The resource does not include this host")
            }
            Self::Lease(Refusal::Expired) => (401, "lease_expired", "Your access has to be renewed"),
            Self::Lease(Refusal::UnknownKey) => (401, "lease_key_unknown", "Your access has to be renewed"),
            Self::Lease(Refusal::GrantEnded) => (403, "grant_ended", "Your access has ended"),
            Self::Lease(Refusal::ControlPlaneAway) => {
                (503, "control_plane_away", "The node has not heard from its control plane for too long")
            }
            Self::Lease(Refusal::NotYetValid) => (403, "lease_in_future", "The clocks of the machines differ too much"),
            Self::Lease(Refusal::Malformed | Refusal::BadSignature) => {
                (403, "lease_invalid", "The node does not accept this lease")
            }
            Self::Lease(Refusal::ForeignOrg | Refusal::ForeignHolder | Refusal::OtherResource) => {
                (403, "lease_foreign", "The node does not accept this lease")
            }
        };
        Problem::new(status, code, title).with_detail(format!("{self}."))
    }

    /// Whether an administrator should know: what no honest client does, and tries to reach more than the resource.
    #[must_use]
    pub const fn suspicious(&self) -> bool {
        matches!(
            self,
            Self::OutOfReach { .. }
                | Self::Lease(
                    Refusal::Malformed
                        | Refusal::BadSignature
                        | Refusal::ForeignOrg
                        | Refusal::ForeignHolder
                        | Refusal::OtherResource
                )
        )
    }
}

/// What is to be dialled, when the resource includes it.
fn reach(resource: &NodeResource, request: &Request) -> Result<Target, Denial> {
    let out_of_reach = |why| Denial::OutOfReach { name: resource.name.clone(), why };
    Target::of(resource, request.wanted()).map_err(out_of_reach)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash_of(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests;
