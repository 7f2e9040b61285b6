//! Columns as values of ours, and back.

use std::str::FromStr;

use postern_proto::time::UnixMillis;

use super::StoreError;

use crate::sql::Row;

/// SQL has no unsigned numbers; ours stay far below the sign.
#[must_use]
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Unreadable(number.to_string()))
}

/// An instant that may be missing, as a column holds it.
#[must_use]
pub fn millis(at: Option<UnixMillis>) -> Option<i64> {
    at.map(|at| signed(at.0))
}

pub fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unreadable(error.to_string()))
}

pub fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Unreadable(error.to_string()))
}

/// A column that holds the text of a value.
pub fn value<T: FromStr>(row: &Row, column: &str) -> Result<T, StoreError> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|_| StoreError::Unreadable(format!("{column}: {text}")))
}

/// The same where it may be missing.
pub fn optional_value<T: FromStr>(row: &Row, column: &str) -> Result<Option<T>, StoreError> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|_| StoreError::Unreadable(format!("{column}: {text}")))).transpose()
}

pub fn count(row: &Row, column: &str) -> Result<u64, StoreError> {
    unsigned(row.try_get(column)?)
}

pub fn instant(row: &Row, column: &str) -> Result<UnixMillis, StoreError> {
    count(row, column).map(UnixMillis)
}

pub fn optional_instant(row: &Row, column: &str) -> Result<Option<UnixMillis>, StoreError> {
    let at: Option<i64> = row.try_get(column)?;
    at.map(|at| unsigned(at).map(UnixMillis)).transpose()
}

pub fn port(row: &Row, column: &str) -> Result<u16, StoreError> {
    let port: i64 = row.try_get(column)?;
    u16::try_from(port).map_err(|_| StoreError::Unreadable(format!("{column}: {port}")))
}
