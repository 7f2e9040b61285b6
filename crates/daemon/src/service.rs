//! The whole service: sets everything up, runs until it is told to stop, takes everything down again.

use std::{io::Write as _, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use postern_local_api::{
    message::{ControlLink, KeyStorage, SignIn, Status, StatusApi},
    paths::Paths,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    board::Board,
    instance::Instance,
    local::{self, Handle},
    options::Options,
    process,
    store::{DeviceKey, Store},
};

/// How long running calls and streams may take to end when the service stops.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

/// Runs the service until SIGTERM, SIGINT or a call of the local API stops it.
///
/// # Errors
/// What keeps the service from starting: another instance, folders or sockets that cannot be used.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut warnings = Vec::new();
    if let Err(error) = process::forbid_core_dumps() {
        warnings.push(format!("Core dumps could not be switched off ({error}): a crash may leave keys on disk."));
    }
    let files = process::raise_file_limit();
    tracing::debug!(?files, "limit of open files");
    let paths = Paths::find(options.home.as_deref())?;
    let _instance = Instance::claim(&paths)?;
    let store = Store::new(&paths);
    let stop = CancellationToken::new();
    tokio::spawn(wait_for_signals(stop.clone()).context("cannot listen for signals")?);
    let board = Arc::new(Board::new(first_status(&options, &store, warnings)));
    let socket = paths.socket();
    let listener = local::listen(&socket).with_context(|| format!("cannot open {}", socket.display()))?;
    let calls = TaskTracker::new();
    let handle = Handle { board, stop: stop.clone() };
    let api = tokio::spawn(local::serve(listener, local::router(handle), stop.clone(), calls.clone()));
    say_ready(&socket)?;
    stop.cancelled().await;
    tracing::info!("stopping");
    let _ = std::fs::remove_file(&socket);
    let _ = api.await;
    calls.close();
    if tokio::time::timeout(SHUTDOWN_DEADLINE, calls.wait()).await.is_err() {
        tracing::warn!("some calls did not end in time and are cut off");
    }
    Ok(())
}

fn first_status(options: &Options, store: &Store, warnings: Vec<String>) -> Status {
    Status {
        service: env!("CARGO_PKG_VERSION").to_owned(),
        sign_in: SignIn::SignedOut,
        control: ControlLink::None,
        key_storage: KeyStorage::File { path: store.path::<DeviceKey>().display().to_string() },
        certificate_ends: None,
        gateways: Vec::new(),
        resources: Vec::new(),
        allowed_uids: options.allow_uids.clone(),
        status_api: StatusApi::Off,
        warnings,
    }
}

/// The one line on standard output that says that the local API answers.
fn say_ready(socket: &PathBuf) -> std::io::Result<()> {
    let line = serde_json::json!({"ready": true, "socket": socket});
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn wait_for_signals(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    })
}
