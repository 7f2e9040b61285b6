//! The local API: HTTP/1.1 with JSON on a Unix socket that only its owner and root may use.
//!
//! The socket is 0600 in a 0700 folder, and each connection is asked for its uid besides (`SO_PEERCRED`), before a byte
//! of it is read.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use postern_proto::problem::{MEDIA_TYPE, Problem};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

mod pass_on;
mod routes;

pub use routes::{Handle, router};
pub(crate) use routes::{fresh_status, hello};

/// Connections at a time; one more waits. Clients are a few programs of one person.
const MAX_CONNECTIONS: usize = 256;
/// A client that does not finish its request's head by then is let go.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long to rest when the system has no more files.
const REST: Duration = Duration::from_millis(200);

/// Opens the socket. What lies there is a leftover: the lock is ours.
///
/// # Errors
/// What the system says.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until `stop`; then running calls may finish (the caller waits for the tracker, with a deadline).
pub async fn serve(listener: UnixListener, router: Router, stop: CancellationToken, calls: TaskTracker) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let owner = tun_driver::socket_owner::own_uid();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let router = admit(&stream, owner).map_or_else(refusing, |()| router.clone());
                let stop = stop.clone();
                calls.spawn(async move {
                    serve_http(stream, router, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("the local API could not accept a connection: {error}");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// Whether the process at the other end belongs to the owner or to root; else the problem that it is told.
fn admit(stream: &UnixStream, owner: u32) -> Result<(), Problem> {
    let uid = match stream.peer_cred() {
        Ok(peer) => peer.uid(),
        Err(error) => {
            tracing::warn!("a client of the local API cannot be named: {error}");
            return Err(refusal("this program cannot be named"));
        }
    };
    if is_admitted(uid, owner) {
        return Ok(());
    }
    tracing::warn!(uid, "another user was refused at the local API");
    Err(refusal(&format!("you are uid {uid}, this service belongs to uid {owner}")))
}

const fn is_admitted(uid: u32, owner: u32) -> bool {
    uid == owner || uid == 0
}

fn refusal(why: &str) -> Problem {
    Problem::new(403, "not_your_service", "This posternd belongs to another user").with_detail(why)
}

fn refusing(problem: Problem) -> Router {
    Router::new().fallback(move || std::future::ready(Refusal(problem.clone())))
}

/// Serves one connection until it ends, or until `stop` and the end of the call that is under way.
pub(crate) async fn serve_http<S>(stream: S, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(
        router.map_request(|request: hyper::Request<hyper::body::Incoming>| request.map(axum::body::Body::new)),
    );
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}

/// A [`Problem`] as an HTTP answer.
#[derive(Debug)]
pub struct Refusal(pub Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))], body).into_response()
    }
}

/// What is told for a path that is not there.
pub(crate) async fn no_such_call(request: Request) -> Refusal {
    let call = format!("{} {}", request.method(), request.uri().path());
    Refusal(
        Problem::new(404, "no_such_call", "posternd knows no such call")
            .with_detail(format!("{} is not part of this version", call.escape_default())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_and_root_are_admitted() {
        assert!(is_admitted(1000, 1000));
        assert!(is_admitted(0, 1000));
        assert!(!is_admitted(1001, 1000));
        assert!(!is_admitted(1001, 0));
        assert!(!is_admitted(65534, 1000));
    }

    #[tokio::test]
    async fn a_leftover_socket_is_replaced_and_the_new_one_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(listen(&path).unwrap());
        assert!(path.exists());
        let _listener = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
