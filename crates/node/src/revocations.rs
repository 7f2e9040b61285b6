//! What was revoked lately, so that a lease that was signed before opens nothing any more.

use std::{collections::HashMap, time::Duration};

use postern_proto::{
    lease::{CLOCK_SKEW, Claims, FAIL_STATIC, LIFETIME, Revocation, RevokedSubject},
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// How many revocations are held. When there are more, the oldest are folded into one instant before which no lease
/// counts: more leases than necessary are renewed, none is missed.
pub const MAX_REVOCATIONS: usize = 50_000;

/// How long a revocation matters: no lease that was signed before it can be in use any longer than this.
const MATTERS: Duration = Duration::from_secs(LIFETIME.as_secs() + FAIL_STATIC.as_secs() + 2 * CLOCK_SKEW.as_secs());

/// The latest revocation of each subject.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Revocations {
    latest: HashMap<RevokedSubject, Entry>,
    /// Leases signed at or before this instant count no more, whatever they are for.
    floor: UnixMillis,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    at: UnixMillis,
    reason: String,
}

/// The form on disk.
#[derive(Serialize, Deserialize)]
pub struct StoredRevocations {
    floor: UnixMillis,
    revocations: Vec<Revocation>,
}

impl Revocations {
    /// Adds revocations and forgets those that no lease can be caught by any more.
    pub fn add<'a>(&mut self, revocations: impl IntoIterator<Item = &'a Revocation>, now: UnixMillis) {
        for Revocation { subject, at, reason } in revocations {
            let entry = Entry { at: *at, reason: reason.clone() };
            match self.latest.get_mut(subject) {
                Some(known) if known.at < *at => *known = entry,
                Some(_) => {}
                None => {
                    self.latest.insert(subject.clone(), entry);
                }
            }
        }
        self.latest.retain(|_, entry| entry.at.plus(MATTERS) > now);
        if self.latest.len() > MAX_REVOCATIONS {
            self.fold();
        }
    }

    /// Why a lease is worth nothing any more.
    #[must_use]
    pub fn voids(&self, claims: &Claims) -> Option<&str> {
        if claims.issued_at <= self.floor {
            return Some("it is older than the revocations that this node can hold");
        }
        if self.latest.is_empty() {
            return None;
        }
        let entries = subjects(claims).into_iter().filter_map(|subject| self.latest.get(&subject));
        entries.filter(|entry| claims.issued_at <= entry.at).map(|entry| entry.reason.as_str()).next()
    }

    /// For the disk: revocations outlive a restart.
    #[must_use]
    pub fn stored(&self) -> StoredRevocations {
        let revocation = |(subject, entry): (&RevokedSubject, &Entry)| Revocation {
            subject: subject.clone(),
            at: entry.at,
            reason: entry.reason.clone(),
        };
        StoredRevocations { floor: self.floor, revocations: self.latest.iter().map(revocation).collect() }
    }

    fn fold(&mut self) {
        let mut instants: Vec<UnixMillis> = self.latest.values().map(|entry| entry.at).collect();
        instants.sort_unstable();
        if let Some(median) = instants.get(instants.len() / 2) {
            self.floor = self.floor.max(*median);
            self.latest.retain(|_, entry| entry.at > *median);
        }
    }
}

impl From<StoredRevocations> for Revocations {
    fn from(stored: StoredRevocations) -> Self {
        let entries = stored.revocations.into_iter();
        let latest = entries.map(|Revocation { subject, at, reason }| (subject, Entry { at, reason })).collect();
        Self { latest, floor: stored.floor }
    }
}

/// Every subject under which a lease can be revoked.
fn subjects(claims: &Claims) -> [RevokedSubject; 5] {
    let Claims { account, device, resource, .. } = *claims;
    [
        RevokedSubject::Account { account },
        RevokedSubject::Device { device },
        RevokedSubject::Grant { grant: claims.grant.clone() },
        RevokedSubject::Resource { resource },
        RevokedSubject::Access { account, resource },
    ]
}

#[cfg(test)]
mod tests {
    use postern_proto::id::{AccountId, DeviceId, OrgId, ResourceId};
    use proptest::prelude::*;
    use ulid::Ulid;

    use super::*;

    fn ulid(n: u8) -> Ulid {
        Ulid::from_parts(1, n.into())
    }

    fn claims((account, device, resource, grant, issued_at): (u8, u8, u8, u8, u64)) -> Claims {
        Claims {
            org: OrgId::from_ulid(ulid(0)),
            account: AccountId::from_ulid(ulid(account)),
            device: DeviceId::from_ulid(ulid(device)),
            cnf: String::new(),
            resource: ResourceId::from_ulid(ulid(resource)),
            revision: 1,
            grant: format!("grt_{grant}"),
            issued_at: UnixMillis(issued_at),
            not_after: UnixMillis(issued_at + 1000),
            grant_ends: None,
            cluster: None,
        }
    }

    fn revocation((kind, one, other, at): (u8, u8, u8, u64)) -> Revocation {
        let (account, resource) = (AccountId::from_ulid(ulid(one)), ResourceId::from_ulid(ulid(other)));
        let subject = match kind {
            0 => RevokedSubject::Account { account },
            1 => RevokedSubject::Device { device: DeviceId::from_ulid(ulid(one)) },
            2 => RevokedSubject::Grant { grant: format!("grt_{one}") },
            3 => RevokedSubject::Resource { resource },
            4 => RevokedSubject::Access { account, resource },
            _ => RevokedSubject::Node { node: postern_proto::id::NodeId::from_ulid(ulid(one)) },
        };
        Revocation { subject, at: UnixMillis(at), reason: "test".into() }
    }

    proptest! {
        #[test]
        fn a_lease_is_void_exactly_when_one_of_the_revocations_voids_it(
            revoked in proptest::collection::vec((0..6_u8, 0..3_u8, 0..3_u8, 0..20_u64), 0..8),
            lease in (0..3_u8, 0..3_u8, 0..3_u8, 0..3_u8, 0..20_u64),
        ) {
            let revoked: Vec<Revocation> = revoked.into_iter().map(revocation).collect();
            let claims = claims((lease.0, lease.1, lease.2, lease.3, lease.4 + 1));
            let mut held = Revocations::default();
            held.add(&revoked, UnixMillis(0));
            let expected = revoked.iter().any(|revocation| revocation.voids(&claims));
            prop_assert_eq!(held.voids(&claims).is_some(), expected);
            let text = serde_json::to_string(&held.stored()).unwrap();
            let read: StoredRevocations = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(Revocations::from(read), held);
        }
    }

    #[test]
    fn revocations_are_forgotten_when_no_lease_can_be_caught_by_them() {
        let mut held = Revocations::default();
        held.add(&[revocation((0, 1, 0, 5))], UnixMillis(0));
        held.add(&[], UnixMillis(5).plus(MATTERS));
        assert_eq!(held, Revocations::default());
    }

    #[test]
    fn too_many_revocations_void_too_much_rather_than_too_little() {
        let many = MAX_REVOCATIONS as u64 + 1;
        let revoked = (0..many).map(|n| Revocation {
            subject: RevokedSubject::Grant { grant: format!("grt_{n}") },
            at: UnixMillis(n + 1),
            reason: String::new(),
        });
        let mut held = Revocations::default();
        held.add(&revoked.collect::<Vec<_>>(), UnixMillis(0));
        assert!(held.latest.len() <= MAX_REVOCATIONS);
        assert!(held.voids(&claims((1, 1, 1, 1, 10))).is_some(), "signed before the floor");
        let mut late = claims((1, 1, 1, 1, many));
        late.grant = format!("grt_{}", many - 1);
        assert!(held.voids(&late).is_some());
        late.grant = "grt_other".into();
        assert!(held.voids(&late).is_none());
    }
}
