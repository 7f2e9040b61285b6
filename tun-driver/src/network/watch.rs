//! Waiting for changes of the machine's network.

use std::{collections::BTreeSet, io, time::Instant};

use super::{Change, Settle};
use crate::sys;

/// Tells of changes of links, addresses, routes, rules and name servers, once they have settled. Needs no privilege.
///
/// ```text
/// let mut watch = Watch::open()?;
/// loop {
///     let changes = watch.next().await?;
///     // read the landscape again
/// }
/// ```
#[derive(Debug)]
pub struct Watch {
    source: sys::NetworkEvents,
    settle: Settle,
}

impl Watch {
    /// Begins to listen: what changes from now on is told. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> io::Result<Self> {
        Ok(Self { source: sys::NetworkEvents::open()?, settle: Settle::new() })
    }

    /// The next changes. May be dropped and called again: nothing is lost.
    ///
    /// # Errors
    /// The system gives no more events: open a new one.
    pub async fn next(&mut self) -> io::Result<BTreeSet<Change>> {
        loop {
            if let Some(changes) = self.settle.poll_changes(Instant::now()) {
                return Ok(changes);
            }
            let settled = async {
                match self.settle.poll_timeout() {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changes = self.source.next() => {
                    let now = Instant::now();
                    for change in changes? {
                        self.settle.handle_change(change, now);
                    }
                }
                () = settled => {}
            }
        }
    }
}
