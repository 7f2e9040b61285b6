//! What is written beside the answer, so that the answer neither waits for it nor tells by its time whether there was
//! something to write: failed sign-ins, and when devices were last seen.

#[cfg(test)]
mod tests;

use postern_proto::{
    id::{ActivityId, DeviceId},
    time::UnixMillis,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    sql,
    store::{Activity, Actor, Store, StoreError, read::signed},
};

/// Entries that may wait to be written. More are dropped, and the log says so: failed sign-ins are bounded by the
/// password checks, which take far longer than a row, and the next sight of a device is as good.
const WAITING: usize = 16_384;
/// Entries of one transaction.
const BATCH: usize = 256;

/// Takes entries; clones share the queue.
#[derive(Clone)]
pub struct Journal {
    queue: mpsc::Sender<Entry>,
}

/// Writes what a [`Journal`] takes.
pub struct JournalWriter {
    queue: mpsc::Receiver<Entry>,
    store: Store,
}

enum Entry {
    Activity { activity: Box<Activity>, actor: Actor, at: UnixMillis },
    Seen { device: DeviceId, actor: Actor, at: UnixMillis },
}

impl Journal {
    #[must_use]
    pub fn new(store: Store) -> (Self, JournalWriter) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { queue: sender }, JournalWriter { queue: receiver, store })
    }

    /// Has an activity written soon.
    pub fn note(&self, activity: Activity, actor: Actor, at: UnixMillis) {
        self.put(Entry::Activity { activity: Box::new(activity), actor, at });
    }

    /// Notes that a device is here now, from where, and with which program.
    pub fn saw(&self, device: DeviceId, actor: Actor, at: UnixMillis) {
        self.put(Entry::Seen { device, actor, at });
    }

    fn put(&self, entry: Entry) {
        if let Err(error) = self.queue.try_send(entry) {
            tracing::warn!(%error, "an entry of the journal was not written");
        }
    }
}

impl JournalWriter {
    /// Writes until it is cancelled; what is waiting then is still written.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut entries = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                got = self.queue.recv_many(&mut entries, BATCH) => if got == 0 { return },
                () = cancel.cancelled() => return,
            }
            if let Err(error) = self.write(&entries).await {
                tracing::error!(%error, lost = entries.len(), "entries of the journal could not be written");
            }
            entries.clear();
        }
    }

    async fn write(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let mut append = self.store.append().await?;
        for entry in entries {
            match entry {
                Entry::Activity { activity, actor, at } => {
                    let id = ActivityId::from_ulid(self.store.clock().ulid());
                    activity.insert(append.connection(), actor, 0, (id, *at)).await?;
                }
                Entry::Seen { device, actor, at } => {
                    let statement = "UPDATE device SET last_seen_at = $1, last_address = COALESCE($2, last_address),
                            agent = COALESCE($3, agent)
                        WHERE id = $4";
                    sql::query(statement)
                        .bind(signed(at.0))
                        .bind(actor.address.map(|address| address.to_string()))
                        .bind(&actor.agent)
                        .bind(device.to_string())
                        .execute(append.connection())
                        .await?;
                }
            }
        }
        append.commit().await
    }
}
