//! The calls of the local API.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use postern_local_api::message::{Hello, Status, VERSION};
use tokio_util::sync::CancellationToken;

use super::no_such_call;
use crate::board::{Board, Reader};

/// What the calls work with.
#[derive(Clone, Debug)]
pub struct Handle {
    pub board: Arc<Board>,
    /// Stops the service.
    pub stop: CancellationToken,
}

/// Every call of the local API.
pub fn router(handle: Handle) -> Router {
    Router::new()
        .route("/v1/hello", get(|| std::future::ready(Json(hello()))))
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route("/v1/shutdown", post(shutdown))
        .fallback(no_such_call)
        .with_state(handle)
}

/// Who answers here.
fn hello() -> Hello {
    Hello {
        version: VERSION,
        service: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uid: tun_driver::socket_owner::own_uid(),
    }
}

async fn status(State(handle): State<Handle>) -> Json<Status> {
    Json(handle.board.status())
}

async fn events(State(handle): State<Handle>) -> Response {
    let lines = futures_util::stream::unfold(
        (handle.board.follow(), handle.stop),
        |(mut reader, stop): (Reader, CancellationToken)| async move {
            let line = tokio::select! {
                () = stop.cancelled() => None,
                line = reader.next_line() => line,
            }?;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(line)), (reader, stop)))
        },
    );
    let kind = HeaderValue::from_static("application/jsonl");
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(lines)).into_response()
}

async fn shutdown(State(handle): State<Handle>) -> StatusCode {
    tracing::info!("asked to stop over the local API");
    handle.stop.cancel();
    StatusCode::ACCEPTED
}
