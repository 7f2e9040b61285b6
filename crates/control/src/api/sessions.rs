//! Sessions: who reached what, listed, exported and verified.

use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use postern_proto::{
    filter::{Subject, Value},
    id::{AccountId, DeviceId, NodeId, ResourceId, StreamId},
    resource::Tags,
    time::UnixMillis,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Admin, Answer, List, Page,
    export::{self, Lines},
    page::ListParams,
    refusal::unknown,
};
use crate::{
    audit::{self, Verification},
    sql::{self, Row},
    state::AppState,
    store::{Store, StoreError, read},
};

const FIELDS: &[&str] = &[
    "id", "state", "account", "email", "device", "resource", "tags", "gateway", "grant", "client", "target", "reason",
];

/// What [`view`] reads.
macro_rules! columns {
    () => {
        "id, account_id, account_email, device_id, device_name, resource_id, resource_name, resource_tags, node_id, node_name,
            granted_by, client, target, dialled, started_at, ended_at, bytes_up, bytes_down, reason, detail, seq"
    };
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(export))
        .routes(routes!(verify))
        .routes(routes!(verify_again))
}

/// One carried connection.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct Session {
    /// The stream's id, as the client and the gateway log it.
    #[schema(value_type = String, example = "str_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    id: StreamId,
    #[schema(value_type = String)]
    account: AccountId,
    account_email: String,
    #[schema(value_type = String)]
    device: DeviceId,
    device_name: String,
    #[schema(value_type = String)]
    resource: ResourceId,
    /// Name and tags of the resource as they were then.
    resource_name: String,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    resource_tags: Tags,
    #[schema(value_type = String)]
    node: NodeId,
    node_name: String,
    /// Why the account was let in: a role or a direct grant.
    grant: String,
    /// Where the client's connection came from.
    client: String,
    /// Host and port of the resource then.
    target: String,
    /// The address that was reached; null: none was, or the session goes on.
    dialled: Option<String>,
    /// Milliseconds since 1970.
    #[schema(value_type = u64)]
    started_at: UnixMillis,
    /// Null: it goes on.
    #[schema(value_type = Option<u64>)]
    ended_at: Option<UnixMillis>,
    /// Bytes from the client to the resource; null: it goes on.
    bytes_up: Option<u64>,
    bytes_down: Option<u64>,
    /// Why it ended.
    #[schema(example = "closed")]
    reason: Option<String>,
    detail: Option<String>,
}

impl Subject for Session {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "id" => self.id.to_string().into(),
            "state" => if self.ended_at.is_some() { "ended" } else { "open" }.into(),
            "account" => self.account.to_string().into(),
            "email" => self.account_email.as_str().into(),
            "device" => self.device_name.as_str().into(),
            // A bare word is matched against the name: that of the resource.
            "resource" | "name" => self.resource_name.as_str().into(),
            "tags" => Value::Tags(&self.resource_tags),
            "gateway" => self.node_name.as_str().into(),
            "grant" => self.grant.as_str().into(),
            "client" => self.client.as_str().into(),
            "target" => self.target.as_str().into(),
            "reason" => self.reason.as_deref().map_or(Value::None, Value::from),
            _ => Value::None,
        }
    }
}

#[utoipa::path(get, path = "/api/v1/sessions", operation_id = "list_sessions", tag = "audit", params(ListParams),
    responses((status = 200, body = Page<Session>)))]
/// List sessions, newest first
///
/// A filter that matches little looks through a part of them at a time: a page may hold fewer items than asked and still
/// have a next one.
async fn list(State(state): State<AppState>, _: Admin, list: List) -> Answer<Json<Page<Session>>> {
    let store = &state.store;
    let page = list.scan(FIELDS, |after, limit| async move {
        let statement = concat!("SELECT ", columns!(), " FROM session WHERE seq < $1 ORDER BY seq DESC LIMIT $2");
        rows(store, statement, after.unwrap_or(i64::MAX), limit).await
    });
    Ok(Json(page.await?))
}

#[utoipa::path(get, path = "/api/v1/sessions/{id}", operation_id = "show_session", tag = "audit",
    params(("id" = String, Path,)), responses((status = 200, body = Session)))]
/// Show a session
async fn show(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<Session>> {
    let statement = concat!("SELECT ", columns!(), " FROM session WHERE id = $1 ORDER BY seq DESC LIMIT 1");
    let row = sql::query(statement).bind(&id).fetch_optional(state.store.reader()).await?;
    Ok(Json(view(&row.ok_or_else(|| unknown("session", &id))?)?.1))
}

#[utoipa::path(get, path = "/api/v1/sessions/export", operation_id = "export_sessions", tag = "audit",
    responses((status = 200, description = "One session a line", content_type = "application/x-ndjson", body = String)))]
/// Export all sessions as JSON lines, oldest first
async fn export(State(state): State<AppState>, _: Admin) -> Response {
    let store = state.store;
    export::lines("sessions", move |after: Option<i64>| {
        let store = store.clone();
        async move {
            let statement = concat!("SELECT ", columns!(), " FROM session WHERE seq > $1 ORDER BY seq LIMIT $2");
            Lines::of(rows(&store, statement, after.unwrap_or(0), export::CHUNK).await?)
        }
    })
}

#[utoipa::path(get, path = "/api/v1/audit/verify", operation_id = "verify_audit", tag = "audit",
    responses((status = 200, body = Verification)))]
/// Check that no record was changed, removed or moved
///
/// Walks the hash chain of each gateway and names the first record at which it is broken.
async fn verify(State(state): State<AppState>, _: Admin) -> Answer<Json<Verification>> {
    Ok(Json(audit::verify(&state.store).await?))
}

#[utoipa::path(post, path = "/api/v1/audit/verify", operation_id = "verify_audit_again", tag = "audit",
    responses((status = 200, body = Verification)))]
/// The same, for callers that send nothing by GET
async fn verify_again(state: State<AppState>, admin: Admin) -> Answer<Json<Verification>> {
    verify(state, admin).await
}

async fn rows(
    store: &Store,
    statement: &'static str,
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, Session)>, StoreError> {
    let rows = sql::query(statement).bind(after).bind(limit).fetch_all(store.reader()).await?;
    rows.iter().map(view).collect()
}

fn view(row: &Row) -> Result<(i64, Session), StoreError> {
    let bytes = |column| row.try_get::<Option<i64>>(column)?.map(read::unsigned).transpose();
    let session = Session {
        id: read::value(row, "id")?,
        account: read::value(row, "account_id")?,
        account_email: row.try_get("account_email")?,
        device: read::value(row, "device_id")?,
        device_name: row.try_get("device_name")?,
        resource: read::value(row, "resource_id")?,
        resource_name: row.try_get("resource_name")?,
        resource_tags: read::parse(row.try_get("resource_tags")?)?,
        node: read::value(row, "node_id")?,
        node_name: row.try_get("node_name")?,
        grant: row.try_get("granted_by")?,
        client: row.try_get("client")?,
        target: row.try_get("target")?,
        dialled: row.try_get("dialled")?,
        started_at: read::instant(row, "started_at")?,
        ended_at: read::optional_instant(row, "ended_at")?,
        bytes_up: bytes("bytes_up")?,
        bytes_down: bytes("bytes_down")?,
        reason: row.try_get("reason")?,
        detail: row.try_get("detail")?,
    };
    Ok((row.try_get("seq")?, session))
}
