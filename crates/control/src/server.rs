//! The HTTPS listener: one task and one deadline for each handshake, an accept loop that survives every error, an end
//! with a deadline.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use postern_proto::id::OrgId;
use postern_tunnel::identity::PeerIdentity;
use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::authority::Authority;

/// How long a TLS handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a request head may take, and how long a connection may idle between requests.
pub const HEAD: Duration = Duration::from_secs(60);
/// How long requests under way may go on after the stop.
pub const GRACE: Duration = Duration::from_secs(5);
/// Connections at the same time. When all are taken, new ones wait in the kernel's queue.
const CONNECTIONS: usize = 16_384;
/// How long the accept loop rests after an error that would come again at once (no file descriptor left).
const REST: Duration = Duration::from_millis(100);

/// Serves the router over TLS until it is told to stop.
pub struct Server {
    pub listener: TcpListener,
    pub tls: Arc<ServerConfig>,
    pub router: Router,
    pub org: OrgId,
}

/// The TLS of the control plane: 1.3, a certificate of the client is asked for but not required, no resumption.
pub fn tls_config(
    authority: &Authority,
    certificate: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let anchors = Arc::new(authority.anchors()?);
    let verifier = WebPkiClientVerifier::builder(anchors)
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl Server {
    /// Accepts until `stop`, then gives requests under way [`GRACE`] to end.
    pub async fn run(self, stop: CancellationToken) {
        let acceptor = TlsAcceptor::from(self.tls);
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    report(ended);
                    continue;
                }
                accepted = accept(&self.listener, &permits) => accepted,
            };
            match accepted {
                Ok((stream, address, permit)) => {
                    let connection = Connection { address, org: self.org, router: self.router.clone(), permit };
                    connections.spawn(connection.serve(acceptor.clone(), stream, stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(REST).await;
                }
            }
        }
        drop(self.listener);
        let ended = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::warn!(left = connections.len(), "connections were cut because they did not end in time");
        }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, permit))
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task broke off");
    }
}

struct Connection {
    address: SocketAddr,
    org: OrgId,
    router: Router,
    permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, acceptor: TlsAcceptor, stream: TcpStream, stop: CancellationToken) {
        let Self { address, org, router, permit: _permit } = self;
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%error, %address, "the socket could not be set up");
        }
        let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, %address, "the TLS handshake failed"),
            Err(_) => return tracing::debug!(%address, "the TLS handshake took too long"),
        };
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = match leaf.map(|leaf| PeerIdentity::from_leaf(leaf, org)).transpose() {
            Ok(peer) => peer,
            Err(error) => return tracing::info!(%error, %address, "a client certificate names nobody"),
        };
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(address));
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.peer);
                request.extensions_mut().insert(peer.clone());
            }
            router.clone().oneshot(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %address, "a connection broke");
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A node that vanished counts as gone within ten seconds. Also below the idle limits of balancers and NAT (often 350 s,
    // sometimes 60).
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(4))
        .with_interval(Duration::from_secs(1))
        .with_retries(5);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
