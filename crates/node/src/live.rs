//! The sessions that are running, found by whatever may be revoked.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use postern_proto::{
    frame::ResetCode,
    head::Wanted,
    id::{ResourceId, StreamId},
    lease::{Claims, Revocation, RevokedSubject, StreamSubject},
    resource::NodeResource,
    time::UnixMillis,
};
use postern_tunnel::stream::StreamControl;

/// Every running session of this node.
#[derive(Default)]
pub struct LiveSessions {
    table: Mutex<Table>,
}

/// One running session.
#[derive(Clone, Debug)]
pub struct LiveSession {
    pub subject: StreamSubject,
    /// When the lease was signed that it began with: a revocation before that does not concern it.
    pub leased_at: UnixMillis,
    pub grant_ends: Option<UnixMillis>,
    /// Which port and host of the resource it reaches.
    pub wanted: Wanted,
    pub control: StreamControl,
}

impl LiveSession {
    #[must_use]
    pub fn new(claims: &Claims, subject: StreamSubject, wanted: Wanted, control: StreamControl) -> Self {
        Self { subject, leased_at: claims.issued_at, grant_ends: claims.grant_ends, wanted, control }
    }
}

#[derive(Default)]
struct Table {
    sessions: HashMap<StreamId, Entry>,
    by_subject: HashMap<RevokedSubject, HashSet<StreamId>>,
    by_end: BTreeSet<(UnixMillis, StreamId)>,
    /// Bytes up and down of sessions that are over.
    carried: (u64, u64),
}

struct Entry {
    session: LiveSession,
    /// Why it was cut.
    reason: Option<String>,
}

impl LiveSessions {
    /// Takes up a session; `false` when one with this id is running.
    #[must_use]
    pub fn insert(&self, stream: StreamId, session: LiveSession) -> bool {
        let mut table = self.table();
        if table.sessions.contains_key(&stream) {
            return false;
        }
        for subject in subjects(&session.subject) {
            table.by_subject.entry(subject).or_default().insert(stream);
        }
        if let Some(end) = session.grant_ends {
            table.by_end.insert((end, stream));
        }
        table.sessions.insert(stream, Entry { session, reason: None });
        true
    }

    /// Forgets a session that is over; hands back why it was cut, if it was.
    pub fn remove(&self, stream: StreamId) -> Option<String> {
        let mut table = self.table();
        let Entry { session, reason } = table.sessions.remove(&stream)?;
        for subject in subjects(&session.subject) {
            if let Some(streams) = table.by_subject.get_mut(&subject) {
                streams.remove(&stream);
                if streams.is_empty() {
                    table.by_subject.remove(&subject);
                }
            }
        }
        if let Some(end) = session.grant_ends {
            table.by_end.remove(&(end, stream));
        }
        table.carried = add(table.carried, &session.control);
        reason
    }

    /// Cuts what the revocations match; says how many sessions that were.
    pub fn revoke(&self, revocations: &[Revocation]) -> usize {
        let mut table = self.table();
        let mut cut = 0;
        for Revocation { subject, at, reason } in revocations {
            let streams: Vec<StreamId> = table.by_subject.get(subject).into_iter().flatten().copied().collect();
            for stream in streams {
                cut += usize::from(table.cut(stream, ResetCode::Revoked, reason, |session| session.leased_at <= *at));
            }
        }
        cut
    }

    /// Cuts every session of a resource that is gone.
    pub fn drop_resource(&self, resource: ResourceId) -> usize {
        let subject = RevokedSubject::Resource { resource };
        let reason = "the resource was removed".to_owned();
        self.revoke(&[Revocation { subject, at: UnixMillis(u64::MAX), reason }])
    }

    /// Cuts the sessions of a resource that reach a port or host which it does not include any more.
    pub fn cut_out_of_reach(&self, resource: &NodeResource) -> usize {
        let mut table = self.table();
        let subject = RevokedSubject::Resource { resource: resource.id };
        let streams: Vec<StreamId> = table.by_subject.get(&subject).into_iter().flatten().copied().collect();
        let mut cut = 0;
        for stream in streams {
            let Some(why) = table.sessions.get(&stream).and_then(|entry| resource.target(&entry.session.wanted).err())
            else {
                continue;
            };
            let reason = format!("of the resource as it is now, {why}");
            cut += usize::from(table.cut(stream, ResetCode::Revoked, &reason, |_| true));
        }
        cut
    }

    /// Cuts what may live only until now, and says when the next session ends.
    pub fn end_grants(&self, now: UnixMillis) -> (usize, Option<UnixMillis>) {
        let mut table = self.table();
        let mut cut = 0;
        while let Some((end, stream)) = table.by_end.first().copied() {
            if end > now {
                return (cut, Some(end));
            }
            table.by_end.remove(&(end, stream));
            cut += usize::from(table.cut(stream, ResetCode::GrantEnded, "the grant has ended", |_| true));
        }
        (cut, None)
    }

    /// Cuts all: this node may carry nothing any more.
    pub fn cut_all(&self, code: ResetCode, reason: &str) -> usize {
        let mut table = self.table();
        let streams: Vec<StreamId> = table.sessions.keys().copied().collect();
        streams.into_iter().filter(|stream| table.cut(*stream, code, reason, |_| true)).count()
    }

    /// What the control plane is asked about: each combination once.
    #[must_use]
    pub fn subjects(&self) -> BTreeSet<StreamSubject> {
        self.table().sessions.values().map(|entry| entry.session.subject.clone()).collect()
    }

    /// Bytes up and down of all sessions so far. It never goes down.
    #[must_use]
    pub fn carried(&self) -> (u64, u64) {
        let table = self.table();
        table.sessions.values().fold(table.carried, |sum, entry| add(sum, &entry.session.control))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.table().sessions.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Cuts a session unless it is cut already; the first reason stays.
    fn cut(&mut self, stream: StreamId, code: ResetCode, reason: &str, wanted: impl Fn(&LiveSession) -> bool) -> bool {
        let Some(entry) = self.sessions.get_mut(&stream) else { return false };
        if entry.reason.is_some() || !wanted(&entry.session) {
            return false;
        }
        entry.reason = Some(reason.to_owned());
        entry.session.control.cut(code);
        true
    }
}

fn add((up, down): (u64, u64), control: &StreamControl) -> (u64, u64) {
    (up.saturating_add(control.up()), down.saturating_add(control.down()))
}

/// Every subject under which a session can be revoked.
fn subjects(stream: &StreamSubject) -> [RevokedSubject; 5] {
    let StreamSubject { account, device, resource, ref grant } = *stream;
    [
        RevokedSubject::Account { account },
        RevokedSubject::Device { device },
        RevokedSubject::Grant { grant: grant.clone() },
        RevokedSubject::Resource { resource },
        RevokedSubject::Access { account, resource },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use postern_proto::{
        id::{AccountId, DeviceId},
        resource::Kind,
    };
    use proptest::prelude::*;
    use ulid::Ulid;

    use super::*;

    fn ulid(n: u8) -> Ulid {
        Ulid::from_parts(1, n.into())
    }

    fn session((account, device, resource, grant): (u8, u8, u8, u8)) -> LiveSession {
        let subject = StreamSubject {
            account: AccountId::from_ulid(ulid(account)),
            device: DeviceId::from_ulid(ulid(device)),
            resource: ResourceId::from_ulid(ulid(resource)),
            grant: format!("grt_{grant}"),
        };
        LiveSession {
            subject,
            leased_at: UnixMillis(10),
            grant_ends: None,
            wanted: Wanted::default(),
            control: StreamControl::new(),
        }
    }

    fn revoked((kind, one, other): (u8, u8, u8)) -> RevokedSubject {
        let (account, resource) = (AccountId::from_ulid(ulid(one)), ResourceId::from_ulid(ulid(other)));
        match kind {
            0 => RevokedSubject::Account { account },
            1 => RevokedSubject::Device { device: DeviceId::from_ulid(ulid(one)) },
            2 => RevokedSubject::Grant { grant: format!("grt_{one}") },
            3 => RevokedSubject::Resource { resource },
            _ => RevokedSubject::Access { account, resource },
        }
    }

    proptest! {
        #[test]
        fn exactly_the_matching_sessions_are_cut(
            sessions in proptest::collection::vec((0..3_u8, 0..3_u8, 0..3_u8, 0..3_u8), 0..12),
            gone in proptest::collection::vec(0..12_usize, 0..4),
            subject in (0..5_u8, 0..3_u8, 0..3_u8),
        ) {
            let live = LiveSessions::default();
            let sessions: Vec<LiveSession> = sessions.into_iter().map(session).collect();
            let id = |index: usize| StreamId::from_ulid(ulid(u8::try_from(index).unwrap()));
            for (index, session) in sessions.iter().enumerate() {
                prop_assert!(live.insert(id(index), session.clone()));
            }
            gone.iter().for_each(|index| { live.remove(id(*index)); });
            let subject = revoked(subject);
            let revocation = Revocation { subject: subject.clone(), at: UnixMillis(10), reason: "test".into() };
            let cut = live.revoke(std::slice::from_ref(&revocation));
            let mut expected = 0;
            for (index, session) in sessions.iter().enumerate() {
                let hit = !gone.contains(&index) && subject.matches(&session.subject);
                expected += usize::from(hit);
                prop_assert_eq!(session.control.cut_code(), hit.then_some(ResetCode::Revoked));
            }
            prop_assert_eq!(cut, expected);
            for index in 0..sessions.len() {
                live.remove(id(index));
            }
            let table = live.table();
            prop_assert!(table.sessions.is_empty() && table.by_subject.is_empty() && table.by_end.is_empty());
        }
    }

    #[test]
    fn a_session_that_began_with_a_later_lease_is_not_cut_by_an_old_revocation() {
        let live = LiveSessions::default();
        let session = session((1, 1, 1, 1));
        assert!(live.insert(StreamId::from_ulid(ulid(1)), session.clone()));
        let subject = revoked((0, 1, 0));
        assert_eq!(live.revoke(&[Revocation { subject, at: UnixMillis(9), reason: String::new() }]), 0);
        assert_eq!(session.control.cut_code(), None);
    }

    #[test]
    fn a_session_ends_with_its_grant_and_says_so() {
        let live = LiveSessions::default();
        let (one, other) = (StreamId::from_ulid(ulid(1)), StreamId::from_ulid(ulid(2)));
        let ending = |at| LiveSession { grant_ends: Some(UnixMillis(at)), ..session((1, 1, 1, 1)) };
        let session = ending(20);
        assert!(live.insert(one, session.clone()));
        assert!(live.insert(other, ending(30)));
        assert_eq!(live.end_grants(UnixMillis(19)), (0, Some(UnixMillis(20))));
        assert_eq!(live.end_grants(UnixMillis(20)), (1, Some(UnixMillis(30))));
        assert_eq!(session.control.cut_code(), Some(ResetCode::GrantEnded));
        assert_eq!(live.remove(one).as_deref(), Some("the grant has ended"));
        assert_eq!(live.remove(one), None);
        assert_eq!(live.len(), 1);
    }

    #[test]
    fn one_id_runs_once() {
        let live = LiveSessions::default();
        assert!(live.insert(StreamId::from_ulid(ulid(1)), session((1, 1, 1, 1))));
        assert!(!live.insert(StreamId::from_ulid(ulid(1)), session((2, 2, 2, 2))));
        assert_eq!(live.subjects().len(), 1);
    }

    #[test]
    fn a_narrowed_resource_loses_the_sessions_that_reach_beyond_it_and_no_others() {
        let live = LiveSessions::default();
        let resource = |ports: &str, hosts: &[&str]| NodeResource {
            id: ResourceId::from_ulid(ulid(1)),
            name: "cluster".into(),
            kind: Kind::Tcp,
            tags: BTreeMap::new(),
            host: "n1.internal".into(),
            port: 7000,
            ports: ports.parse().unwrap(),
            hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
            revision: 1,
            allow_local: false,
            strict: false,
            egress: None,
        };
        let to = |port, host: Option<&str>| Wanted { port, host: host.map(|host| host.parse().unwrap()) };
        let wishes = [to(0, None), to(7000, None), to(7003, None), to(7009, None), to(0, Some("n2.internal"))];
        let sessions: Vec<_> =
            wishes.into_iter().map(|wanted| LiveSession { wanted, ..session((1, 1, 1, 1)) }).collect();
        let elsewhere = LiveSession { wanted: to(9999, None), ..session((1, 1, 2, 1)) };
        for (index, session) in (0..).zip(sessions.iter().chain([&elsewhere])) {
            assert!(live.insert(StreamId::from_ulid(ulid(index)), session.clone()));
        }
        let cut = || sessions.iter().map(|session| session.control.cut_code()).collect::<Vec<_>>();
        assert_eq!(live.cut_out_of_reach(&resource("7000-7009", &["*.internal"])), 0);
        assert_eq!(live.cut_out_of_reach(&resource("7000-7005", &["*.internal"])), 1);
        let revoked = Some(ResetCode::Revoked);
        assert_eq!(cut(), [None, None, None, revoked, None]);
        assert_eq!(live.cut_out_of_reach(&resource("7000-7005", &[])), 1);
        assert_eq!(cut(), [None, None, None, revoked, revoked]);
        assert_eq!(elsewhere.control.cut_code(), None);
        assert!(live.remove(StreamId::from_ulid(ulid(3))).unwrap().contains("7009"));
    }
}
