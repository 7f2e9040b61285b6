//! Begins drains whose window is open.
//!
//! What waits is in the database, and so are the windows: a control plane that starts, or takes over from another, goes on
//! where it stands. Who begins a drain holds the duty; were two to do it at once, the second finds nothing that waits.

use std::time::Duration;

use postern_proto::id::NodeId;
use tokio_util::sync::CancellationToken;

use super::due;
use crate::{
    catalogue::Node,
    duty::Duty,
    store::{Actor, Store, StoreError},
    sync::Exchange,
};

/// How often it is looked: windows open on the minute, and nodes say every ten seconds what they carry.
const EVERY: Duration = Duration::from_secs(1);
/// How long after the end of who did it another sees to it.
const TERM: Duration = Duration::from_secs(5);

/// Begins drains in their windows, until `stop`.
pub async fn run(store: Store, exchange: Exchange, stop: CancellationToken) {
    let duty = Duty::new(store.clone(), "maintenance", TERM);
    let mut failing = false;
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        match begin_on_duty(&duty, &store, &exchange).await {
            Ok(()) => failing = false,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(%error, "drains whose maintenance window is open could not be begun");
                }
            }
        }
    }
}

async fn begin_on_duty(duty: &Duty, store: &Store, exchange: &Exchange) -> Result<(), StoreError> {
    let now = store.clock().now();
    // Nobody asks for a duty that has nothing to do.
    if due(&store.catalogue(), now, |node| is_idle(exchange, node)).is_empty() || !duty.take().await? {
        return Ok(());
    }
    begin_due(store, exchange).await.map(drop)
}

/// Begins every drain whose window is open; at which nodes.
pub async fn begin_due(store: &Store, exchange: &Exchange) -> Result<Vec<NodeId>, StoreError> {
    let mut change = store.change(Actor::system()).await?;
    let due = due(change.catalogue(), change.now(), |node| is_idle(exchange, node));
    if due.is_empty() {
        return Ok(Vec::new());
    }
    for (id, deadline) in &due {
        let Some(node) = change.catalogue().nodes.get(id).cloned() else { continue };
        let ends = change.now().plus(*deadline);
        tracing::info!(node = %node.name, %ends, "its maintenance window is open: it is drained");
        change.put(Node { drain_ends_at: Some(ends), planned_drain: None, ..Node::clone(&node) }).await?;
    }
    change.commit().await?;
    Ok(due.into_iter().map(|(id, _)| id).collect())
}

/// A node that is away says nothing, and may carry streams.
#[must_use]
pub fn is_idle(exchange: &Exchange, node: NodeId) -> bool {
    let presence = exchange.presence(node).filter(|presence| presence.connected);
    presence.and_then(|presence| presence.load).is_some_and(|load| load.streams == 0)
}
