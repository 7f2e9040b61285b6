//! Finds out at the start whether the database is older than what ran last, because it was restored from a backup: then
//! another epoch begins, and devices and gateways take everything afresh.
//!
//! The mark beside the database says how far the last run came. A backup of the whole folder takes it along; that its
//! revisions mean nothing to who holds newer ones is seen to in [`crate::sync`].

#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use postern_tunnel::private_file;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    catalogue::Catalogue,
    store::{Store, StoreError},
};

/// The mark within the data folder.
const FILE: &str = "last-run.json";
/// The mark is written at most this often.
const REST: Duration = Duration::from_secs(1);

/// Why it cannot be told whether the database is that of the last run.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    #[error("cannot read or write {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    epoch: String,
    revision: u64,
}

impl Mark {
    fn of(catalogue: &Catalogue) -> Self {
        Self { epoch: catalogue.org.epoch.clone(), revision: catalogue.revision }
    }

    /// Whether a database at `now` can follow from one at this mark.
    fn leads_to(&self, now: &Self) -> bool {
        self.epoch == now.epoch && self.revision <= now.revision
    }

    /// The same where several control planes work on the database: another one may have begun another epoch since.
    fn leads_to_shared(&self, now: &Self) -> bool {
        self.epoch != now.epoch || self.revision <= now.revision
    }
}

/// Begins another epoch if the database is older than the mark, or has none of its own. True when it did.
pub async fn settle(store: &Store, data: &Path) -> Result<bool, EpochError> {
    let path = data.join(FILE);
    let found = match std::fs::read(&path) {
        Ok(content) => serde_json::from_slice::<Mark>(&content).ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Mark::of(&store.catalogue())),
        Err(source) => return Err(EpochError::File { path, source }),
    };
    let now = Mark::of(&store.catalogue());
    let restored = match found {
        Some(mark) if store.reader().is_shared() => !mark.leads_to_shared(&now),
        Some(mark) => !mark.leads_to(&now),
        None => !store.reader().is_shared(),
    };
    if restored {
        tracing::warn!("the database is not that of the last run; devices and gateways take everything afresh");
        store.begin_epoch().await?;
    }
    write(&path, &Mark::of(&store.catalogue())).map_err(|source| EpochError::File { path, source })?;
    Ok(restored)
}

/// Keeps the mark at the newest revision, until it is cancelled.
pub async fn keep(store: Store, data: PathBuf, cancel: CancellationToken) {
    let path = data.join(FILE);
    let mut catalogue = store.watch();
    while let Some(Ok(())) = cancel.run_until_cancelled(catalogue.changed()).await {
        let mark = Mark::of(&catalogue.borrow_and_update());
        let target = path.clone();
        let written = tokio::task::spawn_blocking(move || write(&target, &mark)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, path = %path.display(), "the mark of this run could not be written");
        }
        cancel.run_until_cancelled(tokio::time::sleep(REST)).await;
    }
}

fn write(path: &Path, mark: &Mark) -> io::Result<()> {
    private_file::write(path, &serde_json::to_vec(mark)?)
}
