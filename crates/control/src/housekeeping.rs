//! Removes what nobody can need any more: ended logins, used and expired enrolment tokens, old revocations, old entries of
//! the change log, and workers that are away for long. Session records and activities stay for ever.

#[cfg(test)]
mod tests;

use std::time::Duration;

use postern_proto::time::UnixMillis;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::remove_absent,
    duty::Duty,
    sql,
    store::{Store, StoreError, read::signed},
    sync::Exchange,
};

/// How often it is done.
const EVERY: Duration = Duration::from_secs(3600);
/// How long ended logins and spent tokens are kept, for whoever asks what happened.
pub const KEEP_ENDED: Duration = Duration::from_secs(30 * 86_400);
/// How long revocations and changes are kept: far longer than any lease can be in use.
pub const KEEP_CHANGES: Duration = Duration::from_secs(7 * 86_400);
/// Rows of one transaction, so that no other writer waits long.
const BATCH: i64 = 1000;

/// How each node found a resource last stays, as long as there are both.
const OLD_HEALTH: &str = "DELETE FROM health_turn WHERE (resource_id, node_id, at) IN (
    SELECT old.resource_id, old.node_id, old.at FROM health_turn old WHERE old.at < $1 AND (
        old.resource_id NOT IN (SELECT id FROM resource) OR old.node_id NOT IN (SELECT id FROM node)
        OR EXISTS (SELECT 1 FROM health_turn newer WHERE newer.resource_id = old.resource_id
            AND newer.node_id = old.node_id AND newer.at > old.at)) LIMIT $2)";

/// Whether each node was there last stays as long as the node.
const OLD_ATTENDANCE: &str = "DELETE FROM node_turn WHERE (node_id, at) IN (
    SELECT old.node_id, old.at FROM node_turn old WHERE old.at < $1 AND (
        old.node_id NOT IN (SELECT id FROM node)
        OR EXISTS (SELECT 1 FROM node_turn newer WHERE newer.node_id = old.node_id AND newer.at > old.at)) LIMIT $2)";

/// Does it every hour until it is cancelled. `forget_workers`: how long a worker of a cluster may be away; `None`: for ever.
pub async fn run(store: Store, exchange: Exchange, forget_workers: Option<Duration>, cancel: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let duty = Duty::new(store.clone(), "housekeeping", EVERY);
    // Nobody is taken for absent before there was time to come.
    let mut settled = false;
    while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
        match sweep_on_duty(&duty, &store).await {
            Ok(0) => {}
            Ok(rows) => tracing::debug!(rows, "old rows were removed"),
            Err(error) => tracing::warn!(%error, "old rows could not be removed"),
        }
        if std::mem::replace(&mut settled, true)
            && let Some(after) = forget_workers
            && let Err(error) = forget_on_duty(&duty, &store, &exchange, after).await
        {
            tracing::warn!(%error, "workers that are away for long could not be removed");
        }
    }
}

async fn forget_on_duty(duty: &Duty, store: &Store, exchange: &Exchange, after: Duration) -> Result<(), StoreError> {
    if duty.take().await? { remove_absent(store, exchange, after).await.map(drop) } else { Ok(()) }
}

async fn sweep_on_duty(duty: &Duty, store: &Store) -> Result<u64, StoreError> {
    if duty.take().await? { sweep(store).await } else { Ok(0) }
}

/// Removes all that is old now; how many rows.
pub async fn sweep(store: &Store) -> Result<u64, StoreError> {
    let now = store.clock().now();
    let before = |span: Duration| UnixMillis(now.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)));
    let (ended, changed) = (before(KEEP_ENDED), before(KEEP_CHANGES));
    let mut rows = 0;
    for (statement, before) in [
        ("DELETE FROM login WHERE id IN (SELECT id FROM login WHERE expires_at < $1 LIMIT $2)", ended),
        ("DELETE FROM enrol_token WHERE hash IN (SELECT hash FROM enrol_token WHERE expires_at < $1 LIMIT $2)", ended),
        ("DELETE FROM lockout WHERE name IN (SELECT name FROM lockout WHERE last_at < $1 LIMIT $2)", changed),
        ("DELETE FROM board_entry WHERE n IN (SELECT n FROM board_entry WHERE at < $1 LIMIT $2)", changed),
        ("DELETE FROM revocation WHERE (rev, n) IN (SELECT rev, n FROM revocation WHERE at < $1 LIMIT $2)", changed),
        (OLD_HEALTH, changed),
        (OLD_ATTENDANCE, changed),
        ("DELETE FROM entity_log WHERE (rev, n) IN (SELECT rev, n FROM entity_log WHERE at < $1 LIMIT $2)", changed),
        ("DELETE FROM change_log WHERE (rev, n) IN (SELECT rev, n FROM change_log WHERE at < $1 LIMIT $2)", changed),
    ] {
        rows += delete(store, statement, before).await?;
    }
    Ok(rows)
}

async fn delete(store: &Store, statement: &'static str, before: UnixMillis) -> Result<u64, StoreError> {
    let mut rows = 0;
    loop {
        let mut append = store.append().await?;
        let done = sql::query(statement).bind(signed(before.0)).bind(BATCH).execute(append.connection()).await?;
        append.commit().await?;
        rows += done;
        if done < BATCH.unsigned_abs() {
            return Ok(rows);
        }
    }
}
