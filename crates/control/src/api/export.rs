//! Exports: everything of a kind as JSON lines, read in pieces so that none has to fit into memory.

use std::future::Future;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;

use crate::store::StoreError;

/// Rows that are read at a time.
pub const CHUNK: i64 = 500;

/// A piece of an export.
pub struct Lines {
    text: Bytes,
    /// The key of its last row; `None`: there was no row.
    last: Option<i64>,
}

impl Lines {
    /// Rows with their keys, in the order of the keys.
    pub fn of<T: Serialize>(rows: Vec<(i64, T)>) -> Result<Self, StoreError> {
        let mut text = Vec::new();
        for (_, row) in &rows {
            serde_json::to_writer(&mut text, row).map_err(|error| StoreError::Unreadable(error.to_string()))?;
            text.push(b'\n');
        }
        Ok(Self { text: text.into(), last: rows.last().map(|(key, _)| *key) })
    }
}

/// An answer of JSON lines. `next` is asked for the piece after a key until it has none; when it fails, the connection
/// breaks off, so that a part is not taken for the whole.
pub fn lines<F, R>(name: &str, next: F) -> Response
where
    F: FnMut(Option<i64>) -> R + Send + 'static,
    R: Future<Output = Result<Lines, StoreError>> + Send + 'static,
{
    let pieces = stream::try_unfold((next, None), |(mut next, after)| async move {
        let piece = next(after).await.inspect_err(|error| tracing::error!(%error, "an export broke off"))?;
        Ok::<_, StoreError>(piece.last.map(|last| (piece.text, (next, Some(last)))))
    });
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}.jsonl\""));
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    let mut response = ([kind], Body::from_stream(pieces)).into_response();
    if let Ok(disposition) = disposition {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition);
    }
    response
}
