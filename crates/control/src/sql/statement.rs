//! Statements with many rows of values.

use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::{Query, Value};

/// A statement that is put together. Its texts are ours; what comes from elsewhere is bound.
#[derive(Debug)]
pub struct Statement {
    text: String,
    /// The same with placeholders that have no number.
    unnumbered: String,
    values: Vec<Value>,
}

/// One row of values of a [`Statement`].
#[derive(Debug)]
pub struct Tuple<'s> {
    statement: &'s mut Statement,
    empty: bool,
}

impl Statement {
    #[must_use]
    pub fn new(text: &'static str) -> Self {
        Self { text: text.to_owned(), unnumbered: text.to_owned(), values: Vec::new() }
    }

    pub fn push(&mut self, text: &'static str) -> &mut Self {
        self.push_name(text)
    }

    /// A name that this program knows, of a table or of columns.
    pub(crate) fn push_name(&mut self, name: &str) -> &mut Self {
        self.text.push_str(name);
        self.unnumbered.push_str(name);
        self
    }

    /// The next placeholder, and its value.
    pub fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        // Writing to a string never fails.
        let _ = write!(self.text, "${}", self.values.len());
        self.unnumbered.push('?');
        self
    }

    /// `VALUES (…), (…)`, one for each of `rows`.
    pub fn push_values<T>(&mut self, rows: impl IntoIterator<Item = T>, mut fill: impl FnMut(&mut Tuple<'_>, T)) {
        self.push("VALUES ");
        for (number, row) in rows.into_iter().enumerate() {
            self.push(if number == 0 { "(" } else { ", (" });
            fill(&mut Tuple { statement: self, empty: true }, row);
            self.push(")");
        }
    }

    #[must_use]
    pub fn build(self) -> Query {
        Query {
            text: AssertSqlSafe(self.text).into_sql_str(),
            unnumbered: Some(AssertSqlSafe(self.unnumbered).into_sql_str()),
            values: self.values,
        }
    }
}

impl Tuple<'_> {
    pub fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        if !std::mem::replace(&mut self.empty, false) {
            self.statement.push(", ");
        }
        self.statement.push_bind(value);
        self
    }
}
