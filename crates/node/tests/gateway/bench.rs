//! Nodes in this process, a control plane that is made up, a client with a certificate, and a resource that echoes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use clap::Parser as _;
use postern_node::{
    gateway::{self, GatewayError, GatewayOptions, Ready},
    relay::{self, RelayOptions},
};
use postern_proto::{
    api::{CertificateRequest, CertificateResponse, EnrolRequest, EnrolResponse, RecordAck, RecordBatch},
    head::{Request, Wanted},
    id::{AccountId, DeviceId, NodeId, ResourceId, StreamId},
    lease::{Claims, LIFETIME, Signer, StreamSubject},
    port::PortSet,
    problem::Problem,
    record::{Event, GENESIS, Record, SessionEnd, SessionStart, hex},
    resource::{Kind, NodeResource},
    sync::{ClientFrame, DrainOrder, HealthReport, Item, ParkedAt, Peer, ServerFrame, VERSION, Welcome},
    time::UnixMillis,
};
use postern_tunnel::{
    client::{Attempt, Entry, Failure, StreamGuide, carry},
    identity::{self, PeerIdentity},
    stream::{EndCause, StreamControl, StreamEnd},
    tls::{ClientTls, Identity, Trust, install_crypto_provider},
};
use rcgen::{CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, SanType};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{broadcast, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use super::fake::{Ca, Call, Fake, FakeSocket, Leaf, Reply, json, org, problem};

/// Nothing here takes longer, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.unwrap()
}

/// Asks again and again until it is so.
pub(crate) async fn until(mut so: impl FnMut() -> bool) {
    within(async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) fn now() -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixMillis(u64::try_from(since.as_millis()).unwrap())
}

fn ulid(n: u128) -> Ulid {
    Ulid::from_parts(7, n)
}

/// The first node.
pub(crate) fn node() -> NodeId {
    numbered(1)
}

/// The node that enrols with the token of this number.
pub(crate) fn numbered(n: u128) -> NodeId {
    NodeId::from_ulid(ulid(n))
}

/// With which a node enrols.
pub(crate) fn token(n: u128) -> String {
    if n == 1 { "token".to_owned() } else { format!("token-{n}") }
}

pub(crate) fn resource_id(n: u128) -> ResourceId {
    ResourceId::from_ulid(ulid(n))
}

/// The control plane.
pub(crate) struct Control {
    pub(crate) ca: Arc<Ca>,
    leaf: Leaf,
    pub(crate) address: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

/// What outlives a stop of the control plane.
pub(crate) struct Shared {
    pub(crate) resources: Mutex<Vec<NodeResource>>,
    rev: Mutex<u64>,
    /// Of each node.
    pub(crate) records: Mutex<BTreeMap<NodeId, Vec<Record>>>,
    /// What nodes are told beside that: who else there is.
    told: Mutex<BTreeMap<NodeId, Vec<Item>>>,
    pub(crate) parked: Mutex<BTreeMap<NodeId, Vec<ParkedAt>>>,
    pub(crate) health: Mutex<Vec<HealthReport>>,
    pub(crate) asked: Mutex<BTreeSet<StreamSubject>>,
    pub(crate) presence: Mutex<Vec<(Option<String>, bool)>>,
    pub(crate) connected: Mutex<u64>,
    pub(crate) life: Mutex<Duration>,
    pub(crate) certificates: Mutex<u64>,
    /// While set, records are refused.
    pub(crate) deaf: Mutex<bool>,
    frames: broadcast::Sender<String>,
}

impl Control {
    pub(crate) async fn start(resources: Vec<NodeResource>) -> Self {
        let ca = Arc::new(Ca::new());
        let leaf = ca.leaf(&["127.0.0.1"]);
        let shared = Arc::new(Shared {
            resources: Mutex::new(resources),
            rev: Mutex::new(1),
            records: Mutex::default(),
            told: Mutex::default(),
            parked: Mutex::default(),
            health: Mutex::default(),
            asked: Mutex::default(),
            presence: Mutex::default(),
            connected: Mutex::default(),
            life: Mutex::new(Duration::from_secs(3600)),
            certificates: Mutex::default(),
            deaf: Mutex::new(false),
            frames: broadcast::Sender::new(4096),
        });
        let mut control = Self { ca, leaf, address: "127.0.0.1:0".parse().unwrap(), shared, serving: None };
        control.resume().await;
        control
    }

    /// Serves at the address where it served before.
    pub(crate) async fn resume(&mut self) {
        let (ca, shared) = (Arc::clone(&self.ca), Arc::clone(&self.shared));
        let answer = move |call: &Call| answer(call, &ca, &shared);
        let fake = Fake::start_at(self.address, &self.ca, &self.leaf, true, answer).await;
        self.address = fake.address;
        let shared = Arc::clone(&self.shared);
        self.serving = Some(tokio::spawn(async move {
            // As a whole: it serves as long as it is held.
            let mut fake = fake;
            let mut conversations = tokio::task::JoinSet::new();
            while let Some(socket) = fake.sockets.recv().await {
                conversations.spawn(converse(socket, Arc::clone(&shared)));
            }
        }));
    }

    /// As if its machine were switched off.
    pub(crate) async fn stop(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        let _ = serving.await;
        // The listener closes when its task has seen that nobody holds the server any more.
        until(|| std::net::TcpListener::bind(self.address).is_ok()).await;
    }

    pub(crate) fn send(&self, frame: &ServerFrame) {
        self.send_text(serde_json::to_string(frame).unwrap());
    }

    pub(crate) fn send_text(&self, frame: String) {
        let _ = self.shared.frames.send(frame);
    }

    /// Tells the node what it is to do about leaving.
    pub(crate) fn order(&self, drain: Option<DrainOrder>) {
        *self.shared.rev.lock().unwrap() += 1;
        self.send(&self.shared.snapshot(&scope(node()), vec![Item::Node { id: node(), name: "gw".into(), drain }]));
    }

    /// Replaces the resources and says so in a fresh snapshot.
    pub(crate) fn publish(&self, resources: Vec<NodeResource>) {
        *self.shared.resources.lock().unwrap() = resources;
        *self.shared.rev.lock().unwrap() += 1;
        self.send(&self.shared.snapshot_of_resources());
    }

    /// One more resource, and no snapshot.
    pub(crate) fn publish_one_more(&self, resource: NodeResource) {
        self.shared.resources.lock().unwrap().push(resource.clone());
        let mut rev = self.shared.rev.lock().unwrap();
        let (from, to) = (*rev, *rev + 1);
        *rev = to;
        let put = vec![Item::Resource(resource)];
        self.send(&ServerFrame::Delta { scope: "gateways".to_owned(), from, to, put, del: Vec::new() });
    }

    /// Tells a node of others, also each time that it comes.
    pub(crate) fn tell(&self, node: NodeId, items: Vec<Item>) {
        self.shared.told.lock().unwrap().insert(node, items);
        *self.shared.rev.lock().unwrap() += 1;
        self.send(&self.shared.snapshot_of_node(node));
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.shared.records.lock().unwrap().values().flatten().cloned().collect()
    }

    pub(crate) fn starts(&self) -> Vec<SessionStart> {
        let start = |record: Record| if let Event::Start(start) = record.event { Some(start) } else { None };
        self.records().into_iter().filter_map(start).collect()
    }

    pub(crate) fn ends(&self) -> Vec<SessionEnd> {
        let end = |record: Record| if let Event::End(end) = record.event { Some(end) } else { None };
        self.records().into_iter().filter_map(end).collect()
    }

    pub(crate) async fn end_of(&self, stream: StreamId) -> SessionEnd {
        until(|| self.ends().iter().any(|end| end.stream == stream)).await;
        self.ends().into_iter().find(|end| end.stream == stream).unwrap()
    }
}

impl Shared {
    fn snapshot(&self, scope: &str, items: Vec<Item>) -> ServerFrame {
        ServerFrame::Snapshot { scope: scope.into(), rev: *self.rev.lock().unwrap(), part: 0, of: 1, items }
    }

    fn snapshot_of_node(&self, node: NodeId) -> ServerFrame {
        let own = Item::Node { id: node, name: "gw".into(), drain: None };
        let told = self.told.lock().unwrap().get(&node).cloned().unwrap_or_default();
        self.snapshot(&scope(node), [vec![own], told].concat())
    }

    pub(crate) fn snapshot_of_resources(&self) -> ServerFrame {
        self.snapshot("gateways", self.resources.lock().unwrap().iter().cloned().map(Item::Resource).collect())
    }
}

fn scope(node: NodeId) -> String {
    format!("node:{node}")
}

/// Who has shown this certificate.
fn who(leaf: Option<&[u8]>) -> Option<NodeId> {
    match PeerIdentity::from_leaf(leaf?, org()).unwrap().peer {
        Peer::Node { node } => Some(node),
        Peer::Device { .. } => None,
    }
}

fn answer(call: &Call, ca: &Ca, shared: &Shared) -> Reply {
    match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/api/v1/ca") => json(&ca.info()),
        ("POST", "/api/v1/nodes/enrol") => {
            let request: EnrolRequest = serde_json::from_slice(&call.body).unwrap();
            let Some(node) = (1..10).find(|n| request.token == token(*n)).map(numbered) else {
                return problem(&Problem::new(401, "enrol_token_refused", "The enrolment token is not good"));
            };
            let certificate = certify(&request.csr, node, ca, shared);
            json(&EnrolResponse { node, name: "gw".into(), cluster: None, certificate, ca: ca.info() })
        }
        (method, path) => match who(call.leaf.as_deref()) {
            Some(node) => answer_node((method, path), node, call, ca, shared),
            None => problem(&Problem::new(401, "no_certificate", "No certificate")),
        },
    }
}

fn answer_node(asked: (&str, &str), node: NodeId, call: &Call, ca: &Ca, shared: &Shared) -> Reply {
    match asked {
        ("POST", "/api/v1/nodes/certificate") => {
            let request: CertificateRequest = serde_json::from_slice(&call.body).unwrap();
            json(&certify(&request.csr, node, ca, shared))
        }
        ("GET", "/api/v1/nodes/records") => {
            json(&ack(shared.records.lock().unwrap().get(&node).map_or(&[], Vec::as_slice)))
        }
        ("POST", "/api/v1/nodes/records") => store(call, node, shared),
        _ => problem(&Problem::new(404, "not_found", "There is nothing")),
    }
}

fn certify(csr: &str, node: NodeId, ca: &Ca, shared: &Shared) -> CertificateResponse {
    *shared.certificates.lock().unwrap() += 1;
    let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
    request.params = node_params(node);
    let certificate = request.signed_by(&ca.issuer).unwrap().pem();
    CertificateResponse { certificate, not_after: now().plus(*shared.life.lock().unwrap()) }
}

fn params(peer: Peer) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(identity::uri(org(), peer).try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn node_params(node: NodeId) -> CertificateParams {
    let mut params = params(Peer::Node { node });
    params.subject_alt_names.push(SanType::DnsName(node.tls_name().try_into().unwrap()));
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    params
}

/// Stores what goes on where the records end; like the real one, it skips what it has.
fn store(call: &Call, node: NodeId, shared: &Shared) -> Reply {
    if *shared.deaf.lock().unwrap() {
        return problem(&Problem::new(503, "busy", "Not now"));
    }
    let batch: RecordBatch = serde_json::from_slice(&call.body).unwrap();
    let mut all = shared.records.lock().unwrap();
    let records = all.entry(node).or_default();
    for record in batch.records {
        let RecordAck { stored, hash } = ack(records);
        if record.seq <= stored {
            continue;
        }
        record.follows(stored, &hash).unwrap();
        records.push(record);
    }
    json(&ack(records))
}

fn ack(records: &[Record]) -> RecordAck {
    records.last().map_or_else(
        || RecordAck { stored: 0, hash: GENESIS.into() },
        |last| RecordAck { stored: last.seq, hash: last.hash.clone() },
    )
}

/// Of [`sign`].
pub(crate) fn lease_key() -> Item {
    let public = hex(Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap().public_key().as_ref());
    Item::LeaseKey { id: "k".into(), public }
}

async fn converse(mut socket: FakeSocket, shared: Arc<Shared>) {
    let mut frames = shared.frames.subscribe();
    let Some(ClientFrame::Hello(_)) = socket.recv().await else { return };
    let node = who(socket.leaf.as_deref()).unwrap();
    let scopes = vec!["org".to_owned(), "gateways".to_owned(), scope(node)];
    let welcome = Welcome { version: VERSION, org: org(), epoch: "e".into(), now: now(), scopes: scopes.clone() };
    socket.send(&ServerFrame::Welcome(welcome)).await;
    socket.send(&shared.snapshot("org", vec![lease_key()])).await;
    socket.send(&shared.snapshot_of_resources()).await;
    socket.send(&shared.snapshot_of_node(node)).await;
    *shared.connected.lock().unwrap() += 1;
    loop {
        tokio::select! {
            frame = socket.recv() => match frame {
                Some(ClientFrame::Ping { n }) => socket.send(&ServerFrame::Pong { n, now: now() }).await,
                Some(ClientFrame::Live { subjects }) => {
                    shared.asked.lock().unwrap().extend(subjects);
                    socket.send(&ServerFrame::Checked).await;
                }
                Some(ClientFrame::Health { reports }) => shared.health.lock().unwrap().extend(reports),
                Some(ClientFrame::Presence { advertise, draining, .. }) => {
                    shared.presence.lock().unwrap().push((advertise, draining));
                }
                Some(ClientFrame::Parked { at }) => drop(shared.parked.lock().unwrap().insert(node, at)),
                Some(ClientFrame::Load { .. }) => {}
                Some(ClientFrame::Hello(_)) | None => return,
            },
            frame = frames.recv() => {
                let frame = frame.unwrap();
                let of_another = matches!(
                    serde_json::from_str(&frame),
                    Ok(ServerFrame::Snapshot { scope, .. }) if scope.starts_with("node:") && !scopes.contains(&scope)
                );
                if !of_another {
                    socket.send_text(frame).await;
                }
            }
        }
    }
}

/// A resource that echoes, at loopback.
pub(crate) async fn echo(n: u128) -> NodeResource {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    resource(n, port)
}

pub(crate) fn resource(n: u128, port: u16) -> NodeResource {
    NodeResource {
        id: resource_id(n),
        name: format!("echo-{n}"),
        kind: Kind::Tcp,
        tags: BTreeMap::from([("env".to_owned(), "test".to_owned())]),
        host: "127.0.0.1".into(),
        port,
        ports: PortSet::default(),
        hosts: Vec::new(),
        revision: 1,
        allow_local: true,
        strict: false,
        egress: None,
    }
}

/// A gateway that runs in this process.
pub(crate) struct Running {
    pub(crate) ready: Ready,
    pub(crate) stop: CancellationToken,
    pub(crate) stop_now: CancellationToken,
    task: JoinHandle<Result<(), GatewayError>>,
}

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    options: GatewayOptions,
}

pub(crate) fn arguments(control: &Control, state: &TempDir) -> Vec<String> {
    [node_arguments(control, state), vec!["--listen".to_owned(), "127.0.0.1:0".to_owned()]].concat()
}

/// Those of a node of any kind.
pub(crate) fn node_arguments(control: &Control, state: &TempDir) -> Vec<String> {
    let (url, fingerprint) = (format!("https://{}", control.address), control.ca.fingerprint());
    let state = state.path().to_str().unwrap().to_owned();
    let options = [("--control", url.as_str()), ("--ca-fingerprint", &fingerprint), ("--state", &state)];
    options.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect()
}

impl Running {
    pub(crate) async fn start(control: &Control, state: &TempDir) -> Self {
        Self::try_start(control, state, &["--enrol-token", "token"]).await.unwrap()
    }

    pub(crate) async fn try_start(control: &Control, state: &TempDir, more: &[&str]) -> Result<Self, GatewayError> {
        install_crypto_provider();
        let arguments = arguments(control, state);
        let program = ["gateway".to_owned()].into_iter();
        let arguments = program.chain(arguments).chain(more.iter().map(|word| (*word).to_owned()));
        let options = Cli::parse_from(arguments).options;
        let (stop, stop_now) = (CancellationToken::new(), CancellationToken::new());
        let (tell, told) = oneshot::channel();
        let ready = move |ready: &Ready| {
            let _ = tell.send(ready.clone());
        };
        let mut task = tokio::spawn(gateway::run(options, stop.clone(), stop_now.clone(), ready));
        within(async {
            tokio::select! {
                Ok(ready) = told => Ok(ready),
                ended = &mut task => Err(ended.unwrap().unwrap_err()),
            }
        })
        .await
        .map(|ready| Self { ready, stop, stop_now, task })
    }

    /// Stops as with two signals and waits for the end.
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        self.stop_now.cancel();
        self.ended().await;
    }

    pub(crate) async fn ended(self) {
        within(self.task).await.unwrap().unwrap();
    }
}

/// A relay that runs in this process, with the token of this number.
pub(crate) struct RunningRelay {
    stop: CancellationToken,
    task: JoinHandle<Result<(), GatewayError>>,
    _state: TempDir,
}

#[derive(clap::Parser)]
struct RelayCli {
    #[command(flatten)]
    options: RelayOptions,
}

impl RunningRelay {
    pub(crate) fn start(control: &Control, n: u128) -> Self {
        install_crypto_provider();
        let state = tempfile::tempdir().unwrap();
        let arguments = [vec!["relay".to_owned()], node_arguments(control, &state)].concat();
        let arguments = arguments.into_iter().chain(["--enrol-token".to_owned(), token(n)]);
        let options = RelayCli::parse_from(arguments).options;
        let stop = CancellationToken::new();
        let task = tokio::spawn(relay::run(options, stop.clone(), stop.clone(), |_| ()));
        Self { stop, task, _state: state }
    }

    pub(crate) async fn finish(self) {
        self.stop.cancel();
        within(self.task).await.unwrap().unwrap();
    }
}

/// How a node that a test plays itself dials others.
pub(crate) fn dialling(ca: &Ca, node: NodeId) -> ClientTls {
    let (trust, identity) = node_identity(ca, node);
    ClientTls::new(&trust, &identity).unwrap()
}

/// With what a node that a test plays itself proves who it is.
pub(crate) fn node_identity(ca: &Ca, node: NodeId) -> (Trust, Identity) {
    install_crypto_provider();
    let leaf = ca.sign(node_params(node));
    let identity = Identity::from_pem(org(), &leaf.certificate, &leaf.key).unwrap();
    (Trust::from_pem(org(), &ca.pem()).unwrap(), identity)
}

/// A user's device.
pub(crate) struct Device {
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    pub(crate) tls: ClientTls,
    cnf: String,
}

impl Device {
    pub(crate) fn new(ca: &Ca, n: u128) -> Self {
        let (account, device) = (AccountId::from_ulid(ulid(n)), DeviceId::from_ulid(ulid(n)));
        let leaf = ca.sign(params(Peer::Device { account, device }));
        let trust = Trust::from_pem(org(), &ca.pem()).unwrap();
        let identity = Identity::from_pem(org(), &leaf.certificate, &leaf.key).unwrap();
        let cnf = hex(&identity.peer().spki_sha256);
        Self { account, device, tls: ClientTls::new(&trust, &identity).unwrap(), cnf }
    }

    pub(crate) fn entry(&self, gateway: impl Into<Option<SocketAddr>>) -> Arc<Entry> {
        Entry::new(node(), gateway.into().unwrap().to_string(), self.tls.clone()).unwrap()
    }

    /// Over the first node to a relay; `lease` is shown to the first.
    pub(crate) fn entry_to(&self, relay: NodeId, gateway: impl Into<Option<SocketAddr>>, lease: &str) -> Arc<Entry> {
        let gateway = gateway.into().unwrap().to_string();
        let entry = Entry::to_relay(node(), gateway, relay, self.tls.clone()).unwrap();
        entry.set_lease(lease);
        entry
    }

    pub(crate) fn claims(&self, resource: u128) -> Claims {
        claims((self.account, self.device), &self.cnf, resource)
    }

    pub(crate) fn lease(&self, resource: u128) -> String {
        sign(&self.claims(resource))
    }
}

/// What a lease says for a device with this key, for a while from now on.
pub(crate) fn claims((account, device): (AccountId, DeviceId), cnf: &str, resource: u128) -> Claims {
    Claims {
        org: org(),
        account,
        device,
        cnf: cnf.to_owned(),
        resource: resource_id(resource),
        revision: 1,
        grant: "rol_1".into(),
        issued_at: now(),
        not_after: now().plus(LIFETIME),
        grant_ends: None,
        cluster: None,
    }
}

pub(crate) fn sign(claims: &Claims) -> String {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
    let secret = [[5; 32].as_slice(), pair.public_key().as_ref()].concat();
    Signer::new("k", &secret).unwrap().sign(claims).unwrap()
}

/// One try, and no other.
struct Once {
    entry: Arc<Entry>,
    request: Request,
}

impl StreamGuide for Once {
    async fn next_attempt(&mut self, number: u32, failure: Option<&Failure>) -> Result<Attempt, Problem> {
        match failure {
            Some(failure) if number > 0 => Err(failure.problem()),
            _ => Ok(Attempt { entry: Arc::clone(&self.entry), request: self.request.clone() }),
        }
    }
}

/// A program's connection, carried through a gateway.
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) app: TcpStream,
    task: JoinHandle<StreamEnd>,
}

impl Stream {
    pub(crate) async fn open(entry: &Arc<Entry>, resource: u128, lease: &str) -> Self {
        let id = StreamId::from_ulid(Ulid::from_parts(now().0, rand::random()));
        Self::open_as(id, entry, resource, lease).await
    }

    pub(crate) async fn open_as(id: StreamId, entry: &Arc<Entry>, resource: u128, lease: &str) -> Self {
        Self::open_wanting(Wanted::default(), id, entry, resource, lease).await
    }

    pub(crate) async fn open_wanting(
        wanted: Wanted,
        id: StreamId,
        entry: &Arc<Entry>,
        resource: u128,
        lease: &str,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (local, _) = listener.accept().await.unwrap();
        let request = Request::new(resource_id(resource), "gw", lease, id).unwrap().wanting(wanted);
        let guide = Once { entry: Arc::clone(entry), request };
        Self { id, app, task: tokio::spawn(carry(local, guide, StreamControl::new())) }
    }

    /// Sends and hopes for the same back.
    pub(crate) async fn ping(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.app.write_all(bytes).await?;
        let mut back = vec![0; bytes.len()];
        within(self.app.read_exact(&mut back)).await?;
        assert_eq!(back, bytes);
        Ok(())
    }

    /// Closes in order and waits for the end.
    pub(crate) async fn close(mut self) -> EndCause {
        self.app.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = within(self.app.read_to_end(&mut rest)).await;
        within(self.task).await.unwrap().cause
    }

    /// Waits until it is over.
    pub(crate) async fn ended(self) -> EndCause {
        within(self.task).await.unwrap().cause
    }

    /// The problem that it was refused with.
    pub(crate) async fn refusal(self) -> Problem {
        match self.ended().await {
            EndCause::Refused(problem) => *problem,
            cause => panic!("not refused: {cause:?}"),
        }
    }
}

/// Everything at once: a control plane with an echoing resource 1, a gateway, a device.
pub(crate) struct Bench {
    pub(crate) control: Control,
    pub(crate) state: TempDir,
    pub(crate) gateway: Running,
    pub(crate) device: Device,
    pub(crate) entry: Arc<Entry>,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        let control = Control::start(vec![echo(1).await]).await;
        let state = tempfile::tempdir().unwrap();
        let gateway = Running::start(&control, &state).await;
        let device = Device::new(&control.ca, 1);
        let entry = device.entry(gateway.ready.listen);
        Self { control, state, gateway, device, entry }
    }

    pub(crate) async fn open(&self, resource: u128) -> Stream {
        Stream::open(&self.entry, resource, &self.device.lease(resource)).await
    }

    /// Opens a stream and waits until it carries.
    pub(crate) async fn carrying(&self) -> Stream {
        let mut stream = self.open(1).await;
        if let Err(error) = stream.ping(b"hello").await {
            panic!("{error}: {:?}", stream.ended().await);
        }
        stream
    }
}
