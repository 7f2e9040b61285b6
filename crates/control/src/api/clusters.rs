//! Proxy clusters and their key pairs.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use postern_proto::{
    door::EntryCarrier,
    filter::{Subject, Value},
    id::ClusterId,
    name::{DnsName, name_key},
    problem::Problem,
    resource::Tags,
};
use postern_tunnel::tls::OuterClientTls;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Admin, Answer, Given, Input, List, Page, Violations,
    entity::{find, read_name},
    input::Unknown,
    page::ListParams,
    refusal::unknown,
};
use crate::{
    catalogue::{Catalogue, Cluster, Resource},
    cluster::{self, KeyView},
    gateway::check_address,
    secret::Token,
    sql,
    state::AppState,
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, delete))
        .routes(routes!(list_keys, create_key))
        .routes(routes!(revoke_key))
        .routes(routes!(rotate_key))
}

/// What a cluster may be given.
const KNOWN: &[&str] = &["name", "advertise", "carrier", "authority", "tags"];
const FIELDS: &[&str] = &["name", "id", "advertise", "carrier", "tags"];

/// A cluster and how it is.
#[derive(Serialize, ToSchema)]
struct ClusterView {
    #[serde(flatten)]
    cluster: Cluster,
    /// How many workers have enrolled.
    workers: usize,
    /// How many of them are connected.
    connected: usize,
    /// How many resources are bound to it.
    resources: usize,
}

impl ClusterView {
    fn of(state: &AppState, catalogue: &Catalogue, cluster: &Cluster) -> Self {
        let workers = || catalogue.nodes.values().filter(|node| node.cluster == Some(cluster.id));
        let is_connected = |id| state.exchange.presence(id).is_some_and(|presence| presence.connected);
        Self {
            cluster: cluster.clone(),
            workers: workers().count(),
            connected: workers().filter(|node| is_connected(node.id)).count(),
            resources: cluster::bound(catalogue, cluster.id).count(),
        }
    }
}

impl Subject for ClusterView {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "name" => self.cluster.name.as_str().into(),
            "id" => self.cluster.id.to_string().into(),
            "advertise" => self.cluster.advertise.as_str().into(),
            "carrier" => self.cluster.carrier.as_str().into(),
            "tags" => Value::Tags(&self.cluster.tags),
            _ => Value::None,
        }
    }
}

/// What a cluster is created from or changed to. In a change, what is left out stays.
#[derive(Deserialize, ToSchema)]
struct ClusterInput {
    /// Unique. Must be given at creation.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    name: Given<String>,
    /// Where clients dial it, as `host:port`: usually that of a layer-4 balancer. Must be given at creation.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    advertise: Given<String>,
    /// `direct` when left out; `websocket` where something before the workers ends TLS.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    carrier: Given<String>,
    /// With carrier `websocket`: the authority (PEM) of the certificate that clients see first; null: one that their
    /// machines trust.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    authority: Given<String>,
    /// Replaces all tags.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    tags: Given<Tags>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

/// A key pair whose secret key is shown this once.
#[derive(Serialize, ToSchema)]
struct NewKey {
    #[serde(flatten)]
    key: KeyView,
    /// For `POSTERN_PROXY_CLUSTER_ACCESS_KEY`; the same as `id`.
    access_key: String,
    /// For `POSTERN_PROXY_CLUSTER_SECRET_KEY`.
    secret_key: String,
}

impl NewKey {
    fn of(key: KeyView, secret: &Token) -> Self {
        Self { access_key: key.id.to_string(), key, secret_key: secret.expose().to_owned() }
    }
}

impl Subject for KeyView {
    fn value(&self, field: &str) -> Value<'_> {
        if field == "id" { self.id.to_string().into() } else { Value::None }
    }
}

#[utoipa::path(get, path = "/api/v1/clusters", operation_id = "list_clusters", tag = "clusters", params(ListParams),
    responses((status = 200, body = Page<ClusterView>)))]
/// List proxy clusters, by name
async fn list(State(state): State<AppState>, _: Admin, list: List) -> Answer<Json<Page<ClusterView>>> {
    let catalogue = state.store.catalogue();
    let clusters = catalogue.clusters.values().map(|cluster| ClusterView::of(&state, &catalogue, cluster));
    Ok(Json(list.page(clusters, FIELDS, |view| name_key(&view.cluster.name))?))
}

#[utoipa::path(get, path = "/api/v1/clusters/{id}", operation_id = "show_cluster", tag = "clusters",
    params(("id" = String, Path,)), responses((status = 200, body = ClusterView)))]
/// Show a proxy cluster
async fn show(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<ClusterView>> {
    let catalogue = state.store.catalogue();
    find::<Cluster>(&catalogue, &id).map(|cluster| Json(ClusterView::of(&state, &catalogue, &cluster)))
}

#[utoipa::path(post, path = "/api/v1/clusters", operation_id = "create_cluster", tag = "clusters",
    request_body = ClusterInput, responses((status = 201, body = ClusterView)))]
/// Create a proxy cluster
async fn create(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Input(body): Input<ClusterInput>,
) -> Answer<(StatusCode, Json<ClusterView>)> {
    let mut change = state.store.change(caller.actor).await?;
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, KNOWN);
    let name = broken.required("name", body.name);
    let name = name.filter(|name| read_name::<Cluster>(&mut broken, change.catalogue(), name, None));
    let advertise = broken.required("advertise", body.advertise);
    let advertise = advertise.and_then(|address| read_address(&mut broken, change.catalogue(), &address));
    let carrier = broken.optional("carrier", body.carrier).and_then(|carrier| read_carrier(&mut broken, &carrier));
    let authority = broken.optional("authority", body.authority);
    let authority = authority.and_then(|authority| read_authority(&mut broken, authority));
    let tags = broken.optional("tags", body.tags).unwrap_or_default();
    broken.tags(&tags);
    broken.none()?;
    let cluster = Cluster {
        id: ClusterId::from_ulid(change.ulid()),
        name: name.unwrap_or_default(),
        advertise: advertise.unwrap_or_default(),
        carrier: carrier.unwrap_or_default(),
        authority,
        removed: Vec::new(),
        tags,
        created_at: change.now(),
        revision: change.revision(),
    };
    let cluster = cluster::put(&mut change, cluster).await?;
    let catalogue = change.commit().await?;
    Ok((StatusCode::CREATED, Json(ClusterView::of(&state, &catalogue, &cluster))))
}

#[utoipa::path(patch, path = "/api/v1/clusters/{id}", operation_id = "update_cluster", tag = "clusters",
    params(("id" = String, Path,)), request_body = ClusterInput, responses((status = 200, body = ClusterView)))]
/// Change a proxy cluster
async fn update(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(body): Input<ClusterInput>,
) -> Answer<Json<ClusterView>> {
    let mut change = state.store.change(caller.actor).await?;
    let mut cluster = Cluster::clone(&*find::<Cluster>(change.catalogue(), &id)?);
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, KNOWN);
    if let Some(name) = broken.change("name", body.name)
        && read_name::<Cluster>(&mut broken, change.catalogue(), &name, Some(cluster.id))
    {
        cluster.name = name;
    }
    let advertise = broken.change("advertise", body.advertise);
    if let Some(address) = advertise.and_then(|address| read_address(&mut broken, change.catalogue(), &address)) {
        cluster.advertise = address;
    }
    let carrier = broken.change("carrier", body.carrier);
    if let Some(carrier) = carrier.and_then(|carrier| read_carrier(&mut broken, &carrier)) {
        cluster.carrier = carrier;
    }
    if !matches!(body.authority, Given::Absent) {
        let authority = broken.optional("authority", body.authority);
        cluster.authority = authority.and_then(|authority| read_authority(&mut broken, authority));
    }
    if let Some(tags) = broken.change("tags", body.tags) {
        broken.tags(&tags);
        cluster.tags = tags;
    }
    broken.none()?;
    let cluster = cluster::put(&mut change, cluster).await?;
    let catalogue = change.commit().await?;
    Ok(Json(ClusterView::of(&state, &catalogue, &cluster)))
}

#[utoipa::path(delete, path = "/api/v1/clusters/{id}", operation_id = "delete_cluster", tag = "clusters",
    params(("id" = String, Path,)), responses((status = 204)))]
/// Delete a proxy cluster
///
/// Its key pairs are revoked and its workers are cut off at once. No resource may be bound to it.
async fn delete(State(state): State<AppState>, Admin(caller): Admin, Path(id): Path<String>) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let cluster = find::<Cluster>(change.catalogue(), &id)?;
    let bound: Vec<_> = cluster::bound(change.catalogue(), cluster.id).map(|resource| resource.name.clone()).collect();
    if let Some(first) = bound.first() {
        let more = if bound.len() > 1 { format!(" and {} more", bound.len() - 1) } else { String::new() };
        let problem = Problem::new(409, "cluster_in_use", "Resources are bound to the cluster");
        return Err(problem.with_detail(format!("{first}{more}. Bind them to another one or to none.")).into());
    }
    cluster::remove(&mut change, cluster.id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(get, path = "/api/v1/clusters/{id}/keys", operation_id = "list_cluster_keys", tag = "clusters",
    params(("id" = String, Path,), ListParams), responses((status = 200, body = Page<KeyView>)))]
/// List the key pairs of a proxy cluster, oldest first
async fn list_keys(
    State(state): State<AppState>,
    _: Admin,
    Path(id): Path<String>,
    list: List,
) -> Answer<Json<Page<KeyView>>> {
    let cluster = find::<Cluster>(&state.store.catalogue(), &id)?;
    let mut connection = state.store.reader().acquire().await?;
    let keys = cluster::keys(&mut connection, cluster.id).await?;
    Ok(Json(list.page(keys.into_iter(), &["id"], |key| key.id.to_string())?))
}

#[utoipa::path(post, path = "/api/v1/clusters/{id}/keys", operation_id = "create_cluster_key", tag = "clusters",
    params(("id" = String, Path,)), responses((status = 201, body = NewKey)))]
/// Make a key pair with which workers of a proxy cluster enrol
///
/// The secret key is not shown again.
async fn create_key(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Answer<(StatusCode, Json<NewKey>)> {
    let mut change = state.store.change(caller.actor).await?;
    let cluster = find::<Cluster>(change.catalogue(), &id)?;
    let count: i64 = sql::query("SELECT COUNT(*) FROM cluster_key WHERE cluster_id = $1")
        .bind(cluster.id.to_string())
        .scalar(change.connection())
        .await?;
    if count >= cluster::MAX_KEYS {
        let mut broken = Violations::default();
        let rule = format_args!("must not have more than {} key pairs: revoke old ones", cluster::MAX_KEYS);
        broken.add("id", &cluster.id, rule);
        broken.none()?;
    }
    let secret = Token::draw(cluster::SECRET_PREFIX)?;
    let key = cluster::add_key(&mut change, &cluster, &secret).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(NewKey::of(key, &secret))))
}

#[utoipa::path(post, path = "/api/v1/clusters/{id}/keys/{key}/rotate", operation_id = "rotate_cluster_key",
    tag = "clusters", params(("id" = String, Path,), ("key" = String, Path,)),
    responses((status = 200, body = NewKey)))]
/// Make the secret key of a pair anew
///
/// The one before enrols nobody from now on. Workers that have enrolled go on.
async fn rotate_key(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path((id, key)): Path<(String, String)>,
) -> Answer<Json<NewKey>> {
    let mut change = state.store.change(caller.actor).await?;
    let cluster = find::<Cluster>(change.catalogue(), &id)?;
    let secret = Token::draw(cluster::SECRET_PREFIX)?;
    let view = cluster::rotate_key(&mut change, &cluster, &key, &secret).await?;
    let view = view.ok_or_else(|| unknown("key pair", &key))?;
    change.commit().await?;
    Ok(Json(NewKey::of(view, &secret)))
}

#[utoipa::path(delete, path = "/api/v1/clusters/{id}/keys/{key}", operation_id = "revoke_cluster_key",
    tag = "clusters", params(("id" = String, Path,), ("key" = String, Path,)), responses((status = 204)))]
/// Revoke a key pair
///
/// The workers that enrolled with it are cut off at once, and their streams end.
async fn revoke_key(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path((id, key)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let cluster = find::<Cluster>(change.catalogue(), &id)?;
    cluster::revoke_key(&mut change, &cluster, &key).await?.ok_or_else(|| unknown("key pair", &key))?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn read_address(broken: &mut Violations, catalogue: &Catalogue, address: &str) -> Option<String> {
    let address = broken.check("advertise", address, check_address(address))?;
    let host = address.rsplit_once(':').and_then(|(host, _)| host.parse::<DnsName>().ok());
    if let Some(zone) = host.filter(|host| !host.is_localhost()).and_then(|host| catalogue.zone_over(&host)) {
        broken.add("advertise", &address, format_args!("must not lie under {zone}: clients could not reach it"));
        return None;
    }
    Some(address)
}

fn read_carrier(broken: &mut Violations, carrier: &str) -> Option<EntryCarrier> {
    match carrier {
        "direct" => Some(EntryCarrier::Direct),
        "websocket" => Some(EntryCarrier::WebSocket),
        _ => {
            broken.add("carrier", carrier, "must be direct or websocket");
            None
        }
    }
}

/// An empty authority is none.
fn read_authority(broken: &mut Violations, authority: String) -> Option<String> {
    if authority.trim().is_empty() {
        return None;
    }
    if OuterClientTls::with_authority(&authority).is_err() {
        broken.add("authority", "", "must be certificates in PEM");
        return None;
    }
    Some(authority)
}

/// The cluster that a resource is to be bound to.
pub(super) fn read_binding(broken: &mut Violations, catalogue: &Catalogue, id: &str) -> Option<ClusterId> {
    let known = id.parse::<ClusterId>().ok().filter(|id| catalogue.clusters.contains_key(id));
    if known.is_none() {
        broken.add("cluster", id, "must be the id of a cluster");
    }
    known
}

/// What goes over a cluster has no say in which node dials it.
pub(super) fn check_binding(broken: &mut Violations, resource: &Resource) {
    if let (Some(_), Some(egress)) = (resource.cluster, &resource.egress) {
        broken.add("egress", egress, "must not be given with a cluster: any of its workers dials");
    }
}
