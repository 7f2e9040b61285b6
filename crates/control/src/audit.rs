//! Session records: taken from gateways, kept as they came for ever, joined into sessions, and verified.

use std::collections::HashMap;

use postern_proto::{
    api::RecordAck,
    id::{AccountId, ActivityId, DeviceId, NodeId},
    record::{ChainError, Event, GENESIS, Record, SessionEnd, SessionStart, Settlement, StreamRefused},
    time::UnixMillis,
};
use serde::Serialize;
use sqlx::{Row as _, SqliteConnection};
use utoipa::ToSchema;

use crate::{
    catalogue::{Catalogue, Node},
    store::{
        Activity, Actor, Store, StoreError, Subject,
        read::{self, count, json, parse, signed, unsigned, value},
    },
};

/// Records of one batch at most.
pub const MAX_RECORDS: usize = 1000;
/// Records that a verification reads at a time.
const CHUNK: i64 = 1000;

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

/// What is stored of a gateway's records.
pub async fn stored(connection: &mut SqliteConnection, node: NodeId) -> Result<RecordAck, StoreError> {
    let row = sqlx::query("SELECT seq, hash FROM node_chain WHERE node_id = $1")
        .bind(node.to_string())
        .fetch_optional(connection)
        .await?;
    match row {
        Some(row) => Ok(RecordAck { stored: count(&row, "seq")?, hash: row.try_get("hash")? }),
        None => Ok(RecordAck { stored: 0, hash: GENESIS.to_owned() }),
    }
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
    let mut join = Join { catalogue: &store.catalogue(), node, store, actor, names: HashMap::new() };
    for record in records {
        if record.node != node.id {
            return Err(IngestError::Foreign { seq: record.seq });
        }
        if record.seq <= ack.stored {
            check_same(connection, &record).await?;
            continue;
        }
        record.follows(ack.stored, &ack.hash)?;
        insert(connection, &record).await?;
        join.add(connection, &record).await?;
        ack = RecordAck { stored: record.seq, hash: record.hash };
    }
    let statement = "INSERT INTO node_chain (node_id, seq, hash) VALUES ($1, $2, $3)
        ON CONFLICT (node_id) DO UPDATE SET seq = $2, hash = $3";
    sqlx::query(statement)
        .bind(node.id.to_string())
        .bind(signed(ack.stored))
        .bind(&ack.hash)
        .execute(connection)
        .await
        .map_err(StoreError::from)?;
    append.commit().await?;
    Ok(ack)
}

async fn check_same(connection: &mut SqliteConnection, record: &Record) -> Result<(), IngestError> {
    let stored: Option<String> =
        sqlx::query_scalar("SELECT record FROM session_record WHERE node_id = $1 AND seq = $2")
            .bind(record.node.to_string())
            .bind(signed(record.seq))
            .fetch_optional(connection)
            .await
            .map_err(StoreError::from)?;
    let stored: Option<Record> = stored.as_deref().map(parse).transpose()?;
    if stored.as_ref() == Some(record) { Ok(()) } else { Err(IngestError::Forked { seq: record.seq }) }
}

async fn insert(connection: &mut SqliteConnection, record: &Record) -> Result<(), StoreError> {
    let stream = match &record.event {
        Event::Start(start) => Some(start.stream),
        Event::End(end) => Some(end.stream),
        Event::Refused(refused) => refused.stream,
        Event::Prepared(_) | Event::Settled(_) => None,
    };
    sqlx::query("INSERT INTO session_record (node_id, seq, at, stream, record) VALUES ($1, $2, $3, $4, $5)")
        .bind(record.node.to_string())
        .bind(signed(record.seq))
        .bind(signed(record.at.0))
        .bind(stream.map(|stream| stream.to_string()))
        .bind(json(record)?)
        .execute(connection)
        .await?;
    Ok(())
}

/// Makes sessions and activities of records.
struct Join<'a> {
    catalogue: &'a Catalogue,
    node: &'a Node,
    store: &'a Store,
    actor: &'a Actor,
    /// What accounts and devices are called, as far as it was looked up for this batch.
    names: HashMap<(AccountId, DeviceId), Names>,
}

#[derive(Clone)]
struct Names {
    email: String,
    device: String,
}

impl Join<'_> {
    async fn add(&mut self, connection: &mut SqliteConnection, record: &Record) -> Result<(), StoreError> {
        match &record.event {
            Event::Start(start) => self.start(connection, record, start).await,
            Event::End(end) => self.end(connection, record, end).await,
            Event::Refused(refused) => self.refused(connection, record, refused).await,
            Event::Settled(settlement) if settlement.unaccounted > 0 => {
                self.unaccounted(connection, record, settlement).await
            }
            // No session; it stands in the chain.
            Event::Prepared(_) | Event::Settled(_) => Ok(()),
        }
    }

    async fn start(
        &mut self,
        connection: &mut SqliteConnection,
        record: &Record,
        start: &SessionStart,
    ) -> Result<(), StoreError> {
        let names = self.names(connection, start.account, start.device).await?;
        let statement = "INSERT INTO session (seq, id, node_id, start_seq, node_name, account_id, account_email,
                device_id, device_name, resource_id, resource_name, resource_tags, granted_by, client, target,
                started_at)
            VALUES ((SELECT COALESCE(MAX(seq), 0) + 1 FROM session), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
                $13, $14, $15)";
        sqlx::query(statement)
            .bind(start.stream.to_string())
            .bind(record.node.to_string())
            .bind(signed(record.seq))
            .bind(&self.node.name)
            .bind(start.account.to_string())
            .bind(names.email)
            .bind(start.device.to_string())
            .bind(names.device)
            .bind(start.resource.to_string())
            .bind(&start.resource_name)
            .bind(json(&start.resource_tags)?)
            .bind(&start.grant)
            .bind(start.client.to_string())
            .bind(&start.target)
            .bind(signed(record.at.0))
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Ends the oldest open session of this stream at this gateway. The stream's id is the client's choice, so it may
    /// come twice; each start is a session of its own.
    async fn end(
        &self,
        connection: &mut SqliteConnection,
        record: &Record,
        end: &SessionEnd,
    ) -> Result<(), StoreError> {
        let statement = "UPDATE session SET ended_at = $1, bytes_up = $2, bytes_down = $3, reason = $4, detail = $5,
                dialled = $6
            WHERE seq = (SELECT MIN(seq) FROM session WHERE node_id = $7 AND id = $8 AND ended_at IS NULL)";
        let ended = sqlx::query(statement)
            .bind(signed(record.at.0))
            .bind(signed(end.bytes_up))
            .bind(signed(end.bytes_down))
            .bind(word(&end.reason)?)
            .bind(&end.detail)
            .bind(end.dialled.map(|address| address.to_string()))
            .bind(record.node.to_string())
            .bind(end.stream.to_string())
            .execute(connection)
            .await?;
        if ended.rows_affected() == 0 {
            tracing::warn!(node = %record.node, seq = record.seq, "a record ends a session that never began");
        }
        Ok(())
    }

    async fn refused(
        &self,
        connection: &mut SqliteConnection,
        record: &Record,
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
        activity.insert(connection, self.actor, 0, (id, record.at)).await
    }

    /// The gateway's machine died while sessions may have been beginning.
    async fn unaccounted(
        &self,
        connection: &mut SqliteConnection,
        record: &Record,
        settlement: &Settlement,
    ) -> Result<(), StoreError> {
        let (id, name) = (settlement.resource.to_string(), settlement.resource_name.clone());
        let subject = Subject { kind: "resource", id, name };
        let id = ActivityId::from_ulid(self.store.clock().ulid());
        let activity = Activity::new("sessions.unaccounted", subject).after(settlement);
        activity.insert(connection, self.actor, 0, (id, record.at)).await
    }

    /// E-mail address and device name now; of what is deleted since, those of an earlier session.
    async fn names(
        &mut self,
        connection: &mut SqliteConnection,
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

/// A name by an id; the id itself when there is none.
async fn lookup(connection: &mut SqliteConnection, statement: &'static str, id: String) -> Result<String, StoreError> {
    Ok(named(connection, statement, id.clone()).await?.unwrap_or(id))
}

async fn named(
    connection: &mut SqliteConnection,
    statement: &'static str,
    id: String,
) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar(statement).bind(id).fetch_optional(connection).await?)
}

/// An enum without content as its word in JSON.
fn word(value: &impl Serialize) -> Result<String, StoreError> {
    Ok(json(value)?.trim_matches('"').to_owned())
}

/// Whether the records are as the gateways wrote them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Verification {
    /// Whether no chain is broken.
    pub ok: bool,
    pub nodes: Vec<ChainState>,
}

/// The chain of one gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ChainState {
    #[schema(value_type = String)]
    pub node: NodeId,
    /// What the gateway is called, or its id if it was deleted.
    pub node_name: String,
    /// How many records were read.
    pub records: u64,
    pub ok: bool,
    /// The first record at which the chain is broken.
    pub broken: Option<BrokenLink>,
}

/// Where a chain is broken, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct BrokenLink {
    pub seq: u64,
    pub why: String,
}

/// Walks the chain of each gateway from its first record.
pub async fn verify(store: &Store) -> Result<Verification, StoreError> {
    let statement = "SELECT node_id FROM session_record UNION SELECT node_id FROM node_chain";
    let rows = sqlx::query(statement).fetch_all(store.reader()).await?;
    let catalogue = store.catalogue();
    let mut nodes = Vec::with_capacity(rows.len());
    for row in &rows {
        let node: NodeId = value(row, "node_id")?;
        let node_name = catalogue.nodes.get(&node).map_or_else(|| node.to_string(), |node| node.name.clone());
        // What is added meanwhile is left for the next time.
        let head = stored(&mut *store.reader().acquire().await?, node).await?;
        let (records, broken) = walk(store, node, &head).await?;
        nodes.push(ChainState { node, node_name, records, ok: broken.is_none(), broken });
    }
    nodes.sort_by(|a, b| (&a.node_name, a.node).cmp(&(&b.node_name, b.node)));
    Ok(Verification { ok: nodes.iter().all(|node| node.ok), nodes })
}

async fn walk(store: &Store, node: NodeId, head: &RecordAck) -> Result<(u64, Option<BrokenLink>), StoreError> {
    let mut at = RecordAck { stored: 0, hash: GENESIS.to_owned() };
    let mut records = 0;
    loop {
        let statement = "SELECT seq, at, record FROM session_record WHERE node_id = $1 AND seq > $2 AND seq <= $3
            ORDER BY seq LIMIT $4";
        let rows = sqlx::query(statement)
            .bind(node.to_string())
            .bind(signed(at.stored))
            .bind(signed(head.stored))
            .bind(CHUNK)
            .fetch_all(store.reader())
            .await?;
        for row in &rows {
            records += 1;
            let seq = unsigned(row.try_get("seq")?)?;
            let broken = |why: String| Ok((records, Some(BrokenLink { seq, why })));
            let Ok(record) = parse::<Record>(row.try_get("record")?) else {
                return broken(format!("record {seq} cannot be read"));
            };
            if record.node != node || record.seq != seq || record.at != read::instant(row, "at")? {
                return broken(format!("record {seq} is not where it was stored"));
            }
            if let Err(error) = record.follows(at.stored, &at.hash) {
                return broken(error.to_string());
            }
            at = RecordAck { stored: seq, hash: record.hash };
        }
        if rows.is_empty() {
            break;
        }
    }
    let missing = BrokenLink { seq: at.stored + 1, why: format!("records from {} on are missing", at.stored + 1) };
    Ok((records, (at != *head).then_some(missing)))
}

/// Writes an activity that belongs to no change of the configuration.
pub async fn note(
    connection: &mut SqliteConnection,
    store: &Store,
    actor: &Actor,
    subject: Subject,
    activity: (&'static str, &impl Serialize, UnixMillis),
) -> Result<(), StoreError> {
    let (verb, event, at) = activity;
    let id = ActivityId::from_ulid(store.clock().ulid());
    Activity::new(verb, subject).after(event).insert(connection, actor, 0, (id, at)).await
}
