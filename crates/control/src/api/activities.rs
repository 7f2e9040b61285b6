//! Activities: who changed what, listed and exported.

use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use postern_proto::{
    filter::{Subject, Value},
    id::ActivityId,
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
    sql::{self, Row},
    state::AppState,
    store::{Store, StoreError, read},
};

const FIELDS: &[&str] = &["verb", "actor", "actor.kind", "actor.id", "subject", "subject.kind", "subject.id", "id"];

/// What [`view`] reads.
macro_rules! columns {
    () => {
        "id, seq, at, rev, actor_kind, actor_id, actor_name, verb, subject_kind, subject_id, subject_name, before_state,
            after_state, address, agent"
    };
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(export)).routes(routes!(show))
}

/// One administrative event.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct ActivityView {
    #[schema(value_type = String, example = "act_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    id: ActivityId,
    /// Order of events, whatever the clock does.
    seq: u64,
    /// Milliseconds since 1970.
    #[schema(value_type = u64)]
    at: UnixMillis,
    /// The organisation's revision that it belongs to; 0: it changed no configuration.
    revision: u64,
    actor: Party,
    /// For example `resource.updated`.
    verb: String,
    subject: Party,
    /// The state before; null: there was none.
    #[schema(value_type = Option<Object>)]
    before: serde_json::Value,
    /// The state after; null: there is none.
    #[schema(value_type = Option<Object>)]
    after: serde_json::Value,
    from: Origin,
}

/// Who did something, or what it was done to.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct Party {
    /// Of actors: account, node, operator (the command line) or system (the control plane itself).
    kind: String,
    id: Option<String>,
    name: String,
}

/// Where a request came from.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct Origin {
    address: Option<String>,
    /// The program, as it calls itself.
    agent: Option<String>,
}

impl Subject for ActivityView {
    fn value(&self, field: &str) -> Value<'_> {
        let id = |party: &Party| party.id.clone().map_or(Value::None, Value::from);
        match field {
            "id" => self.id.to_string().into(),
            "verb" => self.verb.as_str().into(),
            "actor" => self.actor.name.as_str().into(),
            "actor.kind" => self.actor.kind.as_str().into(),
            "actor.id" => id(&self.actor),
            // A bare word is matched against the name: that of the subject.
            "subject" | "name" => self.subject.name.as_str().into(),
            "subject.kind" => self.subject.kind.as_str().into(),
            "subject.id" => id(&self.subject),
            _ => Value::None,
        }
    }
}

#[utoipa::path(get, path = "/api/v1/activities", operation_id = "list_activities", tag = "audit", params(ListParams),
    responses((status = 200, body = Page<ActivityView>)))]
/// List activities, newest first
///
/// A filter that matches little looks through a part of them at a time: a page may hold fewer items than asked and still
/// have a next one.
async fn list(State(state): State<AppState>, _: Admin, list: List) -> Answer<Json<Page<ActivityView>>> {
    let store = &state.store;
    let page = list.scan(FIELDS, |after, limit| async move {
        let statement = concat!("SELECT ", columns!(), " FROM activity WHERE seq < $1 ORDER BY seq DESC LIMIT $2");
        rows(store, statement, after.unwrap_or(i64::MAX), limit).await
    });
    Ok(Json(page.await?))
}

#[utoipa::path(get, path = "/api/v1/activities/export", operation_id = "export_activities", tag = "audit",
    responses((status = 200, description = "One activity a line", content_type = "application/x-ndjson", body = String)))]
/// Export all activities as JSON lines, oldest first
async fn export(State(state): State<AppState>, _: Admin) -> Response {
    let store = state.store;
    export::lines("activities", move |after: Option<i64>| {
        let store = store.clone();
        async move {
            let statement = concat!("SELECT ", columns!(), " FROM activity WHERE seq > $1 ORDER BY seq LIMIT $2");
            let rows = rows(&store, statement, after.unwrap_or(0), export::CHUNK).await?;
            Lines::of(rows)
        }
    })
}

#[utoipa::path(get, path = "/api/v1/activities/{id}", operation_id = "show_activity", tag = "audit",
    params(("id" = String, Path,)), responses((status = 200, body = ActivityView)))]
/// Show an activity
async fn show(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<ActivityView>> {
    let query = sql::query(concat!("SELECT ", columns!(), " FROM activity WHERE id = $1")).bind(&id);
    let row = query.fetch_optional(state.store.reader()).await?.ok_or_else(|| unknown("activity", &id))?;
    Ok(Json(view(&row)?.1))
}

async fn rows(
    store: &Store,
    statement: &'static str,
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, ActivityView)>, StoreError> {
    let rows = sql::query(statement).bind(after).bind(limit).fetch_all(store.reader()).await?;
    rows.iter().map(view).collect()
}

fn view(row: &Row) -> Result<(i64, ActivityView), StoreError> {
    let state = |column| match row.try_get::<Option<&str>>(column)? {
        Some(text) => read::parse(text),
        None => Ok(serde_json::Value::Null),
    };
    let subject = Party {
        kind: row.try_get("subject_kind")?,
        id: Some(row.try_get("subject_id")?),
        name: row.try_get("subject_name")?,
    };
    let seq: i64 = row.try_get("seq")?;
    let view = ActivityView {
        id: read::value(row, "id")?,
        seq: read::unsigned(seq)?,
        at: read::instant(row, "at")?,
        revision: read::count(row, "rev")?,
        actor: Party {
            kind: row.try_get("actor_kind")?,
            id: row.try_get("actor_id")?,
            name: row.try_get("actor_name")?,
        },
        verb: row.try_get("verb")?,
        subject,
        before: state("before_state")?,
        after: state("after_state")?,
        from: Origin { address: row.try_get("address")?, agent: row.try_get("agent")? },
    };
    Ok((seq, view))
}
