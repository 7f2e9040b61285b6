//! Rows that have had their time are deleted: what sync and sign-in need is bounded, the audit stays whole.

use std::time::Duration;

use postern_proto::time::UnixMillis;
use tokio_util::sync::CancellationToken;

use crate::store::{Store, StoreError, read::signed};

/// How often it is done.
const EVERY: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// What is deleted, and how long after the instant in its column.
const KEPT: [(&str, Duration); 4] = [
    // Who is further behind takes a snapshot.
    ("DELETE FROM change_log WHERE at < $1", DAY.saturating_mul(7)),
    // No lease lives as long: `sync::exchange::REVOCATIONS_MATTER`.
    ("DELETE FROM revocation WHERE at < $1", DAY),
    ("DELETE FROM login WHERE expires_at < $1", DAY.saturating_mul(30)),
    ("DELETE FROM enrol_token WHERE expires_at < $1", DAY.saturating_mul(30)),
];

/// Deletes what is over, now and then, until `stop`.
pub async fn run(store: Store, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = delete_old(&store).await {
            tracing::warn!(%error, "old rows could not be deleted");
        }
    }
}

/// Deletes what is over. How many rows there were.
pub async fn delete_old(store: &Store) -> Result<u64, StoreError> {
    let now = store.clock().now();
    let mut append = store.append().await?;
    let mut deleted = 0;
    for (statement, kept) in KEPT {
        let before = UnixMillis(now.0.saturating_sub(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX)));
        let result = sqlx::query(statement).bind(signed(before.0)).execute(append.connection()).await?;
        deleted += result.rows_affected();
    }
    append.commit().await?;
    Ok(deleted)
}
