//! The node's side: accepts TLS connections, reads the head of each stream, lets a [`StreamHandler`] decide and dial, and
//! carries the bytes.
//!
//! A peer without a client certificate that speaks HTTP/1.1 or HTTP/2 gets `404 Not Found` to every request; nothing else
//! is ever served.

mod accept;
mod admission;
mod arrival;
mod bridge;
mod entrance;
mod handshakes;
mod leave;
mod live;
mod opened;
mod parked;
mod passage;
mod session;
mod stranger;

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use postern_proto::{
    head::{Passage, Refused, Request},
    problem::Problem,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

pub use self::arrival::{Arrival, Balancers, Carrier};
pub use self::entrance::listen;
pub use self::handshakes::{Handshakes, Outcome};
use self::{
    live::{Live, Spares},
    opened::OpenedLately,
};
use crate::{
    identity::PeerIdentity,
    park::{IncomingPassage, OpenPassage, ParkedLink},
    stream::{StreamControl, StreamEnd},
    tls::ServerTls,
};

/// A client's wish for a stream.
#[derive(Debug)]
pub struct OpenRequest<'a> {
    /// From the client's certificate, which had not ended when the head came.
    pub peer: &'a PeerIdentity,
    /// Where the client's connection comes from.
    pub client: SocketAddr,
    pub request: &'a Request,
    /// Cancelled when the client goes away; the handler may then stop and answer anything.
    pub gone: &'a CancellationToken,
}

/// A stream that may begin.
pub struct Opened {
    /// Connected to the resource; nothing was written to it.
    pub target: TcpStream,
    /// Counts and cuts the stream. The handler keeps a clone.
    pub control: StreamControl,
    /// Called exactly once, when the stream is over, whatever happened.
    pub done: Done,
}

/// Takes the end of a stream.
pub type Done = Box<dyn FnOnce(StreamEnd) + Send>;

/// Decides about streams and dials their targets.
pub trait StreamHandler: Send + Sync + 'static {
    /// Opens a stream, or says why not ([`Problem`] converts with `into`).
    ///
    /// It runs to its end even when the client goes away meanwhile, so what it has begun is never left half done; then
    /// `done` is called with what became of the stream. It must bound its own time.
    fn open(&self, request: OpenRequest<'_>) -> impl Future<Output = Result<Opened, Refused>> + Send;

    /// Opens a passage to a relay, or says why not. It must bound its own time.
    fn pass(&self, request: PassRequest<'_>) -> impl Future<Output = Result<Passed, Refused>> + Send {
        let relay = request.passage.relay();
        async move {
            let problem = Problem::new(404, "unknown_relay", "This node leads to no relay");
            Err(problem.with_detail(format!("{relay} is not behind it.")).into())
        }
    }

    /// At a bridge ([`Arrival::bridges`]): where a client's connection goes on, or why nowhere. Nothing is known of the client
    /// but its address. It must bound its own time.
    fn bridge(&self, client: SocketAddr) -> impl Future<Output = Result<Passed, Refused>> + Send {
        let _ = client;
        async move { Err(Problem::new(404, "no_bridge", "This node is no bridge").into()) }
    }

    /// Takes a link that a node with this certificate has made to be parked. It must bound its own time until the link has
    /// said what it is for; as long as it runs the link counts among the connections of the node.
    fn park(&self, peer: &PeerIdentity, link: ParkedLink) -> impl Future<Output = ()> + Send {
        let _ = peer;
        async move { link.close() }
    }
}

/// A wish for a passage.
#[derive(Debug)]
pub struct PassRequest<'a> {
    /// From the certificate of who asks: a client's device, or another gateway.
    pub peer: &'a PeerIdentity,
    /// Where the connection comes from.
    pub client: SocketAddr,
    pub passage: &'a Passage,
}

/// A passage that may begin.
pub struct Passed {
    pub onward: OpenPassage,
    /// Counts and cuts the passage.
    pub control: StreamControl,
    /// Called exactly once, when the passage is over.
    pub done: Done,
}

/// Accepts clients and serves their streams.
pub struct Server<H> {
    handler: H,
    tls: RwLock<ServerTls>,
    live: Live,
    opened: OpenedLately,
    handshakes: Handshakes,
    spares: Spares,
}

impl<H: StreamHandler> Server<H> {
    pub fn new(handler: H, tls: ServerTls) -> Arc<Self> {
        let opened = OpenedLately::new(Instant::now());
        Arc::new(Self {
            handler,
            tls: RwLock::new(tls),
            live: Live::default(),
            opened,
            handshakes: Handshakes::default(),
            spares: Spares::default(),
        })
    }

    #[must_use]
    pub const fn handler(&self) -> &H {
        &self.handler
    }

    /// Takes a renewed certificate for the connections to come.
    pub fn set_tls(&self, tls: ServerTls) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    /// How handshakes went.
    #[must_use]
    pub const fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    /// How many links of clients and other nodes stand ready for a stream now.
    #[must_use]
    pub fn spares(&self) -> usize {
        self.spares.count()
    }

    /// How many streams run now.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.live.count()
    }

    /// Accepts until `stop` is cancelled. Then new streams are refused with 503 while running ones go on; after `drain`
    /// those that are left are cut with [`ResetCode::Draining`](postern_proto::frame::ResetCode::Draining). Returns when
    /// no stream is left.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken, drain: Duration) {
        self.serve_arrivals(listener, Arrival::default(), stop, drain).await;
    }

    /// [`Server::serve`], for connections that come in something.
    pub async fn serve_arrivals(
        self: Arc<Self>,
        listener: TcpListener,
        arrival: Arrival,
        stop: CancellationToken,
        drain: Duration,
    ) {
        accept::run(self, listener, arrival, stop, drain).await;
    }

    /// Serves passages that come over parked links as [`Server::serve`] serves connections.
    pub async fn serve_parked(
        self: Arc<Self>,
        incoming: mpsc::Receiver<IncomingPassage>,
        stop: CancellationToken,
        drain: Duration,
    ) {
        self.serve_parked_arrivals(incoming, Arrival::default(), stop, drain).await;
    }

    /// [`Server::serve_parked`], for what comes in something: from bridges, who pass on whatever they are sent.
    pub async fn serve_parked_arrivals(
        self: Arc<Self>,
        incoming: mpsc::Receiver<IncomingPassage>,
        arrival: Arrival,
        stop: CancellationToken,
        drain: Duration,
    ) {
        parked::run(self, (incoming, arrival), stop, drain).await;
    }

    fn tls(&self) -> ServerTls {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
