//! SIGINT, SIGTERM and SIGHUP as a flag, so that whatever was started is stopped in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// How often waiting code looks at the flag.
const GLANCE: Duration = Duration::from_millis(10);

/// Set once a signal asked this program to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

/// The reason why work was left: a signal asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

impl Interrupt {
    /// From now on the signals only set the flag.
    pub(crate) fn on_signals() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
        let streams = runtime
            .block_on(async { [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal) });
        let [mut interrupted, mut terminated, mut hung_up] = {
            let [a, b, c] = streams;
            [a.context("SIGINT")?, b.context("SIGTERM")?, c.context("SIGHUP")?]
        };
        let flag = interrupt.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupted.recv() => {}
                    _ = terminated.recv() => {}
                    _ = hung_up.recv() => {}
                }
            });
            flag.set();
        })?;
        Ok(interrupt)
    }

    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        if self.is_set() { Err(Interrupted) } else { Ok(()) }
    }

    /// Waits, unless interrupted.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), Interrupted> {
        self.wait_for(Instant::now() + time, || None::<()>).map(drop)
    }

    /// Asks `ready` again and again until it gives something; `None` when the deadline comes first.
    pub(crate) fn wait_for<T>(
        &self,
        deadline: Instant,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>, Interrupted> {
        loop {
            self.check()?;
            if let Some(value) = ready() {
                return Ok(Some(value));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            thread::sleep(left.min(GLANCE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_what_was_waited_for_or_with_the_deadline() {
        let interrupt = Interrupt::default();
        let soon = Instant::now() + Duration::from_secs(60);
        assert_eq!(interrupt.wait_for(soon, || Some(1)), Ok(Some(1)));
        assert_eq!(interrupt.wait_for(Instant::now(), || None::<u8>), Ok(None));
    }

    #[test]
    fn an_interrupt_ends_every_wait() {
        let interrupt = Interrupt::default();
        interrupt.set();
        assert_eq!(interrupt.sleep(Duration::from_secs(60)), Err(Interrupted));
        assert_eq!(interrupt.check(), Err(Interrupted));
    }
}
