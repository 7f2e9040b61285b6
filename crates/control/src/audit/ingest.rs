//! Taking a batch of records: checked one by one, stored many rows at a time. Each statement is a hand-over to the
//! thread of the database, which costs more than the rows that it writes.

use std::collections::{HashMap, HashSet};

use postern_proto::{
    api::RecordAck,
    id::{AccountId, ActivityId, DeviceId},
    record::{ChainError, Event, Record, SessionEnd, SessionStart, Settlement, StreamRefused},
    time::UnixMillis,
};
use serde::Serialize;

use super::stored;
use crate::{
    catalogue::{Catalogue, Node},
    sql::{self, Connection, Query, Statement},
    store::{
        Activity, Actor, Store, StoreError, Subject,
        read::{json, parse, signed},
    },
};

/// Records of one batch at most.
pub const MAX_RECORDS: usize = 1000;
/// Rows of one statement: those of a full one are prepared once, and sixteen values each are far from the limit of 32,766.
const ROWS: usize = 100;

/// Why a gateway's records are not taken. Nothing of the batch is stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("a batch holds at most {MAX_RECORDS} records")]
    TooMany,
    #[error("record {seq} belongs to another gateway")]
    Foreign { seq: u64 },
    #[error("record {seq} is stored already, with another content")]
    Forked { seq: u64 },
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Stores what is new of a batch, all of it or nothing. Records that are stored already are skipped when they are the
/// same, so that a batch may be sent again.
pub async fn ingest(store: &Store, node: &Node, actor: &Actor, records: Vec<Record>) -> Result<RecordAck, IngestError> {
    if records.len() > MAX_RECORDS {
        return Err(IngestError::TooMany);
    }
    let mut append = store.append().await?;
    let connection = append.connection();
    let mut ack = stored(connection, node.id).await?;
    let mut join = Join {
        catalogue: &store.catalogue(),
        node,
        store,
        actor,
        names: HashMap::new(),
        rows: Vec::new(),
        begun: Vec::new(),
        ended: Vec::new(),
    };
    for record in &records {
        if record.node != node.id {
            return Err(IngestError::Foreign { seq: record.seq });
        }
        if record.seq <= ack.stored {
            check_same(connection, record).await?;
            continue;
        }
        record.follows(ack.stored, &ack.hash)?;
        join.add(connection, record).await?;
        ack = RecordAck { stored: record.seq, hash: record.hash.clone() };
    }
    join.store(connection).await?;
    let statement = "INSERT INTO node_chain (node_id, seq, hash) VALUES ($1, $2, $3)
        ON CONFLICT (node_id) DO UPDATE SET seq = $2, hash = $3";
    sql::query(statement)
        .bind(node.id.to_string())
        .bind(signed(ack.stored))
        .bind(&ack.hash)
        .execute(connection)
        .await
        .map_err(StoreError::from)?;
    append.commit().await?;
    Ok(ack)
}

async fn check_same(connection: &mut Connection, record: &Record) -> Result<(), IngestError> {
    let stored: Option<String> = sql::query("SELECT record FROM session_record WHERE node_id = $1 AND seq = $2")
        .bind(record.node.to_string())
        .bind(signed(record.seq))
        .scalar_optional(connection)
        .await
        .map_err(StoreError::from)?;
    let stored: Option<Record> = stored.as_deref().map(parse).transpose()?;
    if stored.as_ref() == Some(record) { Ok(()) } else { Err(IngestError::Forked { seq: record.seq }) }
}

/// Makes sessions and activities of records.
struct Join<'a> {
    catalogue: &'a Catalogue,
    node: &'a Node,
    store: &'a Store,
    actor: &'a Actor,
    /// What accounts and devices are called, as far as it was looked up for this batch.
    names: HashMap<(AccountId, DeviceId), Names>,
    rows: Vec<RecordRow<'a>>,
    begun: Vec<BegunRow<'a>>,
    ended: Vec<EndedRow<'a>>,
}

#[derive(Clone)]
struct Names {
    email: String,
    device: String,
}

/// A record as it is kept.
struct RecordRow<'a> {
    record: &'a Record,
    stream: Option<String>,
    json: String,
}

/// A session that begins.
struct BegunRow<'a> {
    record: &'a Record,
    start: &'a SessionStart,
    names: Names,
    tags: String,
}

/// A session that ends.
struct EndedRow<'a> {
    record: &'a Record,
    end: &'a SessionEnd,
    reason: String,
}

impl<'a> Join<'a> {
    async fn add(&mut self, connection: &mut Connection, record: &'a Record) -> Result<(), StoreError> {
        let stream = match &record.event {
            Event::Start(start) => Some(start.stream),
            Event::End(end) => Some(end.stream),
            Event::Refused(refused) => refused.stream,
            Event::Prepared(_) | Event::Settled(_) => None,
        };
        let stream = stream.map(|stream| stream.to_string());
        self.rows.push(RecordRow { record, stream, json: json(record)? });
        match &record.event {
            Event::Start(start) => {
                let names = self.names(connection, start.account, start.device).await?;
                let tags = json(&start.resource_tags)?;
                self.begun.push(BegunRow { record, start, names, tags });
            }
            Event::End(end) => self.ended.push(EndedRow { record, end, reason: word(&end.reason)? }),
            Event::Refused(refused) => self.refused(connection, record.at, refused).await?,
            Event::Settled(settlement) if settlement.unaccounted > 0 => {
                self.unaccounted(connection, record.at, settlement).await?;
            }
            // No session; it stands in the chain.
            Event::Prepared(_) | Event::Settled(_) => {}
        }
        Ok(())
    }

    /// Stores what was gathered. Sessions begin before others end, which changes nothing: a session is never ended by a
    /// record from before its own.
    async fn store(self, connection: &mut Connection) -> Result<(), StoreError> {
        for rows in self.rows.chunks(ROWS) {
            insert_records(rows).execute(&mut *connection).await?;
        }
        if !self.begun.is_empty() {
            let statement = "SELECT COALESCE(MAX(seq), 0) FROM session";
            let mut last: i64 = sql::query(statement).scalar(&mut *connection).await?;
            for rows in self.begun.chunks(ROWS) {
                insert_sessions(rows, self.node, last).execute(&mut *connection).await?;
                last = last.saturating_add(i64::try_from(rows.len()).unwrap_or(i64::MAX));
            }
        }
        for rows in each_stream_once(&self.ended) {
            let ended = end_sessions(rows, self.node).execute(&mut *connection).await?;
            let missing = (rows.len() as u64).saturating_sub(ended);
            if let Some(first) = rows.first().filter(|_| missing > 0) {
                tracing::warn!(node = %self.node.id, missing, from = first.record.seq, among = rows.len(),
                    "records end sessions that never began");
            }
        }
        Ok(())
    }

    async fn refused(
        &self,
        connection: &mut Connection,
        at: UnixMillis,
        refused: &StreamRefused,
    ) -> Result<(), StoreError> {
        let name = refused.resource.and_then(|id| Some(self.catalogue.resources.get(&id)?.name.clone()));
        let subject = Subject {
            kind: "resource",
            id: refused.resource.map(|id| id.to_string()).unwrap_or_default(),
            name: name.unwrap_or_else(|| "unknown".to_owned()),
        };
        let id = ActivityId::from_ulid(self.store.clock().ulid());
        let activity = Activity::new("stream.refused", subject).after(refused);
        activity.insert(connection, self.actor, 0, (id, at)).await
    }

    /// The gateway's machine died while sessions may have been beginning.
    async fn unaccounted(
        &self,
        connection: &mut Connection,
        at: UnixMillis,
        settlement: &Settlement,
    ) -> Result<(), StoreError> {
        let (id, name) = (settlement.resource.to_string(), settlement.resource_name.clone());
        let subject = Subject { kind: "resource", id, name };
        let id = ActivityId::from_ulid(self.store.clock().ulid());
        let activity = Activity::new("sessions.unaccounted", subject).after(settlement);
        activity.insert(connection, self.actor, 0, (id, at)).await
    }

    /// E-mail address and device name now; of what is deleted since, those of an earlier session.
    async fn names(
        &mut self,
        connection: &mut Connection,
        account: AccountId,
        device: DeviceId,
    ) -> Result<Names, StoreError> {
        if let Some(names) = self.names.get(&(account, device)) {
            return Ok(names.clone());
        }
        let email = match self.catalogue.accounts.get(&account) {
            Some(account) => account.email.to_string(),
            None => {
                let statement = "SELECT account_email FROM session WHERE account_id = $1 ORDER BY seq DESC LIMIT 1";
                lookup(connection, statement, account.to_string()).await?
            }
        };
        // One after the other: a union would be sorted, and reads every session of the device for that.
        let known = named(connection, "SELECT name FROM device WHERE id = $1", device.to_string()).await?;
        let device_name = match known {
            Some(name) => name,
            None => {
                lookup(connection, "SELECT device_name FROM session WHERE device_id = $1 LIMIT 1", device.to_string())
                    .await?
            }
        };
        let names = Names { email, device: device_name };
        self.names.insert((account, device), names.clone());
        Ok(names)
    }
}

fn insert_records(rows: &[RecordRow<'_>]) -> Query {
    let mut statement = Statement::new("INSERT INTO session_record (node_id, seq, at, stream, record) ");
    statement.push_values(rows, |values, row| {
        values
            .push_bind(row.record.node.to_string())
            .push_bind(signed(row.record.seq))
            .push_bind(signed(row.record.at.0))
            .push_bind(row.stream.clone())
            .push_bind(row.json.clone());
    });
    statement.build()
}

/// `last`: the number of the session before these.
fn insert_sessions(rows: &[BegunRow<'_>], node: &Node, last: i64) -> Query {
    let mut statement = Statement::new(
        "INSERT INTO session (seq, id, node_id, start_seq, node_name, account_id, account_email, device_id, device_name,
            resource_id, resource_name, resource_tags, granted_by, client, target, started_at) ",
    );
    statement.push_values((1..).zip(rows), |values, (number, row): (i64, _)| {
        let BegunRow { record, start, names, tags } = row;
        values
            .push_bind(last.saturating_add(number))
            .push_bind(start.stream.to_string())
            .push_bind(record.node.to_string())
            .push_bind(signed(record.seq))
            .push_bind(node.name.clone())
            .push_bind(start.account.to_string())
            .push_bind(names.email.clone())
            .push_bind(start.device.to_string())
            .push_bind(names.device.clone())
            .push_bind(start.resource.to_string())
            .push_bind(start.resource_name.clone())
            .push_bind(tags.clone())
            .push_bind(start.grant.clone())
            .push_bind(start.client.to_string())
            .push_bind(start.target.clone())
            .push_bind(signed(record.at.0));
    });
    statement.build()
}

/// Each ends the oldest open session of its stream at this gateway. A stream's id is the client's choice, so it may come
/// twice; each start is a session of its own.
fn end_sessions(rows: &[EndedRow<'_>], node: &Node) -> Query {
    let mut statement = Statement::new(
        "UPDATE session SET ended_at = ended.column3, bytes_up = ended.column4, bytes_down = ended.column5,
            reason = ended.column6, detail = ended.column7, dialled = ended.column8
        FROM (",
    );
    statement.push_values(rows, |values, EndedRow { record, end, reason }| {
        values
            .push_bind(end.stream.to_string())
            .push_bind(signed(record.seq))
            .push_bind(signed(record.at.0))
            .push_bind(signed(end.bytes_up))
            .push_bind(signed(end.bytes_down))
            .push_bind(reason.clone())
            .push_bind(end.detail.clone())
            .push_bind(end.dialled.map(|address| address.to_string()));
    });
    // The plus: found by the stream, of which there are one or two, and not by all that began before.
    statement.push(
        ") AS ended WHERE session.seq = (SELECT MIN(open.seq) FROM session AS open
            WHERE open.id = ended.column1 AND +open.start_seq < ended.column2 AND open.ended_at IS NULL
                AND open.node_id = ",
    );
    statement.push_bind(node.id.to_string()).push(")");
    statement.build()
}

/// In order, in parts in which no stream ends twice: rows of one statement do not see each other.
fn each_stream_once<'r, 'a>(rows: &'r [EndedRow<'a>]) -> impl Iterator<Item = &'r [EndedRow<'a>]> {
    let mut left = rows;
    std::iter::from_fn(move || {
        let mut seen = HashSet::new();
        let count = left.iter().take(ROWS).take_while(|row| seen.insert(row.end.stream)).count();
        let (part, rest) = left.split_at_checked(count)?;
        left = rest;
        (!part.is_empty()).then_some(part)
    })
}

/// A name by an id; the id itself when there is none.
async fn lookup(connection: &mut Connection, statement: &'static str, id: String) -> Result<String, StoreError> {
    Ok(named(connection, statement, id.clone()).await?.unwrap_or(id))
}

async fn named(connection: &mut Connection, statement: &'static str, id: String) -> Result<Option<String>, StoreError> {
    Ok(sql::query(statement).bind(id).scalar_optional(connection).await?)
}

/// An enum without content as its word in JSON.
fn word(value: &impl Serialize) -> Result<String, StoreError> {
    Ok(json(value)?.trim_matches('"').to_owned())
}
