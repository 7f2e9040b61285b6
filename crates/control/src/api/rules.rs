//! The rules of roles.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use postern_proto::{
    filter::{Filter, Subject, Value},
    id::{ResourceId, RuleId},
};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Admin, Answer, Given, Input, List, Page, Violations, entity, input::Unknown, page::ListParams, refusal::unknown,
};
use crate::{
    catalogue::{Catalogue, Resource, Role, Rule, RuleTarget},
    state::AppState,
};

/// Resources that a static rule names at most.
const MAX_RESOURCES: usize = 10_000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, update, delete))
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

#[utoipa::path(get, path = "/api/v1/roles/{id}/rules", operation_id = "list_rules", tag = "roles",
    params(("id" = String, Path,), ListParams), responses((status = 200, body = Page<Rule>)))]
/// List the rules of a role, oldest first
async fn list(State(state): State<AppState>, _: Admin, Path(id): Path<String>, list: List) -> Answer<Json<Page<Rule>>> {
    let catalogue = state.store.catalogue();
    let role = entity::find::<Role>(&catalogue, &id)?;
    let rules = catalogue.index.rules_of.get(&role.id).into_iter().flatten();
    let rules = rules.filter_map(|rule| catalogue.rules.get(rule)).cloned();
    let page = list.page(rules, &["id", "query"], |rule| rule.id.to_string())?;
    Ok(Json(page.map(|rule| Rule::clone(&rule))))
}

#[utoipa::path(get, path = "/api/v1/roles/{id}/rules/{rule}", operation_id = "show_rule", tag = "roles",
    params(("id" = String, Path,), ("rule" = String, Path,)), responses((status = 200, body = Rule)))]
/// Show a rule
async fn show(State(state): State<AppState>, _: Admin, Path((id, rule)): Path<(String, String)>) -> Answer<Json<Rule>> {
    find(&state.store.catalogue(), &id, &rule).map(|rule| Json(Rule::clone(&rule)))
}

#[utoipa::path(post, path = "/api/v1/roles/{id}/rules", operation_id = "create_rule", tag = "roles",
    params(("id" = String, Path,)), request_body = RuleInput, responses((status = 201, body = Rule)))]
/// Add a rule to a role
async fn create(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(body): Input<RuleInput>,
) -> Answer<(StatusCode, Json<Rule>)> {
    let mut change = state.store.change(caller.actor).await?;
    let role = entity::find::<Role>(change.catalogue(), &id)?.id;
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
async fn update(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path((id, rule)): Path<(String, String)>,
    Input(body): Input<RuleInput>,
) -> Answer<Json<Rule>> {
    let mut change = state.store.change(caller.actor).await?;
    let rule = find(change.catalogue(), &id, &rule)?;
    let what = read_target(change.catalogue(), body)?;
    let rule = change.put(Rule { what, ..Rule::clone(&rule) }).await?;
    change.commit().await?;
    Ok(Json(Rule::clone(&rule)))
}

#[utoipa::path(delete, path = "/api/v1/roles/{id}/rules/{rule}", operation_id = "delete_rule", tag = "roles",
    params(("id" = String, Path,), ("rule" = String, Path,)), responses((status = 204)))]
/// Delete a rule
async fn delete(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path((id, rule)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let rule = find(change.catalogue(), &id, &rule)?;
    change.erase::<Rule>(rule.id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn find(catalogue: &Catalogue, role: &str, id: &str) -> Answer<Arc<Rule>> {
    let role = entity::find::<Role>(catalogue, role)?;
    let rule = id.parse::<RuleId>().ok().and_then(|id| catalogue.rules.get(&id));
    rule.filter(|rule| rule.role == role.id).cloned().ok_or_else(|| unknown("rule", id))
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
