//! Windows: the first instance of the pipe is the lock.

use std::{fs, io, path::Path};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::super::options::Options;
use crate::sys::{Listener, service_stopped};

/// What one netd alone may hold.
#[derive(Debug)]
pub(in super::super) struct Footing {
    listener: Option<Listener>,
}

impl Footing {
    /// Takes the pipe's name. Nobody is let in yet.
    pub(in super::super) fn take(options: &Options) -> anyhow::Result<Self> {
        fs::create_dir_all(&options.state).with_context(|| format!("cannot make {}", options.state.display()))?;
        let name = &options.socket;
        let listener = Listener::bind(name)
            .with_context(|| format!("cannot listen at {}; there can be only one postern-netd", name.display()))?;
        Ok(Self { listener: Some(listener) })
    }

    pub(in super::super) fn listen(&mut self, _: &Path) -> anyhow::Result<Listener> {
        self.listener.take().context("postern-netd listens already")
    }

    /// A pipe is gone with whoever listens there.
    #[expect(clippy::unused_self, reason = "other platforms leave a file")]
    pub(in super::super) fn leave(&self, _: &Path) {}
}

/// Cancelled by Ctrl-C, and by the system when it stops the service.
pub(in super::super) fn stop_signal() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            () = service_stopped() => {}
        }
        told.cancel();
    });
    Ok(stop)
}
