//! Where the two databases differ: how they are opened, how a writer takes its turn, how a reader gets one state.

use std::{
    fs::OpenOptions,
    io,
    ops::{Deref, DerefMut},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use postern_proto::time::UnixMillis;
use sqlx::{
    PgPool, Postgres, Sqlite, SqlitePool, Transaction,
    migrate::Migrator,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{DatabaseUrl, Pooler, query};

/// How long a writer waits for the writers before it.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Readers at the same time.
const READERS: u32 = 8;
/// Connections of one replica to PostgreSQL: the readers, the writer of the moment, and those of background tasks.
const CONNECTIONS: u32 = 12;
/// Where replicas are woken by others.
pub(crate) const CHANNEL: &str = "postern_change";

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// A database, and the connections to it; clones share them.
#[derive(Clone)]
pub enum Database {
    Sqlite {
        reader: SqlitePool,
        /// One connection: SQLite takes one writer at a time.
        writer: SqlitePool,
    },
    Postgres {
        pool: PgPool,
        pooler: Pooler,
    },
}

/// A connection, in a transaction or not. A transaction that is dropped never was.
pub enum Connection {
    Sqlite(Held<Sqlite>),
    Postgres {
        held: Held<Postgres>,
        /// Whether PostgreSQL may keep our statements prepared, each under a name.
        prepares: bool,
    },
}

/// A connection of one engine.
pub enum Held<D: sqlx::Database> {
    Plain(PoolConnection<D>),
    Transaction(Transaction<'static, D>),
}

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("a pooler stands before the database, and the URL does not say so")]
    PoolerUnsaid,
}

/// What every session, or every transaction, is to have: a replica whose machine is gone must not keep the turn of the others.
const LIMITS: [(&str, &str); 2] = [("lock_timeout", "15s"), ("idle_in_transaction_session_timeout", "60s")];
/// The same where only a transaction is ours.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '15s'; SET LOCAL idle_in_transaction_session_timeout = '60s'";
const BEGIN_READING: &str =
    "BEGIN READ ONLY; SET LOCAL lock_timeout = '15s'; SET LOCAL idle_in_transaction_session_timeout = '60s'";
const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Whoever migrates holds it. PostgreSQL's locks have numbers, and nobody else needs this one: "postern" in letters.
const MIGRATING: &str = "SELECT pg_advisory_xact_lock(31647739056321134)";

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

    /// Connects to PostgreSQL.
    pub async fn connect(url: &DatabaseUrl) -> Result<Self, OpenError> {
        let pooler = url.pooler();
        let options = url.options().clone().application_name("postern-control");
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(PATIENCE);
        let (options, pool) = match pooler {
            Pooler::Absent => {
                let keepalive =
                    [("tcp_keepalives_idle", "10"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3")];
                (options.options(LIMITS).options(keepalive), pool)
            }
            // Poolers take only such settings at the start as they can keep apart.
            Pooler::Session => {
                let pool = pool.after_connect(|connection, _| {
                    Box::pin(async move {
                        for (name, value) in LIMITS {
                            let statement = format!("SET {name} = '{value}'");
                            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *connection).await?;
                        }
                        Ok(())
                    })
                });
                (options.extra_float_digits(None), pool)
            }
            Pooler::Transaction => (options.extra_float_digits(None).statement_cache_capacity(0), pool),
        };
        try_to_connect(&options, pooler).await?;
        Ok(Self::Postgres { pool: pool.connect_with(options).await?, pooler })
    }

    /// Brings the schema to this program's version. One that is newer already stays as it is: whether this program can
    /// work with it, the row `oldest_program` says.
    pub async fn migrate(&self) -> Result<(), sqlx::migrate::MigrateError> {
        let mut migrator = Migrator::with_migrations(self.migrations().iter().cloned().collect());
        migrator.set_ignore_missing(true);
        match self {
            Self::Sqlite { writer, .. } => migrator.run(writer).await,
            Self::Postgres { pool, pooler: Pooler::Absent | Pooler::Session } => migrator.run(pool).await,
            // The migrator's own lock is one of sessions, and would stay with a connection that others get.
            Self::Postgres { pool, pooler: Pooler::Transaction } => {
                migrator.set_locking(false);
                let mut transaction = pool.begin_with(BEGIN).await?;
                // Names of prepared statements, which the migrator leaves behind, are the connection's and not ours.
                for statement in ["DEALLOCATE ALL", "SET LOCAL lock_timeout = 0", MIGRATING] {
                    sqlx::raw_sql(statement).execute(&mut *transaction).await?;
                }
                migrator.run_direct(None, &mut *transaction, false).await?;
                sqlx::raw_sql("DEALLOCATE ALL").execute(&mut *transaction).await?;
                Ok(transaction.commit().await?)
            }
        }
    }

    /// The number of the newest schema that this program knows.
    #[must_use]
    pub fn program(&self) -> i64 {
        self.migrations().iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    fn migrations(&self) -> &'static Migrator {
        if self.is_shared() { &POSTGRES } else { &SQLITE }
    }

    /// Whether several control planes may work on it.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres { .. })
    }

    /// A connection that reads.
    pub async fn acquire(&self) -> Result<Connection, sqlx::Error> {
        match self {
            Self::Sqlite { reader, .. } => Ok(Connection::Sqlite(Held::Plain(reader.acquire().await?))),
            Self::Postgres { pool, pooler: Pooler::Transaction } => {
                Ok(Connection::of_transaction(pool.begin_with(BEGIN_READING).await?, Pooler::Transaction))
            }
            Self::Postgres { pool, .. } => {
                Ok(Connection::Postgres { held: Held::Plain(pool.acquire().await?), prepares: true })
            }
        }
    }

    /// A connection for one statement, whatever that does; to be committed.
    pub(super) async fn acquire_once(&self) -> Result<Connection, sqlx::Error> {
        match self {
            Self::Postgres { pooler: Pooler::Transaction, .. } => self.begin_writing().await,
            Self::Postgres { .. } | Self::Sqlite { .. } => self.acquire().await,
        }
    }

    /// A connection whose reading statements all see the same state.
    pub async fn begin_read(&self) -> Result<Connection, sqlx::Error> {
        match self {
            Self::Sqlite { reader, .. } => Ok(Connection::Sqlite(Held::Transaction(reader.begin().await?))),
            Self::Postgres { pool, pooler } => {
                Ok(Connection::of_transaction(pool.begin_with(BEGIN_SNAPSHOT).await?, *pooler))
            }
        }
    }

    /// The one writing transaction of the organisation. All others wait until it has ended, those of other processes
    /// too.
    pub async fn begin_write(&self) -> Result<Connection, sqlx::Error> {
        let mut connection = self.begin_writing().await?;
        if self.is_shared() {
            query("SELECT rev FROM org FOR UPDATE").fetch_optional(&mut connection).await?;
        }
        Ok(connection)
    }

    /// The same where there may be no organisation yet, whose row would be locked.
    pub async fn begin_first(&self) -> Result<Connection, sqlx::Error> {
        let mut connection = self.begin_writing().await?;
        if self.is_shared() {
            query("LOCK TABLE org IN EXCLUSIVE MODE").execute(&mut connection).await?;
        }
        Ok(connection)
    }

    /// A transaction that writes rows which have nothing to do with the organisation's revision. In SQLite it is the
    /// one writer all the same.
    pub async fn begin_writing(&self) -> Result<Connection, sqlx::Error> {
        match self {
            Self::Sqlite { writer, .. } => {
                Ok(Connection::Sqlite(Held::Transaction(writer.begin_with("BEGIN IMMEDIATE").await?)))
            }
            Self::Postgres { pool, pooler } => {
                let begin = if *pooler == Pooler::Transaction { BEGIN } else { "BEGIN" };
                Ok(Connection::of_transaction(pool.begin_with(begin).await?, *pooler))
            }
        }
    }

    /// The organisation's revision at an instant at which nobody was changing it, and that instant by the clock of the
    /// database, which all replicas share. A change that is being made is waited for.
    pub async fn settled(&self) -> Result<Option<(i64, UnixMillis)>, sqlx::Error> {
        let Self::Postgres { .. } = self else { return Ok(None) };
        let mut connection = self.begin_writing().await?;
        let now = connection.now().await?.unwrap_or(UnixMillis(0));
        let revision: i64 = query("SELECT rev FROM org FOR SHARE").scalar(&mut connection).await?;
        // Dropped, not committed: the lock leaves nothing that the disk would have to take.
        Ok(Some((revision, now)))
    }

    /// Who is told by [`Self::notify`]; `None` where nobody else works on the database, or no connection stays ours.
    pub async fn listen(&self) -> Result<Option<PgListener>, sqlx::Error> {
        let Self::Postgres { pool, pooler: Pooler::Absent | Pooler::Session } = self else { return Ok(None) };
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(Some(listener))
    }

    /// Wakes the other replicas.
    pub async fn notify(&self) -> Result<(), sqlx::Error> {
        if let Self::Postgres { .. } = self {
            query("SELECT pg_notify($1, '')").bind(CHANNEL).fetch_all(self).await?;
        }
        Ok(())
    }

    /// Waits for the statements under way, and closes all connections.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { reader, writer } => {
                reader.close().await;
                writer.close().await;
            }
            Self::Postgres { pool, .. } => pool.close().await,
        }
    }
}

impl Connection {
    fn of_transaction(transaction: Transaction<'static, Postgres>, pooler: Pooler) -> Self {
        Self::Postgres { held: Held::Transaction(transaction), prepares: pooler != Pooler::Transaction }
    }

    /// Makes what was done in the transaction stay; without one there is nothing to do.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(Held::Transaction(transaction)) => transaction.commit().await,
            Self::Postgres { held: Held::Transaction(transaction), .. } => transaction.commit().await,
            Self::Sqlite(Held::Plain(_)) | Self::Postgres { held: Held::Plain(_), .. } => Ok(()),
        }
    }

    /// The columns of a table, in their order, with their types as the schema names them.
    pub async fn columns(&mut self, table: &str) -> Result<Vec<(String, String)>, sqlx::Error> {
        let statement = match self {
            Self::Sqlite(_) => "SELECT name, type AS kind FROM pragma_table_info($1) ORDER BY cid",
            Self::Postgres { .. } => {
                "SELECT CAST(column_name AS TEXT) AS name, CAST(data_type AS TEXT) AS kind
                FROM information_schema.columns
                WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position"
            }
        };
        let rows = query(statement).bind(table).fetch_all(self).await?;
        rows.iter().map(|row| Ok((row.try_get("name")?, row.try_get("kind")?))).collect()
    }

    /// The time by the clock of a database that several machines share.
    pub async fn now(&mut self) -> Result<Option<UnixMillis>, sqlx::Error> {
        let Self::Postgres { .. } = self else { return Ok(None) };
        let statement = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";
        let now: i64 = query(statement).scalar(self).await?;
        Ok(Some(UnixMillis(now.unsigned_abs())))
    }
}

/// Connects once. The pool would try until its patience ends, and not say why it failed.
async fn try_to_connect(options: &PgConnectOptions, pooler: Pooler) -> Result<(), OpenError> {
    let unsaid = |error: &sqlx::Error| {
        // PgBouncer's words for a setting at the start that it does not keep apart.
        pooler == Pooler::Absent && error.to_string().contains("unsupported startup parameter")
    };
    let mut connection = match sqlx::ConnectOptions::connect(options).await {
        Err(error) if unsaid(&error) => return Err(OpenError::PoolerUnsaid),
        connected => connected?,
    };
    if pooler == Pooler::Absent {
        // One may also have been told to take no notice of such settings.
        let row = sqlx::raw_sql("SELECT current_setting('lock_timeout')").fetch_one(&mut connection).await?;
        let limit: String = sqlx::Row::try_get(&row, 0)?;
        if limit != "15s" {
            return Err(OpenError::PoolerUnsaid);
        }
    }
    Ok(sqlx::Connection::close(connection).await?)
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
