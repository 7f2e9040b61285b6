//! From HTTP to the frames: asked for by a client, granted by a node.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Empty, Full};
use hyper::{body::Incoming, client::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::{self, Builder},
};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::{End, PATH, PROTOCOL, WebSocket};
use crate::link::Transport;

/// The longest head of a request or an answer.
const MAX_HEAD: usize = 16 * 1024;
/// For a request's head; the whole of it has the deadline of a handshake besides.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("it speaks no HTTP/1.1: {0}")]
    Http(#[from] hyper::Error),
    #[error("it answers {0} instead of opening a WebSocket at {PATH}")]
    Refused(StatusCode),
    #[error("it opens a WebSocket that is not the carrier's: {0} is missing or wrong")]
    Other(HeaderName),
    #[error("the client did not ask for the carrier")]
    NotAsked,
}

impl From<UpgradeError> for io::Error {
    fn from(error: UpgradeError) -> Self {
        match error {
            UpgradeError::Broken(error) => error,
            other => Self::other(other),
        }
    }
}

/// Asks for the carrier at `authority`, the host and port that the client dials.
pub(crate) async fn ask<T: Transport + Send + 'static>(
    transport: T,
    authority: &str,
) -> Result<WebSocket, UpgradeError> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake::<_, Empty<Bytes>>(TokioIo::new(transport)).await?;
    // Ends when the connection is handed over or breaks, or when the sender is dropped.
    tokio::spawn(connection.with_upgrades());
    let key = generate_key();
    let request = Request::builder()
        .uri(PATH)
        .header(header::HOST, authority)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, WEBSOCKET)
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key)
        .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        .body(Empty::new())
        .map_err(|error| UpgradeError::Broken(io::Error::other(error)))?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(UpgradeError::Refused(response.status()));
    }
    let accept = derive_accept_key(key.as_bytes());
    for (name, wanted) in [(header::SEC_WEBSOCKET_ACCEPT, accept.as_str()), (header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)]
    {
        if response.headers().get(&name).is_none_or(|value| value.as_bytes() != wanted.as_bytes()) {
            return Err(UpgradeError::Other(name));
        }
    }
    let upgraded = hyper::upgrade::on(response).await?;
    let parts = upgraded.downcast::<TokioIo<T>>().map_err(|_| UpgradeError::NotAsked)?;
    Ok(WebSocket::new(End::Client, parts.io.into_inner().into(), &parts.read_buf))
}

/// Serves HTTP until somebody asks for the carrier, and answers 404 to everything else. It bounds heads; the caller bounds
/// the time.
pub(crate) async fn grant<T: Transport + Send + 'static>(transport: T) -> Result<WebSocket, UpgradeError> {
    let granted = Arc::new(Mutex::new(None));
    let service = service_fn(|request| {
        let answer = answer(request, &granted);
        async { Ok::<_, Infallible>(answer) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(MAX_HEAD);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(16).max_header_list_size(16 * 1024);
    let served = builder.serve_connection_with_upgrades(TokioIo::new(transport), service).await;
    let upgrade: Option<OnUpgrade> = granted.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(upgrade) = upgrade else {
        return Err(
            served.map_or_else(|error| UpgradeError::Broken(io::Error::other(error)), |()| UpgradeError::NotAsked)
        );
    };
    let parts = auto::upgrade::downcast::<TokioIo<T>>(upgrade.await?).map_err(|_| UpgradeError::NotAsked)?;
    Ok(WebSocket::new(End::Node, parts.io.into_inner().into(), &parts.read_buf))
}

fn answer(mut request: Request<Incoming>, granted: &Mutex<Option<OnUpgrade>>) -> Response<Full<Bytes>> {
    let Some(key) = asks_for_carrier(&request) else { return not_found() };
    let accept = derive_accept_key(&key);
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, WEBSOCKET)
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
        .body(Full::default());
    let Ok(response) = response else { return not_found() };
    *granted.lock().unwrap_or_else(PoisonError::into_inner) = Some(hyper::upgrade::on(&mut request));
    response
}

/// The key of a request for the carrier.
fn asks_for_carrier(request: &Request<Incoming>) -> Option<Vec<u8>> {
    let headers = request.headers();
    let asks = request.method() == Method::GET
        && request.version() == http::Version::HTTP_11
        && request.uri().path() == PATH
        && names(headers, &header::UPGRADE, "websocket")
        && names(headers, &header::CONNECTION, "upgrade")
        && names(headers, &header::SEC_WEBSOCKET_VERSION, "13")
        && names(headers, &header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL);
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| asks)?;
    Some(key.as_bytes().to_vec())
}

/// Whether a header's list has this word.
fn names(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
}

pub(super) fn not_found() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"Not Found\n")));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
