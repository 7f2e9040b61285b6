//! Grants end at their time without anybody's action.

use std::time::Duration;

use postern_proto::id::GrantId;
use tokio_util::sync::CancellationToken;

use crate::{
    access,
    catalogue::Grant,
    duty::Duty,
    store::{Actor, Store, StoreError},
};

/// The wall clock may jump, so the wait for a far end is cut into pieces.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long after the end of who did it another sees to it.
const TERM: Duration = Duration::from_secs(5);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Ends grants at their time, until `stop`.
pub async fn run(store: Store, stop: CancellationToken) {
    let mut catalogue = store.watch();
    let duty = Duty::new(store.clone(), "expiry", TERM);
    loop {
        let end = access::next_end(&catalogue.borrow_and_update());
        let wait = end.map_or(LONGEST_WAIT, |end| end.since(store.clock().now()).min(LONGEST_WAIT));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = catalogue.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {
                match end_on_duty(&duty, &store).await {
                    Ok(true) => {}
                    Ok(false) => tokio::time::sleep(AGAIN).await,
                    Err(error) => {
                        tracing::error!(%error, "grants that are over could not be ended");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
    }
}

/// False when another control plane sees to it.
async fn end_on_duty(duty: &Duty, store: &Store) -> Result<bool, StoreError> {
    if !duty.take().await? {
        return Ok(false);
    }
    end_grants(store).await?;
    Ok(true)
}

/// Removes every grant whose end has come, and revokes what hung on it. True when there was one.
pub async fn end_grants(store: &Store) -> Result<bool, StoreError> {
    let over = |catalogue: &crate::catalogue::Catalogue| -> Vec<GrantId> {
        let now = store.clock().now();
        let over = |grant: &&std::sync::Arc<Grant>| grant.ends_at.is_some_and(|end| end <= now);
        catalogue.grants.values().filter(over).map(|grant| grant.id).collect()
    };
    if over(&store.catalogue()).is_empty() {
        return Ok(false);
    }
    let mut change = store.change(Actor::system()).await?;
    change.because("the grant has ended");
    for grant in over(change.catalogue()) {
        change.end_grant(grant).await?;
    }
    change.commit().await?;
    Ok(true)
}
