//! Maintenance windows.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use postern_proto::{
    filter::{Filter, Subject, Value},
    id::WindowId,
    name::name_key,
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
    catalogue::{Catalogue, MaintenanceWindow},
    maintenance::{LONGEST, SHORTEST, Schedule},
    state::AppState,
};

/// The most windows of an organisation: each is looked at for each drain that waits.
const MOST: usize = 100;
const KNOWN: &[&str] = &["name", "schedule", "duration", "require_idleness", "nodes"];
/// What a list may be filtered by.
const FIELDS: &[&str] = &["name", "id", "require_idleness", "open"];

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, update, delete))
}

/// A maintenance window and how it stands.
#[derive(Serialize, ToSchema)]
struct WindowView {
    #[serde(flatten)]
    window: MaintenanceWindow,
    /// Whether it is open now.
    open: bool,
    /// When it opened, or opens next, in milliseconds since 1970.
    #[schema(value_type = Option<u64>)]
    opens_at: Option<UnixMillis>,
    /// When it closes then.
    #[schema(value_type = Option<u64>)]
    closes_at: Option<UnixMillis>,
    /// For how many nodes it is.
    bound: usize,
}

impl WindowView {
    fn of(catalogue: &Catalogue, window: &MaintenanceWindow, now: UnixMillis) -> Self {
        let opening = window.opening(now);
        Self {
            window: window.clone(),
            open: opening.is_some_and(|opening| opening.is_on(now)),
            opens_at: opening.map(|opening| opening.opens_at),
            closes_at: opening.map(|opening| opening.closes_at),
            bound: catalogue.nodes.values().filter(|node| window.is_for(node)).count(),
        }
    }
}

impl Subject for WindowView {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "name" => self.window.name.as_str().into(),
            "id" => self.window.id.to_string().into(),
            "require_idleness" => self.window.require_idleness.into(),
            "open" => self.open.into(),
            _ => Value::None,
        }
    }
}

/// What a window is created from or changed to. In a change, what is left out stays.
#[derive(Deserialize, ToSchema)]
struct WindowInput {
    /// Unique. Must be given at creation.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    name: Given<String>,
    /// When it opens: minute, hour, day of month, month and day of week, in UTC. Must be given at creation.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "0 2 * * sun")]
    schedule: Given<String>,
    /// Seconds that it stays open, from a minute to a day. Must be given at creation.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    duration: Given<u64>,
    /// Whether something begins in it only at nodes that carry no stream; not, when left out.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    require_idleness: Given<bool>,
    /// Which nodes it is for; null or left out: all.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    nodes: Given<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

#[utoipa::path(get, path = "/api/v1/maintenance", operation_id = "list_maintenance_windows", tag = "maintenance",
    params(ListParams), responses((status = 200, body = Page<WindowView>)))]
/// List maintenance windows, by name
async fn list(State(state): State<AppState>, _: Admin, list: List) -> Answer<Json<Page<WindowView>>> {
    let (catalogue, now) = (state.store.catalogue(), state.clock.now());
    let windows = catalogue.windows.values().map(|window| WindowView::of(&catalogue, window, now));
    Ok(Json(list.page(windows, FIELDS, |view| name_key(&view.window.name))?))
}

#[utoipa::path(get, path = "/api/v1/maintenance/{id}", operation_id = "show_maintenance_window", tag = "maintenance",
    params(("id" = String, Path,)), responses((status = 200, body = WindowView)))]
/// Show a maintenance window
async fn show(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<WindowView>> {
    let catalogue = state.store.catalogue();
    find::<MaintenanceWindow>(&catalogue, &id)
        .map(|window| Json(WindowView::of(&catalogue, &window, state.clock.now())))
}

#[utoipa::path(post, path = "/api/v1/maintenance", operation_id = "create_maintenance_window", tag = "maintenance",
    request_body = WindowInput, responses((status = 201, body = WindowView)))]
/// Create a maintenance window
///
/// Several may be for the same node: what waits begins in the first that opens.
async fn create(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Input(body): Input<WindowInput>,
) -> Answer<(StatusCode, Json<WindowView>)> {
    let mut change = state.store.change(caller.actor).await?;
    let (id, now) = (WindowId::from_ulid(change.ulid()), change.now());
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, KNOWN);
    if change.catalogue().windows.len() >= MOST {
        broken.add("name", "", format_args!("must not be one of more than {MOST} windows: delete others"));
    }
    let name = broken.required("name", body.name);
    let name = name.filter(|name| read_name::<MaintenanceWindow>(&mut broken, change.catalogue(), name, Some(id)));
    let schedule = broken.required("schedule", body.schedule);
    let schedule = schedule.and_then(|schedule| read_schedule(&mut broken, &schedule, now));
    let duration = broken.required("duration", body.duration).and_then(|span| read_duration(&mut broken, span));
    let require_idleness = broken.optional("require_idleness", body.require_idleness).unwrap_or_default();
    let nodes = broken.optional("nodes", body.nodes).and_then(|filter| read_nodes(&mut broken, &filter));
    let (name, schedule, duration) = broken.take(name.zip(schedule).zip(duration).map(|((n, s), d)| (n, s, d)))?;
    let window =
        MaintenanceWindow { id, name, schedule, duration, require_idleness, nodes, created_at: now, revision: 0 };
    let window = change.put(window).await?;
    let catalogue = change.commit().await?;
    Ok((StatusCode::CREATED, Json(WindowView::of(&catalogue, &window, now))))
}

#[utoipa::path(patch, path = "/api/v1/maintenance/{id}", operation_id = "update_maintenance_window",
    tag = "maintenance", params(("id" = String, Path,)), request_body = WindowInput,
    responses((status = 200, body = WindowView)))]
/// Change a maintenance window
///
/// What waits for it follows.
async fn update(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(body): Input<WindowInput>,
) -> Answer<Json<WindowView>> {
    let mut change = state.store.change(caller.actor).await?;
    let now = change.now();
    let mut window = MaintenanceWindow::clone(&*find::<MaintenanceWindow>(change.catalogue(), &id)?);
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, KNOWN);
    if let Some(name) = broken.change("name", body.name)
        && read_name::<MaintenanceWindow>(&mut broken, change.catalogue(), &name, Some(window.id))
    {
        window.name = name;
    }
    let schedule = broken.change("schedule", body.schedule);
    if let Some(schedule) = schedule.and_then(|schedule| read_schedule(&mut broken, &schedule, now)) {
        window.schedule = schedule;
    }
    let duration = broken.change("duration", body.duration);
    if let Some(duration) = duration.and_then(|span| read_duration(&mut broken, span)) {
        window.duration = duration;
    }
    if let Some(require_idleness) = broken.change("require_idleness", body.require_idleness) {
        window.require_idleness = require_idleness;
    }
    if !matches!(body.nodes, Given::Absent) {
        let nodes = broken.optional("nodes", body.nodes);
        window.nodes = nodes.and_then(|filter| read_nodes(&mut broken, &filter));
    }
    broken.none()?;
    let window = change.put(window).await?;
    let catalogue = change.commit().await?;
    Ok(Json(WindowView::of(&catalogue, &window, now)))
}

#[utoipa::path(delete, path = "/api/v1/maintenance/{id}", operation_id = "delete_maintenance_window",
    tag = "maintenance", params(("id" = String, Path,)), responses((status = 204)))]
/// Delete a maintenance window
///
/// What waits for it waits for another one.
async fn delete(State(state): State<AppState>, Admin(caller): Admin, Path(id): Path<String>) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let window = find::<MaintenanceWindow>(change.catalogue(), &id)?;
    change.erase::<MaintenanceWindow>(window.id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn read_schedule(broken: &mut Violations, schedule: &str, now: UnixMillis) -> Option<String> {
    broken.check("schedule", schedule, Schedule::parse(schedule, now)).map(|schedule| schedule.to_string())
}

fn read_duration(broken: &mut Violations, seconds: u64) -> Option<u64> {
    if (SHORTEST..=LONGEST).contains(&Duration::from_secs(seconds)) {
        return Some(seconds);
    }
    let (least, most) = (SHORTEST.as_secs(), LONGEST.as_secs());
    broken.add("duration", seconds, format_args!("must be from {least} to {most} seconds"));
    None
}

/// An empty filter is none.
fn read_nodes(broken: &mut Violations, filter: &str) -> Option<String> {
    let filter = filter.trim();
    let parsed = broken.check("nodes", filter, Filter::parse(filter, MaintenanceWindow::NODE_FIELDS))?;
    (!parsed.is_empty()).then(|| filter.to_owned())
}
