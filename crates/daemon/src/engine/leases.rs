//! Leases: which are held, when each is renewed, what is asked for next.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use postern_proto::{
    api::IssuedLease,
    id::ResourceId,
    lease::{FAIL_STATIC, LIFETIME, RENEW_AFTER, Revocation, RevokedSubject, StreamSubject},
    time::UnixMillis,
};

use super::{
    Now, Owner,
    backoff::{Jitter, backoff},
};

/// Most resources in one request (`proto::api::LeaseRequest`).
const MAX_BATCH: usize = 1000;
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// The same resource is asked for at most this often, whatever streams wish.
const LEAST_APART: Duration = Duration::from_secs(1);
/// After a "no", the same question is put again after this time; a change of the grant puts it at once.
const DENIED_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct LeaseBook {
    held: BTreeMap<ResourceId, Held>,
    /// Not to be asked for before then, whoever wants it (boot clock).
    not_before: BTreeMap<ResourceId, Duration>,
    /// Asked for by streams, whatever the renewal time says.
    needed: BTreeSet<ResourceId>,
    under_way: Option<BTreeSet<ResourceId>>,
    /// Resources whose access changed since the request under way was made: its answer is about the time before.
    overtaken: BTreeSet<ResourceId>,
    failures: u32,
    retry_at: Duration,
    /// The earliest time at which something is to be done, as of the last look.
    due: Option<Duration>,
}

#[derive(Debug)]
struct Held {
    lease: IssuedLease,
    grant: Option<String>,
    /// Boot clock, as the next.
    renew_at: Duration,
    until: Duration,
}

impl LeaseBook {
    /// A stream could not go on without a fresh lease.
    pub(super) fn need(&mut self, id: ResourceId, now: Now) {
        self.needed.insert(id);
        if self.failures > 0 {
            // A person waits: do not sit out a long pause.
            self.retry_at = self.retry_at.min(now.boot.saturating_add(LEAST_APART));
        }
    }

    /// Keeps a lease and says until when it may be used for new streams: to its end, and on through the fail-static
    /// window (the gateways know whether the control plane is really away and have the last word).
    ///
    /// A fresh lease is as old as the control plane's own clock says: not at all. Only the `age` of a kept one is
    /// measured with our wall clock.
    pub(super) fn issued(
        &mut self,
        lease: IssuedLease,
        grant: Option<String>,
        age: Duration,
        now: Now,
        jitter: &mut Jitter,
    ) -> Duration {
        let life = lease.not_after.since(lease.issued_at).min(LIFETIME);
        let renew = RENEW_AFTER.min(life.mul_f64(2.0 / 3.0));
        let renew = renew.saturating_sub(jitter.between(Duration::ZERO, renew / 10));
        let from_birth = |span: Duration| now.boot.saturating_add(span.saturating_sub(age));
        let mut until = from_birth(life + FAIL_STATIC);
        if let Some(end) = lease.grant_ends {
            until = until.min(now.boot.saturating_add(end.since(now.wall)));
        }
        let id = lease.resource;
        self.needed.remove(&id);
        self.held.insert(id, Held { lease, grant, renew_at: from_birth(renew), until });
        until
    }

    pub(super) fn holds(&self, id: ResourceId) -> bool {
        self.held.contains_key(&id)
    }

    /// Returns whether a lease is lost by it.
    pub(super) fn denied(&mut self, id: ResourceId, now: Now) -> bool {
        self.needed.remove(&id);
        let pause = if self.overtaken.contains(&id) { LEAST_APART } else { DENIED_PAUSE };
        self.not_before.insert(id, now.boot.saturating_add(pause));
        self.held.remove(&id).is_some()
    }

    /// Whether the answer that comes now was given before the access to this resource changed.
    pub(super) fn is_overtaken(&self, id: ResourceId) -> bool {
        self.overtaken.contains(&id)
    }

    /// The request under way was answered.
    pub(super) fn answered(&mut self, now: Now) {
        for id in self.under_way.take().unwrap_or_default() {
            let not_before = self.not_before.entry(id).or_default();
            *not_before = (*not_before).max(now.boot.saturating_add(LEAST_APART));
        }
        self.overtaken.clear();
        self.failures = 0;
        self.retry_at = Duration::ZERO;
    }

    pub(super) fn failed(&mut self, now: Now, jitter: &mut Jitter) {
        self.under_way = None;
        self.overtaken.clear();
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now.boot.saturating_add(backoff(self.failures, FIRST_RETRY, LAST_RETRY, jitter));
    }

    /// Nobody will answer the request under way.
    pub(super) fn void_request(&mut self) {
        self.under_way = None;
        self.overtaken.clear();
        self.retry_at = Duration::ZERO;
    }

    pub(super) const fn retry_now(&mut self) {
        self.retry_at = Duration::ZERO;
    }

    /// The resource or its grant changed: renew at once, but keep what is held until then.
    pub(super) fn expire(&mut self, id: ResourceId) {
        self.not_before.remove(&id);
        if self.under_way.is_some() {
            self.overtaken.insert(id);
        }
        if let Some(held) = self.held.get_mut(&id) {
            held.renew_at = Duration::ZERO;
        }
    }

    /// Returns whether there was a lease.
    pub(super) fn remove(&mut self, id: ResourceId) -> bool {
        self.not_before.remove(&id);
        self.needed.remove(&id);
        self.held.remove(&id).is_some()
    }

    /// Forgets everything and says what was held.
    pub(super) fn clear(&mut self) -> Vec<ResourceId> {
        std::mem::take(self).held.into_keys().collect()
    }

    /// Forgets leases that a revocation makes worthless and says which. A lease of an unknown grant counts as hit by
    /// the revocation of any grant: another one is asked for, nothing is lost.
    pub(super) fn revoked(&mut self, revocations: &[Revocation], owner: Owner) -> Vec<ResourceId> {
        let is_hit =
            |id: ResourceId, held: &Held| revocations.iter().any(|revocation| hits(revocation, id, held, owner));
        let hit: Vec<_> = self.held.iter().filter(|(id, held)| is_hit(**id, held)).map(|(id, _)| *id).collect();
        for id in &hit {
            self.held.remove(id);
            self.not_before.remove(id);
        }
        hit
    }

    pub(super) fn grant_ends(&self, id: ResourceId) -> Option<UnixMillis> {
        self.held.get(&id)?.lease.grant_ends
    }

    pub(super) fn span(&self, id: ResourceId) -> Option<(UnixMillis, UnixMillis)> {
        let lease = &self.held.get(&id)?.lease;
        Some((lease.issued_at, lease.not_after))
    }

    pub(super) fn ending_before(&self, then: UnixMillis) -> BTreeSet<ResourceId> {
        let ends = |held: &Held| held.lease.grant_ends.is_some_and(|end| end < then);
        self.held.iter().filter(|(_, held)| ends(held)).map(|(id, _)| *id).collect()
    }

    pub(super) fn all(&self) -> Vec<IssuedLease> {
        self.held.values().map(|held| held.lease.clone()).collect()
    }

    /// When to look again.
    pub(super) const fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Leases that have ended, and what to ask the control plane for now. At most one request is under way.
    pub(super) fn next(
        &mut self,
        wanted: &BTreeSet<ResourceId>,
        now: Now,
    ) -> (Vec<ResourceId>, Option<Vec<ResourceId>>) {
        let ended: Vec<_> = self.held.iter().filter(|(_, held)| held.until <= now.boot).map(|(id, _)| *id).collect();
        for id in &ended {
            self.held.remove(id);
        }
        self.needed.retain(|id| wanted.contains(id));
        self.not_before.retain(|id, _| wanted.contains(id));
        let mut request = Vec::new();
        let mut due = self.held.values().map(|held| held.until).min();
        for id in wanted {
            let renew_at = match self.held.get(id) {
                Some(held) if !self.needed.contains(id) => held.renew_at,
                Some(_) | None => Duration::ZERO,
            };
            let at = renew_at.max(self.retry_at).max(self.not_before.get(id).copied().unwrap_or_default());
            if at > now.boot {
                due = Some(due.map_or(at, |due| due.min(at)));
            } else if request.len() < MAX_BATCH {
                request.push(*id);
            }
        }
        // While a request is under way its answer wakes us.
        let request = (self.under_way.is_none() && !request.is_empty()).then_some(request);
        if let Some(request) = &request {
            self.under_way = Some(request.iter().copied().collect());
        }
        self.due = due;
        (ended, request)
    }
}

fn hits(revocation: &Revocation, resource: ResourceId, held: &Held, owner: Owner) -> bool {
    if held.lease.issued_at > revocation.at {
        return false;
    }
    if matches!(revocation.subject, RevokedSubject::Grant { .. }) && held.grant.is_none() {
        return true;
    }
    let grant = held.grant.clone().unwrap_or_default();
    revocation.subject.matches(&StreamSubject { account: owner.account, device: owner.device, resource, grant })
}
