//! Carries accepted connections: the leases and gateways that streams use, and the guide that joins them.
//!
//! Streams never wait for the engine: what they need lies here, put by the shell. Only a stream that has no lease, or
//! one that a gateway would not take, asks for one and waits.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use postern_proto::{
    door::Door,
    head::Wanted,
    id::{ResourceId, StreamId},
    time::UnixMillis,
};
use postern_tunnel::{
    client::carry,
    lanes::{Lanes, Place},
    local_end::{Accepted, LocalEnd},
    stream::{EndCause, StreamEnd},
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
};
use tokio_util::task::TaskTracker;
use ulid::Ulid;

use crate::{
    clock,
    engine::Input,
    gateways::{Gateways, Way},
    standing::{FailedEnd, Failure},
    streams::{Stream, Streams},
};

mod guide;

use guide::Guide;

/// See the module.
#[derive(Debug)]
pub struct Carriage {
    pub streams: Streams,
    leases: RwLock<HashMap<ResourceId, Arc<Lease>>>,
    /// Resources for which the control plane gives no lease.
    denied: RwLock<HashSet<ResourceId>>,
    /// Changes with every change of the leases.
    lease_news: watch::Sender<u64>,
    gateways: Mutex<Gateways>,
    inputs: mpsc::Sender<Input>,
    lanes: Lanes,
    tasks: TaskTracker,
}

/// A lease that new streams may use.
pub struct Lease {
    pub token: String,
    pub grant: Option<String>,
    /// Boot clock.
    pub until: Duration,
}

/// A resource as its listener and its streams see it; it lives as long as the service knows the resource.
#[derive(Debug)]
pub struct Destination {
    pub id: ResourceId,
    via: RwLock<Vec<Door>>,
    /// Of streams that are over.
    up: AtomicU64,
    down: AtomicU64,
    failure: Mutex<Option<Failure>>,
    /// When a stream last began; 0: never.
    last_used: AtomicU64,
    /// Something is different since it was last asked.
    touched: AtomicBool,
}

impl Carriage {
    /// `inputs` leads to the engine.
    #[must_use]
    pub fn new(inputs: mpsc::Sender<Input>, seed: u64) -> Self {
        Self {
            streams: Streams::default(),
            leases: RwLock::default(),
            denied: RwLock::default(),
            lease_news: watch::Sender::new(0),
            gateways: Mutex::new(Gateways::new(seed)),
            inputs,
            lanes: Lanes::start("carriage").unwrap_or_else(|error| {
                tracing::warn!(%error, "no threads to carry streams on");
                Lanes::none()
            }),
            tasks: TaskTracker::new(),
        }
    }

    pub fn put_lease(&self, resource: ResourceId, lease: Lease) {
        self.leases.write().unwrap_or_else(PoisonError::into_inner).insert(resource, Arc::new(lease));
        self.lease_news.send_modify(|news| *news += 1);
    }

    pub fn drop_lease(&self, resource: ResourceId) {
        self.leases.write().unwrap_or_else(PoisonError::into_inner).remove(&resource);
    }

    pub fn set_denied(&self, resource: ResourceId, denied: bool) {
        let mut all = self.denied.write().unwrap_or_else(PoisonError::into_inner);
        if denied {
            all.insert(resource)
        } else {
            all.remove(&resource)
        };
        drop(all);
        self.lease_news.send_modify(|news| *news += 1);
    }

    pub fn gateways(&self) -> MutexGuard<'_, Gateways> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tasks of all streams.
    #[must_use]
    pub const fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Carries a connection that was admitted. It is listed before this returns, so that a cut that comes next finds it.
    pub fn start(self: &Arc<Self>, local: Accepted, peer: SocketAddr, destination: &Arc<Destination>) {
        let stream = self.list(peer, destination);
        let (carriage, destination, place) = (Arc::clone(self), Arc::clone(destination), self.lanes.place());
        let runtime = place.runtime().clone();
        if place.is_here() {
            let carried = carriage.carry(local, stream, destination, Wanted::default());
            self.tasks.spawn_on(occupying(place, carried), &runtime);
            return;
        }
        // Its packets are to wake the thread that carries it.
        let moved = local.0.into_std();
        let carried = async move {
            match moved.and_then(TcpStream::from_std) {
                Ok(local) => carriage.carry(Accepted(local), stream, destination, Wanted::default()).await,
                Err(error) => {
                    tracing::warn!("a connection cannot be carried: {error}");
                    carriage.streams.remove(stream.id);
                }
            }
        };
        self.tasks.spawn_on(occupying(place, carried), &runtime);
    }

    /// Where what lasts as long as a listener has its place.
    #[must_use]
    pub const fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Lists a stream, so that a cut that comes next finds it. It is to be carried by [`Carriage::carry`], or taken off the
    /// list.
    #[must_use]
    pub fn list(&self, peer: SocketAddr, destination: &Destination) -> Arc<Stream> {
        let now = clock::wall();
        destination.note_used(now);
        let id = StreamId::from_ulid(Ulid::from_parts(now.0, rand::random()));
        let stream = Arc::new(Stream::new(id, destination.id, peer, now));
        self.streams.insert(Arc::clone(&stream));
        stream
    }

    /// Carries a connection to its end. `wanted`: which port and host of the resource. The stream is listed for as long as
    /// the future lives, which is dropped in the middle when the network goes that its program came by.
    pub fn carry(
        self: Arc<Self>,
        local: impl LocalEnd,
        stream: Arc<Stream>,
        destination: Arc<Destination>,
        wanted: Wanted,
    ) -> impl Future<Output = ()> {
        let listed = Listed { carriage: self, stream, destination, ended: false };
        async move {
            let Listed { carriage, stream, destination, .. } = &listed;
            let guide = Guide::new(Arc::clone(carriage), Arc::clone(destination), Arc::clone(stream), wanted);
            let end = carry(local, guide, stream.control.clone()).await;
            listed.end(&end);
        }
    }

    fn lease(&self, resource: ResourceId) -> Option<Arc<Lease>> {
        let leases = self.leases.read().unwrap_or_else(PoisonError::into_inner);
        leases.get(&resource).filter(|lease| lease.until > clock::now().boot).cloned()
    }

    fn is_denied(&self, resource: ResourceId) -> bool {
        self.denied.read().unwrap_or_else(PoisonError::into_inner).contains(&resource)
    }

    fn note_end(&self, stream: &Stream, destination: &Destination, end: &StreamEnd) {
        destination.add(end);
        let way = stream.route().way();
        let gateway = way.map(Way::end);
        let StreamEnd { cause, up, down } = end;
        tracing::debug!(stream = %stream.id, resource = %stream.resource, ?cause, up, down, "stream ended");
        match cause {
            EndCause::Done | EndCause::LocalReset => {
                self.note_reached(way);
                // A program that gave up before anything came back proves nothing.
                if *cause == EndCause::Done || *down > 0 {
                    destination.note_success();
                }
            }
            EndCause::Cut(_) => {}
            EndCause::PeerReset(code) => {
                self.note_reached(way);
                let text = format!("the gateway broke a connection off: {code:?}");
                destination.note_failure(FailedEnd::Broken(text), gateway);
            }
            EndCause::LinkLost => {
                // Of a cluster one worker is gone, and not the address.
                if let Some(way) = way.filter(|way| way.door.node().is_some()) {
                    let error = "a connection to it broke".to_owned();
                    self.gateways().note_failed(way, error, clock::now().boot);
                }
                let text = "the connection to the gateway broke".to_owned();
                destination.note_failure(FailedEnd::Broken(text), gateway);
            }
            EndCause::Protocol => {
                let text = "the gateway sent what it must not send".to_owned();
                destination.note_failure(FailedEnd::Broken(text), gateway);
            }
            EndCause::Refused(problem) => {
                let text = printable(&problem.to_string());
                tracing::info!(stream = %stream.id, resource = %stream.resource, code = problem.code, "refused: {text}");
                destination.note_failure(FailedEnd::Refused(problem.as_ref().clone()), gateway);
            }
        }
    }

    fn note_reached(&self, way: Option<Way>) {
        if let Some(way) = way {
            self.gateways().note_reached(way, None);
        }
    }
}

async fn occupying(place: Place, work: impl Future<Output = ()>) {
    work.await;
    drop(place);
}

impl Destination {
    #[must_use]
    pub fn new(id: ResourceId, via: Vec<Door>) -> Self {
        Self {
            id,
            via: RwLock::new(via),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            failure: Mutex::default(),
            last_used: AtomicU64::new(0),
            touched: AtomicBool::new(true),
        }
    }

    pub fn set_via(&self, via: Vec<Door>) {
        let mut held = self.via.write().unwrap_or_else(PoisonError::into_inner);
        if *held != via {
            *held = via;
        }
    }

    #[must_use]
    pub fn via(&self) -> Vec<Door> {
        self.via.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes up and down of streams that are over.
    #[must_use]
    pub fn carried(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
    }

    /// What the last streams met, until one succeeds.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.held_failure().clone()
    }

    /// When a stream last began.
    #[must_use]
    pub fn last_used(&self) -> Option<UnixMillis> {
        Some(UnixMillis(self.last_used.load(Ordering::Relaxed))).filter(|at| at.0 > 0)
    }

    /// A stream began then. An earlier time than what is known changes nothing.
    pub fn note_used(&self, at: UnixMillis) {
        if self.last_used.fetch_max(at.0, Ordering::Relaxed) < at.0 {
            self.touched.store(true, Ordering::Release);
        }
    }

    /// Whether anything changed since this was asked last.
    pub fn take_touched(&self) -> bool {
        self.touched.swap(false, Ordering::AcqRel)
    }

    /// A stream works.
    pub fn note_success(&self) {
        *self.held_failure() = None;
        self.touched.store(true, Ordering::Release);
    }

    fn note_failure(&self, end: FailedEnd, gateway: Option<Door>) {
        let mut held = self.held_failure();
        let times = held.as_ref().map_or(0, |before| before.times).saturating_add(1);
        *held = Some(Failure { end, gateway, at: clock::wall(), times });
        drop(held);
        self.touched.store(true, Ordering::Release);
    }

    fn add(&self, end: &StreamEnd) {
        self.up.fetch_add(end.up, Ordering::Relaxed);
        self.down.fetch_add(end.down, Ordering::Relaxed);
        self.touched.store(true, Ordering::Release);
    }

    fn held_failure(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("grant", &self.grant).field("until", &self.until).finish_non_exhaustive()
    }
}

/// A stream that is carried: it leaves the list whatever becomes of it.
struct Listed {
    carriage: Arc<Carriage>,
    stream: Arc<Stream>,
    destination: Arc<Destination>,
    ended: bool,
}

impl Listed {
    fn end(mut self, end: &StreamEnd) {
        self.ended = true;
        self.carriage.streams.remove(self.stream.id);
        self.carriage.note_end(&self.stream, &self.destination, end);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if !self.ended {
            self.carriage.streams.remove(self.stream.id);
            let control = &self.stream.control;
            self.destination.add(&StreamEnd { cause: EndCause::LocalReset, up: control.up(), down: control.down() });
        }
    }
}

/// Text of somebody else, without what could forge a line or drive a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}

/// An error with its causes, in one line. Some errors say their cause themselves: it is said once.
#[must_use]
pub fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use std::io;

    use tun_driver::netd::ClientError;

    use super::*;

    #[test]
    fn a_cause_that_an_error_says_itself_is_said_once() {
        let source = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = ClientError::NoService { path: "/run/netd.sock".to_owned(), source };
        assert_eq!(error_text(&error), "postern-netd does not answer at /run/netd.sock: no such file");
        let silent = io::Error::other(anyhow::Error::new(io::Error::other("deep\u{1b}[31m")).context("above"));
        assert_eq!(error_text(&silent), "above: deep\u{fffd}[31m");
    }
}
