//! Activities that are written beside the answer, so that the answer neither waits for them nor tells by its time
//! whether there was one.

use postern_proto::{id::ActivityId, time::UnixMillis};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::store::{Activity, Actor, Store, StoreError};

/// Activities that may wait to be written. More are dropped and counted in the log: who floods the sign-in is bounded by
/// the password checks, which take far longer than a row.
const WAITING: usize = 1024;
/// Activities of one transaction.
const BATCH: usize = 100;

/// Takes activities; clones share the queue.
#[derive(Clone)]
pub struct Journal {
    queue: mpsc::Sender<Note>,
}

/// Writes what a [`Journal`] takes.
pub struct JournalWriter {
    queue: mpsc::Receiver<Note>,
    store: Store,
}

struct Note {
    activity: Activity,
    actor: Actor,
    at: UnixMillis,
}

impl Journal {
    #[must_use]
    pub fn new(store: Store) -> (Self, JournalWriter) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { queue: sender }, JournalWriter { queue: receiver, store })
    }

    /// Has an activity written soon.
    pub fn note(&self, activity: Activity, actor: Actor, at: UnixMillis) {
        if let Err(error) = self.queue.try_send(Note { activity, actor, at }) {
            tracing::warn!(%error, "an activity was not written");
        }
    }
}

impl JournalWriter {
    /// Writes until it is cancelled; what is waiting then is still written.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut notes = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                got = self.queue.recv_many(&mut notes, BATCH) => if got == 0 { return },
                () = cancel.cancelled() => return,
            }
            if let Err(error) = self.write(&notes).await {
                tracing::error!(%error, lost = notes.len(), "activities could not be written");
            }
            notes.clear();
        }
    }

    async fn write(&self, notes: &[Note]) -> Result<(), StoreError> {
        let mut append = self.store.append().await?;
        for note in notes {
            let id = ActivityId::from_ulid(self.store.clock().ulid());
            note.activity.insert(append.connection(), &note.actor, 0, (id, note.at)).await?;
        }
        append.commit().await
    }
}
