//! Takes over what other processes do to the database, and wakes them when something is done here.
//!
//! The database is asked for its revision at short intervals; that is what counts. On PostgreSQL a notification wakes who
//! waits for the next time, at most some twenty times a second, so that a lost one costs an interval and nothing else.

use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio_util::sync::CancellationToken;

use crate::store::{Store, StoreError};

/// How often a file is looked at: only the offline commands write to it beside us.
const ALONE: Duration = Duration::from_millis(500);
/// How often a shared database is looked at.
const SHARED: Duration = Duration::from_millis(200);
/// Notifications are this far apart at least.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Takes over changes until it is cancelled.
pub async fn run(store: Store, stop: CancellationToken) {
    let every = if store.reader().is_shared() { SHARED } else { ALONE };
    let mut listener = None;
    let mut failing = false;
    loop {
        if listener.is_none() {
            listener = listen(&store).await;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
            () = heard(&mut listener) => {}
        }
        match store.catch_up().await {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("the database answers again");
                }
            }
            Err(error @ StoreError::TooOld { .. }) => {
                tracing::error!(%error, "this control plane stops");
                return stop.cancel();
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "changes by other processes cannot be read");
                }
                stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
            }
        }
    }
}

/// Tells other processes of changes made here, until it is cancelled.
pub async fn tell(store: Store, stop: CancellationToken) {
    while stop.run_until_cancelled(store.changed_here()).await.is_some() {
        if let Err(error) = store.reader().notify().await {
            tracing::debug!(%error, "others were not told of a change; they see it themselves");
        }
        stop.run_until_cancelled(tokio::time::sleep(DEBOUNCE)).await;
    }
}

async fn listen(store: &Store) -> Option<PgListener> {
    match store.reader().listen().await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::debug!(%error, "no notifications; the database is asked all the same");
            None
        }
    }
}

/// Completes at a notification; never without a listener.
async fn heard(listener: &mut Option<PgListener>) {
    match listener {
        None => std::future::pending().await,
        Some(open) => {
            if open.recv().await.is_err() {
                *listener = None;
            }
        }
    }
}
