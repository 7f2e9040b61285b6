//! Roles, their rules and their members.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use postern_proto::{
    filter::{Filter, Subject, Value},
    id::{AccountId, ResourceId, RoleId, RuleId},
    name::{check_name, name_key},
    resource::Tags,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Admin, Answer, Given, Input, List, Page, Violations, accounts, input::Unknown, page::ListParams, refusal::unknown,
};
use crate::{
    catalogue::{Catalogue, Member, Resource, Role, Rule, RuleTarget},
    state::AppState,
};

/// Resources that a static rule names at most.
const MAX_RESOURCES: usize = 10_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, delete))
        .routes(routes!(list_rules, create_rule))
        .routes(routes!(show_rule, update_rule, delete_rule))
        .routes(routes!(list_members, add_member))
        .routes(routes!(remove_member))
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

impl Subject for Rule {
    fn value(&self, field: &str) -> Value<'_> {
        match (field, &self.what) {
            ("id", _) => self.id.to_string().into(),
            ("query", RuleTarget::Query(query)) => query.as_str().into(),
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

/// A rule: either `resources` (static) or `query` (dynamic).
#[derive(Deserialize, ToSchema)]
struct RuleInput {
    /// Ids of resources.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    resources: Given<Vec<String>>,
    /// A filter such as `tags:env=prod kind:postgres`; fields are name, kind, tags, id, host and port.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    query: Given<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

#[derive(Deserialize, ToSchema)]
struct MemberInput {
    /// Id of the account.
    #[serde(default)]
    #[schema(value_type = String)]
    account: Given<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

/// A member of a role.
#[derive(Serialize, ToSchema)]
struct MemberView {
    #[schema(value_type = String)]
    role: RoleId,
    #[schema(value_type = String)]
    account: AccountId,
    email: String,
    name: String,
}

impl Subject for MemberView {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "account" => self.account.to_string().into(),
            "email" => self.email.as_str().into(),
            "name" => self.name.as_str().into(),
            _ => Value::None,
        }
    }
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
    find(&state.store.catalogue(), &id).map(|role| Json(Role::clone(&role)))
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
    let name = name.filter(|name| read_name(&mut broken, change.catalogue(), name, id));
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
    let mut role = Role::clone(&*find(change.catalogue(), &id)?);
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["name", "tags"]);
    if let Some(name) = broken.change("name", body.name)
        && read_name(&mut broken, change.catalogue(), &name, role.id)
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
    let role = find(change.catalogue(), &id)?;
    change.remove_role(role.id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(get, path = "/api/v1/roles/{id}/rules", operation_id = "list_rules", tag = "roles",
    params(("id" = String, Path,), ListParams), responses((status = 200, body = Page<Rule>)))]
/// List the rules of a role, oldest first
async fn list_rules(
    State(state): State<AppState>,
    _: Admin,
    Path(id): Path<String>,
    list: List,
) -> Answer<Json<Page<Rule>>> {
    let catalogue = state.store.catalogue();
    let role = find(&catalogue, &id)?;
    let rules = catalogue.index.rules_of.get(&role.id).into_iter().flatten();
    let rules = rules.filter_map(|rule| catalogue.rules.get(rule)).cloned();
    let page = list.page(rules, &["id", "query"], |rule| rule.id.to_string())?;
    Ok(Json(page.map(|rule| Rule::clone(&rule))))
}

#[utoipa::path(get, path = "/api/v1/roles/{id}/rules/{rule}", operation_id = "show_rule", tag = "roles",
    params(("id" = String, Path,), ("rule" = String, Path,)), responses((status = 200, body = Rule)))]
/// Show a rule
async fn show_rule(
    State(state): State<AppState>,
    _: Admin,
    Path((id, rule)): Path<(String, String)>,
) -> Answer<Json<Rule>> {
    find_rule(&state.store.catalogue(), &id, &rule).map(|rule| Json(Rule::clone(&rule)))
}

#[utoipa::path(post, path = "/api/v1/roles/{id}/rules", operation_id = "create_rule", tag = "roles",
    params(("id" = String, Path,)), request_body = RuleInput, responses((status = 201, body = Rule)))]
/// Add a rule to a role
async fn create_rule(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(body): Input<RuleInput>,
) -> Answer<(StatusCode, Json<Rule>)> {
    let mut change = state.store.change(caller.actor).await?;
    let role = find(change.catalogue(), &id)?.id;
    let what = read_target(change.catalogue(), body)?;
    let id = RuleId::from_ulid(change.ulid());
    let rule = change.put(Rule { id, role, what, revision: change.revision() }).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(Rule::clone(&rule))))
}

#[utoipa::path(patch, path = "/api/v1/roles/{id}/rules/{rule}", operation_id = "update_rule", tag = "roles",
    params(("id" = String, Path,), ("rule" = String, Path,)), request_body = RuleInput,
    responses((status = 200, body = Rule)))]
/// Replace what a rule names
async fn update_rule(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path((id, rule)): Path<(String, String)>,
    Input(body): Input<RuleInput>,
) -> Answer<Json<Rule>> {
    let mut change = state.store.change(caller.actor).await?;
    let rule = find_rule(change.catalogue(), &id, &rule)?;
    let what = read_target(change.catalogue(), body)?;
    let rule = change.put(Rule { what, ..Rule::clone(&rule) }).await?;
    change.commit().await?;
    Ok(Json(Rule::clone(&rule)))
}

#[utoipa::path(delete, path = "/api/v1/roles/{id}/rules/{rule}", operation_id = "delete_rule", tag = "roles",
    params(("id" = String, Path,), ("rule" = String, Path,)), responses((status = 204)))]
/// Delete a rule
async fn delete_rule(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path((id, rule)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let rule = find_rule(change.catalogue(), &id, &rule)?;
    change.erase::<Rule>(rule.id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(get, path = "/api/v1/roles/{id}/members", operation_id = "list_members", tag = "roles",
    params(("id" = String, Path,), ListParams), responses((status = 200, body = Page<MemberView>)))]
/// List the members of a role, by e-mail address
async fn list_members(
    State(state): State<AppState>,
    _: Admin,
    Path(id): Path<String>,
    list: List,
) -> Answer<Json<Page<MemberView>>> {
    let catalogue = state.store.catalogue();
    let role = find(&catalogue, &id)?.id;
    let members = catalogue.index.members_of.get(&role).into_iter().flatten();
    let members = members.filter_map(|account| view(&catalogue, role, *account));
    Ok(Json(list.page(members, &["account", "email", "name"], |member| member.email.clone())?))
}

#[utoipa::path(post, path = "/api/v1/roles/{id}/members", operation_id = "add_member", tag = "roles",
    params(("id" = String, Path,)), request_body = MemberInput, responses((status = 201, body = MemberView)))]
/// Make an account a member of a role
async fn add_member(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(body): Input<MemberInput>,
) -> Answer<(StatusCode, Json<MemberView>)> {
    let mut change = state.store.change(caller.actor).await?;
    let role = find(change.catalogue(), &id)?.id;
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["account"]);
    let account = broken.required("account", body.account);
    let account = account.and_then(|id| accounts::read_id(&mut broken, change.catalogue(), &id));
    let account = broken.take(account)?;
    change.put(Member { role, account: account.id, revision: change.revision() }).await?;
    let catalogue = change.commit().await?;
    let member = view(&catalogue, role, account.id).ok_or_else(|| unknown("account", &account.id.to_string()))?;
    Ok((StatusCode::CREATED, Json(member)))
}

#[utoipa::path(delete, path = "/api/v1/roles/{id}/members/{account}", operation_id = "remove_member", tag = "roles",
    params(("id" = String, Path,), ("account" = String, Path,)), responses((status = 204)))]
/// Take an account out of a role
async fn remove_member(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path((id, account)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let role = find(change.catalogue(), &id)?;
    let member =
        account.parse::<AccountId>().ok().filter(|id| change.catalogue().members.contains_key(&(role.id, *id)));
    let member = member.ok_or_else(|| unknown("member", &account))?;
    change.erase::<Member>((role.id, member)).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn find(catalogue: &Catalogue, id: &str) -> Answer<Arc<Role>> {
    let role = id.parse::<RoleId>().ok().and_then(|id| catalogue.roles.get(&id));
    role.cloned().ok_or_else(|| unknown("role", id))
}

fn find_rule(catalogue: &Catalogue, role: &str, id: &str) -> Answer<Arc<Rule>> {
    let role = find(catalogue, role)?;
    let rule = id.parse::<RuleId>().ok().and_then(|id| catalogue.rules.get(&id));
    rule.filter(|rule| rule.role == role.id).cloned().ok_or_else(|| unknown("rule", id))
}

fn view(catalogue: &Catalogue, role: RoleId, account: AccountId) -> Option<MemberView> {
    let account = catalogue.accounts.get(&account)?;
    Some(MemberView { role, account: account.id, email: account.email.to_string(), name: account.name.clone() })
}

fn read_name(broken: &mut Violations, catalogue: &Catalogue, name: &str, own: RoleId) -> bool {
    let key = name_key(name);
    if catalogue.roles.values().any(|other| other.id != own && name_key(&other.name) == key) {
        broken.add("name", name, "must be unique: another role has it");
        return false;
    }
    broken.check("name", name, check_name(name)).is_some()
}

fn read_target(catalogue: &Catalogue, body: RuleInput) -> Answer<RuleTarget> {
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["resources", "query"]);
    let given = (broken.optional("resources", body.resources), broken.optional("query", body.query));
    let target = match given {
        (Some(ids), None) => Some(RuleTarget::Resources(read_resources(&mut broken, catalogue, &ids))),
        (None, Some(query)) => read_query(&mut broken, &query).map(RuleTarget::Query),
        (Some(_), Some(query)) => {
            broken.add("query", query, "must not be given with resources: a rule is static or dynamic");
            None
        }
        (None, None) => {
            if broken.is_empty() {
                broken.add("resources", "", "must be given, or query");
            }
            None
        }
    };
    broken.take(target)
}

fn read_resources(broken: &mut Violations, catalogue: &Catalogue, ids: &[String]) -> BTreeSet<ResourceId> {
    if ids.len() > MAX_RESOURCES {
        broken.add("resources", ids.len(), format_args!("must not be more than {MAX_RESOURCES}"));
        return BTreeSet::new();
    }
    let known = |id: &String| id.parse::<ResourceId>().ok().filter(|id| catalogue.resources.contains_key(id));
    let read = |(n, id): (usize, &String)| {
        known(id).or_else(|| {
            broken.add(&format!("resources[{n}]"), id, "must be the id of a resource");
            None
        })
    };
    ids.iter().enumerate().filter_map(read).collect()
}

/// The query in its canonical form. An empty one would name everything; that must be said with `name:*`.
fn read_query(broken: &mut Violations, query: &str) -> Option<String> {
    let filter = broken.check("query", query, Filter::parse(query, Resource::RULE_FIELDS))?;
    if filter.is_empty() {
        broken.add("query", query, "must not be empty; name:* names every resource");
        return None;
    }
    Some(filter.to_string())
}
