//! When resources became healthy and unhealthy, as each node saw it, and when nodes came and went: kept for [`KEEP`], in the
//! database.
//!
//! What nodes say is told to a [`History`], which passes changes on to its writer. The control plane that a node is
//! connected to writes; a change that is in the database already (after a restart everything looks new) is not written twice.

#[cfg(test)]
mod tests;

use std::time::Duration;

use postern_proto::{
    id::{NodeId, ResourceId},
    resource::Health,
    sync::HealthReport,
    time::UnixMillis,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::attendance::NodeTurn;
use crate::{
    sql,
    store::{
        Append, Store, StoreError,
        read::{self, signed},
    },
};

/// For how long changes are kept; the newest of each node and resource stays.
pub const KEEP: Duration = Duration::from_secs(7 * 86_400);
/// Changes that may wait to be written; more are dropped and said in the log, and the next change is as good.
const WAITING: usize = 16_384;
/// Changes of one transaction.
const BATCH: usize = 256;

/// Takes changes; clones share the queue.
#[derive(Clone, Debug)]
pub struct History {
    queue: mpsc::Sender<Entry>,
}

/// Writes what a [`History`] takes.
pub struct HistoryWriter {
    queue: mpsc::Receiver<Entry>,
    store: Store,
}

/// A node finds a resource otherwise than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub resource: ResourceId,
    pub node: NodeId,
    /// By the node's clock.
    pub at: UnixMillis,
    /// Healthy or unhealthy.
    pub health: Health,
}

/// What waits to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Resource(Turn),
    Node(NodeTurn),
}

impl History {
    #[must_use]
    pub fn new(store: Store) -> (Self, HistoryWriter) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { queue: sender }, HistoryWriter { queue: receiver, store })
    }

    /// Has a change written soon. `before`: what the node said last, if anything is known of that.
    pub fn note(&self, node: NodeId, before: Option<&Health>, report: &HealthReport) {
        let same = before.is_some_and(|before| before.as_str() == report.health.as_str());
        if same || report.health == Health::Unknown {
            return;
        }
        let HealthReport { resource, ref health, checked_at: at, .. } = *report;
        self.send(Entry::Resource(Turn { resource, node, at, health: health.clone() }));
    }

    /// Has it written soon that a node came or went, unless that is known.
    pub fn note_node(&self, turn: NodeTurn) {
        self.send(Entry::Node(turn));
    }

    fn send(&self, entry: Entry) {
        if let Err(error) = self.queue.try_send(entry) {
            tracing::warn!(%error, "a change of health was not written");
        }
    }
}

impl HistoryWriter {
    /// Writes until it is cancelled; what is waiting then is still written.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut entries = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                got = self.queue.recv_many(&mut entries, BATCH) => if got == 0 { return },
                () = cancel.cancelled() => return,
            }
            if let Err(error) = write(&self.store, &entries).await {
                tracing::error!(%error, lost = entries.len(), "changes of health could not be written");
            }
            entries.clear();
        }
    }
}

/// The changes that nodes saw at a resource, newest first, at most so many.
pub async fn read(store: &Store, resource: ResourceId, most: usize) -> Result<Vec<Turn>, StoreError> {
    let mut connection = store.reader().begin_read().await?;
    let statement = "SELECT node_id, at, state, error FROM health_turn WHERE resource_id = $1
        ORDER BY at DESC, node_id LIMIT $2";
    let rows =
        sql::query(statement).bind(resource.to_string()).bind(signed(most as u64)).fetch_all(&mut connection).await?;
    let turn = |row: &sql::Row| {
        let state: &str = row.try_get("state")?;
        let error: Option<String> = row.try_get("error")?;
        let health = match (state, error) {
            ("healthy", _) => Health::Healthy,
            (_, error) => Health::unhealthy(error.unwrap_or_default()),
        };
        Ok(Turn { resource, node: read::value(row, "node_id")?, at: read::instant(row, "at")?, health })
    };
    rows.iter().map(turn).collect()
}

async fn write(store: &Store, entries: &[Entry]) -> Result<(), StoreError> {
    let mut append = store.append().await?;
    for entry in entries {
        match entry {
            Entry::Resource(turn) => turn.insert(&mut append).await?,
            Entry::Node(turn) => turn.insert(&mut append).await?,
        }
    }
    append.commit().await
}

impl Turn {
    /// Writes it, unless the newest that is known says the same.
    async fn insert(&self, append: &mut Append) -> Result<(), StoreError> {
        let Self { resource, node, at, health } = self;
        let error = if let Health::Unhealthy { error, .. } = health { Some(error.clone()) } else { None };
        let statement = "INSERT INTO health_turn (resource_id, node_id, at, state, error)
            SELECT $1, $2, CAST($3 AS BIGINT), $4, $5
            WHERE NOT EXISTS (
                SELECT 1 FROM health_turn newest
                WHERE newest.resource_id = $1 AND newest.node_id = $2 AND newest.state = $4
                    AND newest.at = (SELECT MAX(at) FROM health_turn WHERE resource_id = $1 AND node_id = $2))
            ON CONFLICT (resource_id, node_id, at) DO NOTHING";
        sql::query(statement)
            .bind(resource.to_string())
            .bind(node.to_string())
            .bind(signed(at.0))
            .bind(health.as_str())
            .bind(error)
            .execute(append.connection())
            .await?;
        Ok(())
    }
}
