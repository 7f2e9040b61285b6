//! The read-only status over HTTP on a loopback port, for scripts.
//!
//! A loopback port is open to every program and every web page on this machine, so nothing is answered but to the owner's
//! processes (the same check as for resources), with the token of a file that only the owner may read, and to no request
//! that a browser could have made. There are no state changes here and no CORS header, ever.
//!
//! The token is drawn anew whenever the port is taken and its file exists only while we have the port: a program that
//! squats on the port finds no client with a token to steal.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use postern_local_api::message::{Hello, Status, StatusApi};
use postern_proto::problem::Problem;
use postern_tunnel::private_file;
use subtle::ConstantTimeEq as _;
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    gate::Gate,
    listener,
    local::{Handle, Refusal, fresh_status, hello, no_such_call, serve_http},
};

/// Connections at a time; one more is let go.
const MAX_CONNECTIONS: usize = 64;
/// How long to rest when the system has no more files.
const REST: Duration = Duration::from_millis(200);
/// The waits between tries to take the port.
const RETRY: [u64; 6] = [1, 2, 5, 10, 20, 30];

/// The status server.
#[derive(Debug)]
pub struct StatusServer {
    pub address: SocketAddr,
    pub token_file: PathBuf,
    pub gate: Arc<Gate>,
    pub handle: Handle,
    pub state: watch::Sender<StatusApi>,
}

impl StatusServer {
    /// Takes the port, as often as it takes, and serves until `stop`.
    pub async fn run(self, stop: CancellationToken, calls: TaskTracker) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            match self.open() {
                Ok((listener, address, token)) => {
                    self.state.send_replace(StatusApi::Listening {
                        address,
                        token_file: self.token_file.display().to_string(),
                    });
                    let router = router(self.handle.clone(), Guard { address, token: token.into() });
                    self.serve(listener, address, router, &stop, &calls).await;
                    break;
                }
                Err(error) => {
                    let holder = self.holder_text();
                    let error = format!("{} cannot be listened on: {error}{holder}", self.address);
                    tracing::warn!("no status for scripts: {error}");
                    self.state.send_replace(StatusApi::Failed { error });
                }
            }
            let pause = RETRY.get(failures).or(RETRY.last()).copied().unwrap_or(30);
            failures += 1;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(Duration::from_secs(pause)) => {}
            }
        }
        let _ = std::fs::remove_file(&self.token_file);
    }

    /// Takes the port first and writes the token after it.
    fn open(&self) -> io::Result<(tokio::net::TcpListener, SocketAddr, String)> {
        let _ = std::fs::remove_file(&self.token_file);
        let listener = listener::bind(self.address)?;
        let address = listener.local_addr()?;
        let token = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        private_file::write(&self.token_file, token.as_bytes())?;
        Ok((listener, address, token))
    }

    fn holder_text(&self) -> String {
        let Some(holder) = self.gate.owners().listener_holder(self.address) else { return String::new() };
        match holder.process {
            Some(process) => format!(" (held by {}, process {})", process.program, process.pid),
            None => format!(" (held by a process of uid {})", holder.uid),
        }
    }

    async fn serve(
        &self,
        listener: tokio::net::TcpListener,
        address: SocketAddr,
        router: Router,
        stop: &CancellationToken,
        calls: &TaskTracker,
    ) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    if let Err(refused) = self.gate.admit(&stream, peer, address) {
                        tracing::warn!("a connection to the status port was refused: {refused}");
                        let _ = stream.set_zero_linger();
                        continue;
                    }
                    let (router, stop) = (router.clone(), stop.clone());
                    calls.spawn(async move {
                        serve_http(stream, router, stop).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!("the status port could not accept: {error}");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}

/// What a request must bring.
#[derive(Clone, Debug)]
struct Guard {
    address: SocketAddr,
    token: Arc<str>,
}

fn router(handle: Handle, guard: Guard) -> Router {
    Router::new()
        .route("/v1/hello", get(|| std::future::ready(Json::<Hello>(hello()))))
        .route("/v1/status", get(status))
        .fallback(no_such_call)
        .method_not_allowed_fallback(no_such_call)
        .layer(middleware::from_fn_with_state(guard, check))
        .with_state(handle)
}

async fn status(State(handle): State<Handle>) -> Result<Json<Status>, Refusal> {
    fresh_status(&handle).await
}

/// Refuses, before anything is looked up, whatever did not come from a script of the owner.
async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.verdict(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => Refusal(problem).into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in SECURITY {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

const SECURITY: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

impl Guard {
    fn verdict(&self, request: &Request) -> Result<(), Problem> {
        if let Some(why) = self.suspicion(request) {
            return Err(
                Problem::new(403, "not_for_browsers", "This address is for scripts of its owner").with_detail(why)
            );
        }
        if request.method() != Method::GET {
            return Err(Problem::new(405, "read_only", "The status can only be read here")
                .with_detail("Changes go over the socket: use the postern command."));
        }
        if !self.has_token(request.headers()) {
            return Err(Problem::new(401, "token_required", "The token is missing or wrong").with_detail(
                "Send \"Authorization: Bearer\" and the content of the token file that postern status names.",
            ));
        }
        Ok(())
    }

    /// What looks like a browser, or like a name that was bent to this address.
    fn suspicion(&self, request: &Request) -> Option<&'static str> {
        let headers = request.headers();
        if headers.contains_key(header::ORIGIN) || headers.contains_key(header::REFERER) {
            return Some("the request names a page that it comes from");
        }
        let site = HeaderName::from_static("sec-fetch-site");
        if headers.get_all(site).iter().any(|value| value != "none") {
            return Some("the request was made by a page");
        }
        if request.uri().authority().is_some() || request.uri().scheme().is_some() {
            return Some("the request is one for a proxy");
        }
        let port = self.address.port();
        let ours = [self.address.to_string(), format!("localhost:{port}")];
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) if ours.iter().any(|ours| host == ours.as_str()) => None,
            _ => Some("the Host header does not name this address"),
        }
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let mut sent = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(sent), None) = (sent.next(), sent.next()) else { return false };
        let sent = sent.as_bytes().strip_prefix(b"Bearer ").unwrap_or_default();
        bool::from(sent.ct_eq(self.token.as_bytes()))
    }
}

#[cfg(test)]
mod tests;
