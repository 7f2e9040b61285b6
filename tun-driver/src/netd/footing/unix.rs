//! Linux and macOS: folders that only root can write, a lock file, a socket that everybody may connect to.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::super::options::Options;
use crate::sys::Listener;

/// What one netd alone may hold.
#[derive(Debug)]
pub(in super::super) struct Footing {
    _lock: File,
}

impl Footing {
    /// Makes the folders and takes the lock.
    pub(in super::super) fn take(options: &Options) -> anyhow::Result<Self> {
        let folder = options.socket.parent().context("--socket needs a path with a folder")?;
        make_folder(folder, 0o755)?;
        if !options.no_dns || cfg!(target_os = "macos") {
            make_folder(&options.state, 0o700)?;
        }
        Ok(Self { _lock: take_lock(folder)? })
    }

    #[expect(clippy::unused_self, reason = "only who holds the lock may take the socket's place")]
    pub(in super::super) fn listen(&mut self, path: &Path) -> anyhow::Result<Listener> {
        listen(path)
    }

    #[expect(clippy::unused_self, reason = "only who holds the lock may take the socket away")]
    pub(in super::super) fn leave(&self, path: &Path) {
        let _ = fs::remove_file(path);
    }
}

/// Cancelled by SIGTERM and SIGINT.
pub(in super::super) fn stop_signal() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}

/// Whoever could write into the folder could put another socket in our place.
fn make_folder(folder: &Path, mode: u32) -> anyhow::Result<()> {
    if !folder.exists() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::set_permissions(folder, Permissions::from_mode(mode))?;
    }
    let data = fs::metadata(folder)?;
    let own = rustix::process::geteuid().as_raw();
    anyhow::ensure!(
        data.is_dir() && data.uid() == own && data.mode() & 0o022 == 0,
        "{} must be a folder that belongs to user {own} and that only he can write",
        folder.display()
    );
    Ok(())
}

/// Before anything else is touched: clean-up of a second instance would take the first one's networks away.
fn take_lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("netd.lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&path);
    let lock = lock.with_context(|| format!("cannot open {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => {
            anyhow::bail!("another postern-netd holds {}; there can be only one", path.display())
        }
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Everybody may connect: who may ask is decided by the uid that the kernel gives.
fn listen(path: &Path) -> anyhow::Result<Listener> {
    match fs::symlink_metadata(path) {
        // We hold the lock, so nobody listens there.
        Ok(data) if data.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => anyhow::bail!("{} is there and no socket", path.display()),
        Err(_) => {}
    }
    let listener = Listener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}
