//! A control plane in a test: real TLS, HTTP/1.1 and WebSockets, answers made up by the test.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use postern_proto::{
    api::CaInfo,
    id::OrgId,
    problem::{MEDIA_TYPE, Problem},
    record::hex,
    sync::{ClientFrame, ServerFrame},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use ulid::Ulid;

/// An organisation's CA.
pub(crate) struct Ca {
    pub(crate) issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, both in PEM.
pub(crate) struct Leaf {
    pub(crate) certificate: String,
    pub(crate) key: String,
    der: (Vec<u8>, Vec<u8>),
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn fingerprint(&self) -> String {
        hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.issuer.der()).as_ref())
    }

    pub(crate) fn info(&self) -> CaInfo {
        CaInfo { org: org(), org_name: "Test".into(), certificate: self.pem(), fingerprint: self.fingerprint() }
    }

    /// A leaf with these DNS names or IP addresses, for any use.
    pub(crate) fn leaf(&self, names: &[&str]) -> Leaf {
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        self.sign(params)
    }

    pub(crate) fn sign(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            der: (certificate.der().to_vec(), key.serialize_der()),
        }
    }
}

pub(crate) fn org() -> OrgId {
    OrgId::from_ulid(Ulid::from_parts(1, 1))
}

/// What a client asked.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The client's leaf (DER), when it showed one.
    pub(crate) leaf: Option<Vec<u8>>,
}

pub(crate) type Reply = Response<Full<Bytes>>;
type Answering = dyn Fn(&Call) -> Reply + Send + Sync;

pub(crate) fn json<T: Serialize>(value: &T) -> Reply {
    let body = serde_json::to_vec(value).unwrap();
    Response::builder().header(header::CONTENT_TYPE, "application/json").body(body.into()).unwrap()
}

pub(crate) fn problem(problem: &Problem) -> Reply {
    let mut reply = json(problem);
    *reply.status_mut() = StatusCode::from_u16(problem.status).unwrap();
    reply.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE.parse().unwrap());
    reply
}

/// The running server; it stops when it is dropped.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    /// WebSockets as they are opened.
    pub(crate) sockets: mpsc::Receiver<FakeSocket>,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    answer: Box<Answering>,
    calls: Mutex<Vec<Call>>,
    connections: AtomicUsize,
    sockets: mpsc::Sender<FakeSocket>,
    websockets: bool,
}

impl Fake {
    /// Serves with `leaf`; client certificates of `ca` are accepted and not demanded.
    pub(crate) async fn start(
        ca: &Ca,
        leaf: &Leaf,
        websockets: bool,
        answer: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), ca, leaf, websockets, answer).await
    }

    pub(crate) async fn start_at(
        at: SocketAddr,
        ca: &Ca,
        leaf: &Leaf,
        websockets: bool,
        answer: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let (sockets_in, sockets) = mpsc::channel(16);
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            calls: Mutex::default(),
            connections: AtomicUsize::new(0),
            sockets: sockets_in,
            websockets,
        });
        let stop = CancellationToken::new();
        let address = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, acceptor(ca, leaf), Arc::clone(&shared), stop.clone()));
        Self { address, sockets, shared, _stop: stop.drop_guard() }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Every call so far but upgrades.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// TLS connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

fn acceptor(ca: &Ca, leaf: &Leaf) -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    roots.add(ca.issuer.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf.der.1.clone()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![leaf.der.0.clone().into()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((tcp, _)) = accepted else { continue };
        let (acceptor, shared, stop) = (acceptor.clone(), Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            let _ = stop.run_until_cancelled(serve(tcp, acceptor, shared)).await;
        });
    }
}

async fn serve(tcp: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(tls) = acceptor.accept(tcp).await else { return };
    shared.connections.fetch_add(1, Ordering::SeqCst);
    let leaf = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
    let service = service_fn(move |request| handle(request, leaf.clone(), Arc::clone(&shared)));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).with_upgrades().await;
}

async fn handle(
    mut request: Request<Incoming>,
    leaf: Option<Vec<u8>>,
    shared: Arc<Shared>,
) -> Result<Reply, std::convert::Infallible> {
    if shared.websockets && request.headers().contains_key(header::UPGRADE) {
        let key = request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes().to_vec();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let stream = TokioIo::new(upgrade.await.unwrap());
            let stream = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            let _ = shared.sockets.send(FakeSocket { stream, leaf }).await;
        });
        let reply = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(&key))
            .body(Full::default());
        return Ok(reply.unwrap());
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let call = Call { method: parts.method, path: parts.uri.to_string(), headers: parts.headers, body, leaf };
    let reply = (shared.answer)(&call);
    shared.calls.lock().unwrap().push(call);
    Ok(reply)
}

/// The server's end of a WebSocket.
pub(crate) struct FakeSocket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    pub(crate) leaf: Option<Vec<u8>>,
}

impl FakeSocket {
    /// The next frame; `None` when the client has gone.
    pub(crate) async fn recv(&mut self) -> Option<ClientFrame> {
        loop {
            match self.stream.next().await? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub(crate) async fn send(&mut self, frame: &ServerFrame) {
        self.send_text(serde_json::to_string(frame).unwrap()).await;
    }

    pub(crate) async fn send_text(&mut self, text: String) {
        let _ = self.stream.send(Message::text(text)).await;
    }
}
