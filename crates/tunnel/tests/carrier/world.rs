//! An organisation in memory: its CA, a gateway on loopback, a client, and targets to reach.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use postern_proto::{
    head::{Refused, Request},
    id::{AccountId, ClusterId, DeviceId, NodeId, OrgId, ResourceId, StreamId},
    problem::Problem,
    sync::Peer,
};
use postern_tunnel::{
    client::{Attempt, Entry, Failure, StreamGuide, carry},
    identity,
    node::{Arrival, OpenRequest, Opened, Server, StreamHandler},
    stream::{StreamControl, StreamEnd},
    tls::{ClientTls, Identity, OuterClientTls, ServerTls, Trust, install_crypto_provider},
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    SanType,
};
use rustls::{ClientConfig, pki_types::ServerName};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

/// A number for everything that needs an identifier of its own.
fn next() -> Ulid {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    Ulid::from_parts(1_700_000_000_000, u128::from(NEXT.fetch_add(1, Ordering::Relaxed)))
}

pub(crate) fn resource() -> ResourceId {
    ResourceId::from_ulid(Ulid::from_parts(1_700_000_000_000, 0))
}

pub(crate) fn node() -> NodeId {
    NodeId::from_ulid(next())
}

pub(crate) fn device() -> Peer {
    Peer::Device { account: AccountId::from_ulid(next()), device: DeviceId::from_ulid(next()) }
}

/// An organisation's CA.
pub(crate) struct Org {
    pub(crate) id: OrgId,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// What a leaf says, to be changed by tests.
pub(crate) struct Leaf {
    pub(crate) names: Vec<SanType>,
    pub(crate) uses: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) begins: OffsetDateTime,
    pub(crate) ends: OffsetDateTime,
}

impl Org {
    pub(crate) fn new() -> Self {
        install_crypto_provider();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap();
        Self { id: OrgId::from_ulid(next()), pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::from_pem(self.id, &self.pem).unwrap()
    }

    /// The leaf that this organisation gives to `peer`.
    pub(crate) fn leaf(&self, peer: Peer) -> Leaf {
        let uri = |text: String| SanType::URI(text.try_into().unwrap());
        let now = OffsetDateTime::now_utc();
        let mut leaf = Leaf {
            names: vec![uri(identity::uri(self.id, peer))],
            uses: vec![ExtendedKeyUsagePurpose::ClientAuth],
            begins: now - Duration::from_secs(300),
            ends: now + Duration::from_secs(3600),
        };
        if let Peer::Node { node } = peer {
            leaf.names.push(SanType::DnsName(node.tls_name().try_into().unwrap()));
            leaf.uses.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        leaf
    }

    /// Signs a leaf; certificate and key in PEM.
    pub(crate) fn sign(&self, leaf: Leaf) -> (String, String) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = leaf.names;
        params.extended_key_usages = leaf.uses;
        params.not_before = leaf.begins;
        params.not_after = leaf.ends;
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    pub(crate) fn identity(&self, peer: Peer) -> Identity {
        let (certificate, key) = self.sign(self.leaf(peer));
        Identity::from_pem(self.id, &certificate, &key).unwrap()
    }

    pub(crate) fn client(&self) -> ClientTls {
        ClientTls::new(&self.trust(), &self.identity(device())).unwrap()
    }
}

/// What the gateway does with a request.
pub(crate) enum Plan {
    Dial(SocketAddr),
    Refuse(Refused),
    DialAfter(Duration, SocketAddr),
    /// Dials once it is let.
    DialWhen(CancellationToken, SocketAddr),
    /// Says no when the client went away.
    UntilGone(mpsc::UnboundedSender<()>),
}

impl Plan {
    pub(crate) fn problem(status: u16, code: &str) -> Self {
        Self::Refuse(Problem::new(status, code, code).into())
    }
}

type Decide = Box<dyn Fn(&OpenRequest<'_>) -> Plan + Send + Sync>;

pub(crate) struct Targets {
    decide: Decide,
    ends: mpsc::UnboundedSender<StreamEnd>,
    pub(crate) controls: Mutex<Vec<StreamControl>>,
}

impl StreamHandler for Targets {
    async fn open(&self, request: OpenRequest<'_>) -> Result<Opened, Refused> {
        let address = match (self.decide)(&request) {
            Plan::Dial(address) => address,
            Plan::Refuse(refused) => return Err(refused),
            Plan::DialAfter(pause, address) => {
                tokio::time::sleep(pause).await;
                address
            }
            Plan::DialWhen(let_go, address) => {
                let_go.cancelled().await;
                address
            }
            Plan::UntilGone(noticed) => {
                request.gone.cancelled().await;
                let _ = noticed.send(());
                return Err(Problem::new(502, "gone", "Gone").into());
            }
        };
        let target = TcpStream::connect(address).await;
        let target = target.map_err(|error| Problem::new(502, "refused", "Refused").with_detail(error.to_string()))?;
        let control = StreamControl::new();
        self.controls.lock().unwrap().push(control.clone());
        let ends = self.ends.clone();
        Ok(Opened { target, control, done: Box::new(move |end| drop(ends.send(end))) })
    }
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) server: Arc<Server<Targets>>,
    pub(crate) ends: mpsc::UnboundedReceiver<StreamEnd>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Gateway {
    pub(crate) async fn start(
        org: &Org,
        drain: Duration,
        decide: impl Fn(&OpenRequest<'_>) -> Plan + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(org, drain, Arrival::default(), decide).await
    }

    /// A gateway to which connections come in something.
    pub(crate) async fn start_at(
        org: &Org,
        drain: Duration,
        arrival: Arrival,
        decide: impl Fn(&OpenRequest<'_>) -> Plan + Send + Sync + 'static,
    ) -> Self {
        let node = node();
        Self::start_as(node, org, org.leaf(Peer::Node { node }), (drain, arrival), decide).await
    }

    /// A worker of a cluster.
    pub(crate) async fn start_worker(
        org: &Org,
        cluster: ClusterId,
        decide: impl Fn(&OpenRequest<'_>) -> Plan + Send + Sync + 'static,
    ) -> Self {
        Self::start_worker_at(org, cluster, Arrival::default(), decide).await
    }

    /// The same, to which connections come in something.
    pub(crate) async fn start_worker_at(
        org: &Org,
        cluster: ClusterId,
        arrival: Arrival,
        decide: impl Fn(&OpenRequest<'_>) -> Plan + Send + Sync + 'static,
    ) -> Self {
        let node = node();
        let mut leaf = org.leaf(Peer::Node { node });
        leaf.names.push(SanType::DnsName(cluster.tls_name().try_into().unwrap()));
        Self::start_as(node, org, leaf, (Duration::ZERO, arrival), decide).await
    }

    async fn start_as(
        node: NodeId,
        org: &Org,
        leaf: Leaf,
        (drain, arrival): (Duration, Arrival),
        decide: impl Fn(&OpenRequest<'_>) -> Plan + Send + Sync + 'static,
    ) -> Self {
        let (certificate, key) = org.sign(leaf);
        let identity = Identity::from_pem(org.id, &certificate, &key).unwrap();
        let tls = ServerTls::new(&org.trust(), &identity).unwrap();
        let (sender, ends) = mpsc::unbounded_channel();
        let handler = Targets { decide: Box::new(decide), ends: sender, controls: Mutex::default() };
        let server = Server::new(handler, tls);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(server.clone().serve_arrivals(listener, arrival, stop.clone(), drain));
        Self { node, address, server, ends, stop, task }
    }

    /// The gateway's entry, reached through `relay`.
    pub(crate) fn entry_through(&self, relay: &Relay, tls: ClientTls) -> Arc<Entry> {
        Entry::new(self.node, relay.address.to_string(), tls).unwrap()
    }

    /// The next stream that ended, as the handler was told.
    pub(crate) async fn ended(&mut self) -> StreamEnd {
        within(self.ends.recv()).await.unwrap()
    }

    /// The gateway's entry within a WebSocket; whoever is at `address` ends TLS.
    pub(crate) fn entry_within(&self, address: &str, outer: &OuterClientTls, tls: ClientTls) -> Arc<Entry> {
        Entry::over_websocket(self.node, address, outer.clone(), tls).unwrap()
    }

    pub(crate) fn entry(&self, tls: ClientTls) -> Arc<Entry> {
        Entry::new(self.node, self.address.to_string(), tls).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A guide that goes through a list of entries, one for each attempt, and notes why the ones before failed.
pub(crate) struct Route {
    pub(crate) entries: Vec<Arc<Entry>>,
    stream: StreamId,
    pub(crate) failures: Arc<Mutex<Vec<String>>>,
}

impl Route {
    pub(crate) fn to(entries: &[&Arc<Entry>]) -> Self {
        Self {
            entries: entries.iter().map(|entry| Arc::clone(entry)).collect(),
            stream: StreamId::from_ulid(next()),
            failures: Arc::default(),
        }
    }
}

impl StreamGuide for Route {
    async fn next_attempt(&mut self, number: u32, failure: Option<&Failure>) -> Result<Attempt, Problem> {
        self.failures.lock().unwrap().extend(failure.map(|failure| failure.problem().code));
        match self.entries.get(number as usize) {
            Some(entry) => Ok(Attempt { entry: entry.clone(), request: request_of(self.stream, number) }),
            None => Err(failure.map_or_else(|| Problem::new(500, "none", "None"), Failure::problem)),
        }
    }
}

fn request_of(stream: StreamId, attempt: u32) -> Request {
    Request::new(resource(), "gw.example", format!("v4.public.{attempt}"), stream).unwrap()
}

pub(crate) fn request(lease: &str) -> Request {
    Request::new(resource(), "gw.example", lease, StreamId::from_ulid(next())).unwrap()
}

/// A local program's connection, carried by `guide`.
pub(crate) struct Local {
    pub(crate) app: TcpStream,
    pub(crate) control: StreamControl,
    pub(crate) task: JoinHandle<StreamEnd>,
}

impl Local {
    pub(crate) async fn connect(guide: impl StreamGuide + 'static) -> Self {
        let (app, service) = pair().await;
        let control = StreamControl::new();
        let task = tokio::spawn(carry(service, guide, control.clone()));
        Self { app, control, task }
    }

    /// Sends this to its end while it reads to the end, and gives what came.
    pub(crate) async fn echo(&mut self, sent: &[u8]) -> Vec<u8> {
        let (mut read, mut write) = self.app.split();
        let mut received = Vec::new();
        let writing = async {
            write.write_all(sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        within(async { tokio::join!(writing, async { read.read_to_end(&mut received).await.unwrap() }) }).await;
        received
    }

    pub(crate) async fn end(self) -> StreamEnd {
        drop(self.app);
        within(self.task).await.unwrap()
    }
}

/// The two ends of a connection over loopback.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    (connected, accepted)
}

/// A target whose connections are handed to the test.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
}

impl Target {
    pub(crate) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    pub(crate) async fn accept(&self) -> TcpStream {
        within(self.listener.accept()).await.unwrap().0
    }

    pub(crate) async fn accept_ever(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// A target that sends back what it gets until the end.
    pub(crate) async fn echo() -> SocketAddr {
        let target = Self::bind().await;
        let address = target.address;
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = target.listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.shutdown().await;
                });
            }
        });
        address
    }
}

/// Nothing here takes long; what does hangs.
pub(crate) async fn within<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it hangs")
}

/// A connection to a gateway whose TLS and bytes the test writes itself.
pub(crate) async fn tls(
    trust: &Trust,
    identity: Option<&Identity>,
    alpn: &[&[u8]],
    node: NodeId,
    address: SocketAddr,
) -> std::io::Result<TlsStream<TcpStream>> {
    tls_over(TcpStream::connect(address).await?, trust, identity, alpn, node).await
}

/// The same over a connection that is there.
pub(crate) async fn tls_over(
    stream: TcpStream,
    trust: &Trust,
    identity: Option<&Identity>,
    alpn: &[&[u8]],
    node: NodeId,
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder().with_root_certificates(trust.roots().clone());
    let mut config = match identity {
        Some(identity) => config.with_client_auth_cert(identity.chain().to_vec(), identity.key().clone_key()).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
    let name = ServerName::try_from(node.tls_name()).unwrap();
    within(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// A relay in front of a gateway, whose connections the test breaks.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    /// Raised with every mining: connections of a smaller number break when the client sends something more.
    age: Arc<AtomicU32>,
    broken: CancellationToken,
}

impl Relay {
    pub(crate) async fn to(gateway: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (age, broken) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
        let (ages, end) = (age.clone(), broken.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, gateway, ages.clone(), end.child_token()));
            }
        });
        Self { address, age, broken }
    }

    /// Every connection that there is breaks as soon as the client sends something, and what it sends is lost.
    pub(crate) fn mine_those_that_are(&self) {
        self.age.fetch_add(1, Ordering::SeqCst);
    }

    /// Every connection breaks now.
    pub(crate) fn cut(&self) {
        self.broken.cancel();
    }
}

async fn relay(mut client: TcpStream, gateway: SocketAddr, age: Arc<AtomicU32>, broken: CancellationToken) {
    let born = age.load(Ordering::SeqCst);
    let mut node = TcpStream::connect(gateway).await.unwrap();
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            () = broken.cancelled() => return,
            read = client.read(&mut up) => match read {
                Ok(count) if count > 0 && age.load(Ordering::SeqCst) == born => {
                    if node.write_all(&up[..count]).await.is_err() { return }
                }
                _ => return,
            },
            read = node.read(&mut down) => match read {
                Ok(count) if count > 0 => if client.write_all(&down[..count]).await.is_err() { return },
                _ => return,
            },
        }
    }
}
