//! The REST API under `/api/v1`.
//!
//! Every refusal is a [`Problem`], also those of the framework: unknown paths, wrong methods, bodies that are too long,
//! of another type or not JSON.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use futures_util::StreamExt as _;
use postern_proto::problem::Problem;
use utoipa_axum::router::OpenApiRouter;

pub use self::{
    caller::{Admin, Caller},
    input::{Given, Input, Violations},
    page::{List, Page},
    refusal::{Answer, Refusal},
};
use crate::{metrics::measure, state::AppState};

mod accounts;
mod activities;
pub mod caller;
mod checks;
mod clusters;
mod devices;
mod enrolment;
mod entity;
pub mod export;
mod gateways;
mod grants;
pub mod input;
mod leases;
mod login;
mod machine;
mod maintenance;
mod members;
mod network;
mod nodes;
pub mod page;
mod records;
pub mod refusal;
mod resources;
mod roles;
mod rules;
mod sessions;
mod sync;
mod tokens;

/// No body is longer; a longer one is refused before anything of it is read.
pub const MAX_BODY: usize = 1 << 20;
/// What is read at most of a body that is too long.
const MAX_SWALLOWED: usize = 8 << 20;
/// How long a body may take to arrive.
pub const BODY: Duration = Duration::from_secs(30);

/// Every route with its description.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(crate::openapi::base())
        .merge(accounts::routes())
        .merge(enrolment::routes())
        .merge(leases::routes())
        .merge(login::routes())
        .merge(sync::routes())
        .merge(tokens::routes())
        .merge(devices::routes())
        .merge(roles::routes())
        .merge(rules::routes())
        .merge(members::routes())
        .merge(grants::routes())
        .merge(resources::routes())
        .merge(gateways::routes())
        .merge(clusters::routes())
        .merge(maintenance::routes())
        .merge(network::routes())
        .merge(nodes::routes())
        .merge(activities::routes())
        .merge(checks::routes())
        .merge(records::routes())
        .merge(sessions::routes())
}

/// The whole service.
pub fn router(state: AppState) -> Router {
    let (router, openapi) = routes().split_for_parts();
    router
        .merge(crate::openapi::route(&openapi))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(bound_body))
        .layer(middleware::from_fn(harden))
        .layer(middleware::from_fn_with_state(Arc::clone(&state.metrics), measure))
        .with_state(state)
}

async fn not_found(uri: Uri) -> Refusal {
    Problem::new(404, "not_found", format!("There is nothing at {}", uri.path())).into()
}

async fn method_not_allowed(method: Method, uri: Uri) -> Refusal {
    Problem::new(405, "method_not_allowed", format!("{method} is not possible at {}", uri.path())).into()
}

/// Refuses a body by its announced length, before the caller is looked at; one without a length is cut off later.
async fn bound_body(request: Request, next: Next) -> Response {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let most = if request.uri().path() == records::PATH { records::MAX_BATCH } else { MAX_BODY };
    if length.is_some_and(|length: u64| length > most as u64) {
        swallow(request.into_body()).await;
        return refusal::too_large().into_response();
    }
    next.run(request).await
}

/// Reads some of a body that is refused: a connection that is closed with bytes unread is reset, and the caller would
/// never see why.
async fn swallow(body: Body) {
    let mut left = MAX_SWALLOWED;
    let mut pieces = body.into_data_stream();
    let swallowed = async {
        while let Some(Ok(piece)) = pieces.next().await
            && let Some(after) = left.checked_sub(piece.len())
        {
            left = after;
        }
    };
    // What does not come in time is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(2), swallowed).await;
}

async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
