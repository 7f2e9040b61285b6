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

use super::{Admin, Answer, resources::find};
use crate::{
    health::history::{self, Turn},
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
    let resource = find(&state.store.catalogue(), &id)?;
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
    /// When nodes found it healthy and unhealthy, newest first, for a week; how each found it last stays longer.
    history: Vec<TurnView>,
}

/// A node found the resource otherwise than before.
#[derive(Debug, Serialize, ToSchema)]
struct TurnView {
    /// Milliseconds since 1970, by the node's clock.
    #[schema(value_type = u64)]
    at: UnixMillis,
    #[schema(value_type = String)]
    node: NodeId,
    node_name: String,
    #[schema(value_type = Object, example = json!({"state": "unhealthy", "error": "connection refused"}))]
    health: Health,
}

#[utoipa::path(get, path = "/api/v1/resources/{id}/health", operation_id = "resource_health", tag = "resources",
    params(("id" = String, Path,)), responses((status = 200, body = HealthView)))]
/// Show how a resource is and has been, as each node sees it
///
/// Nodes check every half minute, and at once when a connection of somebody fails, or works though the check failed. The
/// newest 500 changes are shown.
async fn health(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<HealthView>> {
    let resource = find(&state.store.catalogue(), &id)?;
    let turns = history::read(&state.store, resource.id, MOST_TURNS).await?;
    let catalogue = state.store.catalogue();
    let view = |turn: Turn| TurnView {
        at: turn.at,
        node: turn.node,
        node_name: catalogue.nodes.get(&turn.node).map_or_else(|| turn.node.to_string(), |node| node.name.clone()),
        health: turn.health,
    };
    let health = state.exchange.health(resource.id);
    let (gateways, history) = (seen_by(&state, resource.id), turns.into_iter().map(view).collect());
    Ok(Json(HealthView { id: resource.id, name: resource.name.clone(), health, gateways, history }))
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
