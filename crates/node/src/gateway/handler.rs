//! One stream: decided, recorded, dialled, and its end written down whatever happens.

use std::{
    net::SocketAddr,
    sync::{Arc, RwLock},
    time::Instant,
};

use postern_proto::{
    head::{Refused, Request, Route, Wanted},
    id::{ClusterId, NodeId, StreamId},
    lease::Holder,
    problem::Problem,
    record::{EndReason, Event, SessionEnd, SessionStart, StreamRefused},
    sync::Peer,
    time::UnixMillis,
};
use postern_tunnel::{
    identity::PeerIdentity,
    node::{OpenRequest, Opened, PassRequest, Passed, StreamHandler},
    park::ParkedLink,
    stream::{EndCause, StreamControl, StreamEnd},
    tls::ClientTls,
};
use tokio::net::TcpStream;

use super::{news::once_known, throttle::Throttle};
use crate::{
    clock,
    contact::ContactRecord,
    dial::{DialError, Dialer},
    drain::Drain,
    egress::{Denial, Egress, Permit},
    health::Pulse,
    live::{LiveSession, LiveSessions},
    metrics::Metrics,
    neighbours::NeighboursNow,
    parking::Parking,
    spool::{Spool, SpoolError},
};

/// What a gateway decides and carries with. Clones are the same gateway.
#[derive(Clone)]
pub struct Gateway(pub(super) Arc<Inner>);

/// The parts of a [`Gateway`].
pub struct GatewayParts {
    /// Of a worker.
    pub cluster: Option<ClusterId>,
    pub egress: Arc<Egress>,
    pub live: Arc<LiveSessions>,
    pub contact: Arc<ContactRecord>,
    pub dialer: Dialer,
    pub drain: Drain,
    pub metrics: Arc<Metrics>,
    pub pulse: Arc<Pulse>,
    pub spool: Spool,
    pub node: NodeId,
    pub neighbours: NeighboursNow,
    /// At a gateway: what relays have parked.
    pub parking: Option<Arc<Parking>>,
    /// How other gateways are dialled.
    pub tls: Arc<RwLock<ClientTls>>,
    /// Streams that may run at the same time.
    pub max_streams: usize,
}

pub(super) struct Inner {
    pub(super) parts: GatewayParts,
    refusals: Throttle,
}

impl Gateway {
    #[must_use]
    pub fn new(parts: GatewayParts) -> Self {
        Self(Arc::new(Inner { parts, refusals: Throttle::new() }))
    }

    async fn decide(&self, peer: &OpenRequest<'_>) -> Result<Permit, Box<Refused>> {
        let parts = &self.0.parts;
        if let Some(problem) = parts.drain.refusal() {
            return Err(refused(problem));
        }
        if parts.live.len() >= parts.max_streams {
            let problem = Problem::new(429, "too_many_streams", "The node carries as many connections as it can");
            return Err(refused(problem.with_detail(format!("It carries at most {}.", parts.max_streams))));
        }
        let Some(holder) = peer.peer.holder() else {
            return Err(refused(Problem::new(403, "not_a_device", "Only users' devices open streams")));
        };
        let request = peer.request;
        let decided = once_known(parts, |now| parts.egress.decide(&holder, request, parts.contact.at(now), now)).await;
        decided.map_err(|denial| {
            self.note_denial(&denial, &holder, request, peer.client, clock::now());
            Box::new(self.refusal(&denial))
        })
    }

    /// What the client is told, with the way to the right node where there is one.
    pub(super) fn refusal(&self, denial: &Denial) -> Refused {
        let route = match denial {
            Denial::Elsewhere { nodes, .. } => self.route(nodes),
            _ => None,
        };
        Refused { problem: denial.problem(), route }
    }

    fn route(&self, nodes: &[NodeId]) -> Option<Route> {
        let neighbours = self.0.parts.neighbours.borrow();
        nodes.iter().find_map(|node| {
            let own = neighbours.gateways.get(node);
            let through = || neighbours.berths(*node).first().copied();
            Route::new(*node, own.or_else(through)?.address.clone()).ok()
        })
    }

    /// Writes down what no honest client does.
    fn note_denial(&self, denial: &Denial, holder: &Holder, request: &Request, client: SocketAddr, now: UnixMillis) {
        tracing::debug!(%denial, stream = %request.stream(), "stream refused");
        if denial.suspicious() {
            self.note_refusal(denial.problem().code, holder, request, client, now);
        }
    }

    fn note_refusal(&self, code: String, holder: &Holder, request: &Request, client: SocketAddr, now: UnixMillis) {
        if !self.0.refusals.allow(now) {
            return;
        }
        let refused = StreamRefused {
            stream: Some(request.stream()),
            account: Some(holder.account),
            device: Some(holder.device),
            resource: Some(request.resource()),
            client,
            code,
            wanted: (*request.wanted() != Wanted::default()).then(|| request.wanted().to_string()),
        };
        self.0.parts.spool.note(now, Event::Refused(refused));
    }

    /// Strict resources' sessions lean on no preparation: each waits for the disk.
    async fn write_start(&self, now: UnixMillis, permit: &Permit, start: SessionStart) -> Result<(), SpoolError> {
        let spool = &self.0.parts.spool;
        if permit.resource.strict { spool.start_durable(now, start).await } else { spool.start(now, start).await }
    }

    /// Takes the session up, so that revocations find it, and looks once more whether one has come meanwhile.
    fn take_up(&self, request: &Request, permit: &Permit, control: &StreamControl) -> Result<Recording, Problem> {
        let (parts, stream) = (&self.0.parts, request.stream());
        let session = LiveSession::new(&permit.claims, permit.subject(), request.wanted().clone(), control.clone());
        if !parts.live.insert(stream, session) {
            return Err(Problem::new(409, "stream_in_use", "A connection with this identifier is running already"));
        }
        let recording = Recording { inner: Arc::clone(&self.0), stream, begun: false, dialled: None, ended: false };
        parts.egress.still_good(permit, request).map_err(|denial| denial.problem())?;
        Ok(recording)
    }
}

impl Gateway {
    async fn open_stream(&self, request: OpenRequest<'_>) -> Result<Opened, Refused> {
        let permit = self.decide(&request).await.map_err(|refused| *refused)?;
        let now = clock::now();
        let stream = request.request.stream();
        let control = StreamControl::new();
        let mut recording = self.take_up(request.request, &permit, &control)?;
        let start = start_record(&permit, stream, request.client);
        let parts = &self.0.parts;
        // Side by side: the disk is not on the path of a dial that takes longer.
        let (dialled, written) =
            tokio::join!(dial(parts, &permit, &request), self.write_start(now, &permit, start.clone()));
        if let Err(error) = written {
            tracing::error!(%error, "a stream is refused because its start cannot be recorded");
            return Err(error.problem().into());
        }
        recording.begun = true;
        let target = match dialled {
            Dialled::Connected(target, address) => {
                recording.dialled = Some(address);
                target
            }
            Dialled::Failed(error) => {
                recording.end(EndReason::DialFailed, (0, 0), Some(error.to_string()));
                return Err(error.problem().into());
            }
            Dialled::ClientGone => {
                recording.end(EndReason::Abandoned, (0, 0), Some("the client went away while dialling".into()));
                return Err(Problem::new(499, "client_gone", "The client went away").into());
            }
        };
        if let Some(code) = control.cut_code() {
            let cause = EndCause::Cut(code);
            recording.end(cause.at_node(), (0, 0), None);
            return Err(Problem::new(401, "lease_revoked", "Your access was changed").into());
        }
        if !permit.resource.strict {
            parts.spool.expect(now, &start);
        }
        let done = Box::new(move |end: StreamEnd| recording.finish(&end));
        Ok(Opened { target, control, done })
    }
}

impl StreamHandler for Gateway {
    async fn open(&self, request: OpenRequest<'_>) -> Result<Opened, Refused> {
        let opened = self.open_stream(request).await;
        if let Err(refused) = &opened {
            self.0.parts.metrics.note_refusal(&refused.problem.code);
        }
        opened
    }

    async fn pass(&self, request: PassRequest<'_>) -> Result<Passed, Refused> {
        self.open_passage(request).await
    }

    async fn bridge(&self, client: SocketAddr) -> Result<Passed, Refused> {
        self.pass_on(client).await
    }

    async fn park(&self, peer: &PeerIdentity, link: ParkedLink) {
        match (&self.0.parts.parking, peer.peer) {
            // Neither a worker at a gateway, nor one of another cluster at a bridge.
            (Some(parking), Peer::Node { node }) if peer.cluster == self.0.parts.cluster => {
                parking.admit(node, link).await
            }
            _ => link.close(),
        }
    }
}

fn refused(problem: Problem) -> Box<Refused> {
    Box::new(problem.into())
}

enum Dialled {
    Connected(TcpStream, SocketAddr),
    Failed(DialError),
    ClientGone,
}

async fn dial(parts: &GatewayParts, permit: &Permit, request: &OpenRequest<'_>) -> Dialled {
    let begun = Instant::now();
    tokio::select! {
        dialled = parts.dialer.dial(&permit.target) => match dialled {
            Ok((stream, address)) => {
                parts.metrics.note_dial(begun.elapsed());
                parts.pulse.dialled(permit.resource.id, true);
                Dialled::Connected(stream, address)
            }
            Err(error) => {
                parts.metrics.note_failed_dial(&error.problem().code);
                parts.pulse.dialled(permit.resource.id, false);
                Dialled::Failed(error)
            }
        },
        () = request.gone.cancelled() => Dialled::ClientGone,
    }
}

fn start_record(permit: &Permit, stream: StreamId, client: SocketAddr) -> SessionStart {
    SessionStart {
        stream,
        account: permit.claims.account,
        device: permit.claims.device,
        resource: permit.resource.id,
        resource_name: permit.resource.name.clone(),
        resource_tags: permit.resource.tags.clone(),
        grant: permit.claims.grant.clone(),
        client,
        target: permit.target.address(),
        prepared: None,
    }
}

/// A session from being taken up to its end record. Dropped without an end, it writes one all the same.
struct Recording {
    inner: Arc<Inner>,
    stream: StreamId,
    /// The start record is durable, so there must be an end.
    begun: bool,
    dialled: Option<SocketAddr>,
    ended: bool,
}

impl Recording {
    fn finish(mut self, end: &StreamEnd) {
        let detail = match &end.cause {
            EndCause::Protocol => Some("the client sent what it must not send".to_owned()),
            EndCause::LinkLost => Some("the connection to the client was lost".to_owned()),
            _ => None,
        };
        self.end(end.cause.at_node(), (end.up, end.down), detail);
    }

    fn end(&mut self, reason: EndReason, (bytes_up, bytes_down): (u64, u64), detail: Option<String>) {
        self.ended = true;
        let cut_for = self.inner.parts.live.remove(self.stream);
        if self.begun {
            self.inner.parts.metrics.note_end(reason);
            let (stream, dialled) = (self.stream, self.dialled);
            let end = SessionEnd { stream, dialled, bytes_up, bytes_down, reason, detail: detail.or(cut_for) };
            self.inner.parts.spool.note(clock::now(), Event::End(end));
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.ended {
            self.end(EndReason::Abandoned, (0, 0), None);
        }
    }
}
