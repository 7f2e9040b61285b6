//! The database: one SQLite file in the data folder, one writer, many readers, and the catalogue in memory.
//!
//! Configuration changes through [`Change`] alone: it holds the one write transaction, bumps the organisation's dense
//! revision, and appends change log, revocations and activities before it commits. What merely happened (session
//! records, health, last use) is appended with [`Store::append`], which moves no revision.

use std::{path::Path, sync::Arc};

use postern_proto::{
    lease::Revocation,
    sync::{ItemKey, Scope},
};
use tokio::sync::{Mutex, OwnedMutexGuard, RwLock, RwLockReadGuard, broadcast, watch};

use crate::{
    catalogue::{Catalogue, Org},
    clock::Clock,
    sql::{self, Connection, Database},
};

pub use self::{
    activity::{Activity, Actor, Subject, Who},
    change::Change,
    entity::Entity,
};

pub mod activity;
mod change;
mod entity;
mod load;
mod log;
pub mod read;

/// The database within the data folder.
pub const FILE: &str = "postern.db";
/// Changes that a slow follower may be behind before it has to take a snapshot.
const BACKLOG: usize = 1024;

/// A handle on the database; clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    database: Database,
    /// Held from the begin of a change until its catalogue is published, so that catalogues follow each other.
    turn: Arc<Mutex<()>>,
    catalogue: watch::Sender<Arc<Catalogue>>,
    changes: broadcast::Sender<Arc<Changes>>,
    /// Held for writing from the instant of a change's revocations until the change is published.
    settled: RwLock<()>,
    clock: Clock,
}

/// What one revision changed, for those who follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    pub revision: u64,
    /// In no order that matters; an item appears once for each scope.
    pub entries: Vec<ChangeEntry>,
    pub revocations: Vec<Revocation>,
}

/// An item of a scope was put (new or other) or deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeEntry {
    pub scope: Scope,
    pub op: Op,
    pub key: ItemKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    Put,
    Delete,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another entity has this already; the index that says so.
    #[error("{0} is taken")]
    Taken(String),
    #[error("the database is busy; try again")]
    Busy,
    #[error("the database: {0}")]
    Database(#[source] sqlx::Error),
    /// Something in the database is not what this program wrote.
    #[error("the database holds a value that cannot be read: {0}")]
    Unreadable(String),
    #[error("the database is being closed")]
    Closed,
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(cause) if cause.is_unique_violation() => Self::Taken(cause.message().to_owned()),
            sqlx::Error::PoolTimedOut => Self::Busy,
            // SQLITE_BUSY and its extended forms: another process holds the write lock.
            sqlx::Error::Database(cause) if cause.message().contains("database is locked") => Self::Busy,
            _ => Self::Database(error),
        }
    }
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0} holds no organisation; `postern-control serve` makes one")]
    NoOrganisation(String),
    #[error("cannot open {path}")]
    File { path: String, source: std::io::Error },
    #[error("the database cannot be brought to this version: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What to do with a data folder that holds no organisation.
pub enum Absent<'a> {
    /// Make one with this name.
    Create {
        org: &'a str,
    },
    Refuse,
}

impl Store {
    /// Opens the database of a data folder, brings it to this program's version and reads the catalogue.
    pub async fn open(data: &Path, absent: Absent<'_>, clock: Clock) -> Result<Self, OpenError> {
        let path = data.join(FILE);
        if matches!(absent, Absent::Refuse) && !path.exists() {
            return Err(OpenError::NoOrganisation(data.display().to_string()));
        }
        let database = Database::open_file(&path).await.map_err(|error| match error {
            sql::OpenError::File(source) => OpenError::File { path: path.display().to_string(), source },
            sql::OpenError::Database(error) => StoreError::from(error).into(),
        })?;
        database.migrate().await?;
        let mut tx = database.begin_write().await.map_err(StoreError::from)?;
        if load::org(&mut tx).await?.is_none() {
            match absent {
                Absent::Create { org } => load::create_org(&mut tx, org, &clock).await?,
                Absent::Refuse => return Err(OpenError::NoOrganisation(data.display().to_string())),
            }
        }
        let catalogue = load::catalogue(&mut tx).await?;
        tx.commit().await.map_err(StoreError::from)?;
        let shared = Shared {
            database,
            turn: Arc::default(),
            catalogue: watch::Sender::new(Arc::new(catalogue)),
            changes: broadcast::Sender::new(BACKLOG),
            settled: RwLock::default(),
            clock,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The newest catalogue.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.shared.catalogue.borrow())
    }

    /// Wakes at each new catalogue; a slow follower misses those between.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.shared.catalogue.subscribe()
    }

    /// Each change in order. A follower that is told that it lagged takes a snapshot from [`Store::catalogue`] and goes
    /// on with the changes after that revision.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<Changes>> {
        self.shared.changes.subscribe()
    }

    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    #[must_use]
    pub fn org(&self) -> Arc<Org> {
        Arc::clone(&self.catalogue().org)
    }

    /// Where reading queries go.
    #[must_use]
    pub fn reader(&self) -> &Database {
        &self.shared.database
    }

    /// Keeps changes from being published while the guard lives. Whoever hands out something that a revocation voids by
    /// its instant judges and dates it under this guard; else a change that is being committed could miss it.
    pub async fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.shared.settled.read().await
    }

    /// Begins a change of the configuration. It has the database's only write lock; dropped without
    /// [`Change::commit`], it never was.
    pub async fn change(&self, actor: Actor) -> Result<Change, StoreError> {
        let (tx, turn) = self.write().await?;
        Change::begin(self.clone(), tx, turn, actor).await
    }

    /// Begins a write that is no change of the configuration: it moves no revision and is not announced.
    ///
    /// Keep it short and `commit` it; dropped, it is rolled back.
    pub async fn append(&self) -> Result<Append, StoreError> {
        let (tx, turn) = self.write().await?;
        Ok(Append { tx, _turn: turn })
    }

    /// Begins another epoch: what devices and nodes hold of this organisation is void.
    pub async fn begin_epoch(&self) -> Result<(), StoreError> {
        let (mut tx, _turn) = self.write().await?;
        sql::query("UPDATE org SET epoch = $1").bind(self.clock().ulid().to_string()).execute(&mut tx).await?;
        let catalogue = load::catalogue(&mut tx).await?;
        tx.commit().await?;
        self.shared.catalogue.send_replace(Arc::new(catalogue));
        Ok(())
    }

    /// Takes over what another process wrote to the database (the offline commands do), and announces it.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let revision: i64 = sql::query("SELECT rev FROM org").scalar(self.reader()).await?;
        if read::unsigned(revision)? <= self.catalogue().revision {
            return Ok(());
        }
        let (mut tx, _turn) = self.write().await?;
        self.reload(&mut tx).await?;
        Ok(())
    }

    /// Finishes what is under way and closes the files.
    pub async fn close(&self) {
        let turn = tokio::time::timeout(sql::PATIENCE, self.shared.turn.lock()).await;
        self.shared.database.close().await;
        drop(turn);
    }

    async fn write(&self) -> Result<(Connection, OwnedMutexGuard<()>), StoreError> {
        let turn = Arc::clone(&self.shared.turn).lock_owned();
        let turn = tokio::time::timeout(sql::PATIENCE, turn).await.map_err(|_| StoreError::Busy)?;
        let tx = self.shared.database.begin_write().await?;
        Ok((tx, turn))
    }

    /// Reads the catalogue again and announces every change since the one in memory.
    async fn reload(&self, tx: &mut Connection) -> Result<Arc<Catalogue>, StoreError> {
        let known = self.catalogue().revision;
        let catalogue = Arc::new(load::catalogue(tx).await?);
        let missed = log::changes_since(tx, known).await?;
        self.shared.catalogue.send_replace(Arc::clone(&catalogue));
        for changes in missed {
            let _nobody_follows = self.shared.changes.send(Arc::new(changes));
        }
        Ok(catalogue)
    }

    fn publish(&self, catalogue: Catalogue, changes: Changes) -> Arc<Catalogue> {
        let catalogue = Arc::new(catalogue);
        self.shared.catalogue.send_replace(Arc::clone(&catalogue));
        let _nobody_follows = self.shared.changes.send(Arc::new(changes));
        catalogue
    }
}

/// A write that is no change of the configuration.
pub struct Append {
    // Dropped before the turn: the next writer finds the connection free.
    tx: Connection,
    _turn: OwnedMutexGuard<()>,
}

impl Append {
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.tx
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }
}

#[cfg(test)]
mod tests;
