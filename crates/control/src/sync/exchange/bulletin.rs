//! What nodes say to the control plane that they are connected to, told to the others of the same database.
//!
//! That a node is there, drains or went, and how it finds resources, is written as rows with dense numbers; everybody
//! reads those after the last number it knows. What a node says again is not written again: its presence, told every
//! half minute, says that all of it still holds.

use std::time::Duration;

use postern_proto::{
    id::{NodeId, ResourceId},
    sync::{HealthReport, NodeLoad, ParkedAt},
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Exchange;
use crate::{
    sql,
    store::{
        Store, StoreError,
        read::{self, count, signed},
    },
};

/// How often news are written and read.
const EVERY: Duration = Duration::from_millis(250);
/// How often presence is told anew.
const AGAIN: Duration = Duration::from_secs(30);
/// How long a presence counts that is not told anew.
pub(super) const STALE: Duration = Duration::from_secs(75);
/// Entries written in one transaction.
const MOST: usize = 1000;

/// Something that a node said, or, without a node, that it is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum News {
    Presence {
        connected: bool,
        agent: String,
        draining: bool,
        #[serde(default)]
        drain_ends: Option<UnixMillis>,
        #[serde(default)]
        load: Option<NodeLoad>,
    },
    Health(HealthReport),
    /// Where a relay has parked links.
    Parked {
        at: Vec<ParkedAt>,
    },
    /// Nodes are to check a resource now.
    Check {
        resource: ResourceId,
    },
}

impl News {
    /// What it takes the place of: earlier news of the same node with the same topic.
    pub(super) fn topic(&self) -> String {
        match self {
            Self::Presence { .. } => "presence".to_owned(),
            Self::Health(report) => report.resource.to_string(),
            Self::Parked { .. } => "parked".to_owned(),
            Self::Check { resource } => format!("check {resource}"),
        }
    }
}

/// Tells and hears until it is cancelled; does nothing where the database is not shared.
pub async fn run(exchange: Exchange, store: Store, stop: CancellationToken) {
    if !store.reader().is_shared() {
        return;
    }
    let mut known = 0;
    let mut told = tokio::time::Instant::now();
    let mut failing = false;
    loop {
        let going_on = stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some();
        if told.elapsed() >= AGAIN {
            told = tokio::time::Instant::now();
            exchange.tell_presence_again();
        }
        match turn(&exchange, &store, &mut known).await {
            Ok(()) => failing = false,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "what nodes say cannot be shared");
                }
            }
        }
        if !going_on {
            return;
        }
    }
}

async fn turn(exchange: &Exchange, store: &Store, known: &mut u64) -> Result<(), StoreError> {
    let news = exchange.take_news(MOST);
    if !news.is_empty()
        && let Err(error) = write(store, &news).await
    {
        exchange.give_back(news);
        return Err(error);
    }
    for (node, news) in read(store, known).await? {
        exchange.hear(node, news);
    }
    Ok(())
}

async fn write(store: &Store, news: &[(Option<NodeId>, News)]) -> Result<(), StoreError> {
    let mut connection = store.reader().begin_writing().await?;
    let at = connection.now().await?.unwrap_or_else(|| store.clock().now());
    let statement = "UPDATE board SET n = n + $1 WHERE id = 1 RETURNING n";
    let last: i64 = sql::query(statement).bind(signed(news.len() as u64)).scalar(&mut connection).await?;
    let first = last.saturating_sub(signed(news.len() as u64)).saturating_add(1);
    for (number, (node, news)) in (first..).zip(news) {
        // A node that went from here may be at another by now.
        let gone = matches!(news, News::Presence { connected: false, .. });
        let statement = if gone {
            "UPDATE board_entry SET n = $3, body = $5, at = $6
            WHERE node_id = $1 AND topic = $2 AND replica = $4"
        } else {
            "INSERT INTO board_entry (node_id, topic, n, replica, body, at) VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (node_id, topic) DO UPDATE SET n = $3, replica = $4, body = $5, at = $6"
        };
        sql::query(statement)
            .bind(node.map(|node| node.to_string()).unwrap_or_default())
            .bind(news.topic())
            .bind(number)
            .bind(store.replica())
            .bind(read::json(news)?)
            .bind(signed(at.0))
            .execute(&mut connection)
            .await?;
    }
    Ok(connection.commit().await?)
}

async fn read(store: &Store, known: &mut u64) -> Result<Vec<(Option<NodeId>, News)>, StoreError> {
    let mut connection = store.reader().begin_read().await?;
    let newest: i64 = sql::query("SELECT n FROM board WHERE id = 1").scalar(&mut connection).await?;
    let newest = read::unsigned(newest)?;
    if newest == *known {
        return Ok(Vec::new());
    }
    let first_time = *known == 0;
    let now = connection.now().await?.unwrap_or_else(|| store.clock().now());
    let statement = "SELECT node_id, body, at FROM board_entry WHERE n > $1 AND replica <> $2 ORDER BY n";
    let rows = sql::query(statement).bind(signed(*known)).bind(store.replica()).fetch_all(&mut connection).await?;
    let mut news = Vec::with_capacity(rows.len());
    for row in &rows {
        let age = Duration::from_millis(now.0.saturating_sub(count(row, "at")?));
        let body: &str = row.try_get("body")?;
        // Of a newer program: nothing that this one knows.
        let Ok(what) = serde_json::from_str::<News>(body) else { continue };
        // What was said before this one started counts while the node's presence does, which is told again soon.
        let over = match &what {
            News::Presence { .. } => age >= STALE,
            News::Health(_) | News::Parked { .. } => false,
            News::Check { .. } => first_time,
        };
        if !over {
            news.push((read::optional_value(row, "node_id").ok().flatten(), what));
        }
    }
    *known = newest;
    Ok(news)
}
