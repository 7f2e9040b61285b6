//! A control plane in memory, real in its TLS, HTTP, WebSocket and signatures, simple in everything else, and obedient to
//! the test: it can be stopped and started at its address, revoke, refuse and forget.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use postern_proto::{
    api::{
        AccountInfo, CertificateRequest, CertificateResponse, Credential, DeviceEvent, DeviceEvents, IssuedLease,
        LeaseRequest, LeaseResponse, LoginRequest, LoginResponse,
    },
    id::{AccountId, DeviceId, LoginId, NodeId, ResourceId},
    lease::{Claims, LIFETIME, Revocation, RevokedSubject},
    problem::{MEDIA_TYPE, Problem},
    record::hex,
    resource::{BindAddress, ClientResource, Health, Kind, Tags},
    sync::{ClientFrame, GatewayInfo, Item, ItemKey, NetworkSettings, Peer, ServerFrame, VERSION, Welcome},
};
use postern_tunnel::identity::PeerIdentity;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::org::{Org, next_ulid, now};

pub(crate) const EMAIL: &str = "ada@example.org";
pub(crate) const PASSWORD: &str = "correct horse battery staple";
pub(crate) const SERVICE_TOKEN: &str = "svc_CANARY-SERVICE-TOKEN";
/// Begins every login token, so that a test can look for it.
pub(crate) const TOKEN_CANARY: &str = "CANARY-LOGIN-TOKEN-";

pub(crate) struct Control {
    pub(crate) org: Arc<Org>,
    pub(crate) address: SocketAddr,
    world: Arc<World>,
    running: Option<CancellationToken>,
}

struct World {
    org: Arc<Org>,
    state: Mutex<Fake>,
    pushes: broadcast::Sender<ServerFrame>,
}

/// What the test may look at and change.
pub(crate) struct Fake {
    pub(crate) account: AccountId,
    pub(crate) service_account: AccountId,
    pub(crate) must_change_password: bool,
    pub(crate) certificate_life: Duration,
    pub(crate) login_life: Duration,
    /// Answer to leases, certificates and sync, in place of the real one.
    pub(crate) refuse: Option<Problem>,
    pub(crate) denied: BTreeSet<ResourceId>,
    pub(crate) grant: String,
    pub(crate) events: Vec<DeviceEvent>,
    pub(crate) logins: u32,
    pub(crate) logouts: u32,
    pub(crate) certificates: u32,
    pub(crate) leases: u32,
    /// Every request as `METHOD path`, and whether it carried a credential of some kind.
    pub(crate) requests: Vec<(String, bool)>,
    pub(crate) passwords_changed: u32,
    rev: u64,
    org_items: BTreeMap<ItemKey, Item>,
    access: BTreeMap<ResourceId, ClientResource>,
    keys: BTreeMap<DeviceId, (AccountId, String)>,
    tokens: BTreeMap<String, DeviceId>,
}

impl Control {
    pub(crate) async fn start() -> Self {
        Self::start_for(Arc::new(Org::new())).await
    }

    pub(crate) async fn start_for(org: Arc<Org>) -> Self {
        let mut org_items = BTreeMap::new();
        for item in [
            Item::Settings(NetworkSettings::default()),
            Item::LeaseKey { id: "k1".to_owned(), public: hex(&org.lease_key) },
        ] {
            org_items.insert(item.key(), item);
        }
        let state = Fake {
            account: AccountId::from_ulid(next_ulid()),
            service_account: AccountId::from_ulid(next_ulid()),
            must_change_password: false,
            certificate_life: Duration::from_secs(12 * 3600),
            login_life: Duration::from_secs(12 * 3600),
            refuse: None,
            denied: BTreeSet::new(),
            grant: "rol_1".to_owned(),
            events: Vec::new(),
            logins: 0,
            logouts: 0,
            certificates: 0,
            leases: 0,
            requests: Vec::new(),
            passwords_changed: 0,
            rev: 1,
            org_items,
            access: BTreeMap::new(),
            keys: BTreeMap::new(),
            tokens: BTreeMap::new(),
        };
        let world =
            Arc::new(World { org: Arc::clone(&org), state: Mutex::new(state), pushes: broadcast::channel(64).0 });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut control = Self { org, address, world, running: None };
        control.serve(listener);
        control
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Stops answering and drops every connection.
    pub(crate) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.cancel();
        }
    }

    /// Answers again, at the same address.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        let listener = loop {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            match socket.bind(self.address).and_then(|()| socket.listen(64)) {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        self.serve(listener);
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, Fake> {
        self.world.state()
    }

    pub(crate) fn add_gateway(&self, node: NodeId, name: &str, address: SocketAddr) {
        let item = Item::Gateway(GatewayInfo {
            id: node,
            name: name.to_owned(),
            address: address.to_string(),
            draining: false,
            drain_ends: None,
        });
        self.state().org_items.insert(item.key(), item.clone());
        self.push(vec![item], Vec::new(), Vec::new());
    }

    /// Grants a resource to everybody.
    pub(crate) fn grant(&self, name: &str, port: u16) -> ResourceId {
        let id = ResourceId::from_ulid(next_ulid());
        self.put(resource(id, name, port));
        id
    }

    pub(crate) fn put(&self, resource: ClientResource) {
        self.state().access.insert(resource.id, resource.clone());
        self.push(Vec::new(), vec![Item::Access(resource)], Vec::new());
    }

    /// Takes it back, without a word about running streams.
    pub(crate) fn take_back(&self, id: ResourceId) {
        self.state().access.remove(&id);
        self.push(Vec::new(), Vec::new(), vec![ItemKey::Access { id }]);
    }

    pub(crate) fn revoke(&self, subject: RevokedSubject) {
        let revocations = vec![Revocation { subject, at: now(), reason: "test".to_owned() }];
        let _ = self.world.pushes.send(ServerFrame::Revoke { revocations });
    }

    /// Tells everybody who follows. Every scope has the same revision, which makes deltas simple.
    fn push(&self, org: Vec<Item>, put: Vec<Item>, del: Vec<ItemKey>) {
        let mut state = self.state();
        let from = state.rev;
        state.rev += 1;
        let to = state.rev;
        for account in [state.account, state.service_account] {
            let scope = format!("account:{account}");
            let _ = self.world.pushes.send(ServerFrame::Delta { scope, from, to, put: put.clone(), del: del.clone() });
        }
        let scope = "org".to_owned();
        let _ = self.world.pushes.send(ServerFrame::Delta { scope, from, to, put: org, del: Vec::new() });
    }

    fn serve(&mut self, listener: TcpListener) {
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, Arc::clone(&self.world), stop.clone()));
        self.running = Some(stop);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn resource(id: ResourceId, name: &str, port: u16) -> ClientResource {
    ClientResource {
        id,
        name: name.to_owned(),
        kind: Kind::Tcp,
        tags: Tags::from([("env".to_owned(), "test".to_owned())]),
        bind: BindAddress::loopback([127, 0, 0, 1].into(), port),
        ports: postern_proto::port::PortSet::default(),
        revision: 1,
        via: Vec::new(),
        cluster: None,
        health: Health::Unknown,
    }
}

impl World {
    fn state(&self) -> MutexGuard<'_, Fake> {
        self.state.lock().unwrap()
    }
}

async fn serve(listener: TcpListener, world: Arc<World>, stop: CancellationToken) {
    let acceptor = TlsAcceptor::from(tls(&world.org));
    let router = router(Arc::clone(&world));
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return connections.abort_all(),
            accepted = listener.accept() => accepted.unwrap().0,
        };
        let router = router.clone().layer(Extension(stop.clone()));
        let (acceptor, org) = (acceptor.clone(), Arc::clone(&world.org));
        connections.spawn(async move {
            // A client that does not trust us ends here.
            let _ = answer(stream, acceptor, router, &org).await;
        });
    }
}

fn tls(org: &Org) -> Arc<ServerConfig> {
    let (chain, key) = org.server_certificate();
    let verifier = WebPkiClientVerifier::builder(Arc::clone(org.trust().roots())).allow_unauthenticated().build();
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    Arc::new(config)
}

async fn answer(stream: TcpStream, acceptor: TlsAcceptor, router: Router, org: &Org) -> Option<()> {
    let stream = acceptor.accept(stream).await.ok()?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
    let peer = leaf.and_then(|leaf| PeerIdentity::from_leaf(&leaf, org.id).ok()).map(|identity| identity.peer);
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await
        .ok()
}

type Shared = State<Arc<World>>;

fn router(world: Arc<World>) -> Router {
    Router::new()
        .route("/api/v1/login", post(login))
        .route("/api/v1/logout", post(logout))
        .route("/api/v1/ca", get(|State(world): Shared| async move { Json(world.org.info()) }))
        .route("/api/v1/devices/certificate", post(certificate))
        .route("/api/v1/leases", post(leases))
        .route("/api/v1/devices/events", post(events))
        .route("/api/v1/sync", get(sync))
        .route("/api/v1/password", post(password))
        .route("/api/v1/accounts", any(accounts))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&world), note))
        .with_state(world)
}

/// Keeps a list of what was asked.
async fn note(State(world): Shared, request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let secret = request.headers().contains_key(header::AUTHORIZATION) || request.uri().path() == "/api/v1/login";
    let line = format!("{} {}", request.method(), request.uri());
    world.state().requests.push((line, secret));
    next.run(request).await
}

fn refuse(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap();
    (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], serde_json::to_vec(problem).unwrap()).into_response()
}

async fn login(State(world): Shared, Json(request): Json<LoginRequest>) -> Response {
    let mut state = world.state();
    let (account, service) = match &request.credential {
        Credential::Password { email, password } if email == EMAIL && password == PASSWORD => (state.account, false),
        Credential::ServiceToken { token } if token == SERVICE_TOKEN => (state.service_account, true),
        _ => return refuse(&Problem::new(401, "login_failed", "E-mail address or password is not right")),
    };
    state.logins += 1;
    let known = world.org.device_certificate(
        &request.csr,
        Peer::Device { account, device: DeviceId::from_ulid(next_ulid()) },
        Duration::from_secs(1),
    );
    let before = state.keys.iter().find(|(_, (_, cnf))| *cnf == known.1).map(|(device, _)| *device);
    let device = before.unwrap_or_else(|| DeviceId::from_ulid(next_ulid()));
    let (certificate, cnf) =
        world.org.device_certificate(&request.csr, Peer::Device { account, device }, state.certificate_life);
    state.keys.insert(device, (account, cnf));
    let token = format!("{TOKEN_CANARY}{}", next_ulid());
    state.tokens.retain(|_, other| *other != device);
    state.tokens.insert(token.clone(), device);
    Json(LoginResponse {
        login: LoginId::from_ulid(next_ulid()),
        token,
        expires_at: now().plus(state.login_life),
        account: AccountInfo {
            id: account,
            email: if service { "robot@example.org" } else { EMAIL }.to_owned(),
            name: "Ada".to_owned(),
            admin: true,
            service,
        },
        device,
        certificate,
        ca: world.org.info(),
        must_change_password: state.must_change_password,
    })
    .into_response()
}

async fn logout(State(world): Shared, headers: HeaderMap) -> Response {
    if bearer(&world, &headers).is_none() {
        return refuse(&Problem::new(401, "not_signed_in", "Not signed in"));
    }
    world.state().logouts += 1;
    StatusCode::NO_CONTENT.into_response()
}

fn bearer(world: &World, headers: &HeaderMap) -> Option<DeviceId> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    world.state().tokens.get(token).copied()
}

/// The calling device, as its certificate says.
fn caller(world: &World, peer: Option<Peer>) -> Result<(AccountId, DeviceId, String), Box<Response>> {
    let state = world.state();
    if let Some(problem) = &state.refuse {
        return Err(Box::new(refuse(problem)));
    }
    match peer {
        Some(Peer::Device { account, device }) if state.keys.contains_key(&device) => {
            Ok((account, device, state.keys[&device].1.clone()))
        }
        _ => Err(Box::new(refuse(&Problem::new(401, "device_unknown", "The device is not known here")))),
    }
}

async fn certificate(
    State(world): Shared,
    Extension(peer): Extension<Option<Peer>>,
    Json(request): Json<CertificateRequest>,
) -> Response {
    match caller(&world, peer) {
        Ok((account, device, _)) => {
            let life = world.state().certificate_life;
            world.state().certificates += 1;
            let peer = Peer::Device { account, device };
            Json::<CertificateResponse>(world.org.device_certificate(&request.csr, peer, life).0).into_response()
        }
        Err(refusal) => *refusal,
    }
}

async fn leases(
    State(world): Shared,
    Extension(peer): Extension<Option<Peer>>,
    Json(request): Json<LeaseRequest>,
) -> Response {
    let (account, device, cnf) = match caller(&world, peer) {
        Ok(caller) => caller,
        Err(refusal) => return *refusal,
    };
    let mut state = world.state();
    let (mut leases, mut denied) = (Vec::new(), Vec::new());
    for resource in request.resources {
        if state.denied.contains(&resource) || !state.access.contains_key(&resource) {
            denied.push(resource);
            continue;
        }
        state.leases += 1;
        let (issued_at, not_after) = (now(), now().plus(LIFETIME));
        let claims = Claims {
            org: world.org.id,
            account,
            device,
            cnf: cnf.clone(),
            resource,
            revision: state.access[&resource].revision,
            grant: state.grant.clone(),
            issued_at,
            not_after,
            grant_ends: None,
            cluster: None,
        };
        let token = world.org.lease(&claims);
        leases.push(IssuedLease { resource, token, issued_at, not_after, grant_ends: None });
    }
    Json(LeaseResponse { leases, denied }).into_response()
}

async fn events(
    State(world): Shared,
    Extension(peer): Extension<Option<Peer>>,
    Json(events): Json<DeviceEvents>,
) -> Response {
    match caller(&world, peer) {
        Ok(_) => {
            world.state().events.extend(events.events);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => *refusal,
    }
}

async fn password(State(world): Shared, headers: HeaderMap) -> Response {
    if bearer(&world, &headers).is_none() {
        return refuse(&Problem::new(401, "not_signed_in", "Not signed in"));
    }
    world.state().passwords_changed += 1;
    StatusCode::NO_CONTENT.into_response()
}

async fn accounts(State(world): Shared, Extension(peer): Extension<Option<Peer>>, headers: HeaderMap) -> Response {
    match (bearer(&world, &headers), peer) {
        (Some(device), Some(Peer::Device { device: shown, .. })) if device == shown => {
            Json(serde_json::json!({"items": [{"email": EMAIL}], "next_cursor": null})).into_response()
        }
        _ => refuse(&Problem::new(401, "not_signed_in", "Not signed in")),
    }
}

async fn sync(
    State(world): Shared,
    Extension(peer): Extension<Option<Peer>>,
    Extension(stop): Extension<CancellationToken>,
    upgrade: WebSocketUpgrade,
) -> Response {
    match caller(&world, peer) {
        Ok((account, ..)) => upgrade.on_upgrade(move |socket| async move {
            stop.run_until_cancelled(follow(socket, &world, account)).await;
        }),
        Err(refusal) => *refusal,
    }
}

async fn follow(mut socket: WebSocket, world: &World, account: AccountId) -> Option<()> {
    let hello = socket.recv().await?.ok()?;
    assert!(matches!(frame(&hello), Some(ClientFrame::Hello(_))));
    let mine = format!("account:{account}");
    let (first, mut pushes) = {
        let state = world.state();
        let scopes = vec!["org".to_owned(), mine.clone()];
        let welcome = Welcome { version: VERSION, org: world.org.id, epoch: "e1".to_owned(), now: now(), scopes };
        let snapshot =
            |scope: String, items: Vec<Item>| ServerFrame::Snapshot { scope, rev: state.rev, part: 0, of: 1, items };
        let access = state.access.values().cloned().map(Item::Access).collect();
        let org = state.org_items.values().cloned().collect();
        let first = [ServerFrame::Welcome(welcome), snapshot("org".to_owned(), org), snapshot(mine.clone(), access)];
        (first, world.pushes.subscribe())
    };
    for frame in first {
        send(&mut socket, &frame).await?;
    }
    loop {
        tokio::select! {
            pushed = pushes.recv() => {
                let pushed = pushed.ok()?;
                let concerns_us = match &pushed {
                    ServerFrame::Delta { scope, .. } => *scope == mine || scope == "org",
                    _ => true,
                };
                if concerns_us {
                    send(&mut socket, &pushed).await?;
                }
            }
            received = socket.recv() => {
                if let Some(ClientFrame::Ping { n }) = frame(&received?.ok()?) {
                    send(&mut socket, &ServerFrame::Pong { n, now: now() }).await?;
                }
            }
        }
    }
}

fn frame(message: &Message) -> Option<ClientFrame> {
    serde_json::from_str(message.to_text().ok()?).ok()
}

async fn send(socket: &mut WebSocket, frame: &ServerFrame) -> Option<()> {
    socket.send(Message::text(serde_json::to_string(frame).unwrap())).await.ok()
}
