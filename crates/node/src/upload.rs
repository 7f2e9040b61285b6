//! Brings the session records to the control plane: none lost, none twice, however often either side dies.
//!
//! The control plane says what it has; everything after that is sent in order, in batches, and files are deleted only
//! when it has said that it has them.

use std::{io, sync::Arc, time::Duration};

use http::Method;
use postern_proto::api::{RecordAck, RecordBatch};
use postern_tunnel::control::{Backoff, CallError, ControlClient};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::spool::{Spool, SpoolReader, Tip};

const PATH: &str = "/api/v1/nodes/records";
/// Records in one call.
const BATCH: usize = 1000;
/// Records that come within this time travel together.
const GATHER: Duration = Duration::from_millis(50);
/// The same while many come: each call costs both ends, which have connections to open, more than its records do.
const GATHER_MANY: Duration = Duration::from_millis(500);
/// So many at once are many.
const MANY: u64 = 100;

/// Why records did not arrive.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the session records cannot be read back: {0}")]
    Disk(#[from] io::Error),
    #[error(
        "the control plane has {stored} session records of this node, here are {here}: the state folder is older than \
         the node's last run"
    )]
    Behind { stored: u64, here: u64 },
}

/// What the control plane has of this node's records.
pub async fn stored(client: &ControlClient) -> Result<Tip, CallError> {
    let RecordAck { stored, hash } = client.call(Method::GET, PATH, None::<&()>).await?;
    if stored == 0 {
        return Ok(Tip::default());
    }
    Ok(Tip { seq: stored, hash })
}

/// Uploads until `stop`; then once more what is left, as far as it goes.
pub async fn run(spool: Spool, client: Arc<ControlClient>, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let Err(error) = upload(&spool, &client, &stop, &mut backoff).await else { continue };
        let wait = backoff.next(rand::random());
        match error {
            UploadError::Call(CallError::Unreachable { .. }) => {
                tracing::debug!(%error, "session records wait for the control plane");
            }
            _ => tracing::error!(%error, "session records do not reach the control plane"),
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = stop.cancelled() => {}
        }
    }
    if let Err(error) = upload_rest(&spool, &client).await {
        tracing::info!(%error, "session records wait on disk for the next start");
    }
}

async fn upload(
    spool: &Spool,
    client: &ControlClient,
    stop: &CancellationToken,
    backoff: &mut Backoff,
) -> Result<(), UploadError> {
    let mut durable = spool.durable();
    let mut reader = begin(spool, client).await?;
    loop {
        durable.mark_unchanged();
        let before = reader.position();
        while send_batch(spool, client, &mut reader).await? {
            backoff.reset();
        }
        tokio::select! {
            changed = durable.changed() => if changed.is_err() { return Ok(()) },
            () = stop.cancelled() => return Ok(()),
        }
        let gather = if reader.position() - before < MANY { GATHER } else { GATHER_MANY };
        let _ = timeout(gather, stop.cancelled()).await;
    }
}

async fn upload_rest(spool: &Spool, client: &ControlClient) -> Result<(), UploadError> {
    let mut reader = begin(spool, client).await?;
    while send_batch(spool, client, &mut reader).await? {}
    Ok(())
}

/// Asks what is stored and goes on from there.
async fn begin(spool: &Spool, client: &ControlClient) -> Result<SpoolReader, UploadError> {
    let stored = stored(client).await?.seq;
    let here = spool.durable().borrow().seq;
    if stored > here {
        return Err(UploadError::Behind { stored, here });
    }
    acknowledge(spool, stored).await?;
    Ok(spool.reader(stored + 1))
}

/// Sends what comes next; `false` when there is nothing.
async fn send_batch(spool: &Spool, client: &ControlClient, reader: &mut SpoolReader) -> Result<bool, UploadError> {
    let begin = reader.position();
    let mut moved = spool.reader(begin);
    std::mem::swap(reader, &mut moved);
    let (back, records) = blocking(move || {
        let records = moved.read(BATCH);
        (moved, records)
    })
    .await?;
    *reader = back;
    let records = records?;
    if records.is_empty() {
        return Ok(false);
    }
    let ack: RecordAck = client.call(Method::POST, PATH, Some(&RecordBatch { records })).await?;
    if ack.stored < begin {
        // It did not take the first one: asking anew says why.
        return Err(UploadError::Behind { stored: ack.stored, here: begin });
    }
    reader.seek(ack.stored + 1);
    acknowledge(spool, ack.stored).await?;
    Ok(true)
}

async fn acknowledge(spool: &Spool, stored: u64) -> Result<(), UploadError> {
    let spool = spool.clone();
    Ok(blocking(move || spool.acknowledge(stored)).await??)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
