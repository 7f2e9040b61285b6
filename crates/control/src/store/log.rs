//! The change log and the revocations: what each revision meant for whom.

use std::collections::BTreeMap;

use postern_proto::{lease::Revocation, time::UnixMillis};

use super::{
    ChangeEntry, Changes, Op, Store, StoreError,
    read::{json, parse, signed, unsigned},
};

use crate::sql::{self, Connection, Row, Statement};

/// Rows of one statement: PostgreSQL takes 65,535 values, SQLite half of that.
const ROWS: usize = 1000;

impl Store {
    /// The changes of every revision after `revision`, in order; `None` when the log does not reach back that far, so
    /// that a snapshot must be taken.
    pub async fn changes_since(&self, revision: u64) -> Result<Option<Vec<Changes>>, StoreError> {
        // One transaction, so that entries and revocations are of the same state.
        let mut tx = self.reader().begin_read().await?;
        let oldest: Option<i64> = sql::query("SELECT MIN(rev) FROM change_log").scalar(&mut tx).await?;
        let reaches = match oldest {
            Some(oldest) => unsigned(oldest)? <= revision.saturating_add(1),
            None => revision >= self.catalogue().revision,
        };
        if reaches { changes_since(&mut tx, revision).await.map(Some) } else { Ok(None) }
    }

    /// Every revocation at or after an instant, oldest first.
    pub async fn revocations_since(&self, at: UnixMillis) -> Result<Vec<Revocation>, StoreError> {
        let rows = sql::query("SELECT subject, at, reason FROM revocation WHERE at >= $1 ORDER BY rev, n")
            .bind(signed(at.0))
            .fetch_all(self.reader())
            .await?;
        rows.iter().map(revocation).collect()
    }
}

pub(super) async fn append(connection: &mut Connection, changes: &Changes, now: UnixMillis) -> Result<(), StoreError> {
    let mut entries = Vec::with_capacity(changes.entries.len());
    for (n, entry) in (0_u64..).zip(&changes.entries) {
        entries.push((n, entry, json(&entry.key)?));
    }
    for rows in entries.chunks(ROWS) {
        let mut statement = Statement::new("INSERT INTO change_log (rev, n, scope, op, item, at) ");
        statement.push_values(rows, |values, (n, entry, item)| {
            values.push_bind(signed(changes.revision)).push_bind(signed(*n)).push_bind(&entry.scope);
            let op = match entry.op {
                Op::Put => "put",
                Op::Delete => "del",
            };
            values.push_bind(op).push_bind(item).push_bind(signed(now.0));
        });
        statement.build().execute(&mut *connection).await?;
    }
    let mut revocations = Vec::with_capacity(changes.revocations.len());
    for (n, revocation) in (0_u64..).zip(&changes.revocations) {
        revocations.push((n, revocation, json(&revocation.subject)?));
    }
    for rows in revocations.chunks(ROWS) {
        let mut statement = Statement::new("INSERT INTO revocation (rev, n, subject, at, reason) ");
        statement.push_values(rows, |values, (n, revocation, subject)| {
            values.push_bind(signed(changes.revision)).push_bind(signed(*n)).push_bind(subject);
            values.push_bind(signed(revocation.at.0)).push_bind(&revocation.reason);
        });
        statement.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Notes which entities a revision touched, for [`Store::catch_up`] of others.
pub(super) async fn append_entities(
    connection: &mut Connection,
    revision: u64,
    entities: &[(&'static str, String)],
    now: UnixMillis,
) -> Result<(), StoreError> {
    let entities: Vec<_> = (0_u64..).zip(entities).collect();
    for rows in entities.chunks(ROWS) {
        let mut statement = Statement::new("INSERT INTO entity_log (rev, n, kind, id, at) ");
        statement.push_values(rows, |values, (n, (kind, id))| {
            values.push_bind(signed(revision)).push_bind(signed(*n)).push_bind(*kind).push_bind(id);
            values.push_bind(signed(now.0));
        });
        statement.build().execute(&mut *connection).await?;
    }
    Ok(())
}

pub(super) async fn changes_since(connection: &mut Connection, revision: u64) -> Result<Vec<Changes>, StoreError> {
    let mut changes = BTreeMap::new();
    let rows = sql::query("SELECT rev, scope, op, item FROM change_log WHERE rev > $1 ORDER BY rev, n")
        .bind(signed(revision))
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let op: String = row.try_get("op")?;
        let entry = ChangeEntry {
            scope: row.try_get("scope")?,
            op: if op == "del" { Op::Delete } else { Op::Put },
            key: parse(row.try_get("item")?)?,
        };
        of_revision(&mut changes, unsigned(row.try_get("rev")?)?).entries.push(entry);
    }
    let rows = sql::query("SELECT rev, subject, at, reason FROM revocation WHERE rev > $1 ORDER BY rev, n")
        .bind(signed(revision))
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let revocation = revocation(row)?;
        of_revision(&mut changes, unsigned(row.try_get("rev")?)?).revocations.push(revocation);
    }
    Ok(changes.into_values().collect())
}

fn of_revision(changes: &mut BTreeMap<u64, Changes>, revision: u64) -> &mut Changes {
    changes.entry(revision).or_insert_with(|| Changes { revision, entries: Vec::new(), revocations: Vec::new() })
}

fn revocation(row: &Row) -> Result<Revocation, StoreError> {
    Ok(Revocation {
        subject: parse(row.try_get("subject")?)?,
        at: UnixMillis(unsigned(row.try_get("at")?)?),
        reason: row.try_get("reason")?,
    })
}
