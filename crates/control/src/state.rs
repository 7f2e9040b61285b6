//! What every request handler may use.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{authority::Authority, clock::Clock, password::Passwords, store::Store};

/// Handed to every handler; clones share everything.
#[derive(Clone)]
pub struct AppState {
    pub store: Store,
    pub clock: Clock,
    pub authority: Arc<Authority>,
    pub passwords: Arc<Passwords>,
    /// Cancelled when the control plane is told to stop.
    pub stop: CancellationToken,
}
