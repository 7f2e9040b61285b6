//! A control plane on a port from the kernel, and an administrator who speaks HTTP to it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use postern_control::{
    clock::Clock,
    config::{Monitoring, Serve},
    run::Running,
    store::{Changes, Store},
};
use postern_proto::{
    api::{Credential, DeviceInfo, LoginRequest, LoginResponse},
    problem::{MEDIA_TYPE, Problem},
    time::UnixMillis,
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::broadcast};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

pub(crate) const ADMIN: &str = "admin@example.org";

/// A control plane, its folder, and an administrator's token.
pub(crate) struct World {
    folder: tempfile::TempDir,
    running: Option<Running>,
    names: &'static [&'static str],
    stop: CancellationToken,
    /// How far the clock of the control plane is ahead, in milliseconds.
    ahead: Arc<AtomicU64>,
    pub(crate) first_password: Option<String>,
    pub(crate) admin: Client,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_named(&[]).await
    }

    /// With names of the control plane.
    pub(crate) async fn start_named(names: &'static [&'static str]) -> Self {
        postern_tunnel::tls::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let ahead = Arc::default();
        let stop = CancellationToken::new();
        let running = run(&folder, "127.0.0.1:0".parse().unwrap(), names, &ahead, &stop).await;
        let nobody = Client::new(&running, None);
        let first_password = running.ready.admin.as_ref().map(|admin| admin.password.clone());
        let mut world = Self { folder, running: Some(running), names, stop, ahead, first_password, admin: nobody };
        let first = world.sign_in(ADMIN, &world.first_password.clone().unwrap()).await.unwrap();
        let robot = first.post("/accounts", json!({"kind": "service", "name": "tests", "admin": true})).await;
        let token = first.post(&format!("/accounts/{}/tokens", text(&robot, "id")), json!({})).await;
        world.admin = world.with_token(&text(&token, "token"));
        world
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.running().state.store
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running().address
    }

    /// The same folder and the same port.
    pub(crate) async fn restart(&mut self) {
        self.stop.cancel();
        let running = self.running.take().unwrap();
        let address = running.address;
        running.finish().await;
        self.stop = CancellationToken::new();
        self.running = Some(run(&self.folder, address, self.names, &self.ahead, &self.stop).await);
    }

    pub(crate) fn pass(&self, span: Duration) {
        self.ahead.fetch_add(u64::try_from(span.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.running().state.clock.now()
    }

    pub(crate) fn with_token(&self, token: &str) -> Client {
        Client::new(self.running(), Some(token.to_owned()))
    }

    pub(crate) fn nobody(&self) -> Client {
        Client::new(self.running(), None)
    }

    /// Signs in with a password, as a device.
    pub(crate) async fn sign_in(&self, email: &str, password: &str) -> Result<Client, Problem> {
        self.sign_in_with(Credential::Password { email: email.to_owned(), password: password.to_owned() }).await
    }

    pub(crate) async fn sign_in_with(&self, credential: Credential) -> Result<Client, Problem> {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let device = DeviceInfo { name: "laptop".to_owned(), os: "test".to_owned() };
        let request = serde_json::to_value(LoginRequest { credential, device, csr }).unwrap();
        let answer = self.nobody().send("POST", "/login", Some(request)).await;
        if answer.status != StatusCode::OK {
            return Err(answer.problem());
        }
        let login: LoginResponse = serde_json::from_value(answer.json()).unwrap();
        let certificate = CertificateDer::from_pem_slice(login.certificate.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let mut client = self.with_token(&login.token);
        client.identity = Some((certificate, Arc::new(key)));
        client.login = Some(Arc::new(login));
        Ok(client)
    }

    /// Follows what changes from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Arc<Changes>> {
        self.store().follow()
    }

    pub(crate) async fn create_user(&self, email: &str) -> String {
        text(&self.admin.post("/accounts", json!({"email": email})).await, "id")
    }

    pub(crate) async fn create_resource(&self, name: &str, tags: Value) -> String {
        let body = json!({"name": name, "host": "db.internal", "tags": tags});
        text(&self.admin.post("/resources", body).await, "id")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn run(
    folder: &tempfile::TempDir,
    listen: SocketAddr,
    names: &[&str],
    ahead: &Arc<AtomicU64>,
    stop: &CancellationToken,
) -> Running {
    let here = "127.0.0.1:0".parse().unwrap();
    let serve = Serve {
        data: crate::choice::data(folder.path()).await,
        listen,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        tls_cert: None,
        tls_key: None,
        admin_email: ADMIN.to_owned(),
        org: "Example".to_owned(),
        absence: Default::default(),
        monitor: Monitoring { liveness: here, metrics: here },
    };
    let (ahead, system) = (Arc::clone(ahead), Clock::system());
    let clock = Clock::from_fn(move || UnixMillis(system.now().0 + ahead.load(Ordering::SeqCst)));
    Running::start(serve, clock, stop.clone()).await.unwrap()
}

/// Calls the control plane, one connection a call.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    anchors: Arc<RootCertStore>,
    token: Option<String>,
    identity: Option<(CertificateDer<'static>, Arc<PrivateKeyDer<'static>>)>,
    pub(crate) login: Option<Arc<LoginResponse>>,
}

/// What was answered.
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    /// The problem, which must be well formed in every respect.
    pub(crate) fn problem(&self) -> Problem {
        assert_eq!(self.headers[header::CONTENT_TYPE], MEDIA_TYPE, "{}", String::from_utf8_lossy(&self.body));
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        assert!(!problem.code.is_empty() && !problem.title.is_empty());
        problem
    }
}

impl Client {
    fn new(running: &Running, token: Option<String>) -> Self {
        let anchors = Arc::new(running.state.authority.anchors().unwrap());
        Self { address: running.address, anchors, token, identity: None, login: None }
    }

    /// The same token from another machine.
    pub(crate) fn without_certificate(&self) -> Self {
        Self { identity: None, ..self.clone() }
    }

    /// This machine with somebody else's token.
    pub(crate) fn with_token_of(&self, other: &Self) -> Self {
        Self { token: other.token.clone(), ..self.clone() }
    }

    /// `path` is below `/api/v1`.
    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Answered {
        let mut request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.raw(request.body(body).unwrap()).await
    }

    pub(crate) async fn raw(&self, mut request: Request<Body>) -> Answered {
        let headers = request.headers_mut();
        headers.insert(header::HOST, "localhost".parse().unwrap());
        headers.insert(header::USER_AGENT, "tests/1".parse().unwrap());
        if let Some(token) = &self.token {
            headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        let config = ClientConfig::builder().with_root_certificates(Arc::clone(&self.anchors));
        let config = match &self.identity {
            Some((leaf, key)) => config.with_client_auth_cert(vec![leaf.clone()], key.clone_key()).unwrap(),
            None => config.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let response: Response<hyper::body::Incoming> = sender.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        drop(sender);
        connection.abort();
        Answered { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.send("GET", path, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.json());
        answer.json()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.send("POST", path, Some(body)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{path}: {}", answer.json());
        answer.json()
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Value {
        let answer = self.send("PATCH", path, Some(body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.json());
        answer.json()
    }

    pub(crate) async fn delete(&self, path: &str) {
        let answer = self.send("DELETE", path, None).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{path}: {}", String::from_utf8_lossy(&answer.body));
    }

    /// The problem of a call that is refused.
    pub(crate) async fn refused(&self, method: &str, path: &str, body: Option<Value>) -> Problem {
        let answer = self.send(method, path, body).await;
        assert!(answer.status.is_client_error(), "{method} {path} was answered {}", answer.status);
        answer.problem()
    }

    /// Field and rule of every violation of a 422.
    pub(crate) async fn broken(&self, method: &str, path: &str, body: Value) -> Vec<(String, String)> {
        let problem = self.refused(method, path, Some(body)).await;
        assert_eq!((problem.status, problem.code.as_str()), (422, "invalid"));
        problem.violations.into_iter().map(|broken| (broken.field, broken.rule)).collect()
    }
}

pub(crate) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field} in {value}")).to_owned()
}

/// A field of each item of a list.
pub(crate) fn column(list: &Value, field: &str) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|item| text(item, field)).collect()
}

pub(crate) fn fields(broken: &[(String, String)]) -> Vec<&str> {
    broken.iter().map(|(field, _)| field.as_str()).collect()
}
