//! The streams that are carried now: found, counted and cut.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use postern_proto::{
    door::Door,
    frame::ResetCode,
    id::{NodeId, ResourceId, StreamId},
    lease::{Revocation, RevokedSubject, StreamSubject},
    time::UnixMillis,
};
use postern_tunnel::stream::StreamControl;

use crate::{engine::Owner, gateways::Way};

/// All streams of the service.
#[derive(Debug, Default)]
pub struct Streams {
    live: Mutex<HashMap<StreamId, Arc<Stream>>>,
}

/// One of them.
#[derive(Debug)]
pub struct Stream {
    pub id: StreamId,
    pub resource: ResourceId,
    pub peer: SocketAddr,
    pub started_at: UnixMillis,
    pub control: StreamControl,
    route: Mutex<Route>,
}

/// What is known once the stream has found its way.
#[derive(Clone, Debug, Default)]
pub struct Route {
    pub door: Option<Door>,
    /// The relay behind it.
    pub relay: Option<NodeId>,
    /// Of a cluster the worker that answered.
    pub worker: Option<NodeId>,
    /// Why the account may reach the resource: what the lease said.
    pub grant: Option<String>,
}

impl Route {
    #[must_use]
    pub fn way(&self) -> Option<Way> {
        self.door.map(|door| Way { door, relay: self.relay })
    }
}

/// What a resource's streams carry now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub streams: u32,
    pub up: u64,
    pub down: u64,
}

impl Streams {
    /// Lists a stream, from before its first byte is read until [`Streams::remove`].
    pub fn insert(&self, stream: Arc<Stream>) {
        self.live().insert(stream.id, stream);
    }

    pub fn remove(&self, id: StreamId) {
        self.live().remove(&id);
    }

    /// Cuts the streams of a resource, and says how many those were.
    pub fn cut(&self, resource: ResourceId, code: ResetCode) -> usize {
        self.cut_those(code, |stream| stream.resource == resource)
    }

    /// Cuts what a revocation matches. A stream whose grant is not known is hit by the revocation of any grant.
    pub fn cut_revoked(&self, revocations: &[Revocation], owner: Owner) -> usize {
        self.cut_those(ResetCode::Revoked, |stream| {
            let grant = stream.route().grant;
            let unknown_grant = grant.is_none();
            let subject = StreamSubject {
                account: owner.account,
                device: owner.device,
                resource: stream.resource,
                grant: grant.unwrap_or_default(),
            };
            revocations.iter().any(|revocation| match &revocation.subject {
                RevokedSubject::Grant { .. } if unknown_grant => true,
                subject_revoked => subject_revoked.matches(&subject),
            })
        })
    }

    /// Every stream, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Stream>> {
        let mut all: Vec<_> = self.live().values().cloned().collect();
        all.sort_by_key(|stream| (stream.started_at, stream.id));
        all
    }

    /// What each resource's streams carry now; resources without streams are not in it.
    #[must_use]
    pub fn loads(&self) -> HashMap<ResourceId, Load> {
        let mut loads: HashMap<_, Load> = HashMap::new();
        for stream in self.live().values() {
            let load = loads.entry(stream.resource).or_default();
            load.streams += 1;
            load.up += stream.control.up();
            load.down += stream.control.down();
        }
        loads
    }

    /// Cuts the streams that run over one of these workers.
    pub fn cut_over(&self, workers: &BTreeSet<NodeId>, code: ResetCode) -> usize {
        self.cut_those(code, |stream| stream.route().worker.is_some_and(|worker| workers.contains(&worker)))
    }

    /// How many streams each way carries, with each of the workers at its end.
    #[must_use]
    pub fn by_way(&self) -> BTreeMap<(Way, Option<NodeId>), u32> {
        let mut ways = BTreeMap::new();
        for route in self.live().values().map(|stream| stream.route()) {
            if let Some(way) = route.way() {
                *ways.entry((way, route.worker)).or_default() += 1;
            }
        }
        ways
    }

    fn cut_those(&self, code: ResetCode, hit: impl Fn(&Stream) -> bool) -> usize {
        let live = self.live();
        let hit = live.values().filter(|stream| hit(stream)).inspect(|stream| stream.control.cut(code));
        hit.count()
    }

    fn live(&self) -> MutexGuard<'_, HashMap<StreamId, Arc<Stream>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    #[must_use]
    pub fn new(id: StreamId, resource: ResourceId, peer: SocketAddr, started_at: UnixMillis) -> Self {
        Self { id, resource, peer, started_at, control: StreamControl::new(), route: Mutex::default() }
    }

    #[must_use]
    pub fn route(&self) -> Route {
        self.route.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_route(&self, route: Route) {
        *self.route.lock().unwrap_or_else(PoisonError::into_inner) = route;
    }

    pub fn set_worker(&self, worker: Option<NodeId>) {
        self.route.lock().unwrap_or_else(PoisonError::into_inner).worker = worker;
    }
}

#[cfg(test)]
mod tests {
    use postern_proto::id::{AccountId, DeviceId};

    use super::*;

    fn stream(n: u128, resource: u128, grant: Option<&str>) -> Arc<Stream> {
        let stream = Stream::new(
            StreamId::from_ulid(n.into()),
            ResourceId::from_ulid(resource.into()),
            SocketAddr::from(([127, 0, 0, 1], 9)),
            UnixMillis(0),
        );
        stream.set_route(Route { grant: grant.map(str::to_owned), ..Route::default() });
        Arc::new(stream)
    }

    fn owner() -> Owner {
        Owner { account: AccountId::from_ulid(1.into()), device: DeviceId::from_ulid(2.into()), service: false }
    }

    fn survivors(subject: RevokedSubject) -> Vec<u128> {
        let streams = Streams::default();
        let all =
            [stream(1, 1, Some("rol_a")), stream(2, 1, Some("grt_b")), stream(3, 2, Some("rol_a")), stream(4, 2, None)];
        all.iter().for_each(|stream| streams.insert(Arc::clone(stream)));
        streams.cut_revoked(&[Revocation { subject, at: UnixMillis(5), reason: String::new() }], owner());
        all.iter().filter(|stream| stream.control.cut_code().is_none()).map(|stream| stream.id.ulid().0).collect()
    }

    #[test]
    fn a_revocation_cuts_what_it_matches_and_nothing_else() {
        assert_eq!(survivors(RevokedSubject::Resource { resource: ResourceId::from_ulid(1.into()) }), [3, 4]);
        assert!(survivors(RevokedSubject::Account { account: owner().account }).is_empty());
        assert!(survivors(RevokedSubject::Device { device: owner().device }).is_empty());
        assert_eq!(survivors(RevokedSubject::Account { account: AccountId::from_ulid(9.into()) }), [1, 2, 3, 4]);
        assert_eq!(survivors(RevokedSubject::Node { node: NodeId::from_ulid(1.into()) }), [1, 2, 3, 4]);
    }

    #[test]
    fn a_revoked_grant_cuts_streams_of_that_grant_and_of_no_known_grant() {
        assert_eq!(survivors(RevokedSubject::Grant { grant: "rol_a".to_owned() }), [2]);
    }

    #[test]
    fn the_streams_over_a_removed_worker_are_cut_and_others_are_not() {
        let (streams, node) = (Streams::default(), |n: u128| NodeId::from_ulid(n.into()));
        let all = [stream(1, 1, None), stream(2, 1, None), stream(3, 1, None)];
        all[0].set_worker(Some(node(1)));
        all[1].set_worker(Some(node(2)));
        all.iter().for_each(|stream| streams.insert(Arc::clone(stream)));
        assert_eq!(streams.cut_over(&[node(1)].into(), ResetCode::Revoked), 1);
        assert_eq!(all[0].control.cut_code(), Some(ResetCode::Revoked));
        assert!(all[1].control.cut_code().is_none() && all[2].control.cut_code().is_none());
    }

    #[test]
    fn a_disconnected_resource_loses_its_streams_only() {
        let streams = Streams::default();
        let all = [stream(1, 1, None), stream(2, 2, None)];
        all.iter().for_each(|stream| streams.insert(Arc::clone(stream)));
        assert_eq!(streams.cut(ResourceId::from_ulid(1.into()), ResetCode::Disconnected), 1);
        assert_eq!(all[0].control.cut_code(), Some(ResetCode::Disconnected));
        assert_eq!(all[1].control.cut_code(), None);
        streams.remove(all[0].id);
        assert_eq!(streams.all().len(), 1);
        assert_eq!(streams.loads().len(), 1);
    }
}
