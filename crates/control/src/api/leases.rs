//! Leases: access is judged at this instant, then signed.

use std::collections::BTreeSet;

use axum::{Json, extract::State, http::request::Parts};
use postern_proto::{
    api::{IssuedLease, LeaseRequest, LeaseResponse},
    id::ResourceId,
    lease::{Claims, LIFETIME},
    problem::Problem,
    time::UnixMillis,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, Input, Refusal, Violations,
    machine::{CallingDevice, certificate, none},
};
use crate::{access, state::AppState};

/// Resources of one request at most.
const MAX_RESOURCES: usize = 1000;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(issue))
}

#[utoipa::path(post, path = "/api/v1/leases", operation_id = "issue_leases", tag = "machines", request_body = Object,
    responses((status = 200, body = Object)))]
/// Issue leases to a device, with its certificate
///
/// Resources that the account may not reach and resources that are not there are denied alike.
async fn issue(
    State(state): State<AppState>,
    parts: Parts,
    Input(request): Input<LeaseRequest>,
) -> Answer<Json<LeaseResponse>> {
    let certificate = certificate(&parts).ok_or_else(|| none("a device"))?;
    if request.resources.len() > MAX_RESOURCES {
        let mut broken = Violations::default();
        broken.add("resources", request.resources.len(), format_args!("must not be more than {MAX_RESOURCES}"));
        return Err(broken.into());
    }
    // No change may come between the instant of the leases and what they are judged by: a revocation voids the leases
    // issued up to its own instant, and one issued later by what was before it would live on.
    let held = state.store.hold().await?;
    let device = CallingDevice::of(&state, certificate, &parts).await?;
    let (claims, denied) = judge(&state, &device, request.resources.into_iter().collect(), held.at());
    drop(held);
    let (wanted, refused) = (claims.len(), denied.len());
    let leases = sign(&state, claims).await?;
    state.metrics.note_leases(wanted, refused);
    Ok(Json(LeaseResponse { leases, denied }))
}

fn judge(
    state: &AppState,
    device: &CallingDevice,
    wanted: BTreeSet<ResourceId>,
    now: UnixMillis,
) -> (Vec<Claims>, Vec<ResourceId>) {
    let catalogue = state.store.catalogue();
    let standing = &device.standing;
    let (mut claims, mut denied) = (Vec::new(), Vec::new());
    for id in wanted {
        let reason = access::reason(&catalogue, standing.account.id, id, now);
        let (Some(reason), Some(resource)) = (reason, catalogue.resources.get(&id)) else {
            denied.push(id);
            continue;
        };
        claims.push(Claims {
            org: state.authority.org(),
            account: standing.account.id,
            device: standing.device.id,
            cnf: standing.device.spki_sha256.clone(),
            resource: id,
            revision: resource.revision,
            grant: reason.grant(),
            issued_at: now,
            not_after: now.plus(LIFETIME).min(standing.login.expires_at),
            grant_ends: reason.ends_at(),
            cluster: resource.cluster,
        });
    }
    (claims, denied)
}

/// Signs on a thread for it: a thousand signatures take some 60 ms.
async fn sign(state: &AppState, claims: Vec<Claims>) -> Answer<Vec<IssuedLease>> {
    let (keys, now) = (std::sync::Arc::clone(&state.lease_keys), state.clock.now());
    let sign_one = move |claims: Claims| {
        let keys = keys.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        Some(IssuedLease {
            token: keys.sign(&claims, now)?,
            resource: claims.resource,
            issued_at: claims.issued_at,
            not_after: claims.not_after,
            grant_ends: claims.grant_ends,
        })
    };
    let signed = tokio::task::spawn_blocking(move || claims.into_iter().map(sign_one).collect::<Option<Vec<_>>>());
    signed.await.ok().flatten().ok_or_else(|| {
        tracing::error!("a lease could not be signed");
        Refusal::from(Problem::new(500, "internal", "The control plane failed").with_detail("Its log says why."))
    })
}
