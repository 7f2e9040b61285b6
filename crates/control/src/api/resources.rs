//! Resources and their bind addresses.

use std::net::Ipv4Addr;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use postern_proto::{
    bind::{self, Asker, Network, Wish},
    filter::{Filter, Subject, Value},
    id::ResourceId,
    name::{check_host, name_key},
    port::PortSet,
    resource::{BindAddress, Health, Kind},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::input::{PortsInput, ResourceInput, wish};
use super::{
    Admin, Answer, Given, Input, List, Page, Violations,
    clusters::{check_binding, read_binding},
    entity::{find, read_name},
    page::ListParams,
};
use crate::{
    catalogue::{Catalogue, Node, Resource},
    state::AppState,
};

mod input;

/// What a list of resources may be filtered by.
const FIELDS: &[&str] = &[
    "name",
    "kind",
    "tags",
    "id",
    "host",
    "port",
    "ports",
    "allow_local",
    "strict",
    "egress",
    "cluster",
    "bind.mode",
    "bind.ip",
    "bind.port",
    "bind.dns_name",
    "health",
];
const KNOWN: &[&str] =
    &["name", "kind", "host", "port", "ports", "hosts", "tags", "bind", "allow_local", "strict", "egress", "cluster"];

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

/// A resource that may be on a page: how it is, is looked up only where a filter asks.
struct Candidate<'a> {
    state: &'a AppState,
    resource: &'a Resource,
}

impl Subject for Candidate<'_> {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "health" => self.state.exchange.health(self.resource.id).as_str().to_owned().into(),
            _ => self.resource.value(field),
        }
    }
}

#[utoipa::path(get, path = "/api/v1/resources", operation_id = "list_resources", tag = "resources",
    params(ListParams), responses((status = 200, body = Page<ResourceView>)))]
/// List resources, by name
async fn list(State(state): State<AppState>, _: Admin, list: List) -> Answer<Json<Page<ResourceView>>> {
    let catalogue = state.store.catalogue();
    let resources = catalogue.resources.values().map(|resource| Candidate { state: &state, resource });
    let page = list.page(resources, FIELDS, |found| name_key(&found.resource.name))?;
    Ok(Json(page.map(|found| ResourceView::of(&state, found.resource))))
}

#[utoipa::path(get, path = "/api/v1/resources/{id}", operation_id = "show_resource", tag = "resources",
    params(("id" = String, Path,)), responses((status = 200, body = ResourceView)))]
/// Show a resource
async fn show(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<ResourceView>> {
    find::<Resource>(&state.store.catalogue(), &id).map(|resource| Json(ResourceView::of(&state, &resource)))
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
    let ports = broken.optional("ports", body.ports).map_or_else(PortSet::default, |PortsInput(ports)| ports);
    let port = match broken.optional("port", body.port) {
        Some(port) => read_port(&mut broken, port),
        None => Some(own_port(kind, &ports)),
    };
    let hosts = broken.optional("hosts", body.hosts).unwrap_or_default();
    let tags = broken.optional("tags", body.tags).unwrap_or_default();
    broken.tags(&tags);
    let allow_local = broken.optional("allow_local", body.allow_local).unwrap_or_default();
    let strict = broken.optional("strict", body.strict).unwrap_or_default();
    let egress = broken.optional("egress", body.egress).and_then(|filter| read_egress(&mut broken, &filter));
    let wish = wish(&mut broken, body.bind, None);
    let mut change = state.store.change(caller.actor).await?;
    let id = ResourceId::from_ulid(change.ulid());
    let name = name.filter(|name| read_name::<Resource>(&mut broken, change.catalogue(), name, Some(id)));
    let cluster = broken.optional("cluster", body.cluster);
    let cluster = cluster.and_then(|cluster| read_binding(&mut broken, change.catalogue(), &cluster));
    let (created_at, revision) = (change.now(), change.revision());
    let bind = BindAddress::loopback(Ipv4Addr::LOCALHOST.into(), 0);
    let mut resource = Resource {
        id,
        name: name.unwrap_or_default(),
        kind,
        host: host.unwrap_or_default(),
        port: port.unwrap_or(1),
        ports,
        hosts: Vec::new(),
        tags,
        bind,
        allow_local,
        strict,
        cluster,
        egress,
        created_at,
        revision,
    };
    if let Some(wish) = wish {
        assign(&mut broken, &state, change.catalogue(), &mut resource, &wish);
        set_hosts(&mut broken, &mut resource, &hosts);
    }
    check_binding(&mut broken, &resource);
    broken.none()?;
    let resource = change.put(resource).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(ResourceView::of(&state, &resource))))
}

#[utoipa::path(patch, path = "/api/v1/resources/{id}", operation_id = "update_resource", tag = "resources",
    params(("id" = String, Path,)), request_body = ResourceInput, responses((status = 200, body = ResourceView)))]
/// Change a resource
///
/// Within `bind`, what is left out stays and what is null is assigned anew. A change of the mode keeps the loopback
/// address, and between `vnm` and `both` all; the rest that is not given is assigned.
async fn update(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(body): Input<ResourceInput>,
) -> Answer<Json<ResourceView>> {
    let mut change = state.store.change(caller.actor).await?;
    let before = find::<Resource>(change.catalogue(), &id)?;
    let mut resource = Resource::clone(&before);
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, KNOWN);
    if let Some(name) = broken.change("name", body.name)
        && read_name::<Resource>(&mut broken, change.catalogue(), &name, Some(before.id))
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
    let ports_given = !matches!(body.ports, Given::Absent);
    if ports_given {
        resource.ports = broken.optional("ports", body.ports).map_or_else(PortSet::default, |PortsInput(ports)| ports);
    }
    if let Some(tags) = broken.change("tags", body.tags) {
        broken.tags(&tags);
        resource.tags = tags;
    }
    resource.allow_local = broken.change("allow_local", body.allow_local).unwrap_or(resource.allow_local);
    resource.strict = broken.change("strict", body.strict).unwrap_or(resource.strict);
    if !matches!(body.egress, Given::Absent) {
        let egress = broken.optional("egress", body.egress);
        resource.egress = egress.and_then(|filter| read_egress(&mut broken, &filter));
    }
    if !matches!(body.cluster, Given::Absent) {
        let cluster = broken.optional("cluster", body.cluster);
        resource.cluster = cluster.and_then(|cluster| read_binding(&mut broken, change.catalogue(), &cluster));
    }
    check_binding(&mut broken, &resource);
    let asked = match body.bind {
        Given::Absent => ports_given.then(|| Wish::keep(&before.bind)),
        given => wish(&mut broken, given, Some(&before.bind)),
    };
    if let Some(wish) = asked {
        assign(&mut broken, &state, change.catalogue(), &mut resource, &wish);
    }
    let hosts_given = !matches!(body.hosts, Given::Absent);
    match broken.optional("hosts", body.hosts) {
        Some(hosts) => set_hosts(&mut broken, &mut resource, &hosts),
        // They mean nothing without a wildcard.
        None if hosts_given || !resource.bind.is_wildcard() => resource.hosts = Vec::new(),
        None => {
            let hosts: Vec<String> = resource.hosts.iter().map(ToString::to_string).collect();
            set_hosts(&mut broken, &mut resource, &hosts);
        }
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
    let resource = find::<Resource>(change.catalogue(), &id)?;
    change.remove_resource(resource.id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn read_host(broken: &mut Violations, host: &str) -> Option<String> {
    broken.check("host", host, check_host(host))
}

fn read_port(broken: &mut Violations, port: i64) -> Option<u16> {
    let checked = u16::try_from(port).ok().filter(|port| *port > 0).ok_or("must be from 1 to 65535");
    broken.check("port", port, checked)
}

/// An empty filter is none.
fn read_egress(broken: &mut Violations, filter: &str) -> Option<String> {
    let filter = filter.trim();
    if filter.is_empty() {
        return None;
    }
    broken.check("egress", filter, Filter::parse(filter, Node::EGRESS_FIELDS))?;
    Some(filter.to_owned())
}

/// Its own port when only a list is given.
fn own_port(kind: Kind, ports: &PortSet) -> u16 {
    let usual = kind.default_port();
    ports.first().filter(|_| !ports.contains(usual)).unwrap_or(usual)
}

/// Binds the resource as is wished, or notes every rule that the wish breaks.
fn assign(broken: &mut Violations, state: &AppState, catalogue: &Catalogue, resource: &mut Resource, wish: &Wish) {
    let own_names = catalogue.own_names(&state.names);
    let asker = Asker { name: &resource.name, port: resource.port, ports: &resource.ports };
    let assigned = Network::read(&catalogue.settings)
        .and_then(|network| bind::assign(wish, &asker, &network, &catalogue.taken(resource.id, &own_names)));
    match assigned {
        Ok(bind) => resource.bind = bind,
        Err(rules) => rules.into_iter().for_each(|rule| broken.add(rule.field, rule.value, rule.rule)),
    }
}

/// Reads the allow-list of hosts, which goes with the alias.
fn set_hosts(broken: &mut Violations, resource: &mut Resource, hosts: &[String]) {
    match bind::check_hosts(hosts, resource.bind.dns_name.as_ref()) {
        Ok(hosts) => resource.hosts = hosts,
        Err(rules) => rules.into_iter().for_each(|rule| broken.add(rule.field, rule.value, rule.rule)),
    }
}
