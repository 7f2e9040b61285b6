//! When nodes were connected and when they were away: who is noted as what, and what the database says of it.
//!
//! A node counts as away when it was connected to no control plane for [`PATIENCE`]: a restart of it, or of a control plane,
//! takes less and is not noted.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use postern_proto::{id::NodeId, time::UnixMillis};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    sql,
    store::{
        Append, Store, StoreError,
        read::{self, signed},
    },
};

/// How long a node may be missing before that is noted.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Attendance {
    Up,
    Away,
}

/// A node came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct NodeTurn {
    #[serde(skip)]
    pub node: NodeId,
    /// Since when, in milliseconds since 1970, by the control plane's clock.
    #[schema(value_type = u64)]
    pub at: UnixMillis,
    pub state: Attendance,
}

/// Who was noted as what by this program. Pure: the nodes and the time are arguments.
#[derive(Debug, Default)]
pub struct Roll {
    noted: BTreeMap<NodeId, Attendance>,
    missing: BTreeMap<NodeId, Instant>,
}

impl Roll {
    /// Looks who is here; what is to be noted. It may be in the database already.
    pub fn call(
        &mut self,
        enrolled: &BTreeSet<NodeId>,
        here: &BTreeSet<NodeId>,
        now: Instant,
    ) -> Vec<(NodeId, Attendance)> {
        self.noted.retain(|node, _| enrolled.contains(node));
        self.missing.retain(|node, _| enrolled.contains(node) && !here.contains(node));
        let mut turns = Vec::new();
        for node in enrolled {
            let state = if here.contains(node) {
                Attendance::Up
            } else if now.saturating_duration_since(*self.missing.entry(*node).or_insert(now)) >= PATIENCE {
                Attendance::Away
            } else {
                continue;
            };
            if self.noted.insert(*node, state) != Some(state) {
                turns.push((*node, state));
            }
        }
        turns
    }
}

impl Attendance {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Away => "away",
        }
    }
}

impl NodeTurn {
    /// Writes it, unless the newest that is known says the same.
    pub(super) async fn insert(&self, append: &mut Append) -> Result<(), StoreError> {
        let statement = "INSERT INTO node_turn (node_id, at, state)
            SELECT $1, CAST($2 AS BIGINT), $3
            WHERE NOT EXISTS (
                SELECT 1 FROM node_turn newest
                WHERE newest.node_id = $1 AND newest.state = $3
                    AND newest.at = (SELECT MAX(at) FROM node_turn WHERE node_id = $1))
            ON CONFLICT (node_id, at) DO UPDATE SET state = $3";
        sql::query(statement)
            .bind(self.node.to_string())
            .bind(signed(self.at.0))
            .bind(self.state.as_str())
            .execute(append.connection())
            .await?;
        Ok(())
    }

    fn of(row: &sql::Row) -> Result<Self, StoreError> {
        let state: &str = row.try_get("state")?;
        let state = if state == "up" { Attendance::Up } else { Attendance::Away };
        Ok(Self { node: read::value(row, "node_id")?, at: read::instant(row, "at")?, state })
    }
}

/// How a node came and went, newest first, at most so much.
pub async fn of_node(store: &Store, node: NodeId, most: usize) -> Result<Vec<NodeTurn>, StoreError> {
    let statement = "SELECT node_id, at, state FROM node_turn WHERE node_id = $1 ORDER BY at DESC LIMIT $2";
    turns(store, sql::query(statement).bind(node.to_string()).bind(signed(most as u64))).await
}

/// How nodes came and went that have said how a resource is, newest first, at most so much.
pub async fn at_resource(
    store: &Store,
    resource: postern_proto::id::ResourceId,
    most: usize,
) -> Result<Vec<NodeTurn>, StoreError> {
    let statement = "SELECT node_id, at, state FROM node_turn
        WHERE node_id IN (SELECT node_id FROM health_turn WHERE resource_id = $1)
        ORDER BY at DESC, node_id LIMIT $2";
    turns(store, sql::query(statement).bind(resource.to_string()).bind(signed(most as u64))).await
}

/// The nodes that are away, and were last seen before that.
pub async fn away_since(store: &Store, before: UnixMillis) -> Result<Vec<NodeTurn>, StoreError> {
    let statement = "SELECT node_id, at, state FROM node_turn newest WHERE state = 'away' AND at <= $1
        AND node_id IN (SELECT id FROM node) AND at = (SELECT MAX(at) FROM node_turn WHERE node_id = newest.node_id) ORDER BY at, node_id";
    turns(store, sql::query(statement).bind(signed(before.0))).await
}

async fn turns(store: &Store, query: sql::Query) -> Result<Vec<NodeTurn>, StoreError> {
    let mut connection = store.reader().begin_read().await?;
    let rows = query.fetch_all(&mut connection).await?;
    rows.iter().map(NodeTurn::of).collect()
}
