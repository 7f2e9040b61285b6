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
use crate::state::AppState;

/// How long gateways may take: a TCP connect has 10 s.
const PATIENCE: Duration = Duration::from_secs(12);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(check))
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
    let catalogue = state.store.catalogue();
    let seen = |(id, report): (NodeId, postern_proto::sync::HealthReport)| Seen {
        id,
        name: catalogue.nodes.get(&id).map_or_else(|| id.to_string(), |node| node.name.clone()),
        health: report.health,
        checked_at: report.checked_at,
        connect_micros: report.connect_micros,
    };
    let gateways = state.exchange.reports(resource.id).into_iter().map(seen).collect();
    Ok(Json(Check { id: resource.id, name: resource.name.clone(), health, gateways }))
}
