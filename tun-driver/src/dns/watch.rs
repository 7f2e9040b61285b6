//! Keeps registrations in force: follows restarts of resolved, of the bus and of the stub, and changes of resolv.conf.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::StreamExt as _;
use tokio::{
    sync::Notify,
    time::{Instant, interval_at, sleep},
};
use zbus::fdo::{DBusProxy, NameOwnerChangedStream};

use super::{resolved, system::Shared};
use crate::network::{Change, Watch};

/// What no event tells of is seen at the latest after this.
const LOOK: Duration = Duration::from_secs(15);
/// Between attempts to reach the bus.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

enum Event {
    /// resolved came or went.
    Resolved {
        runs: bool,
    },
    BusLost,
    /// resolv.conf, or which files resolvers write.
    File,
    StubGone,
    Tick,
}

/// Runs until the registrations are dropped.
pub(super) async fn keep(shared: Weak<Shared>, stub_gone: Arc<Notify>) {
    let mut bus = BusWatch::default();
    let mut files = Watch::open().ok();
    let mut ticks = interval_at(Instant::now() + LOOK, LOOK);
    loop {
        let event = tokio::select! {
            event = bus.next() => event,
            changed = changed(&mut files) => if changed { Event::File } else { continue },
            () = stub_gone.notified() => Event::StubGone,
            _ = ticks.tick() => Event::Tick,
        };
        let Some(shared) = shared.upgrade() else { return };
        match event {
            Event::Resolved { runs } => shared.look_again(runs).await,
            Event::BusLost => shared.forget_bus().await,
            Event::StubGone => {
                shared.forget_stub().await;
                shared.look_again(false).await;
            }
            Event::File | Event::Tick => shared.look_again(false).await,
        }
    }
}

/// Waits for changes of the resolver's files; opens another watch when one fails.
async fn changed(files: &mut Option<Watch>) -> bool {
    let Some(watch) = files else {
        sleep(LOOK).await;
        *files = Watch::open().ok();
        return true;
    };
    match watch.next().await {
        Ok(changes) => changes.contains(&Change::Resolver),
        Err(error) => {
            tracing::debug!("changes of the network are no longer told: {error}");
            *files = None;
            true
        }
    }
}

/// Waits for resolved to come and go, over a connection of its own.
struct BusWatch {
    stream: Option<NameOwnerChangedStream>,
    retry: Duration,
}

impl Default for BusWatch {
    fn default() -> Self {
        Self { stream: None, retry: FIRST_RETRY }
    }
}

impl BusWatch {
    async fn next(&mut self) -> Event {
        let Some(stream) = &mut self.stream else {
            return self.connect().await;
        };
        match stream.next().await {
            Some(signal) => match signal.args() {
                Ok(arguments) => Event::Resolved { runs: arguments.new_owner().is_some() },
                Err(_) => Event::Tick,
            },
            None => {
                self.stream = None;
                Event::BusLost
            }
        }
    }

    async fn connect(&mut self) -> Event {
        match subscribe().await {
            Ok(stream) => {
                self.stream = Some(stream);
                self.retry = FIRST_RETRY;
                // It may have come or been restarted while nobody listened.
                Event::Resolved { runs: true }
            }
            Err(error) => {
                tracing::debug!("the system bus cannot be watched: {error}");
                sleep(self.retry).await;
                self.retry = (self.retry * 2).min(LAST_RETRY);
                Event::Tick
            }
        }
    }
}

async fn subscribe() -> zbus::Result<NameOwnerChangedStream> {
    let bus = resolved::connect().await?;
    let proxy = DBusProxy::new(&bus).await?;
    proxy.receive_name_owner_changed_with_args(&[(0, resolved::SERVICE)]).await
}
