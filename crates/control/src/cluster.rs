//! Proxy clusters and the key pairs with which their workers enrol.

mod absent;

use std::{sync::Arc, time::Duration};

use postern_proto::{
    api::NODE_CERTIFICATE_DAYS,
    id::{AccessKeyId, ClusterId, NodeId},
    lease::CLOCK_SKEW,
    name::{check_name, name_key},
    resource::Tags,
    time::UnixMillis,
};
use serde::Serialize;
use utoipa::ToSchema;

pub use self::absent::remove_absent;
use crate::{
    catalogue::{Catalogue, Cluster, Node, NodeKind, RemovedWorker, Resource},
    secret::{Token, TokenHash},
    sql::{self, Connection, Row},
    store::{Activity, Change, StoreError, Subject, read},
};

/// What secret keys begin with.
pub const SECRET_PREFIX: &str = "postern_cluster_";
/// Key pairs of a cluster at most: two are enough to change them without a gap.
pub const MAX_KEYS: i64 = 100;
/// Removed workers that a cluster remembers at most, the newest: 30 KiB for each client.
const MOST_REMOVED: usize = 1000;
/// The number of the first schema whose programs know clusters.
const KNOWN_SINCE: i64 = 6;

/// A key pair without its secret key.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KeyView {
    /// The access key.
    #[schema(value_type = String, example = "key_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    pub id: AccessKeyId,
    #[schema(value_type = u64)]
    pub created_at: UnixMillis,
    /// When its secret key was last made anew.
    #[schema(value_type = Option<u64>)]
    pub rotated_at: Option<UnixMillis>,
    /// When a worker last enrolled or renewed its certificate with it.
    #[schema(value_type = Option<u64>)]
    pub last_used_at: Option<UnixMillis>,
}

impl KeyView {
    fn of(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: read::value(row, "id")?,
            created_at: read::instant(row, "created_at")?,
            rotated_at: read::optional_instant(row, "rotated_at")?,
            last_used_at: read::optional_instant(row, "last_used_at")?,
        })
    }
}

/// The cluster as activities name it.
#[must_use]
pub fn subject(cluster: &Cluster) -> Subject {
    Subject { kind: "cluster", id: cluster.id.to_string(), name: cluster.name.clone() }
}

/// Adds a cluster or replaces it. From the first one on, programs that do not know clusters may not share the database.
pub async fn put(change: &mut Change, cluster: Cluster) -> Result<Arc<Cluster>, StoreError> {
    let statement = "UPDATE org SET oldest_program = $1 WHERE oldest_program < $1";
    sql::query(statement).bind(KNOWN_SINCE).execute(change.connection()).await?;
    change.put(cluster).await
}

/// The resources that are bound to a cluster.
pub fn bound(catalogue: &Catalogue, cluster: ClusterId) -> impl Iterator<Item = &Arc<Resource>> {
    catalogue.resources.values().filter(move |resource| resource.cluster == Some(cluster))
}

/// Removes a cluster: its keys go with its row, and its workers are cut off. No resource may be bound to it any more.
pub async fn remove(change: &mut Change, cluster: ClusterId) -> Result<(), StoreError> {
    cut_off(change, |node| node.cluster == Some(cluster)).await?;
    change.erase::<Cluster>(cluster).await?;
    Ok(())
}

/// The key pairs of a cluster, oldest first.
pub async fn keys(connection: &mut Connection, cluster: ClusterId) -> Result<Vec<KeyView>, StoreError> {
    let statement =
        "SELECT id, created_at, rotated_at, last_used_at FROM cluster_key WHERE cluster_id = $1 ORDER BY id";
    let rows = sql::query(statement).bind(cluster.to_string()).fetch_all(connection).await?;
    rows.iter().map(KeyView::of).collect()
}

/// Keeps a new key pair.
pub async fn add_key(change: &mut Change, cluster: &Cluster, secret: &Token) -> Result<KeyView, StoreError> {
    let id = AccessKeyId::from_ulid(change.ulid());
    let view = KeyView { id, created_at: change.now(), rotated_at: None, last_used_at: None };
    sql::query("INSERT INTO cluster_key (id, cluster_id, hash, created_at) VALUES ($1, $2, $3, $4)")
        .bind(id.to_string())
        .bind(cluster.id.to_string())
        .bind(secret.hash().to_text())
        .bind(read::signed(view.created_at.0))
        .execute(change.connection())
        .await?;
    change.note(&Activity::new("cluster.key_created", subject(cluster)).after(&view)).await?;
    Ok(view)
}

/// Puts another secret key in the place of that of a pair; `None` when there is no such pair. Workers that have enrolled
/// go on.
pub async fn rotate_key(
    change: &mut Change,
    cluster: &Cluster,
    key: &str,
    secret: &Token,
) -> Result<Option<KeyView>, StoreError> {
    let statement = "UPDATE cluster_key SET hash = $1, rotated_at = $2 WHERE id = $3 AND cluster_id = $4
        RETURNING id, created_at, rotated_at, last_used_at";
    let row = sql::query(statement)
        .bind(secret.hash().to_text())
        .bind(read::signed(change.now().0))
        .bind(key)
        .bind(cluster.id.to_string())
        .fetch_optional(change.connection())
        .await?;
    let Some(view) = row.as_ref().map(KeyView::of).transpose()? else { return Ok(None) };
    change.note(&Activity::new("cluster.key_rotated", subject(cluster)).after(&view)).await?;
    Ok(Some(view))
}

/// Revokes a key pair and cuts off the workers that enrolled with it; `None` when there is no such pair.
pub async fn revoke_key(change: &mut Change, cluster: &Cluster, key: &str) -> Result<Option<KeyView>, StoreError> {
    let statement = "DELETE FROM cluster_key WHERE id = $1 AND cluster_id = $2
        RETURNING id, created_at, rotated_at, last_used_at";
    let row = sql::query(statement).bind(key).bind(cluster.id.to_string()).fetch_optional(change.connection()).await?;
    let Some(view) = row.as_ref().map(KeyView::of).transpose()? else { return Ok(None) };
    cut_off(change, |node| node.access_key == Some(view.id)).await?;
    change.note(&Activity::new("cluster.key_revoked", subject(cluster)).before(&view)).await?;
    Ok(Some(view))
}

/// Removes a node. It is revoked, so that its streams end and its connections too. Clients know a gateway that is gone by
/// its absence; of a worker they are told, because another one may stand where it did.
pub async fn remove_node(change: &mut Change, node: &Node) -> Result<(), StoreError> {
    change.erase::<Node>(node.id).await?;
    let cluster = node.cluster.and_then(|id| change.catalogue().clusters.get(&id));
    let Some(cluster) = cluster.filter(|_| node.enrolled_at.is_some()) else { return Ok(()) };
    let mut cluster = Cluster::clone(cluster);
    let now = change.now();
    cluster.removed.retain(|worker| worker.until > now);
    let lasts = Duration::from_secs(NODE_CERTIFICATE_DAYS * 86_400);
    cluster.removed.push(RemovedWorker { node: node.id, until: now.plus(lasts).plus(CLOCK_SKEW) });
    let excess = cluster.removed.len().saturating_sub(MOST_REMOVED);
    cluster.removed.drain(..excess);
    change.keep(cluster).await?;
    Ok(())
}

async fn cut_off(change: &mut Change, which: impl Fn(&Node) -> bool) -> Result<(), StoreError> {
    let nodes: Vec<Arc<Node>> = change.catalogue().nodes.values().filter(|node| which(node)).cloned().collect();
    for node in nodes {
        remove_node(change, &node).await?;
    }
    Ok(())
}

/// Whose key pair this is; `None` when it is nobody's.
pub async fn of_key(
    connection: &mut Connection,
    key: AccessKeyId,
    secret: &TokenHash,
) -> Result<Option<ClusterId>, StoreError> {
    let row = sql::query("SELECT cluster_id, hash FROM cluster_key WHERE id = $1")
        .bind(key.to_string())
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    // Compared in constant time.
    let fits = TokenHash::from_text(row.try_get("hash")?) == Some(*secret);
    Ok(if fits { Some(read::value(&row, "cluster_id")?) } else { None })
}

/// The same within the write transaction that uses it; that it was used is noted there.
pub async fn use_key(
    change: &mut Change,
    key: AccessKeyId,
    secret: &TokenHash,
) -> Result<Option<ClusterId>, StoreError> {
    let cluster = of_key(change.connection(), key, secret).await?;
    if cluster.is_some() {
        let now = read::signed(change.now().0);
        note_use(change.connection(), key, now).await?;
    }
    Ok(cluster)
}

/// Notes that a worker has renewed its certificate.
pub async fn note_use(connection: &mut Connection, key: AccessKeyId, now: i64) -> Result<(), StoreError> {
    let statement = "UPDATE cluster_key SET last_used_at = $1 WHERE id = $2";
    sql::query(statement).bind(now).bind(key.to_string()).execute(connection).await?;
    Ok(())
}

/// Makes a worker that has enrolled. It is called after its cluster and what it wishes to be called.
pub async fn add_worker(
    change: &mut Change,
    cluster: &Cluster,
    (key, wish): (AccessKeyId, &str),
    spki_sha256: &str,
) -> Result<Arc<Node>, StoreError> {
    let id = NodeId::from_ulid(change.ulid());
    let name = worker_name(change.catalogue(), cluster, wish, id);
    let node = Node {
        id,
        name,
        kind: NodeKind::Worker,
        group: String::new(),
        tags: Tags::new(),
        advertise: None,
        spki_sha256: Some(spki_sha256.to_owned()),
        enrolled_at: Some(change.now()),
        drain_ends_at: None,
        planned_drain: None,
        cluster: Some(cluster.id),
        access_key: Some(key),
        created_at: change.now(),
        revision: change.revision(),
    };
    change.put(node).await
}

/// Unique, whatever the worker wishes.
fn worker_name(catalogue: &Catalogue, cluster: &Cluster, wish: &str, id: NodeId) -> String {
    let taken = |name: &str| {
        let key = name_key(name);
        catalogue.nodes.values().any(|node| name_key(&node.name) == key)
    };
    let end = id.to_string().chars().rev().take(6).collect::<Vec<_>>().into_iter().rev().collect::<String>();
    let wished = format!("{}-{}", cluster.name, wish.trim());
    let numbered = format!("{wished}-{}", end.to_lowercase());
    let usable = |name: &&String| !wish.trim().is_empty() && check_name(name).is_ok() && !taken(name);
    [&wished, &numbered].into_iter().find(usable).cloned().unwrap_or_else(|| id.to_string())
}
