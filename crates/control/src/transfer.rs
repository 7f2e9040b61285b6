//! Everything that a control plane holds, from one place to another: from a database into another one, into a file, and
//! out of it. What is written is all of it or nothing.

mod backup;
mod secrets;
mod tables;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io, path::PathBuf};

use futures_util::TryStreamExt as _;
use postern_proto::id::OrgId;

pub use self::{
    backup::{backup, restore},
    secrets::Secrets,
};
use self::{secrets::Secret, tables::Columns};
use crate::{
    clock::Clock,
    sealed::SealError,
    sql::{self, Connection, Database},
    store::{OpenError, Place, StoreError},
};

/// Rows of each table.
pub type Counts = BTreeMap<String, u64>;

/// Why nothing was copied, saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("{0} holds an organisation already; nothing is written over")]
    NotEmpty(String),
    #[error("{0} holds no organisation")]
    Empty(String),
    #[error("{place} has {found} rows of {table} where {expected} were written")]
    Miscounted { place: String, table: String, expected: u64, found: u64 },
    #[error("{0} exists; choose another name")]
    Exists(String),
    #[error("{} holds the keys of another control plane", .0.display())]
    OtherKeys(PathBuf),
    #[error("{path}")]
    File { path: String, source: io::Error },
    #[error("line {line} of the backup: {why}")]
    Damaged { line: u64, why: String },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// One end of a transfer.
pub struct End {
    pub place: Place,
    pub secrets: Secrets,
}

/// Copies everything. The other place must be empty.
pub async fn copy(from: &End, to: &End, clock: &Clock) -> Result<Counts, TransferError> {
    let mut source = Source::open(from).await?;
    let mut target = Target::open(to).await?;
    for secret in from.secrets.read(&mut source.connection, source.org).await? {
        target.put_secret(&secret, to, source.org).await?;
    }
    for table in tables::TABLES {
        let columns = tables::columns(&mut source.connection, table).await?;
        target.begin(table, &columns).await?;
        let mut rows = tables::select(table, &columns).rows(&mut source.connection);
        while let Some(row) = rows.try_next().await? {
            target.put(tables::values(&row, &columns)?).await?;
        }
    }
    target.finish(clock).await
}

/// A place that is read, all of it in one state.
struct Source {
    database: Database,
    connection: Connection,
    org: OrgId,
}

impl Source {
    async fn open(end: &End) -> Result<Self, TransferError> {
        let database = end.place.open_migrated().await?;
        let mut connection = database.begin_read().await?;
        let org: Option<String> = sql::query("SELECT id FROM org").scalar_optional(&mut connection).await?;
        let org = org.ok_or_else(|| TransferError::Empty(end.place.to_string()))?;
        let org = org.parse().map_err(|_| StoreError::Unreadable(org))?;
        Ok(Self { database, connection, org })
    }
}

/// A place that is written, in one transaction.
struct Target {
    place: String,
    connection: Connection,
    table: String,
    columns: Columns,
    waiting: Vec<Vec<sql::Value>>,
    counts: Counts,
}

impl Target {
    async fn open(end: &End) -> Result<Self, TransferError> {
        let database = end.place.open_migrated().await?;
        let mut connection = database.begin_first().await?;
        let there: i64 = sql::query("SELECT COUNT(*) FROM org").scalar(&mut connection).await?;
        if there > 0 {
            return Err(TransferError::NotEmpty(end.place.to_string()));
        }
        let place = end.place.to_string();
        let (table, columns) = (String::new(), Columns::default());
        Ok(Self { place, connection, table, columns, waiting: Vec::new(), counts: Counts::new() })
    }

    async fn put_secret(&mut self, secret: &Secret, end: &End, org: OrgId) -> Result<(), TransferError> {
        end.secrets.write(&mut self.connection, org, secret).await
    }

    /// The rows that follow are of this table.
    async fn begin(&mut self, table: &str, columns: &Columns) -> Result<(), TransferError> {
        self.flush().await?;
        table.clone_into(&mut self.table);
        self.columns = columns.clone();
        self.counts.insert(table.to_owned(), 0);
        Ok(())
    }

    async fn put(&mut self, row: Vec<sql::Value>) -> Result<(), TransferError> {
        self.waiting.push(row);
        if self.waiting.len() >= tables::ROWS { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), TransferError> {
        let rows = std::mem::take(&mut self.waiting);
        if rows.is_empty() {
            return Ok(());
        }
        let count = rows.len() as u64;
        tables::insert(&self.table, &self.columns, rows).execute(&mut self.connection).await?;
        *self.counts.entry(self.table.clone()).or_default() += count;
        Ok(())
    }

    /// Counts what was written, begins another epoch, and makes all of it stay.
    async fn finish(mut self, clock: &Clock) -> Result<Counts, TransferError> {
        self.flush().await?;
        for (table, expected) in &self.counts {
            let found = tables::count(&mut self.connection, table).await?;
            if found != *expected {
                let (place, table, expected) = (self.place.clone(), table.clone(), *expected);
                return Err(TransferError::Miscounted { place, table, expected, found });
            }
        }
        let epoch = clock.ulid().to_string();
        sql::query("UPDATE org SET epoch = $1").bind(epoch).execute(&mut self.connection).await?;
        self.connection.commit().await?;
        Ok(self.counts)
    }
}
