//! Where the two databases differ: how they are opened, how a writer takes its turn, how a reader gets one state.

use std::{
    fs::OpenOptions,
    io,
    ops::{Deref, DerefMut},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use sqlx::{
    PgPool, Postgres, Sqlite, SqlitePool, Transaction,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

/// How long a writer waits for the writers before it.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Readers at the same time.
const READERS: u32 = 8;

/// A database, and the connections to it; clones share them.
#[derive(Clone)]
pub enum Database {
    Sqlite {
        reader: SqlitePool,
        /// One connection: SQLite takes one writer at a time.
        writer: SqlitePool,
    },
    Postgres(PgPool),
}

/// A connection, in a transaction or not. A transaction that is dropped never was.
pub enum Connection {
    Sqlite(Held<Sqlite>),
    Postgres(Held<Postgres>),
}

/// A connection of one engine.
pub enum Held<D: sqlx::Database> {
    Plain(PoolConnection<D>),
    Transaction(Transaction<'static, D>),
}

/// Why a database file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl Database {
    /// Opens a SQLite file, and makes it where there is none.
    pub async fn open_file(path: &Path) -> Result<Self, OpenError> {
        // SQLite gives its other files the mode of this one.
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE);
        let pool = |size| {
            let options = SqlitePoolOptions::new().max_connections(size).acquire_timeout(PATIENCE);
            // A full disk makes SQLite roll back by itself; the connection goes on counting a transaction that is not
            // there, and would never begin one again. Such a connection is closed, and the next one opens the database.
            options.before_acquire(|connection, _| {
                Box::pin(async move { Ok(!sqlx::Connection::is_in_transaction(connection)) })
            })
        };
        let writer = pool(1).connect_with(options.clone()).await?;
        let reader = pool(READERS).connect_lazy_with(options);
        Ok(Self::Sqlite { reader, writer })
    }

    /// Brings the schema to this program's version.
    pub async fn migrate(&self) -> Result<(), sqlx::migrate::MigrateError> {
        match self {
            Self::Sqlite { writer, .. } => sqlx::migrate!("migrations/sqlite").run(writer).await,
            Self::Postgres(_) => Err(sqlx::migrate::MigrateError::VersionMissing(1)),
        }
    }

    /// A connection that reads.
    pub async fn acquire(&self) -> Result<Connection, sqlx::Error> {
        match self {
            Self::Sqlite { reader, .. } => Ok(Connection::Sqlite(Held::Plain(reader.acquire().await?))),
            Self::Postgres(pool) => Ok(Connection::Postgres(Held::Plain(pool.acquire().await?))),
        }
    }

    /// A connection whose reading statements all see the same state.
    pub async fn begin_read(&self) -> Result<Connection, sqlx::Error> {
        match self {
            Self::Sqlite { reader, .. } => Ok(Connection::Sqlite(Held::Transaction(reader.begin().await?))),
            Self::Postgres(pool) => {
                let statement = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                Ok(Connection::Postgres(Held::Transaction(pool.begin_with(statement).await?)))
            }
        }
    }

    /// The one writing transaction of the organisation. All others wait until it has ended, those of other processes
    /// too.
    pub async fn begin_write(&self) -> Result<Connection, sqlx::Error> {
        match self {
            Self::Sqlite { writer, .. } => {
                Ok(Connection::Sqlite(Held::Transaction(writer.begin_with("BEGIN IMMEDIATE").await?)))
            }
            Self::Postgres(pool) => {
                let mut transaction = pool.begin().await?;
                sqlx::query("SELECT rev FROM org FOR UPDATE").fetch_optional(&mut *transaction).await?;
                Ok(Connection::Postgres(Held::Transaction(transaction)))
            }
        }
    }

    /// Waits for the statements under way, and closes all connections.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { reader, writer } => {
                reader.close().await;
                writer.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Connection {
    /// Makes what was done in the transaction stay; without one there is nothing to do.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(Held::Transaction(transaction)) => transaction.commit().await,
            Self::Postgres(Held::Transaction(transaction)) => transaction.commit().await,
            Self::Sqlite(Held::Plain(_)) | Self::Postgres(Held::Plain(_)) => Ok(()),
        }
    }
}

impl<D: sqlx::Database> Deref for Held<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        match self {
            Self::Plain(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }
}

impl<D: sqlx::Database> DerefMut for Held<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        match self {
            Self::Plain(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }
}
