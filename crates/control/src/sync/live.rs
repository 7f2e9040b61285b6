//! Which of a node's live streams may go on (the answer to `Live`).

use std::collections::{BTreeMap, BTreeSet};

use postern_proto::{
    id::DeviceId,
    lease::{Revocation, RevokedSubject, StreamSubject},
    time::UnixMillis,
};

use crate::{
    access,
    catalogue::Catalogue,
    devices::{self, Device},
    store::{Store, StoreError},
};

/// What must be cut of these streams, and why.
pub async fn judge(store: &Store, subjects: &[StreamSubject]) -> Result<Vec<Revocation>, StoreError> {
    let ids: BTreeSet<DeviceId> = subjects.iter().map(|subject| subject.device).collect();
    let mut devices = BTreeMap::new();
    let mut connection = store.reader().acquire().await?;
    for id in ids {
        devices.insert(id, devices::find(&mut connection, id).await?);
    }
    let (catalogue, now) = (store.catalogue(), store.clock().now());
    let verdicts = subjects.iter().filter_map(|subject| {
        let device = devices.get(&subject.device).and_then(Option::as_ref);
        verdict(&catalogue, device, subject, now)
    });
    // Many streams share an answer; each is given once.
    let answers: BTreeSet<(RevokedSubject, &'static str)> = verdicts.collect();
    Ok(answers
        .into_iter()
        .map(|(subject, reason)| Revocation { subject, at: now, reason: reason.to_owned() })
        .collect())
}

/// A login that ended by its time lets streams go on to the grant's end, as when the control plane is away; one that
/// was ended takes them with it.
fn verdict(
    catalogue: &Catalogue,
    device: Option<&Device>,
    subject: &StreamSubject,
    now: UnixMillis,
) -> Option<(RevokedSubject, &'static str)> {
    let gone = RevokedSubject::Device { device: subject.device };
    match catalogue.accounts.get(&subject.account) {
        None => return Some((RevokedSubject::Account { account: subject.account }, "the account was deleted")),
        Some(account) if account.suspended => {
            return Some((RevokedSubject::Account { account: subject.account }, "the account was suspended"));
        }
        Some(_) => {}
    }
    match device.filter(|device| device.account == subject.account) {
        None => return Some((gone, "the device was deleted")),
        Some(device) if device.revoked_at.is_some() => return Some((gone, "the device was revoked")),
        Some(device) if device.login.is_none_or(|login| login.revoked_at.is_some()) => {
            return Some((gone, "the device was signed out"));
        }
        Some(_) => {}
    }
    if access::reason(catalogue, subject.account, subject.resource, now).is_none() {
        let lost = RevokedSubject::Access { account: subject.account, resource: subject.resource };
        return Some((lost, "access was withdrawn"));
    }
    None
}
