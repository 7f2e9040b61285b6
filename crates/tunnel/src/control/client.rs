use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use postern_proto::{
    api::CaInfo,
    problem::{MEDIA_TYPE, Problem},
};
use rustls::{ClientConfig, client::ResolvesClientCert, pki_types::CertificateDer};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::{OnceCell, watch},
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    BadTrust, Bearer, CallError, ClientIdentity, ControlUrl, ControlUrls, SyncChannel, Trust, channel,
    credential::CurrentIdentity,
    trust::{self, Fingerprint},
};
use crate::{outward::Outward, socket};

/// A call, from resolving the name to the last byte of the answer, takes no longer.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// No answer is longer; a longer one is refused while it is read.
pub const MAX_ANSWER: usize = 32 << 20;
/// Idle connections that are kept for the next call.
const MAX_IDLE: usize = 4;
/// Idle connections are not used again after this time: balancers and servers close them silently.
const IDLE_FOR: Duration = Duration::from_secs(20);

/// How long one of several addresses may take at least; in all they have [`CALL_TIMEOUT`].
const TURN: Duration = Duration::from_secs(2);

/// A client of one control plane. Cheap to share in an [`Arc`]; calls may run side by side.
pub struct ControlClient {
    urls: ControlUrls,
    /// The number of the address that is called.
    current: AtomicUsize,
    trust: Trust,
    outward: Outward,
    identity: Arc<CurrentIdentity>,
    bearer: RwLock<Option<Bearer>>,
    verified: OnceCell<Arc<ClientConfig>>,
    idle: Mutex<Vec<Idle>>,
    /// Counts changes of the identity: connections made before show an old one.
    generation: watch::Sender<u64>,
}

/// An answer as it came, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// The media type without parameters, in lower case; empty when there was none.
    pub media_type: String,
    pub body: Bytes,
}

type Sender = http1::SendRequest<Full<Bytes>>;

struct Idle {
    sender: Sender,
    generation: u64,
    since: Instant,
}

impl ControlClient {
    /// Of several addresses it begins with any, so that clients spread over replicas.
    #[must_use]
    pub fn new(urls: ControlUrls, trust: Trust) -> Self {
        Self {
            current: AtomicUsize::new(if urls.count() > 1 { usize::from(rand::random::<u16>()) } else { 0 }),
            urls,
            trust,
            outward: Outward::installed(),
            identity: Arc::default(),
            bearer: RwLock::default(),
            verified: OnceCell::new(),
            idle: Mutex::default(),
            generation: watch::Sender::new(0),
        }
    }

    /// Calls over this way out instead of the one that is installed.
    #[must_use]
    pub fn over(mut self, outward: Outward) -> Self {
        self.outward = outward;
        self
    }

    #[must_use]
    pub const fn outward(&self) -> &Outward {
        &self.outward
    }

    /// The address that is called now.
    #[must_use]
    pub fn url(&self) -> &ControlUrl {
        self.urls.at(self.current.load(Ordering::Acquire))
    }

    /// All addresses.
    #[must_use]
    pub const fn urls(&self) -> &ControlUrls {
        &self.urls
    }

    /// Goes on to the next address, unless somebody did so since `from` was the one.
    pub(super) fn leave(&self, from: &ControlUrl) {
        let current = self.current.load(Ordering::Acquire);
        if self.urls.count() == 1 || self.urls.at(current) != from {
            return;
        }
        let next = current.wrapping_add(1) % self.urls.count();
        if self.current.compare_exchange(current, next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            tracing::info!(left = %from, next = %self.urls.at(next), "another address of the control plane is tried");
            self.idle().clear();
        }
    }

    /// The certificate that new connections show; connections that showed another are not used again.
    pub fn set_identity(&self, identity: Option<ClientIdentity>) {
        self.identity.set(identity);
        self.generation.send_modify(|generation| *generation += 1);
        self.idle().clear();
    }

    /// The token that calls carry from now on.
    pub fn set_bearer(&self, bearer: Option<Bearer>) {
        *self.bearer.write().unwrap_or_else(PoisonError::into_inner) = bearer;
    }

    /// Changes whenever [`ControlClient::set_identity`] is called.
    #[must_use]
    pub fn identity_changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Calls with a JSON body (or none) and reads a JSON answer; an answer without a body reads as `null`, so that
    /// `()` fits a 204.
    ///
    /// Any status but 2xx is [`CallError::Refused`] when it carries a problem. `path` begins with `/`.
    pub async fn call<B, T>(&self, method: Method, path: &str, body: Option<&B>) -> Result<T, CallError>
    where
        B: Serialize + Sync + ?Sized,
        T: DeserializeOwned,
    {
        let body = body.map(serde_json::to_vec).transpose().map_err(|error| CallError::garbled(self.url(), error))?;
        let answer = self.request(method, path, body.map(Bytes::from)).await?;
        let body = answer.into_success(self.url())?;
        let json = if body.is_empty() { b"null" } else { body.as_ref() };
        serde_json::from_slice(json).map_err(|error| CallError::garbled(self.url(), format!("{path}: {error}")))
    }

    /// Calls with a JSON body (or none) and hands back the answer as it is, whatever its status.
    pub async fn request(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Answer, CallError> {
        self.request_within(CALL_TIMEOUT, method, path, body).await
    }

    /// Asks who the control plane is, over a verified connection.
    pub async fn ca(&self) -> Result<CaInfo, CallError> {
        self.call(Method::GET, CA_PATH, None::<&()>).await
    }

    /// Opens the sync connection: a WebSocket, or long polling when something in between does not let it pass.
    pub async fn sync(self: &Arc<Self>) -> Result<SyncChannel, CallError> {
        timeout(CALL_TIMEOUT, channel::open(self)).await.unwrap_or_else(|_| Err(self.too_slow(CALL_TIMEOUT)))
    }

    pub(super) async fn request_within(
        &self,
        limit: Duration,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Answer, CallError> {
        let exchange = async {
            let request = self.build(method, path, body)?;
            let (response, sender, generation) = self.send(request).await?;
            let url = self.url();
            let answer = read_answer(url, response, MAX_ANSWER).await?;
            if (502..=504).contains(&answer.status.as_u16()) {
                // This one cannot help now; the next call goes elsewhere.
                self.leave(url);
            }
            self.keep(sender, generation);
            Ok(answer)
        };
        timeout(limit, exchange).await.unwrap_or_else(|_| Err(self.too_slow(limit)))
    }

    pub(super) fn build(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Request<Full<Bytes>>, CallError> {
        let bearer = self.bearer.read().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(Bearer::header);
        let mut request = bare_request(self.url(), method, path, body)?;
        if let Some(bearer) = bearer {
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        Ok(request)
    }

    /// Sends on an idle connection or a new one. A request that an idle connection did not take is sent again; one that
    /// it may have taken only when repeating it is harmless.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Sender, u64), CallError> {
        while let Some(mut idle) = self.take_idle() {
            let copy = request.method().is_safe().then(|| request.clone());
            match idle.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, idle.sender, idle.generation)),
                Err(mut failed) => match failed.take_message().or(copy) {
                    Some(again) => request = again,
                    None => return Err(http_error(self.url(), &failed.into_error())),
                },
            }
        }
        let generation = *self.generation.borrow();
        let (mut sender, url) = self.connect().await?;
        if let Ok(host) = HeaderValue::from_str(&url.authority()) {
            request.headers_mut().insert(header::HOST, host);
        }
        let response = sender.send_request(request).await.map_err(|error| http_error(url, &error))?;
        Ok((response, sender, generation))
    }

    /// A connection to the address that worked last, else to the first of the others that works.
    async fn connect(&self) -> Result<(Sender, &ControlUrl), CallError> {
        let count = self.urls.count();
        if count == 1 {
            return Ok((self.connect_to(self.url()).await?, self.url()));
        }
        let share = (CALL_TIMEOUT / u32::try_from(count).unwrap_or(u32::MAX)).max(TURN);
        let mut failures = Vec::new();
        for _ in 0..count {
            let url = self.url();
            let connecting = timeout(share, self.connect_to(url)).await;
            match connecting.unwrap_or_else(|_| Err(self.too_slow(share))) {
                Ok(sender) => return Ok((sender, url)),
                Err(error) => failures.push(error),
            }
            self.leave(url);
        }
        Err(CallError::of_all(failures).unwrap_or_else(|| self.too_slow(CALL_TIMEOUT)))
    }

    async fn connect_to(&self, url: &ControlUrl) -> Result<Sender, CallError> {
        let tls = self.verified_tls(url).await?;
        connect(url, &self.outward, tls).await
    }

    fn take_idle(&self) -> Option<Idle> {
        let generation = *self.generation.borrow();
        let mut idle = self.idle();
        while let Some(candidate) = idle.pop() {
            let fresh = candidate.since.elapsed() < IDLE_FOR && candidate.generation == generation;
            if fresh && candidate.sender.is_ready() {
                return Some(candidate);
            }
        }
        None
    }

    fn keep(&self, sender: Sender, generation: u64) {
        let mut idle = self.idle();
        if !sender.is_closed() && idle.len() < MAX_IDLE && generation == *self.generation.borrow() {
            idle.push(Idle { sender, generation, since: Instant::now() });
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn verified_tls(&self, url: &ControlUrl) -> Result<Arc<ClientConfig>, CallError> {
        let make = async {
            let distrust = |error: BadTrust| CallError::untrusted(url, error);
            let roots = match &self.trust {
                Trust::Ca(pem) => trust::roots_from_pem(pem).map_err(distrust)?,
                Trust::System => trust::system_roots().map_err(distrust)?,
                Trust::Fingerprint(fingerprint) => {
                    let ca = self.fetch_ca(url, *fingerprint).await?;
                    trust::roots_from_certificate(ca).map_err(distrust)?
                }
            };
            let identity: Arc<dyn ResolvesClientCert> = Arc::clone(&self.identity) as _;
            let tls = trust::verified(roots, identity).map_err(|error| CallError::untrusted(url, error))?;
            Ok(Arc::new(tls))
        };
        self.verified.get_or_try_init(|| make).await.cloned()
    }

    /// Fetches the CA from whoever answers, with nothing secret sent, and takes it only if its fingerprint fits.
    async fn fetch_ca(&self, url: &ControlUrl, fingerprint: Fingerprint) -> Result<CertificateDer<'static>, CallError> {
        let tls = trust::unverified().map_err(|error| CallError::untrusted(url, error))?;
        let mut sender = connect(url, &self.outward, Arc::new(tls)).await?;
        let request = bare_request(url, Method::GET, CA_PATH, None)?;
        let response = sender.send_request(request).await.map_err(|error| http_error(url, &error))?;
        let body = read_answer(url, response, MAX_CA).await?.into_success(url)?;
        let info: CaInfo = serde_json::from_slice(&body).map_err(|error| CallError::garbled(url, error))?;
        fingerprint.find(&info.certificate).ok_or_else(|| {
            let reason = format!("its CA does not have the fingerprint {fingerprint} that this program was given");
            CallError::untrusted(url, reason)
        })
    }

    fn too_slow(&self, limit: Duration) -> CallError {
        CallError::unreachable(self.url(), format!("no answer within {} s", limit.as_secs()))
    }
}

impl fmt::Debug for ControlClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlClient").field("urls", &self.urls).field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl Answer {
    /// The body of a 2xx answer, or the problem.
    pub(super) fn into_success(self, url: &ControlUrl) -> Result<Bytes, CallError> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        Err(self.problem().map_or_else(
            || match self.status.as_u16() {
                // What stands before a control plane that is down says this, in its own words.
                502..=504 => CallError::unreachable(url, format!("something in between answered {}", self.status)),
                _ => CallError::garbled(url, format!("it answered {} without saying why", self.status)),
            },
            CallError::Refused,
        ))
    }

    /// The problem that this answer carries, if it is in the control plane's own words.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        (self.media_type == MEDIA_TYPE).then(|| serde_json::from_slice(&self.body).ok()).flatten()
    }
}

const CA_PATH: &str = "/api/v1/ca";
/// A CA with all its words is far smaller.
const MAX_CA: usize = 64 << 10;

fn bare_request(
    url: &ControlUrl,
    method: Method,
    path: &str,
    body: Option<Bytes>,
) -> Result<Request<Full<Bytes>>, CallError> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, url.authority())
        .header(header::USER_AGENT, concat!("postern/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "application/json, application/problem+json");
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    request.body(Full::new(body.unwrap_or_default())).map_err(|error| CallError::garbled(url, error))
}

async fn connect(url: &ControlUrl, outward: &Outward, tls: Arc<ClientConfig>) -> Result<Sender, CallError> {
    let connected = outward.connect(url.host(), url.port(), CALL_TIMEOUT).await;
    let tcp = connected.map_err(|error| CallError::unreachable(url, error))?;
    socket::tune_control(&tcp).map_err(|error| CallError::unreachable(url, error))?;
    let Some(name) = url.server_name() else {
        return Err(CallError::untrusted(url, "no certificate can carry its name"));
    };
    let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(|error| CallError::transport(url, &error))?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(64 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http_error(url, &error))?;
    // Ends by itself when the sender is dropped or the connection breaks.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::trace!(%error, "connection to the control plane ended");
        }
    });
    Ok(sender)
}

pub(super) async fn read_answer(
    url: &ControlUrl,
    response: Response<Incoming>,
    limit: usize,
) -> Result<Answer, CallError> {
    let (parts, body) = response.into_parts();
    let media_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let body = match Limited::new(body, limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(CallError::garbled(url, format!("it is longer than {limit} bytes")));
        }
        Err(error) => return Err(CallError::transport(url, error.as_ref())),
    };
    Ok(Answer { status: parts.status, media_type, body })
}

pub(super) fn http_error(url: &ControlUrl, error: &hyper::Error) -> CallError {
    if error.is_parse() { CallError::garbled(url, error) } else { CallError::transport(url, error) }
}
