//! How refusals become answers.

use axum::{
    Extension,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use postern_proto::problem::{MEDIA_TYPE, Problem};

use super::MAX_BODY;
use crate::{gateway, metrics::RefusalCode, password::PasswordError, secret::NoEntropy, store::StoreError};

/// What a handler answers.
pub type Answer<T> = Result<T, Refusal>;

/// A problem on its way to the caller.
#[derive(Clone, Debug)]
pub struct Refusal(pub Box<Problem>);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))];
        (status, kind, Extension(RefusalCode(self.0.code)), body).into_response()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let problem = match &error {
            StoreError::Taken(what) => {
                Problem::new(409, "taken", "Another entity has this already").with_detail(what.clone())
            }
            StoreError::Busy => Problem::new(503, "busy", "The control plane is busy").with_detail("Try again."),
            StoreError::Closed => Problem::new(503, "stopping", "The control plane is being stopped"),
            StoreError::Away(cause) => {
                tracing::warn!(%cause, "the database cannot be reached");
                Problem::new(503, "database_away", "The control plane's database cannot be reached")
                    .with_detail("Try again.")
            }
            StoreError::Database(_) | StoreError::Unreadable(_) | StoreError::TooOld { .. } => {
                tracing::error!(%error, "a request failed");
                Problem::new(500, "internal", "The control plane failed").with_detail("Its log says why.")
            }
        };
        problem.into()
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<NoEntropy> for Refusal {
    fn from(error: NoEntropy) -> Self {
        tracing::error!(%error, "no secret could be made");
        Problem::new(500, "internal", "The control plane failed").with_detail("Its log says why.").into()
    }
}

impl From<gateway::IssueError> for Refusal {
    fn from(error: gateway::IssueError) -> Self {
        match error {
            gateway::IssueError::Entropy(error) => error.into(),
            gateway::IssueError::Store(error) => error.into(),
        }
    }
}

impl From<PasswordError> for Refusal {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => {
                Problem::new(503, "busy", "Too many passwords are being checked").with_detail("Try again.").into()
            }
            PasswordError::Store(error) => error.into(),
            error => {
                tracing::error!(%error, "a password could not be hashed");
                Problem::new(500, "internal", "The control plane failed").with_detail("Its log says why.").into()
            }
        }
    }
}

/// 404 for an entity, whether it never was, is gone, or its id is no id.
pub fn unknown(kind: &str, id: &str) -> Refusal {
    let id: String = id.chars().take(64).collect();
    Problem::new(404, "not_found", format!("There is no {kind} {}", id.escape_debug())).into()
}

pub fn too_large() -> Refusal {
    let title = format!("The body is longer than {MAX_BODY} bytes");
    Problem::new(413, "too_large", title).into()
}
