//! One SQL text for both databases: SQLite in a file, or PostgreSQL.
//!
//! Placeholders are `$1`, `$2` …, which both take. Columns are TEXT, BIGINT and BOOLEAN, so a value is one of three
//! kinds ([`Value`]). What the two do differently (how a writer takes its turn, how a reader gets one state) stands in
//! [`database`] and nowhere else.

mod database;
mod place;
mod statement;

use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use sqlx::{
    Column as _, Decode, Postgres, Row as _, SqlSafeStr, SqlStr, Sqlite, Type,
    postgres::{PgConnection, PgRow},
    sqlite::{SqliteConnection, SqliteRow},
};

pub use self::{
    database::{Connection, Database, OpenError, PATIENCE},
    place::{BadDatabaseUrl, DatabaseUrl, Pooler},
    statement::{Statement, Tuple},
};

/// What a placeholder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(Option<String>),
    Number(Option<i64>),
    Truth(Option<bool>),
}

/// A statement with its values.
#[derive(Debug)]
pub struct Query {
    text: SqlStr,
    /// For SQLite, where it is known: it looks numbered placeholders up one by one, which takes the square of their number.
    unnumbered: Option<SqlStr>,
    values: Vec<Value>,
}

/// Where a statement runs.
pub enum On<'c> {
    /// On any connection that is free, by itself.
    Database(&'c Database),
    Connection(&'c mut Connection),
}

/// A row of an answer.
pub enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column can be read as.
pub trait Readable<'r>: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres> {}

impl<'r, T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>> Readable<'r> for T {}

/// A statement; its text is one of ours, never somebody's input.
#[must_use]
pub fn query(text: impl SqlSafeStr) -> Query {
    Query { text: text.into_sql_str(), unnumbered: None, values: Vec::new() }
}

/// The query of the engine, with its values.
macro_rules! filled {
    ($query:expr, Sqlite) => {
        filled!($query, Sqlite, $query.unnumbered.unwrap_or($query.text))
    };
    ($query:expr, Postgres, prepares: $prepares:expr) => {
        filled!($query, Postgres, $query.text).persistent(*$prepares)
    };
    ($query:expr, $engine:ty, $text:expr) => {{
        let mut query = sqlx::query::<$engine>($text);
        for value in $query.values {
            query = match value {
                Value::Text(value) => query.bind(value),
                Value::Number(value) => query.bind(value),
                Value::Truth(value) => query.bind(value),
            };
        }
        query
    }};
}

impl Query {
    /// Gives the next placeholder its value.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs it; how many rows it changed.
    pub async fn execute<'c>(self, on: impl Into<On<'c>>) -> Result<u64, sqlx::Error> {
        match on.into() {
            On::Database(database) => {
                let mut connection = database.acquire_once().await?;
                let changed = self.execute_on(&mut connection).await?;
                connection.commit().await.map(|()| changed)
            }
            On::Connection(connection) => self.execute_on(connection).await,
        }
    }

    async fn execute_on(self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        match connection {
            Connection::Sqlite(held) => {
                let held: &mut SqliteConnection = held;
                Ok(filled!(self, Sqlite).execute(held).await?.rows_affected())
            }
            Connection::Postgres { held, prepares } => {
                let held: &mut PgConnection = held;
                Ok(filled!(self, Postgres, prepares: prepares).execute(held).await?.rows_affected())
            }
        }
    }

    /// All rows of its answer.
    pub async fn fetch_all<'c>(self, on: impl Into<On<'c>>) -> Result<Vec<Row>, sqlx::Error> {
        match on.into() {
            On::Database(database) => {
                let mut connection = database.acquire_once().await?;
                let rows = self.fetch_on(&mut connection).await?;
                connection.commit().await.map(|()| rows)
            }
            On::Connection(connection) => self.fetch_on(connection).await,
        }
    }

    async fn fetch_on(self, connection: &mut Connection) -> Result<Vec<Row>, sqlx::Error> {
        match connection {
            Connection::Sqlite(held) => {
                let held: &mut SqliteConnection = held;
                let rows = filled!(self, Sqlite).fetch_all(held).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Connection::Postgres { held, prepares } => {
                let held: &mut PgConnection = held;
                let rows = filled!(self, Postgres, prepares: prepares).fetch_all(held).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The rows of its answer as they come, so that an answer of any length takes little memory.
    pub fn rows(self, connection: &mut Connection) -> BoxStream<'_, Result<Row, sqlx::Error>> {
        match connection {
            Connection::Sqlite(held) => {
                let held: &mut SqliteConnection = held;
                filled!(self, Sqlite).fetch(held).map_ok(Row::Sqlite).boxed()
            }
            Connection::Postgres { held, prepares } => {
                let held: &mut PgConnection = held;
                filled!(self, Postgres, prepares: prepares).fetch(held).map_ok(Row::Postgres).boxed()
            }
        }
    }

    /// The first row of its answer, if there is one; the statement should ask for no more.
    pub async fn fetch_optional<'c>(self, on: impl Into<On<'c>>) -> Result<Option<Row>, sqlx::Error> {
        Ok(self.fetch_all(on).await?.into_iter().next())
    }

    /// The one row of its answer.
    pub async fn fetch_one<'c>(self, on: impl Into<On<'c>>) -> Result<Row, sqlx::Error> {
        self.fetch_optional(on).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// The first column of the first row, if there is one.
    pub async fn scalar_optional<'c, T>(self, on: impl Into<On<'c>>) -> Result<Option<T>, sqlx::Error>
    where
        T: for<'r> Readable<'r>,
    {
        self.fetch_optional(on).await?.map(|row| row.first()).transpose()
    }

    /// The first column of the one row.
    pub async fn scalar<'c, T>(self, on: impl Into<On<'c>>) -> Result<T, sqlx::Error>
    where
        T: for<'r> Readable<'r>,
    {
        self.fetch_one(on).await?.first()
    }
}

impl Row {
    /// The value of a column.
    pub fn try_get<'r, T: Readable<'r>>(&'r self, column: &str) -> Result<T, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    fn first<T: for<'r> Readable<'r>>(&self) -> Result<T, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(0),
            Self::Postgres(row) => row.try_get(0),
        }
    }

    /// The names of its columns.
    pub fn columns(&self) -> Vec<String> {
        match self {
            Self::Sqlite(row) => row.columns().iter().map(|column| column.name().to_owned()).collect(),
            Self::Postgres(row) => row.columns().iter().map(|column| column.name().to_owned()).collect(),
        }
    }
}

impl<'c> From<&'c Database> for On<'c> {
    fn from(database: &'c Database) -> Self {
        Self::Database(database)
    }
}

impl<'c> From<&'c mut Connection> for On<'c> {
    fn from(connection: &'c mut Connection) -> Self {
        Self::Connection(connection)
    }
}

macro_rules! bound_as {
    ($($from:ty => $kind:ident($convert:expr)),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$kind(Some($convert(value)))
            }
        }

        impl From<Option<$from>> for Value {
            fn from(value: Option<$from>) -> Self {
                Self::$kind(value.map($convert))
            }
        })*
    };
}

bound_as! {
    &str => Text(str::to_owned),
    &String => Text(String::clone),
    String => Text(std::convert::identity),
    i64 => Number(std::convert::identity),
    bool => Truth(std::convert::identity),
}

impl From<&Option<String>> for Value {
    fn from(value: &Option<String>) -> Self {
        Self::Text(value.clone())
    }
}
