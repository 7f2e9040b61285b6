//! What a client knows a moment before the node does.
//!
//! The control plane tells clients and nodes of a new resource at the same time, and clients are quick.

use std::time::Duration;

use postern_proto::time::UnixMillis;
use tokio::time::{Instant, timeout_at};

use super::handler::GatewayParts;
use crate::{clock, egress::Denial};

/// A lease that was signed longer ago is of a resource that was known here, and is gone.
const FRESH: Duration = Duration::from_secs(10);
/// How long the news may take; a control plane tells a change within a fifth of a second.
const PATIENCE: Duration = Duration::from_secs(2);

/// Decides, and once more with each change from the control plane while only the resource is unknown and the lease is
/// fresh. A stream that waits counts as one that is being opened.
pub(super) async fn once_known<T>(
    parts: &GatewayParts,
    mut decide: impl FnMut(UnixMillis) -> Result<T, Denial>,
) -> Result<T, Denial> {
    let mut changes = parts.egress.changes();
    let patience = Instant::now() + PATIENCE;
    loop {
        changes.mark_unchanged();
        let now = clock::now();
        let denial = match decide(now) {
            Err(denial @ Denial::UnknownResource { leased_at }) if now.since(leased_at) < FRESH => denial,
            decided => return decided,
        };
        if !matches!(timeout_at(patience, changes.changed()).await, Ok(Ok(()))) {
            return Err(denial);
        }
    }
}
