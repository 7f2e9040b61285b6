//! Resources and their bind addresses.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use postern_proto::{
    bind::{self, Network, Wish},
    filter::{Subject, Value},
    id::ResourceId,
    name::{check_host, check_name, name_key},
    resource::{BindAddress, BindMode, Health, Kind, Tags},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Admin, Answer, Given, Input, List, Page, Violations, input::Unknown, page::ListParams, refusal::unknown};
use crate::{
    catalogue::{Catalogue, Resource},
    state::AppState,
};

/// What a list of resources may be filtered by.
const FIELDS: &[&str] = &[
    "name",
    "kind",
    "tags",
    "id",
    "host",
    "port",
    "allow_local",
    "strict",
    "bind.mode",
    "bind.ip",
    "bind.port",
    "bind.dns_name",
    "health",
];
const KNOWN: &[&str] = &["name", "kind", "host", "port", "tags", "bind", "allow_local", "strict"];
const KNOWN_BIND: &[&str] = &["mode", "ip", "port", "dns_name"];

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, update, delete))
}

/// A resource and how it is.
#[derive(Serialize, ToSchema)]
pub(super) struct ResourceView {
    #[serde(flatten)]
    resource: Resource,
    #[schema(value_type = HealthSchema)]
    health: Health,
}

/// Whether a resource answers, as the gateways see it.
#[derive(ToSchema)]
#[schema(as = Health)]
#[expect(dead_code, reason = "describes the type of postern-proto, which knows nothing of OpenAPI")]
struct HealthSchema {
    /// `unknown`, `healthy` or `unhealthy`.
    state: String,
    /// Only where unhealthy: what the check saw.
    error: Option<String>,
}

impl ResourceView {
    pub(super) fn of(state: &AppState, resource: &Resource) -> Self {
        Self { resource: resource.clone(), health: state.exchange.health(resource.id) }
    }
}

impl Subject for ResourceView {
    fn value(&self, field: &str) -> Value<'_> {
        if field == "health" { self.health.as_str().into() } else { self.resource.value(field) }
    }
}

/// What a resource is created from or changed to. In a change, what is left out stays.
#[derive(Deserialize, ToSchema)]
struct ResourceInput {
    /// Unique; without quotes, angle brackets and control characters. Must be given at creation.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    name: Given<String>,
    /// `tcp` when left out. Known kinds: tcp, http, postgres, mysql, redis, ssh.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    kind: Given<Kind>,
    /// A host name or an IP address, as the gateway sees it. Must be given at creation.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    host: Given<String>,
    /// That of the kind when left out: tcp 49150, http 80, postgres 5432, mysql 3306, redis 6379, ssh 22.
    #[serde(default)]
    #[schema(value_type = Option<u16>)]
    port: Given<i64>,
    /// Replaces all tags.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    tags: Given<Tags>,
    #[serde(default)]
    #[schema(value_type = Option<BindInput>)]
    bind: Given<BindInput>,
    /// Whether loopback, link-local, metadata and the gateway's own addresses may be dialled for it.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    allow_local: Given<bool>,
    /// Whether new streams need a control plane heard from within 15 s.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    strict: Given<bool>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

/// Where a resource is to appear on the user's machine. What is null, or left out at creation, is assigned: in loopback
/// mode the next free port, in Virtual Networking Mode the next free address and the resource's own port.
#[derive(Deserialize, ToSchema)]
struct BindInput {
    /// `loopback` (when left out) or `vnm`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    mode: Given<BindMode>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    ip: Given<IpAddr>,
    /// 1024 to 64999 in loopback mode, 1 to 65535 in Virtual Networking Mode; unique per IP.
    #[serde(default)]
    #[schema(value_type = Option<u16>)]
    port: Given<i64>,
    /// Unique; only in Virtual Networking Mode.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    dns_name: Given<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

#[utoipa::path(get, path = "/api/v1/resources", operation_id = "list_resources", tag = "resources",
    params(ListParams), responses((status = 200, body = Page<ResourceView>)))]
/// List resources, by name
async fn list(State(state): State<AppState>, _: Admin, list: List) -> Answer<Json<Page<ResourceView>>> {
    let catalogue = state.store.catalogue();
    let resources = catalogue.resources.values().map(|resource| ResourceView::of(&state, resource));
    Ok(Json(list.page(resources, FIELDS, |view| name_key(&view.resource.name))?))
}

#[utoipa::path(get, path = "/api/v1/resources/{id}", operation_id = "show_resource", tag = "resources",
    params(("id" = String, Path,)), responses((status = 200, body = ResourceView)))]
/// Show a resource
async fn show(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<ResourceView>> {
    find(&state.store.catalogue(), &id).map(|resource| Json(ResourceView::of(&state, &resource)))
}

#[utoipa::path(post, path = "/api/v1/resources", operation_id = "create_resource", tag = "resources",
    request_body = ResourceInput, responses((status = 201, body = ResourceView)))]
/// Create a resource
async fn create(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Input(body): Input<ResourceInput>,
) -> Answer<(StatusCode, Json<ResourceView>)> {
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, KNOWN);
    let name = broken.required("name", body.name);
    let kind = broken.optional("kind", body.kind).unwrap_or(Kind::Tcp);
    let host = broken.required("host", body.host).and_then(|host| read_host(&mut broken, &host));
    let port = broken
        .optional("port", body.port)
        .map_or_else(|| Some(kind.default_port()), |port| read_port(&mut broken, port));
    let tags = broken.optional("tags", body.tags).unwrap_or_default();
    broken.tags(&tags);
    let allow_local = broken.optional("allow_local", body.allow_local).unwrap_or_default();
    let strict = broken.optional("strict", body.strict).unwrap_or_default();
    let wish = wish(&mut broken, body.bind, None);
    let mut change = state.store.change(caller.actor).await?;
    let id = ResourceId::from_ulid(change.ulid());
    let name = name.filter(|name| read_name(&mut broken, change.catalogue(), name, id));
    let bind = wish.and_then(|wish| assign(&mut broken, change.catalogue(), id, &wish, port));
    let taken = name.zip(host).zip(port).zip(bind);
    let (((name, host), port), bind) = broken.take(taken)?;
    let (created_at, revision) = (change.now(), change.revision());
    let resource = Resource { id, name, kind, host, port, tags, bind, allow_local, strict, created_at, revision };
    let resource = change.put(resource).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(ResourceView::of(&state, &resource))))
}

#[utoipa::path(patch, path = "/api/v1/resources/{id}", operation_id = "update_resource", tag = "resources",
    params(("id" = String, Path,)), request_body = ResourceInput, responses((status = 200, body = ResourceView)))]
/// Change a resource
///
/// Within `bind`, what is left out stays and what is null is assigned anew; a change of the mode assigns all that is not
/// given.
async fn update(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(body): Input<ResourceInput>,
) -> Answer<Json<ResourceView>> {
    let mut change = state.store.change(caller.actor).await?;
    let before = find(change.catalogue(), &id)?;
    let mut resource = Resource::clone(&before);
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, KNOWN);
    if let Some(name) = broken.change("name", body.name)
        && read_name(&mut broken, change.catalogue(), &name, before.id)
    {
        resource.name = name;
    }
    resource.kind = broken.change("kind", body.kind).unwrap_or(resource.kind);
    if let Some(host) = broken.change("host", body.host).and_then(|host| read_host(&mut broken, &host)) {
        resource.host = host;
    }
    if let Some(port) = broken.change("port", body.port).and_then(|port| read_port(&mut broken, port)) {
        resource.port = port;
    }
    if let Some(tags) = broken.change("tags", body.tags) {
        broken.tags(&tags);
        resource.tags = tags;
    }
    resource.allow_local = broken.change("allow_local", body.allow_local).unwrap_or(resource.allow_local);
    resource.strict = broken.change("strict", body.strict).unwrap_or(resource.strict);
    if !matches!(body.bind, Given::Absent)
        && let Some(wish) = wish(&mut broken, body.bind, Some(&before.bind))
        && let Some(bind) = assign(&mut broken, change.catalogue(), before.id, &wish, Some(resource.port))
    {
        resource.bind = bind;
    }
    broken.none()?;
    let resource = change.put(resource).await?;
    change.commit().await?;
    Ok(Json(ResourceView::of(&state, &resource)))
}

#[utoipa::path(delete, path = "/api/v1/resources/{id}", operation_id = "delete_resource", tag = "resources",
    params(("id" = String, Path,)), responses((status = 204)))]
/// Delete a resource
///
/// Its sessions end at once. A loopback port is free again; a virtual address is never given to another resource.
async fn delete(State(state): State<AppState>, Admin(caller): Admin, Path(id): Path<String>) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let resource = find(change.catalogue(), &id)?;
    change.remove_resource(resource.id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The resource with this id.
pub(super) fn find(catalogue: &Catalogue, id: &str) -> Answer<Arc<Resource>> {
    let resource = id.parse::<ResourceId>().ok().and_then(|id| catalogue.resources.get(&id));
    resource.cloned().ok_or_else(|| unknown("resource", id))
}

fn read_name(broken: &mut Violations, catalogue: &Catalogue, name: &str, own: ResourceId) -> bool {
    let key = name_key(name);
    if catalogue.resources.values().any(|other| other.id != own && name_key(&other.name) == key) {
        broken.add("name", name, "must be unique: another resource has it");
        return false;
    }
    broken.check("name", name, check_name(name)).is_some()
}

fn read_host(broken: &mut Violations, host: &str) -> Option<String> {
    broken.check("host", host, check_host(host))
}

fn read_port(broken: &mut Violations, port: i64) -> Option<u16> {
    let checked = u16::try_from(port).ok().filter(|port| *port > 0).ok_or("must be from 1 to 65535");
    broken.check("port", port, checked)
}

/// What is asked for the bind address; `None` when a field is not even of the right type.
fn wish(broken: &mut Violations, given: Given<BindInput>, known: Option<&BindAddress>) -> Option<Wish> {
    let reset = matches!(given, Given::Null);
    let wrong = matches!(given, Given::Wrong(..));
    let Some(input) = broken.optional("bind", given) else {
        return (!wrong).then(|| Wish {
            mode: known.filter(|_| reset).map_or(BindMode::Loopback, |known| known.mode),
            ip: None,
            port: None,
            dns_name: None,
        });
    };
    broken.unknown_in("bind.", &input.unknown, KNOWN_BIND);
    let wrong = matches!(input.mode, Given::Wrong(..))
        || matches!(input.ip, Given::Wrong(..))
        || matches!(input.port, Given::Wrong(..))
        || matches!(input.dns_name, Given::Wrong(..));
    let mode = broken.optional("bind.mode", input.mode);
    let mode = mode.unwrap_or_else(|| known.map_or(BindMode::Loopback, |known| known.mode));
    let kept = known.filter(|known| known.mode == mode);
    let wish = Wish {
        mode,
        ip: kept_or(broken, "bind.ip", input.ip, kept.map(|kept| kept.ip)),
        port: kept_or(broken, "bind.port", input.port, kept.map(|kept| kept.port.into())),
        dns_name: kept_or(broken, "bind.dns_name", input.dns_name, kept.and_then(|kept| kept.dns_name.clone())),
    };
    (!wrong).then_some(wish)
}

fn kept_or<T>(broken: &mut Violations, field: &str, given: Given<T>, kept: Option<T>) -> Option<T> {
    if matches!(given, Given::Absent) { kept } else { broken.optional(field, given) }
}

fn assign(
    broken: &mut Violations,
    catalogue: &Catalogue,
    own: ResourceId,
    wish: &Wish,
    own_port: Option<u16>,
) -> Option<BindAddress> {
    let assigned = Network::read(&catalogue.settings)
        .and_then(|network| bind::assign(wish, own_port.unwrap_or(1), &network, &catalogue.taken(own)));
    match assigned {
        Ok(bind) => Some(bind),
        Err(rules) => {
            for rule in rules {
                broken.add(rule.field, rule.value, rule.rule);
            }
            None
        }
    }
}
