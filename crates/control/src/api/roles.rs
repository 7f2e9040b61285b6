//! Roles.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use postern_proto::{
    filter::{Subject, Value},
    id::RoleId,
    name::name_key,
    resource::Tags,
};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Admin, Answer, Given, Input, List, Page, Violations,
    entity::{find, read_name},
    input::Unknown,
    page::ListParams,
};
use crate::{catalogue::Role, state::AppState};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, update, delete))
}

impl Subject for Role {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "name" => self.name.as_str().into(),
            "tags" => Value::Tags(&self.tags),
            "id" => self.id.to_string().into(),
            _ => Value::None,
        }
    }
}

/// What a role is created from or changed to. In a change, what is left out stays.
#[derive(Deserialize, ToSchema)]
struct RoleInput {
    /// Unique. Must be given at creation.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    name: Given<String>,
    /// Replaces all tags.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    tags: Given<Tags>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

#[utoipa::path(get, path = "/api/v1/roles", operation_id = "list_roles", tag = "roles", params(ListParams),
    responses((status = 200, body = Page<Role>)))]
/// List roles, by name
async fn list(State(state): State<AppState>, _: Admin, list: List) -> Answer<Json<Page<Role>>> {
    let catalogue = state.store.catalogue();
    let roles = catalogue.roles.values().cloned();
    let page = list.page(roles, &["name", "tags", "id"], |role| name_key(&role.name))?;
    Ok(Json(page.map(|role| Role::clone(&role))))
}

#[utoipa::path(get, path = "/api/v1/roles/{id}", operation_id = "show_role", tag = "roles",
    params(("id" = String, Path,)), responses((status = 200, body = Role)))]
/// Show a role
async fn show(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<Role>> {
    find::<Role>(&state.store.catalogue(), &id).map(|role| Json(Role::clone(&role)))
}

#[utoipa::path(post, path = "/api/v1/roles", operation_id = "create_role", tag = "roles", request_body = RoleInput,
    responses((status = 201, body = Role)))]
/// Create a role
async fn create(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Input(body): Input<RoleInput>,
) -> Answer<(StatusCode, Json<Role>)> {
    let mut change = state.store.change(caller.actor).await?;
    let id = RoleId::from_ulid(change.ulid());
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["name", "tags"]);
    let name = broken.required("name", body.name);
    let name = name.filter(|name| read_name::<Role>(&mut broken, change.catalogue(), name, Some(id)));
    let tags = broken.optional("tags", body.tags).unwrap_or_default();
    broken.tags(&tags);
    let name = broken.take(name)?;
    let role = change.put(Role { id, name, tags, revision: change.revision() }).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(Role::clone(&role))))
}

#[utoipa::path(patch, path = "/api/v1/roles/{id}", operation_id = "update_role", tag = "roles",
    params(("id" = String, Path,)), request_body = RoleInput, responses((status = 200, body = Role)))]
/// Change a role
async fn update(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(body): Input<RoleInput>,
) -> Answer<Json<Role>> {
    let mut change = state.store.change(caller.actor).await?;
    let mut role = Role::clone(&*find::<Role>(change.catalogue(), &id)?);
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["name", "tags"]);
    if let Some(name) = broken.change("name", body.name)
        && read_name::<Role>(&mut broken, change.catalogue(), &name, Some(role.id))
    {
        role.name = name;
    }
    if let Some(tags) = broken.change("tags", body.tags) {
        broken.tags(&tags);
        role.tags = tags;
    }
    broken.none()?;
    let role = change.put(role).await?;
    change.commit().await?;
    Ok(Json(Role::clone(&role)))
}

#[utoipa::path(delete, path = "/api/v1/roles/{id}", operation_id = "delete_role", tag = "roles",
    params(("id" = String, Path,)), responses((status = 204)))]
/// Delete a role with its rules and memberships
///
/// Sessions that nothing else allows end at once.
async fn delete(State(state): State<AppState>, Admin(caller): Admin, Path(id): Path<String>) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let role = find::<Role>(change.catalogue(), &id)?;
    change.remove_role(role.id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
