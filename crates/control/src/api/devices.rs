//! Devices: who is signed in where.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use postern_proto::{
    filter::{Subject, Value},
    id::{AccountId, DeviceId},
    lease::RevokedSubject,
    time::UnixMillis,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Admin, Answer, List, Page, page::ListParams, refusal::unknown};
use crate::{
    catalogue::Catalogue,
    sql::{self, Row},
    state::AppState,
    store::{Activity, StoreError, Subject as Of, read},
};

const FIELDS: &[&str] = &["id", "account", "email", "name", "os", "revoked"];

/// What [`view`] reads.
macro_rules! columns {
    () => {
        "id, account_id, name, os, agent, spki_sha256, created_at, last_seen_at, last_address, revoked_at"
    };
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show, revoke))
}

/// One key on one machine of an account.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct DeviceView {
    #[schema(value_type = String, example = "dev_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    id: DeviceId,
    #[schema(value_type = String)]
    account: AccountId,
    /// Of the account.
    email: String,
    name: String,
    os: String,
    /// The program that signed in.
    agent: String,
    /// SHA-256 of its public key.
    spki_sha256: String,
    #[schema(value_type = u64)]
    created_at: UnixMillis,
    #[schema(value_type = Option<u64>)]
    last_seen_at: Option<UnixMillis>,
    last_address: Option<String>,
    /// A revoked device can do nothing, and its key cannot sign in.
    #[schema(value_type = Option<u64>)]
    revoked_at: Option<UnixMillis>,
}

impl Subject for DeviceView {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "id" => self.id.to_string().into(),
            "account" => self.account.to_string().into(),
            "email" => self.email.as_str().into(),
            "name" => self.name.as_str().into(),
            "os" => self.os.as_str().into(),
            "revoked" => self.revoked_at.is_some().into(),
            _ => Value::None,
        }
    }
}

#[utoipa::path(get, path = "/api/v1/devices", operation_id = "list_devices", tag = "devices", params(ListParams),
    responses((status = 200, body = Page<DeviceView>)))]
/// List devices, oldest first
async fn list(State(state): State<AppState>, _: Admin, list: List) -> Answer<Json<Page<DeviceView>>> {
    let rows = sql::query(concat!("SELECT ", columns!(), " FROM device")).fetch_all(state.store.reader()).await?;
    let catalogue = state.store.catalogue();
    let devices = rows.iter().map(|row| view(&catalogue, row)).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(list.page(devices.into_iter(), FIELDS, |device| device.id.to_string())?))
}

#[utoipa::path(get, path = "/api/v1/devices/{id}", operation_id = "show_device", tag = "devices",
    params(("id" = String, Path,)), responses((status = 200, body = DeviceView)))]
/// Show a device
async fn show(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<DeviceView>> {
    let row = sql::query(concat!("SELECT ", columns!(), " FROM device WHERE id = $1"))
        .bind(&id)
        .fetch_optional(state.store.reader())
        .await?;
    let row = row.ok_or_else(|| unknown("device", &id))?;
    Ok(Json(view(&state.store.catalogue(), &row)?))
}

#[utoipa::path(delete, path = "/api/v1/devices/{id}", operation_id = "revoke_device", tag = "devices",
    params(("id" = String, Path,)), responses((status = 204)))]
/// Revoke a device; forget one that is revoked already
///
/// Its sessions end at once and its key cannot sign in. It stays in the list until it is deleted once more.
async fn revoke(State(state): State<AppState>, Admin(caller): Admin, Path(id): Path<String>) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let row = sql::query(concat!("SELECT ", columns!(), " FROM device WHERE id = $1"))
        .bind(&id)
        .fetch_optional(change.connection())
        .await?;
    let before = view(change.catalogue(), &row.ok_or_else(|| unknown("device", &id))?)?;
    let subject = Of { kind: "device", id: id.clone(), name: format!("{} of {}", before.name, before.email) };
    if before.revoked_at.is_some() {
        sql::query("DELETE FROM device WHERE id = $1").bind(&id).execute(change.connection()).await?;
        change.note(&Activity::new("device.deleted", subject).before(&before)).await?;
        change.commit().await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let now = change.now();
    let after = DeviceView { revoked_at: Some(now), ..before.clone() };
    for statement in [
        "UPDATE device SET revoked_at = $1 WHERE id = $2",
        "UPDATE login SET revoked_at = $1 WHERE device_id = $2 AND revoked_at IS NULL",
    ] {
        sql::query(statement).bind(read::signed(now.0)).bind(&id).execute(change.connection()).await?;
    }
    change.revoke(RevokedSubject::Device { device: before.id }, "the device was revoked");
    change.note(&Activity::new("device.revoked", subject).before(&before).after(&after)).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn view(catalogue: &Catalogue, row: &Row) -> Result<DeviceView, StoreError> {
    let account = read::value(row, "account_id")?;
    Ok(DeviceView {
        id: read::value(row, "id")?,
        account,
        email: catalogue.accounts.get(&account).map(|account| account.email.to_string()).unwrap_or_default(),
        name: row.try_get("name")?,
        os: row.try_get("os")?,
        agent: row.try_get("agent")?,
        spki_sha256: row.try_get("spki_sha256")?,
        created_at: read::instant(row, "created_at")?,
        last_seen_at: read::optional_instant(row, "last_seen_at")?,
        last_address: row.try_get("last_address")?,
        revoked_at: read::optional_instant(row, "revoked_at")?,
    })
}
