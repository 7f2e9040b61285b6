//! The passages that run through a gateway, found by what may end them: an account, a device, a relay.
//!
//! What runs within a passage is between the client and the relay, which cuts single streams. A gateway cuts all of a
//! device whose account or login is revoked, and all to a relay that is gone.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use postern_proto::{
    frame::ResetCode,
    id::{AccountId, DeviceId, NodeId},
    lease::{Revocation, RevokedSubject},
    time::UnixMillis,
};
use postern_tunnel::stream::StreamControl;

/// Every passage of this gateway.
#[derive(Default)]
pub struct Passages(Mutex<Table>);

#[derive(Default)]
struct Table {
    next: u64,
    running: HashMap<u64, Running>,
    /// Bytes up and down of passages that are over.
    carried: (u64, u64),
}

struct Running {
    relay: NodeId,
    client: Option<Client>,
    control: StreamControl,
}

/// Whose passage it is, when the client itself asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    pub account: AccountId,
    pub device: DeviceId,
    /// When the lease was signed that it showed: a revocation before that does not concern it.
    pub leased_at: UnixMillis,
}

impl Passages {
    /// Notes a passage; the number is for [`Passages::remove`].
    #[must_use]
    pub fn insert(&self, relay: NodeId, client: Option<Client>, control: StreamControl) -> u64 {
        let mut table = self.table();
        let number = table.next;
        table.next += 1;
        table.running.insert(number, Running { relay, client, control });
        number
    }

    pub fn remove(&self, number: u64) {
        let mut table = self.table();
        if let Some(running) = table.running.remove(&number) {
            table.carried = add(table.carried, &running.control);
        }
    }

    /// Bytes up and down of all passages so far. It never goes down.
    #[must_use]
    pub fn carried(&self) -> (u64, u64) {
        let table = self.table();
        table.running.values().fold(table.carried, |sum, running| add(sum, &running.control))
    }

    /// Cuts what the revocations match; says how many passages that were.
    pub fn revoke(&self, revocations: &[Revocation]) -> usize {
        let concerns = |running: &Running| revocations.iter().any(|revocation| running.is_meant(revocation));
        self.cut(ResetCode::Revoked, concerns)
    }

    /// Cuts all passages to a relay.
    pub fn cut_relay(&self, relay: NodeId) -> usize {
        self.cut(ResetCode::Internal, |running| running.relay == relay)
    }

    /// Cuts all: this node may carry nothing any more.
    pub fn cut_all(&self, code: ResetCode) -> usize {
        self.cut(code, |running| running.control.cut_code().is_none())
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.table().running.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn cut(&self, code: ResetCode, concerns: impl Fn(&Running) -> bool) -> usize {
        let table = self.table();
        let meant = table.running.values().filter(|running| concerns(running));
        meant.map(|running| running.control.cut(code)).count()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add((up, down): (u64, u64), control: &StreamControl) -> (u64, u64) {
    (up.saturating_add(control.up()), down.saturating_add(control.down()))
}

impl Running {
    fn is_meant(&self, revocation: &Revocation) -> bool {
        let of = |matches: &dyn Fn(&Client) -> bool| {
            self.client.as_ref().is_some_and(|client| client.leased_at <= revocation.at && matches(client))
        };
        match &revocation.subject {
            RevokedSubject::Account { account } => of(&|client| client.account == *account),
            RevokedSubject::Device { device } => of(&|client| client.device == *device),
            RevokedSubject::Node { node } => self.relay == *node,
            RevokedSubject::Grant { .. } | RevokedSubject::Resource { .. } | RevokedSubject::Access { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;

    #[test]
    fn a_passage_ends_with_its_account_its_device_or_its_relay_and_with_nobody_elses() {
        let passages = Passages::default();
        let client = |n| Client {
            account: AccountId::from_ulid(Ulid(n)),
            device: DeviceId::from_ulid(Ulid(n)),
            leased_at: UnixMillis(10),
        };
        let relay = |n| NodeId::from_ulid(Ulid(n));
        let controls: Vec<_> = (0..4).map(|_| StreamControl::new()).collect();
        for (n, control) in (0_u128..).zip(&controls) {
            let _ = passages.insert(relay(n % 2), Some(client(n)), control.clone());
        }
        let revocation = |subject, at| Revocation { subject, at: UnixMillis(at), reason: String::new() };
        let cut = |n: usize| controls[n].cut_code().is_some();
        let account = RevokedSubject::Account { account: AccountId::from_ulid(Ulid(0)) };
        assert_eq!(passages.revoke(&[revocation(account.clone(), 9)]), 0, "it was leased after that");
        assert_eq!(passages.revoke(&[revocation(account, 10)]), 1);
        let device = RevokedSubject::Device { device: DeviceId::from_ulid(Ulid(1)) };
        assert_eq!(passages.revoke(&[revocation(device, 10)]), 1);
        assert!(cut(0) && cut(1) && !cut(2) && !cut(3));
        assert_eq!(passages.cut_relay(relay(1)), 2);
        assert!(!cut(2) && cut(3));
        (0..4).for_each(|number| passages.remove(number));
        assert!(passages.is_empty());
    }
}
