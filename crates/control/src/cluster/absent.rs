//! Removes workers that are away for long: a worker without a folder that lasts comes back as another one.

use std::{sync::Arc, time::Duration};

use postern_proto::{id::NodeId, time::UnixMillis};

use super::remove_node;
use crate::{
    catalogue::{Catalogue, Node},
    health::attendance,
    store::{Actor, Store, StoreError},
    sync::Exchange,
};

/// Removes every worker that enrolled with a key pair and was seen by nobody for `after`; which. One that comes back all the
/// same enrols anew, if it still has the key pair.
///
/// While no worker of a cluster is connected all of its workers stay: then it is the control plane that is cut off, or the
/// cluster is switched off as a whole.
pub async fn remove_absent(store: &Store, exchange: &Exchange, after: Duration) -> Result<Vec<NodeId>, StoreError> {
    let now = store.clock().now();
    let before = UnixMillis(now.0.saturating_sub(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
    let away = attendance::away_since(store, before).await?;
    let absent = |catalogue: &Catalogue| -> Vec<Arc<Node>> {
        let nodes = away.iter().filter_map(|turn| catalogue.nodes.get(&turn.node));
        nodes.filter(|node| is_absent(catalogue, exchange, node)).cloned().collect()
    };
    if absent(&store.catalogue()).is_empty() {
        return Ok(Vec::new());
    }
    let mut change = store.change(Actor::system()).await?;
    change.because("the worker was away for too long");
    let absent = absent(change.catalogue());
    for node in &absent {
        tracing::info!(worker = %node.name, id = %node.id, "it was away for too long and is removed");
        remove_node(&mut change, node).await?;
    }
    change.commit().await?;
    Ok(absent.iter().map(|node| node.id).collect())
}

fn is_absent(catalogue: &Catalogue, exchange: &Exchange, worker: &Node) -> bool {
    let is_here = |node: NodeId| exchange.presence(node).is_some_and(|presence| presence.connected);
    let others = catalogue.nodes.values().filter(|node| node.cluster == worker.cluster);
    worker.access_key.is_some() && !is_here(worker.id) && others.into_iter().any(|node| is_here(node.id))
}
