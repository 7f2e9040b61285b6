//! From the options to a running gateway and back to nothing.

mod identification;
mod records;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use postern_proto::{api::NodeKind, frame::ResetCode, id::NodeId, replica::Replica, sync::ParkedAt, time::UnixMillis};
use postern_tunnel::{
    control::{CallError, ControlClient, SyncLoop, SyncTiming},
    node::{self, Arrival, Balancers, Carrier, Server},
    tls::ClientTls,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    identification::{Proof, identify, renew},
    records::resume_records,
};
use super::{
    Gateway, GatewayOptions, GatewayParts, NodeOptions,
    follow::{Follower, HEARD_FILE, REPLICA_FILE, REVOCATIONS_FILE},
    options::BadOption,
};
use crate::{
    bridge::{self, Bridge},
    catalogue::Catalogue,
    contact::ContactRecord,
    dial::Dialer,
    drain::Drain,
    egress::Egress,
    health::{self, Pulse},
    identity::{IdentityError, NodeIdentity, Validity},
    live::LiveSessions,
    load::LoadMeter,
    metrics::{Parts, Role},
    monitor::{Monitor, MonitorError, MonitorPlaces},
    neighbours::{Neighbours, NeighboursNow},
    parking::Parking,
    relay::moorings::Shared,
    revocations::{Revocations, StoredRevocations},
    spool::{Spool, SpoolOpenError},
    state::{StateError, StateFolder},
    upload,
};

/// File descriptors kept for everything that is not a stream.
const RESERVED_FDS: u64 = 256;
/// How long the first start waits for what the control plane has to say; without it there is nothing to carry.
const FIRST_SYNC: Duration = Duration::from_secs(10);
/// How long a later start waits before it goes on with what it was told before.
const NEXT_SYNC: Duration = Duration::from_secs(2);
/// How long records and the last frames have when everything else has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The line on stdout when the gateway is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ready {
    pub ready: bool,
    pub node: NodeId,
    /// Not of an inner worker, which listens nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Where liveness and metrics are served, when they are.
    #[serde(flatten)]
    pub monitor: MonitorPlaces,
}

/// Why a gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error(transparent)]
    Option(#[from] BadOption),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot listen on {listen}: {source}")]
    Listen { listen: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(
        "this node is not enrolled yet; give it a token from `postern admin gateways create` with --enrol-token-file or POSTERN_ENROL_TOKEN"
    )]
    NotEnrolled,
    #[error(
        "the certificate of this node has ended; enrol it again: a worker with a key pair of its cluster, any other with a new token from `postern admin gateways token`"
    )]
    CertificateEnded,
    #[error(
        "this worker is not enrolled, and no key pair is given: set POSTERN_PROXY_CLUSTER_ACCESS_KEY and POSTERN_PROXY_CLUSTER_SECRET_KEY to one from `postern admin cluster-keys create`"
    )]
    NoKeyPair,
    #[error(transparent)]
    Records(#[from] SpoolOpenError),
    #[error("the control plane does not say which session records it has: {0}")]
    Resume(CallError),
}

/// Runs until `stop` is cancelled and the drain is over, or until `stop_now`. `ready` is called once, when clients may
/// come.
pub async fn run(
    options: GatewayOptions,
    stop: CancellationToken,
    stop_now: CancellationToken,
    ready: impl FnOnce(&Ready) + Send,
) -> Result<(), GatewayError> {
    let front = Front {
        kind: NodeKind::Gateway,
        listen: options.listen,
        advertise: options.advertise.clone(),
        carrier: Some(Carrier::Direct),
        balancers: options.arrival.balancers(),
        proof: Proof::Token(options.node.enrol_token()?),
        bridge: None,
    };
    serve(&options.node, front, stop, stop_now, ready).await
}

/// What nodes that listen for clients differ in: what they are, where clients come, and by what they became one.
pub(crate) struct Front {
    pub(crate) kind: NodeKind,
    pub(crate) listen: SocketAddr,
    /// Of a gateway: where clients dial it, when that is not what the control plane knows.
    pub(crate) advertise: Option<String>,
    /// `None`: WebSocket frames within a TLS session that is met with the node's own certificate.
    pub(crate) carrier: Option<Carrier>,
    pub(crate) balancers: Balancers,
    pub(crate) proof: Proof,
    /// Of a worker.
    pub(crate) bridge: Option<Bridge>,
}

/// Runs a node that listens for clients.
pub(crate) async fn serve(
    common: &NodeOptions,
    front: Front,
    stop: CancellationToken,
    stop_now: CancellationToken,
    ready: impl FnOnce(&Ready) + Send,
) -> Result<(), GatewayError> {
    let role = front.kind.as_str();
    let state = Arc::new(StateFolder::open(&common.state)?);
    let client = Arc::new(ControlClient::new(common.control()?, common.trust()?));
    let monitor = Monitor::start(common.liveness, common.metrics)?;
    let (bridges, parks_at) = match front.bridge.clone() {
        Some(Bridge::At(addresses)) => (false, Some(addresses)),
        bridge => (bridge.is_some(), None),
    };
    let listener = if parks_at.is_some() { None } else { Some(listen(front.listen)?) };
    let address = listener.as_ref().map(TcpListener::local_addr).transpose();
    let address = address.map_err(|source| GatewayError::Listen { listen: front.listen, source })?;
    let (place, advertise) = match (front.kind, address) {
        (NodeKind::Worker, _) | (_, None) => (Place::Worker { bridges }, None),
        (NodeKind::Gateway | NodeKind::Relay, Some(address)) => {
            let advertise = advertised(&front, address, &client).await;
            (Place::Gateway { advertise: advertise.clone() }, advertise)
        }
    };
    let Some(identity) =
        stop.run_until_cancelled(identify(&state, &client, (front.kind, front.proof), advertise)).await
    else {
        return Ok(());
    };
    let identity = identity?;
    client.set_identity(Some(identity.client_identity()?));
    let spool = resume_records(common, &state, &client, identity.node).await?;

    let running = start(common, &state, &client, &identity, spool.clone(), place, (&monitor, &stop))?;
    let Running {
        server, live, drain, validity, mut complete, patience, tls, mut tasks, background, uploading, ..
    } = running;
    let _ = timeout(patience, stop.run_until_cancelled(complete.wait_for(|complete| *complete))).await;
    let (outer, own) = watch::channel(identity.outer_tls()?);
    let carrier = front.carrier.unwrap_or(Carrier::WebSocket(own));
    let (incoming, came) = mpsc::channel(bridge::INCOMING);
    let parking_tls = RwLock::new(identity.client_tls()?.for_parking());
    let moored = Arc::new(Shared { node: identity.node, tls: parking_tls, incoming, live: Arc::clone(&live), drain });
    let renewed = {
        let (server, moored) = (Arc::clone(&server), Arc::clone(&moored));
        move |identity: &NodeIdentity| {
            server.set_tls(identity.server_tls()?);
            moored.set_tls(identity.client_tls()?.for_parking());
            outer.send_replace(identity.outer_tls()?);
            *tls.write().unwrap_or_else(PoisonError::into_inner) = identity.client_tls()?;
            validity.renew(identity);
            Ok(())
        }
    };
    let renewals = renew(identity.clone(), Arc::clone(&state), Arc::clone(&client), renewed);
    tasks.spawn(until(background.clone(), renewals));

    tracing::info!(node = %identity.node, name = ?identity.name, listen = ?address, "{role} is ready");
    ready(&Ready { ready: true, node: identity.node, listen: address, monitor: monitor.places() });
    // Balancers find a worker by its port. Clients know gateways by their names, and are told.
    let shut = (front.kind == NodeKind::Worker).then(|| shut_while(&moored.drain, &mut tasks, &background));
    let arrival = Arrival { carrier, balancers: front.balancers, bridges, shut };
    // Its links outlive the word that the node stops: streams run on them.
    let mooring = CancellationToken::new();
    let moorings = mooring.clone().drop_guard();
    let mut serving: Pin<Box<dyn Future<Output = ()> + Send>> = match (listener, parks_at, identity.cluster) {
        (Some(listener), _, _) => Box::pin(server.serve_arrivals(listener, arrival, stop, common.drain())),
        (None, Some(addresses), Some(cluster)) => {
            tasks.spawn(until(mooring, bridge::moor(addresses, cluster, moored)));
            Box::pin(server.serve_parked_arrivals(came, arrival, stop, common.drain()))
        }
        (None, ..) => return Err(GatewayError::NoKeyPair),
    };
    tokio::select! {
        () = &mut serving => {}
        () = stop_now.cancelled() => {
            let cut = live.cut_all(ResetCode::Draining, "the node was stopped at once");
            tracing::warn!(cut, "stopping at once");
            let _ = timeout(LAST_WORDS, &mut serving).await;
        }
    }
    drop(moorings);
    finish(spool, tasks, &background, &uploading).await;
    Ok(())
}

/// Says `true` while the node takes nothing new.
fn shut_while(drain: &Drain, tasks: &mut JoinSet<()>, background: &CancellationToken) -> watch::Receiver<bool> {
    let mut leave = drain.watch();
    let (told, shut) = watch::channel(leave.borrow_and_update().is_on());
    let telling = async move {
        while leave.changed().await.is_ok() {
            told.send_replace(leave.borrow_and_update().is_on());
        }
    };
    tasks.spawn(until(background.clone(), telling));
    shut
}

/// What kind of node runs.
pub(crate) enum Place {
    Gateway {
        advertise: Option<String>,
    },
    Relay,
    /// Whether it passes clients on to others of its cluster.
    Worker {
        bridges: bool,
    },
}

/// What runs beside the server.
pub(crate) struct Running {
    pub(crate) server: Arc<Server<Gateway>>,
    pub(crate) live: Arc<LiveSessions>,
    pub(crate) drain: Drain,
    pub(crate) validity: Validity,
    pub(crate) complete: watch::Receiver<bool>,
    /// How long to wait for the control plane at the start.
    pub(crate) patience: Duration,
    pub(crate) neighbours: NeighboursNow,
    /// At a relay: where it has parked links.
    pub(crate) parked: watch::Sender<Vec<ParkedAt>>,
    /// How other gateways are dialled.
    tls: Arc<RwLock<ClientTls>>,
    pub(crate) tasks: JoinSet<()>,
    /// Ends what follows the control plane.
    pub(crate) background: CancellationToken,
    /// Ends the upload, which then sends what is left.
    pub(crate) uploading: CancellationToken,
}

/// `stop`: no new streams.
pub(crate) fn start(
    options: &NodeOptions,
    state: &Arc<StateFolder>,
    client: &Arc<ControlClient>,
    identity: &NodeIdentity,
    spool: Spool,
    place: Place,
    (monitor, stop): (&Monitor, &CancellationToken),
) -> Result<Running, GatewayError> {
    let replica = kept::<Replica>(state, REPLICA_FILE).unwrap_or_default();
    let replica = if replica.org().is_none_or(|org| org == identity.org) { replica } else { Replica::default() };
    let revocations = kept::<StoredRevocations>(state, REVOCATIONS_FILE).map_or_else(Revocations::default, Into::into);
    let heard = kept::<UnixMillis>(state, HEARD_FILE).unwrap_or_default();
    let egress = Egress::new(Catalogue::new(replica.items()), revocations).at(identity.node);
    let egress = Arc::new(egress.of(identity.cluster));
    let drain = Drain::new(Drain::order_of(replica.items()));
    let (neighbours, now) = watch::channel(Arc::new(Neighbours::of(replica.items())));
    let (role, advertise, parking) = match place {
        Place::Gateway { advertise } => {
            (Role::Gateway, advertise, Some(Arc::new(Parking::new(now.clone(), drain.clone()))))
        }
        Place::Relay => (Role::Relay, None, None),
        Place::Worker { bridges } => {
            let parking = bridges.then(|| Arc::new(Parking::at_bridge(now.clone(), drain.clone())));
            (Role::Worker, None, parking)
        }
    };
    let validity = Validity::of(identity);
    let tls = Arc::new(RwLock::new(identity.client_tls()?));
    let live = Arc::new(LiveSessions::default());
    let contact = Arc::new(ContactRecord::new(heard));
    let dialer = Dialer::default();
    let (wishes, wished) = mpsc::channel(health::WISHES);
    let pulse = Arc::new(Pulse::new(wishes.clone()));
    let gateway = Gateway::new(GatewayParts {
        cluster: identity.cluster,
        egress: Arc::clone(&egress),
        live: Arc::clone(&live),
        contact: Arc::clone(&contact),
        dialer: dialer.clone(),
        drain: drain.clone(),
        metrics: monitor.counters(),
        pulse: Arc::clone(&pulse),
        spool: spool.clone(),
        node: identity.node,
        neighbours: now.clone(),
        parking: parking.clone(),
        tls: Arc::clone(&tls),
        max_streams: max_streams(),
    });
    let server = Server::new(gateway, identity.server_tls()?);
    monitor.attach(Parts {
        role,
        server: Arc::clone(&server),
        live: Arc::clone(&live),
        drain: drain.clone(),
        contact: Arc::clone(&contact),
        spool: spool.clone(),
        parking: parking.clone(),
        validity: validity.clone(),
    });
    let patience = if replica.items().next().is_some() { NEXT_SYNC } else { FIRST_SYNC };
    let agent = concat!("postern-node/", env!("CARGO_PKG_VERSION"));
    let (sync, handle) = SyncLoop::new(Arc::clone(client), agent, replica, SyncTiming::default());
    let watched = egress.resources().iter().map(|resource| resource.id).filter(|id| egress.dials(*id)).collect();
    let _ = wishes.try_send(health::HealthWish::Watch(watched));
    let (completed, complete) = watch::channel(false);
    let (parked, parked_at) = watch::channel(Vec::new());
    let outbox = handle.outbox.clone();
    let follower = Follower {
        node: identity.node,
        control: Arc::clone(client),
        state: Arc::clone(state),
        egress: Arc::clone(&egress),
        live: Arc::clone(&live),
        contact,
        dialer: dialer.clone(),
        health: wishes,
        untold: BTreeSet::new(),
        advertise,
        drain: drain.clone(),
        meter: LoadMeter::default(),
        neighbours,
        parking: parking.clone(),
        parked: parked_at,
        handle,
        complete: completed,
    };
    let (background, uploading) = (CancellationToken::new(), CancellationToken::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(sync.run(background.clone()));
    tasks.spawn(follower.run(background.clone()));
    tasks.spawn(health::run(egress, dialer, wished, outbox, pulse, background.clone()));
    tasks.spawn(until(background.clone(), drain.clone().stop_with(stop.clone(), options.drain())));
    tasks.spawn(until(background.clone(), drain.clone().enforce(Arc::clone(&live), parking)));
    tasks.spawn(upload::run(spool, Arc::clone(client), uploading.clone()));
    let neighbours = now;
    Ok(Running {
        server,
        live,
        drain,
        validity,
        complete,
        patience,
        neighbours,
        parked,
        tls,
        tasks,
        background,
        uploading,
    })
}

/// Writes the last records, sends what the control plane takes, and ends the tasks.
pub(crate) async fn finish(
    spool: Spool,
    mut tasks: JoinSet<()>,
    background: &CancellationToken,
    uploading: &CancellationToken,
) {
    let deadline = Instant::now() + LAST_WORDS;
    let closing = spool.clone();
    let _ = tokio::task::spawn_blocking(move || closing.close(deadline)).await;
    background.cancel();
    uploading.cancel();
    let ended = async { while tasks.join_next().await.is_some() {} };
    if timeout(LAST_WORDS, ended).await.is_err() {
        tracing::info!("session records wait on disk for the next start");
    }
    tasks.shutdown().await;
}

pub(crate) async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    let _ = stop.run_until_cancelled(work).await;
}

/// What an earlier run wrote down; without it the control plane says everything again.
fn kept<T: serde::de::DeserializeOwned>(state: &StateFolder, name: &str) -> Option<T> {
    state.read(name).unwrap_or_else(|error| {
        tracing::warn!(%error, "ignored; the control plane says it again");
        None
    })
}

fn listen(listen: SocketAddr) -> Result<TcpListener, GatewayError> {
    node::listen(listen).map_err(|source| GatewayError::Listen { listen, source })
}

/// Where clients dial: as given; else, with a port from the kernel, the address that was bound; else as the
/// administrator said.
async fn advertised(front: &Front, bound: SocketAddr, client: &ControlClient) -> Option<String> {
    if front.advertise.is_some() || front.listen.port() != 0 {
        return front.advertise.clone();
    }
    let seen = if bound.ip().is_unspecified() { source_towards(client).await } else { None };
    Some(seen.map_or(bound, |ip| SocketAddr::new(ip, bound.port())).to_string())
}

/// The address of this machine that the control plane sees. No packet is sent.
async fn source_towards(client: &ControlClient) -> Option<IpAddr> {
    let control = tokio::net::lookup_host((client.url().host(), client.url().port())).await.ok()?.next()?;
    let any: IpAddr = if control.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(control).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Raises the file limit as far as it goes; each stream takes two descriptors.
fn max_streams() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit.saturating_sub(RESERVED_FDS) / 2).unwrap_or(usize::MAX)
}
