//! The database: one SQLite file in the data folder, one writer, many readers, and the catalogue in memory.
//!
//! Configuration changes through [`Change`] alone: it holds the one write transaction, bumps the organisation's dense
//! revision, and appends change log, revocations and activities before it commits. What merely happened (session
//! records, health, last use) is appended with [`Store::append`], which moves no revision.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use postern_proto::{
    lease::Revocation,
    sync::{ItemKey, Scope},
    time::UnixMillis,
};
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, RwLock, RwLockReadGuard, broadcast, watch};

use crate::{
    catalogue::{Catalogue, Org},
    clock::Clock,
    metrics::DatabaseMeter,
    sql::{self, Connection, Database, DatabaseUrl},
};

pub use self::{
    activity::{Activity, Actor, Subject, Who},
    change::Change,
    entity::Entity,
};

pub mod activity;
mod advance;
mod change;
mod entity;
mod load;
mod log;
pub mod read;

/// The database within the data folder.
pub const FILE: &str = "postern.db";
/// How long after it was last up to date a catalogue is brought forward by the log; far less than the log is kept.
const LOG_REACHES: Duration = Duration::from_secs(86_400);
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
    /// The last confirmation that the catalogue was the newest; see [`Store::hold`].
    confirmed: Mutex<Option<Confirmed>>,
    /// When the database and the catalogue were last the same.
    seen: std::sync::Mutex<Instant>,
    /// This process, among those that work on the database.
    replica: String,
    /// Wakes who tells other processes of a change.
    told: Notify,
    meter: DatabaseMeter,
    /// Until when this process holds duties.
    duties: std::sync::Mutex<BTreeMap<&'static str, Instant>>,
    clock: Clock,
}

/// That nobody was changing the configuration at an instant, and its revision then.
#[derive(Clone, Copy)]
struct Confirmed {
    asked: Instant,
    revision: u64,
    at: UnixMillis,
}

/// Keeps what is judged true to what is dated; see [`Store::hold`].
pub struct Hold<'s> {
    at: UnixMillis,
    _settled: RwLockReadGuard<'s, ()>,
}

impl Hold<'_> {
    /// The instant to date by.
    #[must_use]
    pub const fn at(&self) -> UnixMillis {
        self.at
    }
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
    #[error("the database cannot be reached; try again")]
    Away(#[source] sqlx::Error),
    /// A newer program has changed the database in a way that this one does not know.
    #[error("the database needs a program of version {needed} of its schema; this one knows {known}: update it")]
    TooOld { needed: i64, known: i64 },
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(cause) if cause.is_unique_violation() => Self::Taken(cause.message().to_owned()),
            sqlx::Error::PoolTimedOut => Self::Busy,
            // PostgreSQL: the lock was not had in time.
            sqlx::Error::Database(cause) if cause.code().as_deref() == Some("55P03") => Self::Busy,
            // PostgreSQL: an administrator or the end of the server ended the connection, or it is not up yet.
            sqlx::Error::Database(cause)
                if matches!(cause.code().as_deref(), Some("57P01" | "57P02" | "57P03" | "25P03")) =>
            {
                Self::Away(error)
            }
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) => Self::Away(error),
            sqlx::Error::PoolClosed => Self::Closed,
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
    #[error("cannot connect to {place}")]
    Unreachable { place: String, source: sqlx::Error },
    #[error("cannot open {path}")]
    File { path: String, source: std::io::Error },
    #[error(
        "{0}: a pooler stands before the database: put pooler=session or pooler=transaction into the URL, whichever it is set to"
    )]
    PoolerUnsaid(String),
    #[error("the database cannot be brought to this version: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where an organisation's database is.
#[derive(Clone, Debug)]
pub enum Place {
    /// A SQLite file in this folder.
    Folder(PathBuf),
    Postgres(DatabaseUrl),
}

impl Place {
    /// Opens the database and brings its schema to this program's version.
    pub(crate) async fn open_migrated(&self) -> Result<Database, OpenError> {
        let database = self.open(&Absent::Create { org: "" }).await?;
        database.migrate().await?;
        Ok(database)
    }

    async fn open(&self, absent: &Absent<'_>) -> Result<Database, OpenError> {
        match self {
            Self::Folder(data) => {
                let path = data.join(FILE);
                if matches!(absent, Absent::Refuse) && !path.exists() {
                    return Err(OpenError::NoOrganisation(self.to_string()));
                }
                let failed = |error| match error {
                    sql::OpenError::File(source) => OpenError::File { path: path.display().to_string(), source },
                    sql::OpenError::Database(error) => StoreError::from(error).into(),
                    sql::OpenError::PoolerUnsaid => OpenError::PoolerUnsaid(self.to_string()),
                };
                Database::open_file(&path).await.map_err(failed)
            }
            Self::Postgres(url) => Database::connect(url).await.map_err(|error| match error {
                sql::OpenError::File(source) => OpenError::File { path: url.to_string(), source },
                sql::OpenError::Database(source) => OpenError::Unreachable { place: url.to_string(), source },
                sql::OpenError::PoolerUnsaid => OpenError::PoolerUnsaid(url.to_string()),
            }),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(data) => data.display().fmt(f),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

async fn check_program(connection: &mut Connection, known: i64) -> Result<(), StoreError> {
    let statement = "SELECT COALESCE(MAX(oldest_program), 0) FROM org";
    let needed: i64 = sql::query(statement).scalar(connection).await?;
    if needed > known { Err(StoreError::TooOld { needed, known }) } else { Ok(()) }
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
        Self::open_at(&Place::Folder(data.to_owned()), absent, clock).await
    }

    /// The same, wherever the database is.
    pub async fn open_at(place: &Place, absent: Absent<'_>, clock: Clock) -> Result<Self, OpenError> {
        let database = place.open(&absent).await?;
        database.migrate().await?;
        let mut tx = database.begin_first().await.map_err(StoreError::from)?;
        check_program(&mut tx, database.program()).await?;
        if load::org(&mut tx).await?.is_none() {
            match absent {
                Absent::Create { org } => load::create_org(&mut tx, org, &clock).await?,
                Absent::Refuse => return Err(OpenError::NoOrganisation(place.to_string())),
            }
        }
        tx.commit().await.map_err(StoreError::from)?;
        // Everything is read as it was at one moment, without a lock: it takes seconds where there is much, and those that
        // work meanwhile would give out no lease. What they change is caught up with, as any change of theirs.
        let mut reading = database.begin_read().await.map_err(StoreError::from)?;
        let catalogue = load::catalogue(&mut reading).await?;
        drop(reading);
        let shared = Shared {
            database,
            turn: Arc::default(),
            catalogue: watch::Sender::new(Arc::new(catalogue)),
            changes: broadcast::Sender::new(BACKLOG),
            settled: RwLock::default(),
            confirmed: Mutex::default(),
            seen: std::sync::Mutex::new(Instant::now()),
            replica: clock.ulid().to_string(),
            told: Notify::new(),
            meter: DatabaseMeter::default(),
            duties: std::sync::Mutex::default(),
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

    /// What this process is called among those that work on the database; another one after each start.
    #[must_use]
    pub fn replica(&self) -> &str {
        &self.shared.replica
    }

    /// Completes when something was changed here since the last call.
    pub(crate) async fn changed_here(&self) {
        self.shared.told.notified().await;
    }

    /// Where reading queries go.
    #[must_use]
    pub fn reader(&self) -> &Database {
        &self.shared.database
    }

    /// How the database does.
    #[must_use]
    pub fn meter(&self) -> &DatabaseMeter {
        &self.shared.meter
    }

    /// How long ago the catalogue was last seen to be the database's.
    #[must_use]
    pub fn unseen_for(&self) -> Duration {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Notes for how long from now on this process holds a duty.
    pub(crate) fn note_duty(&self, name: &'static str, held_for: Duration) {
        self.shared.duties.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Instant::now() + held_for);
    }

    /// Whether this process holds a duty now.
    #[must_use]
    pub fn holds_duty(&self, name: &str) -> bool {
        let duties = self.shared.duties.lock().unwrap_or_else(PoisonError::into_inner);
        duties.get(name).is_some_and(|until| *until > Instant::now())
    }

    /// Keeps changes from being published while the guard lives. Whoever hands out something that a revocation voids by
    /// its instant judges under this guard and dates by [`Hold::at`]; else a change that is being committed, here or by
    /// another replica, could miss it.
    pub async fn hold(&self) -> Result<Hold<'_>, StoreError> {
        let asked = Instant::now();
        if !self.reader().is_shared() {
            let settled = self.shared.settled.read().await;
            return Ok(Hold { at: self.clock().now(), _settled: settled });
        }
        let confirmed = self.confirm(asked).await?;
        if self.catalogue().revision < confirmed.revision {
            self.catch_up().await?;
        }
        Ok(Hold { at: confirmed.at, _settled: self.shared.settled.read().await })
    }

    /// Asks the database for its revision while nobody changes it. What was asked after `since` is asked for once.
    async fn confirm(&self, since: Instant) -> Result<Confirmed, StoreError> {
        let mut last = self.shared.confirmed.lock().await;
        if let Some(confirmed) = last.filter(|confirmed| confirmed.asked >= since) {
            return Ok(confirmed);
        }
        let (asked, here) = (Instant::now(), self.clock().now());
        let (revision, there) = self.reader().settled().await?.ok_or(StoreError::Closed)?;
        let at = if self.clock().is_of_machine() { here.min(there) } else { here };
        Ok(*last.insert(Confirmed { asked, revision: read::unsigned(revision)?, at }))
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
        Ok(Append { tx, store: self.clone(), _turn: turn })
    }

    /// Begins another epoch: what devices and nodes hold of this organisation is void.
    pub async fn begin_epoch(&self) -> Result<(), StoreError> {
        let (mut tx, _turn) = self.write().await?;
        // Another replica may have begun one a moment ago.
        sql::query("UPDATE org SET epoch = $1 WHERE epoch = $2")
            .bind(self.clock().ulid().to_string())
            .bind(&self.org().epoch)
            .execute(&mut tx)
            .await?;
        let catalogue = load::catalogue(&mut tx).await?;
        tx.commit().await?;
        self.shared.catalogue.send_replace(Arc::new(catalogue));
        Ok(())
    }

    /// Finishes what is under way and closes the files.
    pub async fn close(&self) {
        let turn = tokio::time::timeout(sql::PATIENCE, self.shared.turn.lock()).await;
        self.shared.database.close().await;
        drop(turn);
    }

    async fn write(&self) -> Result<(Connection, OwnedMutexGuard<()>), StoreError> {
        let writing = async {
            let turn = self.turn().await?;
            let tx = self.shared.database.begin_write().await?;
            Ok((tx, turn))
        };
        self.timed("turn", writing).await
    }

    /// Does something with the database, and notes how that went.
    async fn timed<T>(
        &self,
        operation: &'static str,
        doing: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let result = doing.await;
        self.shared.meter.note(operation, begun.elapsed(), &result);
        result
    }

    /// The turn of this process: one writes, or brings the catalogue forward, at a time.
    async fn turn(&self) -> Result<OwnedMutexGuard<()>, StoreError> {
        let turn = Arc::clone(&self.shared.turn).lock_owned();
        tokio::time::timeout(sql::PATIENCE, turn).await.map_err(|_| StoreError::Busy)
    }

    /// The instant of a change that is about to be committed. By the clock of a database that machines share, if that is
    /// ahead: what other replicas dated before it must be void.
    async fn instant(&self, connection: &mut Connection) -> Result<UnixMillis, StoreError> {
        let now = self.clock().now();
        if !self.clock().is_of_machine() {
            return Ok(now);
        }
        Ok(connection.now().await?.map_or(now, |shared| shared.max(now)))
    }

    /// The catalogue was the database's state just now.
    fn seen_now(&self) {
        *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether the log of entities still tells everything since the catalogue in memory: it is kept for days.
    fn log_reaches(&self) -> bool {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < LOG_REACHES
    }

    fn publish(&self, catalogue: Catalogue, changes: Changes) -> Arc<Catalogue> {
        let catalogue = Arc::new(catalogue);
        self.shared.catalogue.send_replace(Arc::clone(&catalogue));
        let _nobody_follows = self.shared.changes.send(Arc::new(changes));
        self.shared.told.notify_one();
        self.seen_now();
        catalogue
    }
}

/// A write that is no change of the configuration.
pub struct Append {
    // Dropped before the turn: the next writer finds the connection free.
    tx: Connection,
    store: Store,
    _turn: OwnedMutexGuard<()>,
}

impl Append {
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.tx
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        let Self { tx, store, _turn } = self;
        store.timed("commit", async { Ok(tx.commit().await?) }).await
    }
}

#[cfg(test)]
mod tests;
