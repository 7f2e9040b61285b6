//! Failures that all control planes of a database count together.
//!
//! A try counts as a failure before the password is checked, so that a thousand tries at all replicas at once are no
//! more than five; a right password takes it back.

use std::time::Duration;

use super::{FAILURES, LOCK, NameKey};
use crate::{
    sql,
    store::{
        Store, StoreError,
        read::{count, signed},
    },
};

/// The table of names with failures, in the database.
pub struct SharedLockout {
    store: Store,
}

impl SharedLockout {
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// Counts a try; the time that is left when the name is locked.
    pub async fn begin(&self, name: NameKey) -> Result<Option<Duration>, StoreError> {
        let now = self.store.clock().now();
        let lock = u64::try_from(LOCK.as_millis()).unwrap_or(u64::MAX);
        let statement = "INSERT INTO lockout (name, failures, last_at) VALUES ($1, 1, $2)
            ON CONFLICT (name) DO UPDATE SET
                failures = CASE WHEN lockout.last_at <= $3 THEN 1 ELSE lockout.failures + 1 END,
                last_at = CASE WHEN lockout.last_at <= $3 OR lockout.failures < $4 THEN $2 ELSE lockout.last_at END
            RETURNING failures, last_at";
        let row = sql::query(statement)
            .bind(name.to_text())
            .bind(signed(now.0))
            .bind(signed(now.0.saturating_sub(lock)))
            .bind(i64::from(FAILURES))
            .fetch_one(self.store.reader())
            .await?;
        if count(&row, "failures")? <= u64::from(FAILURES) {
            return Ok(None);
        }
        let since = Duration::from_millis(now.0.saturating_sub(count(&row, "last_at")?));
        Ok(Some(LOCK.saturating_sub(since)))
    }

    /// The password was right: what came before it is forgotten, but never a lock that tries beside it have brought
    /// about.
    pub async fn succeed(&self, name: NameKey) -> Result<(), StoreError> {
        let statement = "DELETE FROM lockout WHERE name = $1 AND failures <= $2";
        sql::query(statement).bind(name.to_text()).bind(i64::from(FAILURES)).execute(self.store.reader()).await?;
        Ok(())
    }

    /// Forgets all failures of a name.
    pub async fn clear(&self, name: NameKey) -> Result<(), StoreError> {
        sql::query("DELETE FROM lockout WHERE name = $1").bind(name.to_text()).execute(self.store.reader()).await?;
        Ok(())
    }
}
