//! What gateways and devices report for the audit.

use std::{sync::PoisonError, time::Instant};

use axum::{
    Json,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
};
use postern_proto::{
    api::{DeviceEventKind, DeviceEvents, RecordAck, RecordBatch},
    id::DeviceId,
    problem::Problem,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, Input, Refusal, Violations,
    machine::{CallingDevice, CallingNode},
};
use crate::{
    audit::{self, IngestError},
    state::AppState,
    store::Subject,
};

/// Where gateways send their records.
pub(super) const PATH: &str = "/api/v1/nodes/records";
/// The longest batch: a thousand records with all the tags that a resource may have.
pub(super) const MAX_BATCH: usize = 8 << 20;
/// Events of one report at most.
const MAX_EVENTS: usize = 1000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    let records = OpenApiRouter::new().routes(routes!(acknowledged, take)).layer(DefaultBodyLimit::max(MAX_BATCH));
    OpenApiRouter::new().merge(records).routes(routes!(events))
}

#[utoipa::path(get, path = "/api/v1/nodes/records", operation_id = "stored_records", tag = "machines",
    responses((status = 200, body = Object)))]
/// Show what is stored of a gateway's records, with its certificate
async fn acknowledged(State(state): State<AppState>, caller: CallingNode) -> Answer<Json<RecordAck>> {
    let mut connection = state.store.reader().acquire().await?;
    Ok(Json(audit::stored(&mut connection, caller.node.id).await?))
}

#[utoipa::path(post, path = "/api/v1/nodes/records", operation_id = "send_records", tag = "machines",
    request_body = Object, responses((status = 200, body = Object)))]
/// Send a gateway's records, with its certificate
///
/// In order and without gaps; what is stored already is skipped.
async fn take(
    State(state): State<AppState>,
    caller: CallingNode,
    Input(batch): Input<RecordBatch>,
) -> Answer<Json<RecordAck>> {
    Ok(Json(audit::ingest(&state.store, &caller.node, &caller.actor, batch.records).await?))
}

#[utoipa::path(post, path = "/api/v1/devices/events", operation_id = "send_device_events", tag = "machines",
    request_body = Object, responses((status = 204)))]
/// Report what a device refused or allowed, with its certificate
async fn events(
    State(state): State<AppState>,
    caller: CallingDevice,
    Input(report): Input<DeviceEvents>,
) -> Answer<StatusCode> {
    if report.events.len() > MAX_EVENTS {
        let mut broken = Violations::default();
        broken.add("events", report.events.len(), format_args!("must not be more than {MAX_EVENTS}"));
        return Err(broken.into());
    }
    let device = &caller.standing.device;
    if !is_allowed(&state, device.id, report.events.len()) {
        let problem = Problem::new(429, "too_many_events", "This device reports too many events");
        return Err(problem.with_detail("They are not recorded. It may report again later.").into());
    }
    let catalogue = state.store.catalogue();
    let mut append = state.store.append().await?;
    for event in &report.events {
        let (verb, subject) = match &event.what {
            DeviceEventKind::PeerRefused { resource, .. } => {
                let name = catalogue.resources.get(resource).map(|resource| resource.name.clone());
                let name = name.unwrap_or_else(|| "unknown".to_owned());
                ("device.peer_refused", Subject { kind: "resource", id: resource.to_string(), name })
            }
            DeviceEventKind::PeersAllowed { .. } => {
                let subject = Subject { kind: "device", id: device.id.to_string(), name: device.name.clone() };
                ("device.peers_allowed", subject)
            }
        };
        let told = Told { device: device.id, device_name: &device.name, event };
        audit::note(append.connection(), &state.store, &caller.actor, subject, (verb, &told, event.at)).await?;
    }
    append.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn is_allowed(state: &AppState, device: DeviceId, events: usize) -> bool {
    state.allowance.lock().unwrap_or_else(PoisonError::into_inner).take(device, events, Instant::now())
}

/// An event with the device that told of it.
#[derive(serde::Serialize)]
struct Told<'a> {
    device: DeviceId,
    device_name: &'a str,
    #[serde(flatten)]
    event: &'a postern_proto::api::DeviceEvent,
}

impl From<IngestError> for Refusal {
    fn from(error: IngestError) -> Self {
        let (status, code) = match error {
            IngestError::Store(error) => return error.into(),
            IngestError::TooMany => (422, "too_many_records"),
            IngestError::Foreign { .. } => (403, "foreign_record"),
            IngestError::Forked { .. } => (409, "chain_forked"),
            IngestError::Chain(_) => (409, "chain_broken"),
        };
        tracing::warn!(%error, "records of a gateway were refused");
        Problem::new(status, code, "The records were refused").with_detail(error.to_string()).into()
    }
}
