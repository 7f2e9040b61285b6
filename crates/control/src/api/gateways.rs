//! Gateways and their one-time enrolment tokens.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use postern_proto::{
    filter::{Subject, Value},
    name::{DnsName, check_name, name_key},
    resource::Tags,
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Admin, Answer, Given, Input, List, Page, Violations,
    entity::{find, read_name},
    input::Unknown,
    page::ListParams,
};
use crate::{
    catalogue::{Catalogue, Node, NodeKind},
    cluster,
    gateway::{self, EnrolToken, NewNode},
    state::AppState,
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, delete))
        .routes(routes!(issue_token))
}

/// What a gateway may be given.
const KNOWN: &[&str] = &["name", "kind", "group", "tags", "advertise"];

impl Subject for GatewayView {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "name" => self.gateway.name.as_str().into(),
            "id" => self.gateway.id.to_string().into(),
            "kind" | "group" | "tags" => self.gateway.value(field),
            "advertise" => self.gateway.advertise.as_deref().map_or(Value::None, Value::from),
            "state" => self.state.as_str().into(),
            _ => Value::None,
        }
    }
}

/// A gateway and how it is.
#[derive(Serialize, ToSchema)]
struct GatewayView {
    #[serde(flatten)]
    gateway: Node,
    state: GatewayState,
    /// The program and its version, as it says; null: it was not seen since the control plane started.
    agent: Option<String>,
    #[schema(value_type = Option<u64>)]
    last_seen_at: Option<UnixMillis>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum GatewayState {
    /// It has not enrolled yet.
    Waiting,
    Connected,
    /// Connected, and it takes no new streams.
    Draining,
    /// It has enrolled, and is not connected.
    Away,
}

impl GatewayState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Connected => "connected",
            Self::Draining => "draining",
            Self::Away => "away",
        }
    }
}

impl GatewayView {
    fn of(state: &AppState, node: &Node) -> Self {
        let presence = state.exchange.presence(node.id);
        let seen = match &presence {
            _ if node.enrolled_at.is_none() => GatewayState::Waiting,
            Some(presence) if presence.connected && node.leaving(presence.leaving).draining => GatewayState::Draining,
            Some(presence) if presence.connected => GatewayState::Connected,
            _ => GatewayState::Away,
        };
        let (agent, last_seen_at) = presence.map(|presence| (presence.agent, presence.last_seen)).unzip();
        Self { gateway: node.clone(), state: seen, agent, last_seen_at }
    }
}

/// What a gateway is created from or changed to. In a change, what is left out stays.
#[derive(Deserialize, ToSchema)]
struct GatewayInput {
    /// Unique. Must be given at creation.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    name: Given<String>,
    /// `gateway` when left out, or `relay`. It cannot be changed.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    kind: Given<NodeKind>,
    /// Its peering group: relays park links at gateways of the same group. Empty when left out.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    group: Given<String>,
    /// Replaces all tags.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    tags: Given<Tags>,
    /// Where clients dial it, as `host:port`; null: the gateway says so itself when it enrols.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    advertise: Given<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

/// A new gateway with the token that enrols it.
#[derive(Serialize, ToSchema)]
struct NewGateway {
    #[serde(flatten)]
    gateway: GatewayView,
    #[serde(flatten)]
    token: EnrolTokenView,
}

/// A one-time token, shown this once.
#[derive(Serialize, ToSchema)]
struct EnrolTokenView {
    /// For `postern-node gateway --enrol-token`.
    enrol_token: String,
    /// Milliseconds since 1970.
    enrol_token_expires_at: u64,
}

impl From<&EnrolToken> for EnrolTokenView {
    fn from(token: &EnrolToken) -> Self {
        Self { enrol_token: token.token.expose().to_owned(), enrol_token_expires_at: token.expires_at.0 }
    }
}

#[utoipa::path(get, path = "/api/v1/gateways", operation_id = "list_gateways", tag = "gateways", params(ListParams),
    responses((status = 200, body = Page<GatewayView>)))]
/// List gateways, by name
async fn list(State(state): State<AppState>, _: Admin, list: List) -> Answer<Json<Page<GatewayView>>> {
    let catalogue = state.store.catalogue();
    let gateways = catalogue.nodes.values().map(|node| GatewayView::of(&state, node));
    Ok(Json(list.page(gateways, &["name", "id", "kind", "group", "tags", "advertise", "state"], |view| {
        name_key(&view.gateway.name)
    })?))
}

#[utoipa::path(get, path = "/api/v1/gateways/{id}", operation_id = "show_gateway", tag = "gateways",
    params(("id" = String, Path,)), responses((status = 200, body = GatewayView)))]
/// Show a gateway
async fn show(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<GatewayView>> {
    find::<Node>(&state.store.catalogue(), &id).map(|node| Json(GatewayView::of(&state, &node)))
}

#[utoipa::path(post, path = "/api/v1/gateways", operation_id = "create_gateway", tag = "gateways",
    request_body = GatewayInput, responses((status = 201, body = NewGateway)))]
/// Create a gateway
///
/// The answer holds the one-time token that enrols it, which is not shown again.
async fn create(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Input(body): Input<GatewayInput>,
) -> Answer<(StatusCode, Json<NewGateway>)> {
    let mut change = state.store.change(caller.actor).await?;
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, KNOWN);
    let name = broken.required("name", body.name);
    let name = name.filter(|name| read_name::<Node>(&mut broken, change.catalogue(), name, None));
    let advertise = broken.optional("advertise", body.advertise);
    let advertise = advertise.and_then(|address| read_address(&mut broken, change.catalogue(), &address));
    let kind = broken.optional("kind", body.kind).unwrap_or(NodeKind::Gateway);
    if let Some(advertise) = advertise.as_deref().filter(|_| kind == NodeKind::Relay) {
        broken.add("advertise", advertise, "must not be given: nobody dials a relay");
    }
    if kind == NodeKind::Worker {
        broken.add("kind", kind.as_str(), "must be gateway or relay: workers enrol with a key pair of their cluster");
    }
    let group = broken.optional("group", body.group).filter(|group| read_group(&mut broken, group)).unwrap_or_default();
    let tags = broken.optional("tags", body.tags).unwrap_or_default();
    broken.tags(&tags);
    let name = broken.take(name)?;
    let node = gateway::create(&mut change, NewNode { name, kind, group, tags, advertise }).await?;
    let token = gateway::issue_token(&mut change, &node).await?;
    change.commit().await?;
    let view = NewGateway { gateway: GatewayView::of(&state, &node), token: EnrolTokenView::from(&token) };
    Ok((StatusCode::CREATED, Json(view)))
}

#[utoipa::path(patch, path = "/api/v1/gateways/{id}", operation_id = "update_gateway", tag = "gateways",
    params(("id" = String, Path,)), request_body = GatewayInput, responses((status = 200, body = GatewayView)))]
/// Change a gateway
async fn update(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(body): Input<GatewayInput>,
) -> Answer<Json<GatewayView>> {
    let mut change = state.store.change(caller.actor).await?;
    let mut node = Node::clone(&*find::<Node>(change.catalogue(), &id)?);
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, KNOWN);
    if let Some(name) = broken.change("name", body.name)
        && read_name::<Node>(&mut broken, change.catalogue(), &name, Some(node.id))
    {
        node.name = name;
    }
    if !matches!(body.advertise, Given::Absent) {
        let advertise = broken.optional("advertise", body.advertise);
        node.advertise = advertise.and_then(|address| read_address(&mut broken, change.catalogue(), &address));
    }
    if let Some(kind) = broken.change("kind", body.kind).filter(|kind| *kind != node.kind) {
        broken.add("kind", kind.as_str(), "cannot be changed");
    }
    if let Some(group) = broken.change("group", body.group).filter(|group| read_group(&mut broken, group)) {
        node.group = group;
    }
    if let Some(tags) = broken.change("tags", body.tags) {
        broken.tags(&tags);
        node.tags = tags;
    }
    broken.none()?;
    let node = change.put(node).await?;
    change.commit().await?;
    Ok(Json(GatewayView::of(&state, &node)))
}

#[utoipa::path(delete, path = "/api/v1/gateways/{id}", operation_id = "delete_gateway", tag = "gateways",
    params(("id" = String, Path,)), responses((status = 204)))]
/// Delete a gateway
///
/// It is cut off at once; its session records stay.
async fn delete(State(state): State<AppState>, Admin(caller): Admin, Path(id): Path<String>) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let node = find::<Node>(change.catalogue(), &id)?;
    cluster::remove_node(&mut change, &node).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = "/api/v1/gateways/{id}/token", operation_id = "create_enrol_token", tag = "gateways",
    params(("id" = String, Path,)), responses((status = 201, body = EnrolTokenView)))]
/// Make a new one-time token that enrols a gateway
///
/// Tokens made before and not used are void.
async fn issue_token(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Answer<(StatusCode, Json<EnrolTokenView>)> {
    let mut change = state.store.change(caller.actor).await?;
    let node = find::<Node>(change.catalogue(), &id)?;
    let token = gateway::issue_token(&mut change, &node).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(EnrolTokenView::from(&token))))
}

fn read_group(broken: &mut Violations, group: &str) -> bool {
    group.is_empty() || broken.check("group", group, check_name(group)).is_some()
}

fn read_address(broken: &mut Violations, catalogue: &Catalogue, address: &str) -> Option<String> {
    let address = broken.check("advertise", address, gateway::check_address(address))?;
    let name = address.rsplit_once(':').and_then(|(host, _)| host.parse::<DnsName>().ok());
    if let Some(zone) = name.and_then(|name| catalogue.zone_over(&name)) {
        broken.add(
            "advertise",
            &address,
            format_args!("must not lie in {zone}: machines in the virtual network could not reach it"),
        );
        return None;
    }
    Some(address)
}
