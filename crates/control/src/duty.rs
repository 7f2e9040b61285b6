//! What only one control plane of a database does at a time. Who does it holds a row for a while; when it is gone, another
//! takes the row over once that time has passed.
//!
//! A duty saves work. It is no lock: what is done under it must also be right when two do it at once, for example because
//! one of them slept for a while.

use std::time::Duration;

use crate::{
    sql,
    store::{Store, StoreError, read::signed},
};

/// All duties.
pub const ALL: [&str; 3] = ["expiry", "housekeeping", "maintenance"];

/// One duty as one control plane sees it.
#[derive(Clone)]
pub struct Duty {
    store: Store,
    name: &'static str,
    /// How long it is held without being taken again.
    term: Duration,
}

impl Duty {
    #[must_use]
    pub const fn new(store: Store, name: &'static str, term: Duration) -> Self {
        Self { store, name, term }
    }

    /// Takes the duty, or takes it for longer; false while another has it.
    pub async fn take(&self) -> Result<bool, StoreError> {
        let database = self.store.reader();
        if !database.is_shared() {
            self.store.note_duty(self.name, self.term);
            return Ok(true);
        }
        let mut connection = database.begin_writing().await?;
        // By the clock that all share.
        let now = connection.now().await?.unwrap_or_else(|| self.store.clock().now());
        let statement = "INSERT INTO duty (name, holder, until_at) VALUES ($1, $2, $3)
            ON CONFLICT (name) DO UPDATE SET holder = $2, until_at = $3
                WHERE duty.holder = $2 OR duty.until_at <= $4";
        let taken = sql::query(statement)
            .bind(self.name)
            .bind(self.store.replica())
            .bind(signed(now.plus(self.term).0))
            .bind(signed(now.0))
            .execute(&mut connection)
            .await?;
        connection.commit().await?;
        let taken = taken == 1;
        self.store.note_duty(self.name, if taken { self.term } else { Duration::ZERO });
        Ok(taken)
    }
}
