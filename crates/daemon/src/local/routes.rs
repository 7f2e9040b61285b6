//! The calls of the local API.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequest, Request as HttpRequest, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{Stream, StreamExt as _};
use postern_local_api::message::{
    ChangeReport, ControlAnswer, ControlCall, DoctorReport, Hello, KeyPlace, KeyStorageChoice, LiveSession, LogExport,
    LogRequest, Login, NetworkChoice, NetworkStatus, PortOverride, ResourceStatus, Selection, Status, Unlock, VERSION,
};
use postern_local_api::names::{NameQuestion, NameReport};
use postern_proto::{api::Credential, problem::Problem};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Refusal, no_such_call, pass_on};
use crate::{
    account::Account,
    board::{Board, Reader},
    carriage::Carriage,
    doctor::{Doctor, Patient},
    event_log::EventLog,
    inquiry,
    redaction::{self, Names},
    request::{Request, ask},
    secrets,
    sign_in::Target,
    store::Config,
};

/// No body of a call is longer: an administrator's call may carry a list.
const MAX_BODY: usize = 4 << 20;

/// How long somebody may take to type the keyring's password. A client waits longer.
const UNLOCK_PATIENCE: Duration = Duration::from_secs(90);

/// What the calls work with.
#[derive(Clone, Debug)]
pub struct Handle {
    pub board: Arc<Board>,
    pub requests: mpsc::Sender<Request>,
    pub carriage: Arc<Carriage>,
    pub accounts: watch::Receiver<Option<Arc<Account>>>,
    pub configs: watch::Receiver<Option<Config>>,
    pub doctor: Arc<Doctor>,
    pub log: EventLog,
    /// One sign-in at a time.
    pub signing_in: Arc<Mutex<()>>,
    /// Stops the service.
    pub stop: CancellationToken,
}

type Answer<T> = Result<Json<T>, Refusal>;

/// Every call of the local API.
pub fn router(handle: Handle) -> Router {
    Router::new()
        .route("/v1/hello", get(|| std::future::ready(Json(hello()))))
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route("/v1/login", post(login))
        .route("/v1/logout", post(logout))
        .route("/v1/lock", post(lock))
        .route("/v1/unlock", post(unlock))
        .route("/v1/connect", post(connect))
        .route("/v1/disconnect", post(disconnect))
        .route("/v1/override", post(override_port))
        .route("/v1/key-storage", post(key_storage))
        .route("/v1/retry", post(retry))
        .route("/v1/network", post(network))
        .route("/v1/sessions", get(sessions))
        .route("/v1/doctor", post(doctor))
        .route("/v1/doctor/stream", post(doctor_stream))
        .route("/v1/logs", post(logs))
        .route("/v1/names", post(names))
        .route("/v1/control", post(control))
        .route("/v1/shutdown", post(shutdown))
        .fallback(no_such_call)
        .method_not_allowed_fallback(no_such_call)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(handle)
}

/// Who answers here.
pub(crate) fn hello() -> Hello {
    Hello {
        version: VERSION,
        service: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uid: tun_driver::socket_owner::own_uid(),
    }
}

async fn status(State(handle): State<Handle>) -> Answer<Status> {
    fresh_status(&handle).await
}

async fn events(State(handle): State<Handle>) -> Response {
    let lines = futures_util::stream::unfold(
        (handle.board.follow(), handle.stop),
        |(mut reader, stop): (Reader, CancellationToken)| async move {
            let line = tokio::select! {
                () = stop.cancelled() => None,
                line = reader.next_line() => line,
            }?;
            Some((line, (reader, stop)))
        },
    );
    json_lines(lines)
}

/// An answer that goes on for as long as there are lines; each holds its line end.
fn json_lines(lines: impl Stream<Item = String> + Send + 'static) -> Response {
    let kind = HeaderValue::from_static("application/jsonl");
    let body = Body::from_stream(lines.map(|line| Ok::<_, std::convert::Infallible>(Bytes::from(line))));
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

async fn login(State(handle): State<Handle>, Sent(login): Sent<Login>) -> Answer<Status> {
    let _turn = handle.signing_in.lock().await;
    let target = Target::of(&login, handle.configs.borrow().as_ref())?;
    handle.sign_in(target, login.credential, true).await?;
    fresh_status(&handle).await
}

async fn logout(State(handle): State<Handle>) -> Answer<Status> {
    let _turn = handle.signing_in.lock().await;
    ask(&handle.requests, |reply| Request::SignOut { reply }).await?;
    fresh_status(&handle).await
}

async fn lock(State(handle): State<Handle>) -> Answer<Status> {
    ask(&handle.requests, |reply| Request::Lock { reply }).await?;
    fresh_status(&handle).await
}

/// The control plane checks the password: a sign-in of the same account at the same place.
async fn unlock(State(handle): State<Handle>, Sent(unlock): Sent<Unlock>) -> Answer<Status> {
    let _turn = handle.signing_in.lock().await;
    let account = handle.account()?;
    let config = handle.configs.borrow().clone();
    let config = config.ok_or_else(|| Problem::new(409, "no_control_plane", "No control plane is known"))?;
    let who = &account.record().account;
    let credential = if who.service {
        Credential::ServiceToken { token: unlock.password }
    } else {
        Credential::Password { email: who.email.clone(), password: unlock.password }
    };
    handle.sign_in(Target::configured(&config)?, credential, true).await?;
    fresh_status(&handle).await
}

async fn connect(State(handle): State<Handle>, Sent(selection): Sent<Selection>) -> Answer<ChangeReport> {
    handle.choose(selection, true).await
}

async fn disconnect(State(handle): State<Handle>, Sent(selection): Sent<Selection>) -> Answer<ChangeReport> {
    handle.choose(selection, false).await
}

async fn network(State(handle): State<Handle>, Sent(choice): Sent<NetworkChoice>) -> Answer<NetworkStatus> {
    Ok(Json(ask(&handle.requests, |reply| Request::SetNetwork { enabled: choice.enabled, reply }).await?))
}

async fn sessions(State(handle): State<Handle>) -> Json<Vec<LiveSession>> {
    let name = |id| handle.board.resource(id).map_or_else(|| format!("{id}"), |status| status.resource.name);
    let all = handle.carriage.streams.all().into_iter().map(|stream| {
        let route = stream.route();
        let gateways = handle.carriage.gateways();
        LiveSession {
            stream: stream.id,
            resource: stream.resource,
            resource_name: name(stream.resource),
            peer: stream.peer,
            gateway: route.door,
            route: route.way().and_then(|way| gateways.route_of(way)),
            started_at: stream.started_at,
            ends_at: route.way().and_then(|way| gateways.leaves(way, route.worker)).map(|(ends, _)| ends),
            bytes_up: stream.control.up(),
            bytes_down: stream.control.down(),
        }
    });
    Json(all.collect())
}

async fn override_port(State(handle): State<Handle>, Sent(wish): Sent<PortOverride>) -> Answer<ResourceStatus> {
    Ok(Json(ask(&handle.requests, |reply| Request::ChoosePort { wish, reply }).await?))
}

async fn key_storage(State(handle): State<Handle>, Sent(choice): Sent<KeyStorageChoice>) -> Answer<Status> {
    let _turn = handle.signing_in.lock().await;
    if choice.storage == KeyPlace::Keyring {
        // It may ask a person for its password: not in the shell, which has other things to do.
        secrets::unlock_keyring(UNLOCK_PATIENCE).await.map_err(|fault| fault.cause().problem(409))?;
    }
    ask(&handle.requests, |reply| Request::KeepKeys { place: choice.storage, reply }).await?;
    fresh_status(&handle).await
}

/// Answers when the try has begun; what comes of it is an event.
async fn retry(State(handle): State<Handle>) -> Answer<Status> {
    ask(&handle.requests, |reply| Request::RetryControl { reply }).await?;
    fresh_status(&handle).await
}

async fn doctor(State(handle): State<Handle>) -> Answer<DoctorReport> {
    Ok(Json(handle.doctor.examine(&handle.patient().await?).await))
}

/// Each check as it comes; it ends when the client goes away.
async fn doctor_stream(State(handle): State<Handle>) -> Result<Response, Refusal> {
    let lines = handle.doctor.stream(handle.patient().await?);
    let lines = futures_util::stream::unfold((lines, handle.stop), |(mut lines, stop)| async move {
        let line = tokio::select! {
            () = stop.cancelled() => None,
            line = lines.recv() => line,
        }?;
        let json = serde_json::to_string(&line).unwrap_or_default();
        Some((format!("{json}\n"), (lines, stop)))
    });
    Ok(json_lines(lines))
}

async fn logs(State(handle): State<Handle>, Sent(request): Sent<LogRequest>) -> Json<LogExport> {
    let (lines, forgotten) = handle.log.lines();
    let names = Names::of(&handle.board.status());
    Json(redaction::export(&lines, forgotten, names, request.redaction))
}

async fn names(State(handle): State<Handle>, Sent(question): Sent<NameQuestion>) -> Answer<NameReport> {
    let resolver = match handle.board.status().network {
        NetworkStatus::Up(up) => Some(up.resolver),
        _ => None,
    };
    let report = inquiry::report(&question, resolver).await;
    Ok(Json(
        report.map_err(|error| {
            Problem::new(422, "bad_question", "That cannot be asked").with_detail(error.to_string())
        })?,
    ))
}

async fn control(State(handle): State<Handle>, Sent(call): Sent<ControlCall>) -> Answer<ControlAnswer> {
    let account = handle.account()?;
    let changes_password = pass_on::changes_password(&call);
    let answer = pass_on::pass_on(account.control(), call).await?;
    if changes_password && answer.status < 300 {
        // The password is changed, whatever becomes of the note about it.
        let _ = ask(&handle.requests, |reply| Request::PasswordChanged { reply }).await;
    }
    Ok(Json(answer))
}

async fn shutdown(State(handle): State<Handle>) -> StatusCode {
    tracing::info!("asked to stop over the local API");
    handle.stop.cancel();
    StatusCode::ACCEPTED
}

/// The status as it is now, not as it was posted last.
pub(crate) async fn fresh_status(handle: &Handle) -> Answer<Status> {
    ask(&handle.requests, |reply| Request::Refresh { reply }).await?;
    Ok(Json(handle.board.status()))
}

impl Handle {
    async fn choose(&self, selection: Selection, connected: bool) -> Answer<ChangeReport> {
        Ok(Json(ask(&self.requests, |reply| Request::Choose { selection, connected, reply }).await?))
    }

    async fn patient(&self) -> Result<Patient, Refusal> {
        let status = fresh_status(self).await?.0;
        Ok(Patient { status, account: self.accounts.borrow().clone(), config: self.configs.borrow().clone() })
    }

    fn account(&self) -> Result<Arc<Account>, Problem> {
        self.accounts
            .borrow()
            .clone()
            .ok_or_else(|| Problem::new(409, "signed_out", "Nobody is signed in").with_detail("Sign in: postern login"))
    }

    /// Signs in and becomes that account. An account that was here before keeps its device key; another one gets its
    /// own.
    pub async fn sign_in(&self, target: Target, credential: Credential, unlock: bool) -> Result<(), Problem> {
        let before = self.accounts.borrow().clone().filter(|before| before.may_be(&target, &credential));
        let key = before.as_ref().map(|before| before.key().clone());
        let first = target.sign_in(credential.clone(), key).await;
        let another_key = before.is_some_and(|before| match &first {
            Ok(signed_in) => before.owner().account != signed_in.record.account.id,
            Err(problem) => problem.code == "device_revoked",
        });
        let signed_in = if another_key { target.sign_in(credential, None).await? } else { first? };
        let signed_in = Box::new(signed_in);
        ask(&self.requests, |reply| Request::Adopt { signed_in, unlock, reply }).await
    }
}

/// A JSON body; one that cannot be read is refused with a problem instead of the framework's plain text.
struct Sent<T>(T);

impl<T: serde::de::DeserializeOwned> FromRequest<Handle> for Sent<T> {
    type Rejection = Refusal;

    async fn from_request(request: HttpRequest, handle: &Handle) -> Result<Self, Refusal> {
        let bytes = Bytes::from_request(request, handle).await.map_err(|error| bad_body(&error.to_string()))?;
        // A client of another version may send more or less than we know; the words of the parser name what.
        serde_json::from_slice(&bytes).map(Self).map_err(|error| bad_body(&error.to_string()))
    }
}

fn bad_body(why: &str) -> Refusal {
    Refusal(Problem::new(400, "bad_request", "The call cannot be read").with_detail(why))
}
