//! Resource health on demand.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State},
};
use postern_proto::{
    id::{NodeId, ResourceId},
    resource::Health,
    time::UnixMillis,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Admin, Answer, entity::find};
use crate::{
    catalogue::{Catalogue, Resource},
    health::{
        attendance::{self, Attendance, NodeTurn},
        history::{self, Turn},
    },
    state::AppState,
};

/// How long gateways may take: a TCP connect has 10 s.
const PATIENCE: Duration = Duration::from_secs(12);

/// Changes that are shown at most.
const MOST_TURNS: usize = 500;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(check)).routes(routes!(health))
}

/// How a resource is, and what each gateway saw.
#[derive(Debug, Serialize, ToSchema)]
struct Check {
    #[schema(value_type = String, example = "res_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    id: ResourceId,
    name: String,
    #[schema(value_type = Object, example = json!({"state": "healthy"}))]
    health: Health,
    gateways: Vec<Seen>,
}

/// What one gateway saw.
#[derive(Debug, Serialize, ToSchema)]
struct Seen {
    #[schema(value_type = String)]
    id: NodeId,
    name: String,
    #[schema(value_type = Object, example = json!({"state": "unhealthy", "error": "connection refused"}))]
    health: Health,
    /// Milliseconds since 1970, by the gateway's clock.
    #[schema(value_type = u64)]
    checked_at: UnixMillis,
    /// How long the TCP connect took.
    connect_micros: Option<u64>,
}

#[utoipa::path(post, path = "/api/v1/resources/{id}/check", operation_id = "check_resource", tag = "resources",
    params(("id" = String, Path,)), responses((status = 200, body = Check)))]
/// Let all connected gateways check a resource now
///
/// Waits up to 12 s for them. Without a connected gateway the health is unknown.
async fn check(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<Check>> {
    let resource = find::<Resource>(&state.store.catalogue(), &id)?;
    let health = state.exchange.check(resource.id, PATIENCE).await;
    let gateways = seen_by(&state, resource.id);
    Ok(Json(Check { id: resource.id, name: resource.name.clone(), health, gateways }))
}

/// How a resource is and has been.
#[derive(Debug, Serialize, ToSchema)]
struct HealthView {
    #[schema(value_type = String, example = "res_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    id: ResourceId,
    name: String,
    #[schema(value_type = Object, example = json!({"state": "healthy"}))]
    health: Health,
    /// What each node says now.
    gateways: Vec<Seen>,
    /// When nodes found it healthy and unhealthy, and when those were away, newest first, for a week; how each found it last
    /// stays longer.
    history: Vec<TurnView>,
}

/// A node found the resource otherwise than before, or came or went.
#[derive(Debug, Serialize, ToSchema)]
struct TurnView {
    /// Milliseconds since 1970, by the node's clock; when it came or went, by the control plane's.
    #[schema(value_type = u64)]
    at: UnixMillis,
    #[schema(value_type = String)]
    node: NodeId,
    node_name: String,
    #[schema(value_type = Object, example = json!({"state": "unhealthy", "error": "connection refused"}))]
    health: Health,
    /// When the node went away, or was back: what it says of the resource is unknown then. Null: it found it otherwise.
    node_state: Option<Attendance>,
}

#[utoipa::path(get, path = "/api/v1/resources/{id}/health", operation_id = "resource_health", tag = "resources",
    params(("id" = String, Path,)), responses((status = 200, body = HealthView)))]
/// Show how a resource is and has been, as each node sees it
///
/// Nodes check every half minute, and at once when a connection of somebody fails, or works though the check failed. The
/// newest 500 changes are shown.
async fn health(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<HealthView>> {
    let resource = find::<Resource>(&state.store.catalogue(), &id)?;
    let turns = history::read(&state.store, resource.id, MOST_TURNS).await?;
    let nodes = attendance::at_resource(&state.store, resource.id, MOST_TURNS).await?;
    let health = state.exchange.health(resource.id);
    let (gateways, history) = (seen_by(&state, resource.id), merged(&state.store.catalogue(), turns, &nodes));
    Ok(Json(HealthView { id: resource.id, name: resource.name.clone(), health, gateways, history }))
}

/// One history of both, newest first.
fn merged(catalogue: &Catalogue, turns: Vec<Turn>, nodes: &[NodeTurn]) -> Vec<TurnView> {
    let view = |(at, node, health, node_state): (UnixMillis, NodeId, Health, Option<Attendance>)| {
        let node_name = catalogue.nodes.get(&node).map_or_else(|| node.to_string(), |node| node.name.clone());
        TurnView { at, node, node_name, health, node_state }
    };
    // That a node came for the first time says nothing of the resource.
    let is_back = |(number, turn): &(usize, &NodeTurn)| {
        turn.state == Attendance::Away || nodes.iter().skip(number + 1).any(|older| older.node == turn.node)
    };
    let found = turns.into_iter().map(|turn| (turn.at, turn.node, turn.health, None));
    let nodes = nodes.iter().enumerate().filter(is_back);
    let nodes = nodes.map(|(_, turn)| (turn.at, turn.node, Health::Unknown, Some(turn.state)));
    let mut history: Vec<TurnView> = found.chain(nodes).map(view).collect();
    history.sort_by_key(|turn| std::cmp::Reverse((turn.at, turn.node)));
    history.truncate(MOST_TURNS);
    history
}

fn seen_by(state: &AppState, resource: ResourceId) -> Vec<Seen> {
    let catalogue = state.store.catalogue();
    let seen = |(id, report): (NodeId, postern_proto::sync::HealthReport)| Seen {
        id,
        name: catalogue.nodes.get(&id).map_or_else(|| id.to_string(), |node| node.name.clone()),
        health: report.health,
        checked_at: report.checked_at,
        connect_micros: report.connect_micros,
    };
    state.exchange.reports(resource).into_iter().map(seen).collect()
}
