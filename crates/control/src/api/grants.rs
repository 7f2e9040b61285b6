//! Direct grants: one resource to one account, with or without an end.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use postern_proto::{
    filter::{Subject, Value},
    id::GrantId,
    name::unseen,
};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Admin, Answer, Given, Input, List, Page, Violations, accounts,
    entity::find,
    input::{Instant, Unknown, check_end},
    page::ListParams,
};
use crate::{
    catalogue::{Grant, Resource},
    state::AppState,
};

/// The longest reason, in characters.
const MAX_REASON: usize = 1000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, update, delete))
}

impl Subject for Grant {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "id" => self.id.to_string().into(),
            "account" => self.account.to_string().into(),
            "resource" => self.resource.to_string().into(),
            "reason" => self.reason.as_str().into(),
            _ => Value::None,
        }
    }
}

#[derive(Deserialize, ToSchema)]
struct NewGrant {
    /// Id of the account.
    #[serde(default)]
    #[schema(value_type = String)]
    account: Given<String>,
    /// Id of the resource.
    #[serde(default)]
    #[schema(value_type = String)]
    resource: Given<String>,
    /// When it ends by itself: milliseconds since 1970, or RFC 3339. Without it, it has no end.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    ends_at: Given<Instant>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    reason: Given<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

/// A change of a grant; what is left out stays.
#[derive(Deserialize, ToSchema)]
struct GrantChange {
    /// Null: it has no end.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    ends_at: Given<Instant>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    reason: Given<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

#[utoipa::path(get, path = "/api/v1/grants", operation_id = "list_grants", tag = "grants", params(ListParams),
    responses((status = 200, body = Page<Grant>)))]
/// List direct grants, oldest first
///
/// Those that ended are gone; the activities tell of them.
async fn list(State(state): State<AppState>, _: Admin, list: List) -> Answer<Json<Page<Grant>>> {
    let catalogue = state.store.catalogue();
    let grants = catalogue.grants.values().cloned();
    let page = list.page(grants, &["id", "account", "resource", "reason"], |grant| grant.id.to_string())?;
    Ok(Json(page.map(|grant| Grant::clone(&grant))))
}

#[utoipa::path(get, path = "/api/v1/grants/{id}", operation_id = "show_grant", tag = "grants",
    params(("id" = String, Path,)), responses((status = 200, body = Grant)))]
/// Show a grant
async fn show(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<Grant>> {
    find::<Grant>(&state.store.catalogue(), &id).map(|grant| Json(Grant::clone(&grant)))
}

#[utoipa::path(post, path = "/api/v1/grants", operation_id = "create_grant", tag = "grants", request_body = NewGrant,
    responses((status = 201, body = Grant)))]
/// Grant a resource to an account
async fn create(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Input(body): Input<NewGrant>,
) -> Answer<(StatusCode, Json<Grant>)> {
    let mut change = state.store.change(caller.actor).await?;
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["account", "resource", "ends_at", "reason"]);
    let account = broken.required("account", body.account);
    let account = account.and_then(|id| accounts::read_id(&mut broken, change.catalogue(), &id));
    let resource = broken.required("resource", body.resource);
    let resource = resource.and_then(|id| {
        let found = find::<Resource>(change.catalogue(), &id);
        broken.check("resource", &id, found.map_err(|_| "must be the id of a resource"))
    });
    let ends_at = broken.optional("ends_at", body.ends_at).map(|Instant(end)| end);
    check_end(&mut broken, "ends_at", ends_at, change.now());
    let reason = broken.optional("reason", body.reason).unwrap_or_default();
    check_reason(&mut broken, &reason);
    let (account, resource) = broken.take(account.zip(resource))?;
    let grant = Grant {
        id: GrantId::from_ulid(change.ulid()),
        account: account.id,
        resource: resource.id,
        ends_at,
        reason,
        created_at: change.now(),
        revision: change.revision(),
    };
    let grant = change.put(grant).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(Grant::clone(&grant))))
}

#[utoipa::path(patch, path = "/api/v1/grants/{id}", operation_id = "update_grant", tag = "grants",
    params(("id" = String, Path,)), request_body = GrantChange, responses((status = 200, body = Grant)))]
/// Change the end or the reason of a grant
async fn update(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(body): Input<GrantChange>,
) -> Answer<Json<Grant>> {
    let mut change = state.store.change(caller.actor).await?;
    let mut grant = Grant::clone(&*find::<Grant>(change.catalogue(), &id)?);
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["ends_at", "reason"]);
    if !matches!(body.ends_at, Given::Absent) {
        grant.ends_at = broken.optional("ends_at", body.ends_at).map(|Instant(end)| end);
        check_end(&mut broken, "ends_at", grant.ends_at, change.now());
    }
    if let Some(reason) = broken.change("reason", body.reason) {
        check_reason(&mut broken, &reason);
        grant.reason = reason;
    }
    broken.none()?;
    let grant = change.put(grant).await?;
    change.commit().await?;
    Ok(Json(Grant::clone(&grant)))
}

#[utoipa::path(delete, path = "/api/v1/grants/{id}", operation_id = "delete_grant", tag = "grants",
    params(("id" = String, Path,)), responses((status = 204)))]
/// Withdraw a grant
///
/// Sessions that nothing else allows end at once.
async fn delete(State(state): State<AppState>, Admin(caller): Admin, Path(id): Path<String>) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let grant = find::<Grant>(change.catalogue(), &id)?;
    change.erase::<Grant>(grant.id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check_reason(broken: &mut Violations, reason: &str) {
    if reason.chars().count() > MAX_REASON {
        broken.add("reason", reason, format_args!("must not be longer than {MAX_REASON} characters"));
    }
    if reason.chars().any(|c| unseen(c) && c != '\n') {
        broken.add("reason", reason.escape_debug(), "must not hold control characters");
    }
}
