//! The whole service: sets everything up, runs until it is told to stop, takes everything down again.

use std::{io::Write as _, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use postern_local_api::{
    message::{KeyPlace, KeyStorage, Status, StatusApi},
    paths::Paths,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Mutex, mpsc, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    board::Board,
    carriage::Carriage,
    doctor::{Doctor, Skew},
    event_log::EventLog,
    gate::Gate,
    instance::Instance,
    listener::Reception,
    local::{self, Handle},
    options::{Options, StatusListen},
    process,
    refusals::Refusals,
    service_login,
    shell::{Parts, Shell},
    status_http::StatusServer,
    store::{Config, DeviceKey, Store},
};

/// How long running calls and streams may take to end when the service stops.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);
/// Inputs for the engine that may wait; whoever has one more waits, or does without.
const INPUTS: usize = 1024;
/// Calls of the local API that may wait for the shell.
const REQUESTS: usize = 256;

/// Runs the service until SIGTERM, SIGINT or a call of the local API stops it.
///
/// # Errors
/// What keeps the service from starting: another instance, folders or sockets that cannot be used.
pub async fn run(options: Options, log: EventLog) -> anyhow::Result<()> {
    let mut warnings = Vec::new();
    if let Err(error) = process::forbid_core_dumps() {
        warnings.push(format!("Core dumps could not be switched off ({error}): a crash may leave keys on disk."));
    }
    let files = process::raise_file_limit();
    tracing::debug!(?files, "limit of open files");
    let paths = Paths::find(options.home.as_deref())?;
    let _instance = Instance::claim(&paths)?;
    let store = Store::new(&paths);
    let config = choose_config(&options, &store, &mut warnings)?;
    let gate = Gate::open(&options.allow_uids)
        .context("cannot ask the system whose a connection is; without that nothing may be listened on")?;
    let stop = CancellationToken::new();
    tokio::spawn(wait_for_signals(stop.clone()).context("cannot listen for signals")?);

    let socket = paths.socket();
    let listener = local::listen(&socket).with_context(|| format!("cannot open {}", socket.display()))?;
    let (shell, handle, status_state) = assemble(&options, store, gate, warnings, config.clone(), &stop);
    let handle = Handle { log, ..handle };
    let calls = TaskTracker::new();
    let carriage = Arc::clone(&handle.carriage);
    let api = tokio::spawn(local::serve(listener, local::router(handle.clone()), stop.clone(), calls.clone()));
    if let StatusListen::At(address) = options.status_listen {
        let token_file = paths.runtime.join("status-token");
        let gate = Arc::clone(&handle.doctor.gate);
        let server = StatusServer { address, token_file, gate, handle: handle.clone(), state: status_state };
        calls.spawn(server.run(stop.clone(), calls.clone()));
    }
    if let Some(file) = options.service_token_file {
        calls.spawn(service_login::keep_signed_in(handle, file, stop.clone()));
    }
    let mut shell = tokio::spawn(shell.run(config, stop.clone()));
    say_ready(&socket)?;

    tokio::select! {
        // First, because the shell ends too when the service is to stop.
        biased;
        () = stop.cancelled() => tracing::info!("stopping"),
        _ = &mut shell => {
            let _ = std::fs::remove_file(&socket);
            anyhow::bail!("the service broke down; the log says why");
        }
    }
    let _ = std::fs::remove_file(&socket);
    let _ = api.await;
    calls.close();
    carriage.tasks().close();
    let rest = async {
        let _ = shell.await;
        carriage.tasks().wait().await;
        calls.wait().await;
    };
    if tokio::time::timeout(SHUTDOWN_DEADLINE, rest).await.is_err() {
        tracing::warn!("some connections did not end in time and are cut off");
    }
    Ok(())
}

/// Joins the parts.
fn assemble(
    options: &Options,
    store: Store,
    gate: Gate,
    warnings: Vec<String>,
    config: Option<Config>,
    stop: &CancellationToken,
) -> (Shell, Handle, watch::Sender<StatusApi>) {
    let inputs = mpsc::channel(INPUTS);
    let (requests_in, requests) = mpsc::channel(REQUESTS);
    let (accounts_in, accounts) = watch::channel(None);
    // Known before the first call: somebody may sign in at once.
    let (configs_in, configs) = watch::channel(config);
    let (status_state, status_api) = watch::channel(StatusApi::Off);
    let board = Arc::new(Board::new(first_status(options, &store, warnings.clone())));
    let carriage = Arc::new(Carriage::new(inputs.0.clone(), rand::random()));
    let (gate, refusals, skew) = (Arc::new(gate), Arc::new(Refusals::default()), Arc::new(Skew::default()));
    let reception =
        Reception { gate: Arc::clone(&gate), carriage: Arc::clone(&carriage), refusals, board: Arc::clone(&board) };
    let doctor = Doctor { store: store.clone(), gate, carriage: Arc::clone(&carriage), skew: Arc::clone(&skew) };
    let parts = Parts {
        store,
        board: Arc::clone(&board),
        carriage: Arc::clone(&carriage),
        reception,
        inputs,
        requests,
        accounts: accounts_in,
        configs: configs_in,
        status_api,
        skew,
        allowed_uids: options.allow_uids.clone(),
        warnings,
        key_place: options.key_place(),
    };
    let handle = Handle {
        board,
        requests: requests_in,
        carriage,
        accounts,
        configs,
        doctor: Arc::new(doctor),
        log: EventLog::default(),
        signing_in: Arc::new(Mutex::new(())),
        stop: stop.clone(),
    };
    (Shell::new(parts, rand::random()), handle, status_state)
}

/// What was given on the command line wins over what the last sign-in used.
fn choose_config(options: &Options, store: &Store, warnings: &mut Vec<String>) -> anyhow::Result<Option<Config>> {
    let kept = store.load_or_warn::<Config>(warnings);
    if options.control.is_empty() {
        return Ok(kept);
    }
    let control = options.control.join(",");
    let control: postern_tunnel::control::ControlUrls = control.parse()?;
    let control = control.to_string();
    let ca = match &options.ca {
        Some(file) => {
            Some(std::fs::read_to_string(file).with_context(|| format!("cannot read the CA {}", file.display()))?)
        }
        None => kept.filter(|kept| crate::account::is_same_control(&kept.control, &control)).and_then(|kept| kept.ca),
    };
    Ok(Some(Config { control, ca }))
}

fn first_status(options: &Options, store: &Store, warnings: Vec<String>) -> Status {
    Status {
        key_storage: match options.key_place() {
            KeyPlace::File => KeyStorage::File { path: store.path::<DeviceKey>().display().to_string() },
            KeyPlace::Memory | KeyPlace::Keyring => KeyStorage::Memory,
        },
        allowed_uids: options.allow_uids.clone(),
        warnings,
        ..Status::signed_out(env!("CARGO_PKG_VERSION"))
    }
}

/// The one line on standard output that says that the local API answers.
fn say_ready(socket: &Path) -> std::io::Result<()> {
    let line = serde_json::json!({"ready": true, "socket": socket});
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn wait_for_signals(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Its terminal is gone.
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        stop.cancel();
    })
}
