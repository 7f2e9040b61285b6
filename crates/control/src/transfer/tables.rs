//! The tables, and their rows as values.

use sqlx::AssertSqlSafe;

use super::TransferError;
use crate::{
    sql::{Connection, Query, Row, Statement, Value, query},
    store::StoreError,
};

/// What is carried over, each after those that it refers to.
pub(super) const TABLES: &[&str] = &[
    "org",
    "account",
    "account_credential",
    "account_token",
    "device",
    "login",
    "role",
    "access_rule",
    "role_member",
    "resource",
    "vnm_address",
    "account_grant",
    "node",
    "enrol_token",
    "cluster",
    "cluster_key",
    "maintenance_window",
    "change_log",
    "revocation",
    "entity_log",
    "activity",
    "session_record",
    "node_chain",
    "session",
    "health_turn",
    "node_turn",
];

/// What is not: it is of the moment, or (the secrets) goes its own way.
#[cfg(test)]
pub(super) const LEFT: &[&str] = &["secret", "lockout", "duty", "board", "board_entry"];

/// Rows of one statement.
pub(super) const ROWS: usize = 200;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Text,
    Number,
    Truth,
}

/// The columns of a table, in their order.
pub(super) type Columns = Vec<(String, Kind)>;

pub(super) async fn columns(connection: &mut Connection, table: &str) -> Result<Columns, TransferError> {
    let mut columns = Columns::new();
    for (name, kind) in connection.columns(table).await? {
        let kind = match kind.to_ascii_uppercase().as_str() {
            "TEXT" => Kind::Text,
            "BIGINT" => Kind::Number,
            "BOOLEAN" => Kind::Truth,
            _ => return Err(StoreError::Unreadable(format!("{table}.{name} is a {kind}")).into()),
        };
        columns.push((name, kind));
    }
    Ok(columns)
}

/// All rows of a table.
pub(super) fn select(table: &str, columns: &Columns) -> Query {
    query(AssertSqlSafe(format!("SELECT {} FROM {table}", names(columns))))
}

pub(super) fn values(row: &Row, columns: &Columns) -> Result<Vec<Value>, sqlx::Error> {
    let value = |(name, kind): &(String, Kind)| {
        Ok(match kind {
            Kind::Text => Value::Text(row.try_get(name)?),
            Kind::Number => Value::Number(row.try_get(name)?),
            Kind::Truth => Value::Truth(row.try_get(name)?),
        })
    };
    columns.iter().map(value).collect()
}

pub(super) fn insert(table: &str, columns: &Columns, rows: Vec<Vec<Value>>) -> Query {
    let mut statement = Statement::new("INSERT INTO ");
    statement.push_name(table).push(" (").push_name(&names(columns)).push(") ");
    statement.push_values(rows, |tuple, row| {
        for value in row {
            tuple.push_bind(value);
        }
    });
    statement.build()
}

pub(super) async fn count(connection: &mut Connection, table: &str) -> Result<u64, TransferError> {
    let count: i64 = query(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"))).scalar(connection).await?;
    Ok(count.unsigned_abs())
}

fn names(columns: &Columns) -> String {
    columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}
