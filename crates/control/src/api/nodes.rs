//! Nodes as those see them who run them: gateways and relays (and workers, which are gateways of a cluster) in one list, how
//! each is and what it carries, and taking one out of service.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use postern_proto::{
    filter::{Subject, Value},
    id::NodeId,
    name::name_key,
    resource::Tags,
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Admin, Answer, Given, Input, List, Page, Violations, input::Unknown, page::ListParams, refusal::unknown};
use crate::{
    catalogue::{Catalogue, Leaving, Node},
    health::attendance::{self, NodeTurn},
    maintenance::{self, Begin},
    state::AppState,
};

/// How long what runs may go on when nobody says otherwise.
const DEADLINE: u64 = 300;
/// The longest time that a drain may take: a week.
const LONGEST: u64 = 7 * 86_400;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(drain, undrain))
}

/// Comings and goings that are shown at most.
const MOST_TURNS: usize = 100;

/// What a list of nodes may be filtered by.
const FIELDS: &[&str] = &["name", "id", "role", "group", "tags", "advertise", "state", "version"];

/// A node and how it is.
#[derive(Serialize, ToSchema)]
struct NodeView {
    #[schema(value_type = String, example = "nod_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    id: NodeId,
    name: String,
    /// `gateway` or `relay`.
    role: &'static str,
    /// Its peering group.
    group: String,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    tags: Tags,
    advertise: Option<String>,
    state: NodeState,
    /// Of its program; null: it was not seen since the control plane started.
    version: Option<String>,
    /// Streams that it carries, as it said last.
    streams: Option<u64>,
    /// Of all processors of its machine, by its process, in thousandths.
    cpu_permille: Option<u32>,
    /// While it drains: when what still runs is cut, in milliseconds since 1970.
    #[schema(value_type = Option<u64>)]
    drain_ends_at: Option<UnixMillis>,
    /// A drain that waits for a maintenance window; null: none does.
    drain_planned: Option<PlannedDrain>,
    #[schema(value_type = Option<u64>)]
    last_seen_at: Option<UnixMillis>,
}

/// A drain that waits for a maintenance window.
#[derive(Serialize, ToSchema)]
struct PlannedDrain {
    /// Seconds that what runs then has.
    deadline: u64,
    /// The name of the window in which it can begin first; null: no window is for this node any more.
    window: Option<String>,
    /// When that opens, or opened.
    #[schema(value_type = Option<u64>)]
    begins_at: Option<UnixMillis>,
    /// Whether it begins only while no stream is over the node.
    require_idleness: bool,
    /// Whether the window is open, so that it begins at once, or as soon as the node is idle.
    open: bool,
}

impl PlannedDrain {
    fn of(catalogue: &Catalogue, node: &Node, now: UnixMillis, idle: bool) -> Option<Self> {
        let deadline = node.planned_drain?;
        let plan = maintenance::plan(catalogue, node, now, idle);
        let (window, begins_at, open) = match plan {
            Begin::Now(window) => (Some(window), window.opening(now).map(|opening| opening.opens_at), true),
            Begin::WhenIdle(window, opening) => (Some(window), Some(opening.opens_at), true),
            Begin::At(window, opening) => (Some(window), Some(opening.opens_at), false),
            Begin::Never => (None, None, false),
        };
        let require_idleness = window.is_some_and(|window| window.require_idleness);
        Some(Self { deadline, window: window.map(|window| window.name.clone()), begins_at, require_idleness, open })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum NodeState {
    /// It has not enrolled yet.
    Waiting,
    Up,
    /// It takes no new streams, and carries some still.
    Draining,
    /// It takes no new streams and carries none.
    Drained,
    /// It has enrolled, and is not connected.
    Away,
}

impl NodeState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Away => "away",
        }
    }
}

impl NodeView {
    fn of(state: &AppState, node: &Node) -> Self {
        let presence = state.exchange.presence(node.id);
        let connected = presence.as_ref().filter(|presence| presence.connected);
        let said = connected.map(|presence| presence.leaving).unwrap_or_default();
        let load = connected.and_then(|presence| presence.load);
        let Leaving { draining, ends } = node.leaving(said);
        let seen = match connected {
            _ if node.enrolled_at.is_none() => NodeState::Waiting,
            None => NodeState::Away,
            // Whether it carries something it says only once it drains itself.
            Some(presence) if presence.leaving.draining && load.is_some_and(|load| load.streams == 0) => {
                NodeState::Drained
            }
            Some(_) if draining => NodeState::Draining,
            Some(_) => NodeState::Up,
        };
        let version = presence.as_ref().map(|presence| {
            presence.agent.rsplit_once('/').map_or(presence.agent.as_str(), |(_, version)| version).to_owned()
        });
        Self {
            id: node.id,
            name: node.name.clone(),
            role: node.kind.as_str(),
            group: node.group.clone(),
            tags: node.tags.clone(),
            advertise: node.advertise.clone(),
            state: seen,
            version,
            streams: load.map(|load| load.streams),
            cpu_permille: load.and_then(|load| load.cpu_permille),
            drain_ends_at: ends,
            drain_planned: {
                let idle = maintenance::is_idle(&state.exchange, node.id);
                PlannedDrain::of(&state.store.catalogue(), node, state.clock.now(), idle)
            },
            last_seen_at: presence.map(|presence| presence.last_seen),
        }
    }
}

/// A node, and when it was there.
#[derive(Serialize, ToSchema)]
struct NodeDetail {
    #[serde(flatten)]
    node: NodeView,
    /// When it was connected and when it was away, newest first, for a week; how it is now stays longer. Less than a minute
    /// is not noted.
    history: Vec<NodeTurn>,
}

impl Subject for NodeView {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "name" => self.name.as_str().into(),
            "id" => self.id.to_string().into(),
            "role" => self.role.into(),
            "group" => self.group.as_str().into(),
            "tags" => Value::Tags(&self.tags),
            "advertise" => self.advertise.as_deref().map_or(Value::None, Value::from),
            "state" => self.state.as_str().into(),
            "version" => self.version.as_deref().map_or(Value::None, Value::from),
            _ => Value::None,
        }
    }
}

/// How a node is taken out of service.
#[derive(Deserialize, ToSchema)]
struct DrainInput {
    /// Seconds that running connections have to end; 300 when left out, 0 cuts them at once.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    deadline: Given<u64>,
    /// Whether it waits for a maintenance window, and then begins by itself; at once when left out.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    in_window: Given<bool>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

#[utoipa::path(get, path = "/api/v1/nodes", operation_id = "list_nodes", tag = "nodes", params(ListParams),
    responses((status = 200, body = Page<NodeView>)))]
/// List nodes, by name: gateways and relays in one
async fn list(State(state): State<AppState>, _: Admin, list: List) -> Answer<Json<Page<NodeView>>> {
    let catalogue = state.store.catalogue();
    let nodes = catalogue.nodes.values().map(|node| NodeView::of(&state, node));
    Ok(Json(list.page(nodes, FIELDS, |view| name_key(&view.name))?))
}

#[utoipa::path(get, path = "/api/v1/nodes/{id}", operation_id = "show_node", tag = "nodes",
    params(("id" = String, Path,)), responses((status = 200, body = NodeDetail)))]
/// Show a node, and when it was there
async fn show(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<NodeDetail>> {
    let node = find(&state.store.catalogue(), &id)?;
    let history = attendance::of_node(&state.store, node.id, MOST_TURNS).await?;
    Ok(Json(NodeDetail { node: NodeView::of(&state, &node), history }))
}

#[utoipa::path(post, path = "/api/v1/nodes/{id}/drain", operation_id = "drain_node", tag = "nodes",
    params(("id" = String, Path,)), request_body = DrainInput, responses((status = 200, body = NodeView)))]
/// Take a node out of service
///
/// It leaves the routes and takes no new connections, also after a restart, until this is taken back. What runs has until
/// the deadline, which users are told. Doing it again sets the deadline anew. With `in_window` this begins when a
/// maintenance window of the node is open.
async fn drain(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(body): Input<DrainInput>,
) -> Answer<Json<NodeView>> {
    let mut change = state.store.change(caller.actor).await?;
    let mut node = Node::clone(&*find(change.catalogue(), &id)?);
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["deadline", "in_window"]);
    let deadline = broken.optional("deadline", body.deadline).unwrap_or(DEADLINE);
    if deadline > LONGEST {
        broken.add("deadline", deadline, format_args!("must not be more than {LONGEST} seconds"));
    }
    let in_window = broken.optional("in_window", body.in_window).unwrap_or_default();
    if in_window {
        check_plan(&mut broken, change.catalogue(), &node, change.now());
    }
    broken.none()?;
    if in_window {
        node.planned_drain = Some(deadline);
    } else {
        node.planned_drain = None;
        node.drain_ends_at = Some(change.now().plus(Duration::from_secs(deadline)));
    }
    let node = change.put(node).await?;
    change.commit().await?;
    Ok(Json(NodeView::of(&state, &node)))
}

#[utoipa::path(delete, path = "/api/v1/nodes/{id}/drain", operation_id = "cancel_drain", tag = "nodes",
    params(("id" = String, Path,)), responses((status = 204)))]
/// Put a node that was taken out of service back, or take back that it is to be
///
/// One whose process is being stopped goes on stopping.
async fn undrain(State(state): State<AppState>, Admin(caller): Admin, Path(id): Path<String>) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let node = Node::clone(&*find(change.catalogue(), &id)?);
    change.put(Node { drain_ends_at: None, planned_drain: None, ..node }).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What would never begin is not planned.
fn check_plan(broken: &mut Violations, catalogue: &Catalogue, node: &Node, now: UnixMillis) {
    if node.drain_ends_at.is_some() {
        broken.add("in_window", true, "must not be asked of a node that is out of service already: put it back first");
    } else if matches!(maintenance::plan(catalogue, node, now, false), Begin::Never) {
        broken.add("in_window", true, "must have a maintenance window that is for this node: make one first");
    }
}

fn find(catalogue: &Catalogue, id: &str) -> Answer<Arc<Node>> {
    let node = id.parse::<NodeId>().ok().and_then(|id| catalogue.nodes.get(&id));
    node.cloned().ok_or_else(|| unknown("node", id))
}
