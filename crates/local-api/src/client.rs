//! The client of the local API.
//!
//! Before anything is sent, the client makes sure that the process behind the socket belongs to the user who runs it
//! (`SO_PEERCRED`): a password goes to nobody else's service. Each call has its own connection and its own deadline.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, body::Incoming, header};
use hyper_util::rt::TokioIo;
use postern_proto::problem::Problem;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, task::AbortHandle, time::timeout};

use crate::message::{
    ChangeReport, ControlAnswer, ControlCall, DoctorLine, DoctorReport, Hello, KeyStorageChoice, LiveSession,
    LogExport, LogRequest, Login, NetworkChoice, NetworkStatus, PortOverride, ResourceStatus, Selection, Status,
    Unlock, VERSION,
};
use crate::names::{NameQuestion, NameReport};

mod events;
mod lines;
#[cfg(test)]
mod tests;

pub use events::{Events, Follow, Update};
pub use lines::Lines;

/// What a call waits for the service's answer when it needs nobody else.
pub const LOCAL_DEADLINE: Duration = Duration::from_secs(15);
/// The same for calls that the service can only answer after it has talked to the control plane or to gateways. Longer
/// than the service's own limits, so that its error arrives instead of ours.
pub const NETWORK_DEADLINE: Duration = Duration::from_secs(120);
/// The largest answer that is read: well above the status of 10,000 resources (about 8 MiB).
pub const MAX_ANSWER: usize = 64 << 20;

/// Calls posternd of the user who runs this process.
#[derive(Clone, Debug)]
pub struct LocalClient {
    socket: PathBuf,
    /// The uid that the service must have.
    owner: u32,
}

/// Why a call came to nothing, by who is to blame.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("posternd is not running: nothing answers at {}", socket.display())]
    NotRunning { socket: PathBuf },
    /// Somebody else's process has the socket, or its folder is closed to us. Nothing was sent.
    #[error("the socket {} is not yours: {reason}", socket.display())]
    NotOurs { socket: PathBuf, reason: String },
    /// Service and client are of different versions.
    #[error(
        "this program speaks version {ours} of the local API, but the running posternd{} speaks version {theirs}",
        service.as_deref().map(|version| format!(" {version}")).unwrap_or_default()
    )]
    VersionMismatch { ours: u32, theirs: u32, service: Option<String> },
    /// The service answered no; the problem says what, why and what to do.
    #[error("{0}")]
    Refused(Problem),
    /// The service answered something that does not fit the call.
    #[error("posternd sent an answer to {call} that makes no sense: {reason}")]
    Garbled { call: String, reason: String },
    /// The service went away in the middle of the call.
    #[error("posternd broke off {call}: {reason}")]
    BrokenOff { call: String, reason: String },
    /// The service did not answer in time.
    #[error("posternd did not answer {call} within {} s", after.as_secs())]
    Silent { call: String, after: Duration },
}

impl LocalClient {
    /// A client of the service behind `socket` (see [`crate::paths::Paths::socket`]). Nothing is opened yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), owner: rustix::process::geteuid().as_raw() }
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks the service who it is and refuses one of another version. Call this first.
    pub async fn hello(&self) -> Result<Hello, ClientError> {
        const CALL: &str = "GET /v1/hello";
        let answer = within(LOCAL_DEADLINE, CALL, self.exchange(Method::GET, "/v1/hello", None, CALL)).await?;
        read_hello(CALL, &answer)
    }

    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Signs in. Takes as long as the control plane takes, at most [`NETWORK_DEADLINE`].
    pub async fn login(&self, login: &Login) -> Result<Status, ClientError> {
        self.post("/v1/login", Some(login), NETWORK_DEADLINE).await
    }

    pub async fn logout(&self) -> Result<Status, ClientError> {
        self.post("/v1/logout", NOTHING, NETWORK_DEADLINE).await
    }

    pub async fn lock(&self) -> Result<Status, ClientError> {
        self.post("/v1/lock", NOTHING, LOCAL_DEADLINE).await
    }

    pub async fn unlock(&self, unlock: &Unlock) -> Result<Status, ClientError> {
        self.post("/v1/unlock", Some(unlock), NETWORK_DEADLINE).await
    }

    /// Makes the selected resources appear on this machine.
    pub async fn connect(&self, selection: &Selection) -> Result<ChangeReport, ClientError> {
        self.post("/v1/connect", Some(selection), NETWORK_DEADLINE).await
    }

    /// Takes the selected resources away from this machine; their streams are cut.
    pub async fn disconnect(&self, selection: &Selection) -> Result<ChangeReport, ClientError> {
        self.post("/v1/disconnect", Some(selection), NETWORK_DEADLINE).await
    }

    /// Switches the virtual network on or off. The answer comes when it is up, or when it is known that it cannot be had.
    pub async fn network(&self, choice: &NetworkChoice) -> Result<NetworkStatus, ClientError> {
        self.post("/v1/network", Some(choice), NETWORK_DEADLINE).await
    }

    /// The streams that are carried now.
    pub async fn sessions(&self) -> Result<Vec<LiveSession>, ClientError> {
        self.get("/v1/sessions").await
    }

    pub async fn doctor(&self) -> Result<DoctorReport, ClientError> {
        self.post("/v1/doctor", NOTHING, NETWORK_DEADLINE).await
    }

    /// The same, each check as it begins and as it is done.
    pub async fn doctor_stream(&self) -> Result<Lines<DoctorLine>, ClientError> {
        Lines::open(self, Method::POST, "/v1/doctor/stream").await
    }

    /// Gives a resource a port of the user's own, or the assigned one again.
    pub async fn set_override(&self, choice: &PortOverride) -> Result<ResourceStatus, ClientError> {
        self.post("/v1/override", Some(choice), LOCAL_DEADLINE).await
    }

    /// Chooses where the device key and the sign-in are kept. A keyring may ask a person for its password meanwhile.
    pub async fn set_key_storage(&self, choice: &KeyStorageChoice) -> Result<Status, ClientError> {
        self.post("/v1/key-storage", Some(choice), NETWORK_DEADLINE).await
    }

    /// Tries a control plane that is away now, and does not wait for what comes of it.
    pub async fn retry(&self) -> Result<Status, ClientError> {
        self.post("/v1/retry", NOTHING, LOCAL_DEADLINE).await
    }

    /// The service's own log.
    pub async fn logs(&self, request: &LogRequest) -> Result<LogExport, ClientError> {
        self.post("/v1/logs", Some(request), LOCAL_DEADLINE).await
    }

    /// Asks for a name: the resolver of the virtual network, and the system.
    pub async fn names(&self, question: &NameQuestion) -> Result<NameReport, ClientError> {
        self.post("/v1/names", Some(question), NETWORK_DEADLINE).await
    }

    /// Calls the control plane's REST API with the login that the service holds. An error of the control plane comes
    /// back as [`ClientError::Refused`], like one of the service.
    pub async fn control(&self, call: &ControlCall) -> Result<ControlAnswer, ClientError> {
        let answer: ControlAnswer = self.post("/v1/control", Some(call), NETWORK_DEADLINE).await?;
        if answer.status < 400 {
            return Ok(answer);
        }
        let problem = serde_json::from_value(answer.body).unwrap_or_else(|_| {
            Problem::new(answer.status, "unexplained", format!("the control plane answered {}", answer.status))
                .with_detail(format!("{} {} was refused without a reason", call.method, call.path))
        });
        Err(ClientError::Refused(problem))
    }

    /// Asks the service to stop. It has agreed when this returns, and is gone soon after.
    pub async fn shutdown(&self) -> Result<(), ClientError> {
        let call = "POST /v1/shutdown";
        within(LOCAL_DEADLINE, call, self.exchange(Method::POST, "/v1/shutdown", None, call)).await.map(drop)
    }

    /// A snapshot and the events after it, over one connection. See [`Self::follow`] for one that reconnects.
    pub async fn events(&self) -> Result<Events, ClientError> {
        Events::open(self).await
    }

    /// The events of the service, over as many connections as it takes: see [`Follow`].
    #[must_use]
    pub fn follow(&self) -> Follow {
        Follow::new(self.clone())
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        let call = format!("GET {path}");
        let answer = within(LOCAL_DEADLINE, &call, self.exchange(Method::GET, path, None, &call)).await?;
        decode(&call, &answer)
    }

    async fn post<B, A>(&self, path: &str, body: Option<&B>, deadline: Duration) -> Result<A, ClientError>
    where
        B: Serialize + Sync + ?Sized,
        A: DeserializeOwned,
    {
        let call = format!("POST {path}");
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| ClientError::Garbled { call: call.clone(), reason: error.to_string() })?;
        let answer = within(deadline, &call, self.exchange(Method::POST, path, body, &call)).await?;
        decode(&call, &answer)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        call: &str,
    ) -> Result<Bytes, ClientError> {
        let (response, _connection) = self.send(method, path, body, call).await?;
        let status = response.status().as_u16();
        let answer = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| ClientError::BrokenOff { call: call.to_owned(), reason: error.to_string() })?
            .to_bytes();
        match status {
            200..=299 => Ok(answer),
            _ => Err(refusal(call, status, &answer)),
        }
    }

    /// Sends one request on a connection of its own. The connection lasts as long as the second value.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        call: &str,
    ) -> Result<(Response<Incoming>, Connection), ClientError> {
        let broken = |error: hyper::Error| ClientError::BrokenOff { call: call.to_owned(), reason: error.to_string() };
        let stream = self.dial().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = Connection(tokio::spawn(connection).abort_handle());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "posternd")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| ClientError::Garbled { call: call.to_owned(), reason: error.to_string() })?;
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok((response, connection))
    }

    async fn dial(&self) -> Result<UnixStream, ClientError> {
        let not_ours = |reason: String| ClientError::NotOurs { socket: self.socket.clone(), reason };
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => not_ours("you may not open it".to_owned()),
            _ => ClientError::NotRunning { socket: self.socket.clone() },
        })?;
        let peer = stream.peer_cred().map_err(|error| not_ours(format!("its owner cannot be found out: {error}")))?;
        if peer.uid() != self.owner {
            return Err(not_ours(format!(
                "the process behind it runs as uid {}, you are uid {}; nothing was sent to it",
                peer.uid(),
                self.owner
            )));
        }
        Ok(stream)
    }
}

/// Stands where a call has no body.
const NOTHING: Option<&()> = None;

/// The task that drives a connection; it ends with this value.
#[derive(Debug)]
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn within<T>(
    deadline: Duration,
    call: &str,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    timeout(deadline, work)
        .await
        .unwrap_or_else(|_| Err(ClientError::Silent { call: call.to_owned(), after: deadline }))
}

fn decode<A: DeserializeOwned>(call: &str, answer: &[u8]) -> Result<A, ClientError> {
    serde_json::from_slice(answer)
        .map_err(|error| ClientError::Garbled { call: call.to_owned(), reason: error.to_string() })
}

fn refusal(call: &str, status: u16, answer: &[u8]) -> ClientError {
    serde_json::from_slice(answer).map_or_else(
        |_| ClientError::Garbled {
            call: call.to_owned(),
            reason: format!("status {status} without a problem in JSON"),
        },
        ClientError::Refused,
    )
}

/// Reads the version before the rest: what else a hello holds may differ between versions.
fn read_hello(call: &str, answer: &[u8]) -> Result<Hello, ClientError> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
        #[serde(default)]
        service: Option<String>,
    }
    let said: Version = decode(call, answer)?;
    if said.version != VERSION {
        return Err(ClientError::VersionMismatch { ours: VERSION, theirs: said.version, service: said.service });
    }
    decode(call, answer)
}
