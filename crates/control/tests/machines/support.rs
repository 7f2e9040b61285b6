//! A control plane on a port from the kernel, and devices and gateways that call it.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::http::{Method, StatusCode};
use postern_control::{
    catalogue::{Account, AccountKind, Grant, Member, Node, Resource, Role, Rule, RuleTarget},
    clock::Clock,
    config::Serve,
    credential,
    gateway::{self, NewNode},
    password::Password,
    run::Running,
    state::AppState,
    store::{Actor, Change},
};
use postern_proto::{
    api::{
        Credential, DeviceInfo, EnrolRequest, EnrolResponse, LeaseRequest, LeaseResponse, LoginRequest, LoginResponse,
        NodeKind,
    },
    id::{AccountId, GrantId, NodeId, ResourceId, RoleId, RuleId},
    problem::Problem,
    resource::{BindAddress, Kind, Tags},
    sync::{ClientFrame, Item, ItemKey, ServerFrame},
    time::UnixMillis,
};
use postern_tunnel::control::{Bearer, CallError, ClientIdentity, ControlClient, SyncChannel, SyncSocket, Trust};
use rcgen::{CertificateParams, KeyPair};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

pub(crate) const PASSWORD: &str = "correct horse battery";

/// A control plane and its folder. Stops when it is dropped; [`World::stop`] waits for it.
pub(crate) struct World {
    folder: tempfile::TempDir,
    running: Option<Running>,
    stop: CancellationToken,
    listen: SocketAddr,
    /// How far the clock of the control plane is ahead, in milliseconds.
    ahead: Arc<AtomicU64>,
}

impl World {
    pub(crate) async fn start() -> Self {
        postern_tunnel::tls::install_crypto_provider();
        start_log();
        let mut world = Self {
            folder: tempfile::tempdir().unwrap(),
            running: None,
            stop: CancellationToken::new(),
            listen: "127.0.0.1:0".parse().unwrap(),
            ahead: Arc::default(),
        };
        world.run().await;
        world
    }

    async fn run(&mut self) {
        let serve = Serve {
            data: crate::choice::data(self.folder.path()).await,
            listen: self.listen,
            names: vec![],
            tls_cert: None,
            tls_key: None,
            admin_email: "admin@example.org".to_owned(),
            org: "Example".to_owned(),
            absence: Default::default(),
            monitor: Default::default(),
        };
        let (ahead, system) = (Arc::clone(&self.ahead), Clock::system());
        let clock = Clock::from_fn(move || UnixMillis(system.now().0 + ahead.load(Ordering::SeqCst)));
        self.stop = CancellationToken::new();
        let running = Running::start(serve, clock, self.stop.clone()).await.unwrap();
        self.listen = running.address;
        self.running = Some(running);
    }

    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        self.running.take().unwrap().finish().await;
    }

    /// The same folder and the same port.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.restart_after_stop().await;
    }

    pub(crate) async fn restart_after_stop(&mut self) {
        self.run().await;
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Moves the control plane's clock.
    pub(crate) fn pass(&self, span: std::time::Duration) {
        self.ahead.fetch_add(u64::try_from(span.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn state(&self) -> &AppState {
        &self.running.as_ref().unwrap().state
    }

    pub(crate) async fn change(&self) -> Change {
        self.state().store.change(Actor::system()).await.unwrap()
    }

    pub(crate) fn client(&self) -> ControlClient {
        let ca = std::fs::read_to_string(self.data().join("ca.pem")).unwrap();
        let url = format!("https://127.0.0.1:{}", self.listen.port()).parse().unwrap();
        ControlClient::new(url, Trust::Ca(ca))
    }

    /// An account with [`PASSWORD`], which it need not change.
    pub(crate) async fn create_account(&self, email: &str) -> AccountId {
        let hash = self.state().passwords.hash(Password::from(PASSWORD.to_owned())).await.unwrap();
        let mut change = self.change().await;
        let account = put_account(&mut change, email, AccountKind::User).await;
        credential::set_password(&mut change, &account, &hash, false).await.unwrap();
        change.commit().await.unwrap();
        account.id
    }

    pub(crate) async fn create_service_account(&self, email: &str) -> (AccountId, String) {
        let mut change = self.change().await;
        let account = put_account(&mut change, email, AccountKind::Service).await;
        let token = postern_control::secret::Token::draw("postern_").unwrap();
        postern_control::sql::query(
            "INSERT INTO account_token (id, account_id, name, hash, created_at) VALUES ($1, $2, 't', $3, 0)",
        )
        .bind(format!("tok_{}", change.ulid()))
        .bind(account.id.to_string())
        .bind(token.hash().to_text())
        .execute(change.connection())
        .await
        .unwrap();
        change.commit().await.unwrap();
        (account.id, token.expose().to_owned())
    }

    pub(crate) async fn update_account(&self, id: AccountId, update: impl FnOnce(&mut Account)) {
        let mut change = self.change().await;
        let mut account = Account::clone(&change.catalogue().accounts[&id]);
        update(&mut account);
        change.put(account).await.unwrap();
        change.commit().await.unwrap();
    }

    pub(crate) async fn create_resource(&self, name: &str) -> ResourceId {
        let mut change = self.change().await;
        let (id, port) = (ResourceId::from_ulid(change.ulid()), 2000 + change.catalogue().resources.len());
        let bind = BindAddress::loopback([127, 0, 0, 1].into(), u16::try_from(port).unwrap());
        let resource = Resource {
            id,
            name: name.to_owned(),
            kind: Kind::Tcp,
            host: "db.example".to_owned(),
            port: 5432,
            ports: postern_proto::port::PortSet::default(),
            hosts: Vec::new(),
            tags: Tags::from([("env".to_owned(), "prod".to_owned())]),
            bind,
            allow_local: false,
            strict: false,
            egress: None,
            cluster: None,
            created_at: change.now(),
            revision: 0,
        };
        change.put(resource).await.unwrap();
        change.commit().await.unwrap();
        id
    }

    /// A role that reaches these resources, and its one member.
    pub(crate) async fn create_role(&self, name: &str, resources: &[ResourceId], member: AccountId) -> RoleId {
        let mut change = self.change().await;
        let role = RoleId::from_ulid(change.ulid());
        change.put(Role { id: role, name: name.to_owned(), tags: Tags::new(), revision: 0 }).await.unwrap();
        let what = RuleTarget::Resources(BTreeSet::from_iter(resources.iter().copied()));
        change.put(Rule { id: RuleId::from_ulid(change.ulid()), role, what, revision: 0 }).await.unwrap();
        change.put(Member { role, account: member, revision: 0 }).await.unwrap();
        change.commit().await.unwrap();
        role
    }

    pub(crate) async fn remove_role(&self, role: RoleId) {
        let mut change = self.change().await;
        change.remove_role(role).await.unwrap().unwrap();
        change.commit().await.unwrap();
    }

    pub(crate) async fn grant(&self, account: AccountId, resource: ResourceId, ends_at: UnixMillis) -> GrantId {
        let mut change = self.change().await;
        let id = GrantId::from_ulid(change.ulid());
        let (created_at, reason) = (change.now(), "test".to_owned());
        change
            .put(Grant { id, account, resource, ends_at: Some(ends_at), reason, created_at, revision: 0 })
            .await
            .unwrap();
        change.commit().await.unwrap();
        id
    }

    /// A gateway that waits for its enrolment, and its token.
    pub(crate) async fn create_gateway(&self, name: &str) -> (NodeId, String) {
        let mut change = self.change().await;
        let node = gateway::create(&mut change, NewNode::gateway(name, None)).await.unwrap();
        let token = gateway::issue_token(&mut change, &node).await.unwrap();
        change.commit().await.unwrap();
        (node.id, token.token.expose().to_owned())
    }

    pub(crate) fn node(&self, id: NodeId) -> Arc<Node> {
        Arc::clone(&self.state().store.catalogue().nodes[&id])
    }

    /// A gateway that is enrolled.
    pub(crate) async fn enrol_gateway(&self, name: &str) -> Machine {
        let (_, token) = self.create_gateway(name).await;
        self.enrol(token, NodeKind::Gateway).await.unwrap()
    }

    /// A relay that is enrolled.
    pub(crate) async fn enrol_relay(&self, name: &str, group: &str) -> Machine {
        let mut change = self.change().await;
        let kind = postern_control::catalogue::NodeKind::Relay;
        let new = NewNode { kind, group: group.to_owned(), ..NewNode::gateway(name, None) };
        let node = gateway::create(&mut change, new).await.unwrap();
        let token = gateway::issue_token(&mut change, &node).await.unwrap();
        change.commit().await.unwrap();
        self.enrol(token.token.expose().to_owned(), NodeKind::Relay).await.unwrap()
    }

    pub(crate) async fn enrol(&self, token: String, kind: NodeKind) -> Result<Machine, CallError> {
        let (key, csr) = key_and_request();
        let advertise = (kind == NodeKind::Gateway).then(|| "gw.example:5000".to_owned());
        let request = EnrolRequest { token, key_pair: None, kind, csr, advertise };
        let enrolled: EnrolResponse = self.client().call(Method::POST, "/api/v1/nodes/enrol", Some(&request)).await?;
        Ok(Machine::new(self.client(), key, &enrolled.certificate.certificate, None, enrolled.node))
    }

    pub(crate) async fn sign_in(&self, email: &str) -> Device {
        self.try_sign_in(email, PASSWORD).await.unwrap()
    }

    pub(crate) async fn try_sign_in(&self, email: &str, password: &str) -> Result<Device, CallError> {
        let credential = Credential::Password { email: email.to_owned(), password: password.to_owned() };
        self.sign_in_with(credential, key_and_request()).await
    }

    pub(crate) async fn sign_in_with(
        &self,
        credential: Credential,
        (key, csr): (KeyPair, String),
    ) -> Result<Device, CallError> {
        let device = DeviceInfo { name: "laptop".to_owned(), os: "test".to_owned() };
        let request = LoginRequest { credential, device, csr };
        let login: LoginResponse = self.client().call(Method::POST, "/api/v1/login", Some(&request)).await?;
        let certificate = login.certificate.certificate.clone();
        Ok(Machine::new(self.client(), key, &certificate, Some(login.token.clone()), login))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn put_account(change: &mut Change, email: &str, kind: AccountKind) -> Arc<Account> {
    let id = AccountId::from_ulid(change.ulid());
    let account = Account {
        id,
        email: email.parse().unwrap(),
        name: "Test".to_owned(),
        kind,
        admin: false,
        suspended: false,
        tags: Tags::new(),
        created_at: change.now(),
        revision: 0,
    };
    change.put(account).await.unwrap()
}

pub(crate) type Device = Machine<LoginResponse>;

/// A key, its certificate, and what the control plane said when it was given.
pub(crate) struct Machine<T = NodeId> {
    pub(crate) client: Arc<ControlClient>,
    pub(crate) key: KeyPair,
    pub(crate) given: T,
}

impl<T> Machine<T> {
    pub(crate) fn new(client: ControlClient, key: KeyPair, certificate: &str, token: Option<String>, given: T) -> Self {
        client.set_identity(Some(ClientIdentity::from_pem(certificate, &key.serialize_pem()).unwrap()));
        client.set_bearer(token.map(Bearer::new));
        Self { client: Arc::new(client), key, given }
    }

    pub(crate) async fn post<A: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<A, Problem> {
        let answer = self.client.call(Method::POST, path, Some(body)).await;
        answer.map_err(|error| error.problem().unwrap_or_else(|| panic!("{path}: {error}")).clone())
    }

    pub(crate) async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, Problem> {
        let answer = self.client.call(Method::GET, path, None::<&()>).await;
        answer.map_err(|error| error.problem().unwrap_or_else(|| panic!("{path}: {error}")).clone())
    }

    /// A request for a certificate for the machine's own key.
    pub(crate) fn request(&self) -> String {
        CertificateParams::default().serialize_request(&self.key).unwrap().pem().unwrap()
    }

    /// Opens the WebSocket and greets, holding nothing.
    pub(crate) async fn follow(&self) -> Socket {
        self.follow_from(postern_proto::replica::Replica::default()).await
    }

    /// The same, holding what is in a replica.
    pub(crate) async fn follow_from(&self, mut replica: postern_proto::replica::Replica) -> Socket {
        let SyncChannel::Socket(mut socket) = self.client.sync().await.unwrap() else { panic!("no WebSocket") };
        socket.send(&ClientFrame::Hello(replica.hello("test 1.0"))).await.unwrap();
        Socket { socket, replica, seen: Vec::new() }
    }
}

impl Device {
    pub(crate) async fn leases(&self, resources: &[ResourceId]) -> Result<LeaseResponse, Problem> {
        self.post("/api/v1/leases", &LeaseRequest { resources: resources.to_vec() }).await
    }
}

/// A sync connection with a replica that is kept up to date.
pub(crate) struct Socket {
    socket: Box<SyncSocket>,
    pub(crate) replica: postern_proto::replica::Replica,
    /// Every frame so far.
    pub(crate) seen: Vec<ServerFrame>,
}

impl Socket {
    pub(crate) async fn send(&mut self, frame: &ClientFrame) {
        self.socket.send(frame).await.unwrap();
    }

    /// The next frame; an error when the connection is over.
    pub(crate) async fn next(&mut self) -> Result<ServerFrame, CallError> {
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), self.socket.next());
        let frame = next.await.expect("no frame came within 20 s")?;
        self.replica.apply(&frame).unwrap();
        self.seen.push(frame.clone());
        Ok(frame)
    }

    /// Reads until a frame fits, and returns it.
    pub(crate) async fn until(&mut self, fits: impl Fn(&ServerFrame) -> bool) -> ServerFrame {
        loop {
            let frame = self.next().await.unwrap();
            if fits(&frame) {
                return frame;
            }
        }
    }

    /// Reads until every scope is there.
    pub(crate) async fn settle(&mut self) -> &mut Self {
        let ServerFrame::Welcome(welcome) = self.next().await.unwrap() else { panic!("no welcome") };
        self.send(&ClientFrame::Ping { n: 7 }).await;
        self.until(|frame| matches!(frame, ServerFrame::Pong { n: 7, .. })).await;
        while self.replica.scopes().filter(|(_, rev)| rev.is_some()).count() < welcome.scopes.len() {
            self.next().await.unwrap();
        }
        self
    }

    pub(crate) fn item(&self, key: &ItemKey) -> Option<Item> {
        self.replica.items().find(|item| item.key() == *key).cloned()
    }

    /// Reads until an item is there and fits.
    pub(crate) async fn item_when(&mut self, key: ItemKey, fits: impl Fn(Option<&Item>) -> bool) -> Option<Item> {
        while !fits(self.item(&key).as_ref()) {
            self.next().await.unwrap();
        }
        self.item(&key)
    }
}

pub(crate) fn key_and_request() -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    (key, request)
}

pub(crate) fn status(problem: &Problem) -> StatusCode {
    StatusCode::from_u16(problem.status).unwrap()
}

pub(crate) fn problem<T>(answer: Result<T, CallError>) -> Problem {
    match answer {
        Ok(_) => panic!("it was not refused"),
        Err(error) => error.problem().unwrap_or_else(|| panic!("{error}")).clone(),
    }
}

fn start_log() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(postern_control::run::start_log);
}
