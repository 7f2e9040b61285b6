//! Session records: taken from gateways, kept as they came for ever, joined into sessions, and verified.

mod ingest;

use postern_proto::{
    api::RecordAck,
    id::{ActivityId, NodeId},
    record::{GENESIS, Record},
    time::UnixMillis,
};
use serde::Serialize;
use utoipa::ToSchema;

pub use self::ingest::{IngestError, MAX_RECORDS, ingest};
use crate::{
    sql::{self, Connection},
    store::{
        Activity, Actor, Store, StoreError, Subject,
        read::{self, count, parse, signed, unsigned, value},
    },
};

/// Records that a verification reads at a time.
const CHUNK: i64 = 1000;

/// What is stored of a gateway's records.
pub async fn stored(connection: &mut Connection, node: NodeId) -> Result<RecordAck, StoreError> {
    let row = sql::query("SELECT seq, hash FROM node_chain WHERE node_id = $1")
        .bind(node.to_string())
        .fetch_optional(connection)
        .await?;
    match row {
        Some(row) => Ok(RecordAck { stored: count(&row, "seq")?, hash: row.try_get("hash")? }),
        None => Ok(RecordAck { stored: 0, hash: GENESIS.to_owned() }),
    }
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
    let rows = sql::query(statement).fetch_all(store.reader()).await?;
    let catalogue = store.catalogue();
    let mut nodes = Vec::with_capacity(rows.len());
    for row in &rows {
        let node: NodeId = value(row, "node_id")?;
        let node_name = catalogue.nodes.get(&node).map_or_else(|| node.to_string(), |node| node.name.clone());
        // What is added meanwhile is left for the next time.
        let head = stored(&mut store.reader().acquire().await?, node).await?;
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
        let rows = sql::query(statement)
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
    connection: &mut Connection,
    store: &Store,
    actor: &Actor,
    subject: Subject,
    activity: (&'static str, &impl Serialize, UnixMillis),
) -> Result<(), StoreError> {
    let (verb, event, at) = activity;
    let id = ActivityId::from_ulid(store.clock().ulid());
    Activity::new(verb, subject).after(event).insert(connection, actor, 0, (id, at)).await
}
