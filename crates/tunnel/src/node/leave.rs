//! How a node leaves: at first it takes nothing new, at last it lets everybody go.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long a stopping node waits for heads on idle links: that long it says 503, which is quicker than what follows.
const LAST_CALL: Duration = Duration::from_secs(1);

/// The two words that a node gives its connections.
#[derive(Clone)]
pub(super) struct Leave {
    /// Nothing new begins.
    pub(super) stop: CancellationToken,
    /// Nothing is waited for any more.
    pub(super) over: CancellationToken,
}

impl Leave {
    pub(super) fn after(stop: CancellationToken) -> Self {
        Self { stop, over: CancellationToken::new() }
    }

    /// Completes when a link that is idle is to be closed.
    pub(super) async fn last_call(&self) {
        let stopped = async {
            self.stop.cancelled().await;
            sleep(LAST_CALL).await;
        };
        tokio::select! {
            () = self.over.cancelled() => {}
            () = stopped => {}
        }
    }
}
