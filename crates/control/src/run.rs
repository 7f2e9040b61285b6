//! Starts the control plane, tells when it is ready, and stops it.

use std::{
    fs::File,
    io::{IsTerminal as _, Write as _},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context as _, bail};
use postern_monitor::{Monitor, MonitorPlaces};
use postern_proto::name::{DnsName, Email, check_name};
use rustix::{
    fs::{FlockOperation, flock},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use serde::Serialize;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    api,
    authority::{Authority, ServerCertificate},
    clock::Clock,
    config::{self, Command, Serve},
    epoch, expiry, follow, housekeeping,
    journal::Journal,
    keys::Keys,
    maintenance,
    metrics::{Metrics, Parts, Watched},
    offline, openapi,
    password::Passwords,
    sealed::Keyring,
    server::{self, Server},
    state::AppState,
    store::{Absent, Store},
    sync::{Exchange, bulletin},
    upgrade,
};

/// How often it is looked whether a new lease key is due.
const ROTATE: Duration = Duration::from_secs(60);
/// The file that a running control plane holds locked.
const LOCK: &str = "lock";

/// Logs go to stderr; `RUST_LOG` says how much.
pub fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // An error means that a test set one up before.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .try_init();
}

/// Runs a command to its end.
pub fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let ended = runtime.block_on(async {
        match command {
            Command::Serve(serve) => {
                let stop = CancellationToken::new();
                cancel_on_signal(stop.clone())?;
                let running = Running::start(serve, Clock::system(), stop).await?;
                print_line(&running.ready)?;
                running.finish().await;
                Ok(())
            }
            Command::GatewayToken(command) => offline::gateway_token(command).await,
            Command::RelayToken(command) => offline::relay_token(command).await,
            Command::AdminReset(command) => offline::admin_reset(command).await,
            Command::NewKey(command) => offline::new_key(&command),
            Command::Db { command: config::Db::Copy(command) } => offline::copy(command).await,
            Command::Backup(command) => offline::backup(command).await,
            Command::Restore(command) => offline::restore(command).await,
            Command::Openapi => Ok(std::io::stdout().write_all(openapi::text()?.as_bytes())?),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// The line that tells that the control plane is ready.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    pub ready: bool,
    pub url: String,
    pub ca_fingerprint: String,
    pub ca_file: PathBuf,
    /// Where liveness and metrics are served, when they are.
    #[serde(flatten)]
    pub monitor: MonitorPlaces,
    /// Only at the first start.
    pub admin: Option<offline::Initial>,
}

/// A control plane that serves.
pub struct Running {
    pub ready: Ready,
    pub address: SocketAddr,
    /// Shared with the handlers.
    pub state: AppState,
    tasks: JoinSet<()>,
    _monitor: Monitor,
    _lock: File,
}

impl Running {
    /// Opens everything, makes what a first start makes, and serves until `stop`.
    pub async fn start(config: Serve, clock: Clock, stop: CancellationToken) -> anyhow::Result<Self> {
        let data = &config.data.data;
        let (admin_email, org) = check(&config)?;
        make_folder(data).with_context(|| format!("cannot make the data folder {}", data.display()))?;
        let lock = lock(data)?;
        raise_file_limit();
        let watched = Arc::new(Watched::default());
        let monitor = Monitor::start(config.monitor.liveness, config.monitor.metrics, Arc::clone(&watched) as _)?;
        let place = config.data.place();
        let keyring = keyring(&config.data)?;
        let store =
            Store::open_at(&place, Absent::Create { org }, clock.clone()).await.context("cannot open the store")?;
        let keys = match keyring {
            Some(keyring) => Keys::Shared { store: store.clone(), keyring: Arc::new(keyring) },
            None => Keys::Folder(data.clone()),
        };
        epoch::settle(&store, data).await.context("the mark of the last run")?;
        let names: Vec<DnsName> = config.names.iter().filter_map(|name| name.parse().ok()).collect();
        upgrade::run(&store, &names).await.context("cannot bring resources to this version")?;
        let org = store.org();
        let authority = keys.authority(data, &store, clock.now()).await.context("the CA")?;
        let authority = Arc::new(authority);
        let passwords = tokio::task::spawn_blocking(Passwords::new).await.context("passwords")??.sharing(&store);
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {}: is the port in use?", config.listen))?;
        let address = listener.local_addr()?;
        let certificate = Arc::new(certificate(&config, &authority, address, &clock)?);
        let tls = server::tls_config(&authority, Arc::clone(&certificate) as _).context("TLS")?;
        let lease_keys = keys.lease_keys(org.id, clock.now()).await.context("the lease keys")?;
        let (exchange, follower) = Exchange::new(store.clone(), lease_keys.announced().collect())?;
        let (journal, writer) = Journal::new(store.clone());
        let metrics = Arc::new(Metrics::new(store.meter()));
        let state = AppState {
            metrics: Arc::clone(&metrics),
            store,
            clock: clock.clone(),
            authority: Arc::clone(&authority),
            passwords: Arc::new(passwords),
            lease_keys: Arc::new(RwLock::new(lease_keys)),
            exchange,
            journal,
            names: Arc::new(names),
            allowance: Arc::default(),
            stop: stop.clone(),
        };
        let (store, exchange) = (state.store.clone(), state.exchange.clone());
        metrics.attach(Parts { store, exchange, authority: Arc::clone(&authority) });
        let admin = offline::first_admin(&state, &admin_email).await.context("the first administrator")?;
        let server = Server { listener, tls, router: api::router(state.clone()), org: org.id };
        let mut tasks = JoinSet::new();
        tasks.spawn(server.run(stop.clone()));
        tasks.spawn(follower.run(stop.clone()));
        tasks.spawn(writer.run(stop.clone()));
        tasks.spawn(bulletin::run(state.exchange.clone(), state.store.clone(), stop.clone()));
        tasks.spawn(epoch::keep(state.store.clone(), data.clone(), stop.clone()));
        let (store, exchange) = (state.store.clone(), state.exchange.clone());
        tasks.spawn(housekeeping::run(store, exchange, config.absence.limit(), stop.clone()));
        tasks.spawn(rotate_lease_keys(state.clone(), keys));
        let ticking = stop.clone();
        tasks.spawn(async move {
            let fresh = certificate.keep_fresh(move || clock.now());
            ticking.run_until_cancelled(fresh).await;
        });
        tasks.spawn(maintenance::run(state.store.clone(), state.exchange.clone(), stop.clone()));
        tasks.spawn(expiry::run(state.store.clone(), stop.clone()));
        tasks.spawn(follow::run(state.store.clone(), stop.clone()));
        tasks.spawn(follow::tell(state.store.clone(), stop));
        let ready = Ready {
            ready: true,
            url: url(&config, address),
            ca_fingerprint: authority.fingerprint(),
            ca_file: std::path::absolute(Authority::certificate_file(data))?,
            monitor: monitor.places(),
            admin,
        };
        watched.attach(state.clone());
        tracing::info!(url = %ready.url, org = %org.name, "the control plane is ready");
        Ok(Self { ready, address, state, tasks, _monitor: monitor, _lock: lock })
    }

    /// Waits until everything has stopped, and closes the database.
    pub async fn finish(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the control plane broke off");
                self.state.stop.cancel();
            }
        }
        self.state.store.close().await;
        tracing::info!("the control plane has stopped");
    }
}

fn check(config: &Serve) -> anyhow::Result<(Email, &str)> {
    let email = config.admin_email.parse().with_context(|| format!("--admin-email {}", config.admin_email))?;
    check_name(&config.org).with_context(|| format!("--org {}", config.org))?;
    Ok((email, &config.org))
}

pub(crate) fn make_folder(data: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data)
}

/// Every connection takes a file descriptor, and the usual limit is 1024.
fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// One control plane for each data folder.
pub(crate) fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join(LOCK);
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another postern-control already serves {}; stop it first", data.display());
    }
    Ok(file)
}

fn certificate(
    config: &Serve,
    authority: &Arc<Authority>,
    address: SocketAddr,
    clock: &Clock,
) -> anyhow::Result<ServerCertificate> {
    if let (Some(certificate), Some(key)) = (&config.tls_cert, &config.tls_key) {
        return ServerCertificate::files(certificate, key, clock.now())
            .with_context(|| format!("cannot serve with {} and {}", certificate.display(), key.display()));
    }
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend(config.names.iter().cloned());
    if !address.ip().is_unspecified() {
        names.push(address.ip().to_string());
    }
    names.sort();
    names.dedup();
    Ok(ServerCertificate::own(Arc::clone(authority), names, clock.now())?)
}

/// Where the control plane is reached: under its first name, else at the address it listens on.
fn url(config: &Serve, address: SocketAddr) -> String {
    let host = match (config.names.first(), address.ip()) {
        (Some(name), _) => match name.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => name.clone(),
        },
        (None, ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        (None, IpAddr::V6(ip)) => format!("[{ip}]"),
        (None, ip) => ip.to_string(),
    };
    format!("https://{host}:{}", address.port())
}

pub(crate) fn print_line(line: &impl Serialize) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Makes the next lease key in time, and announces it before it signs.
async fn rotate_lease_keys(state: AppState, keys: Keys) {
    let mut ticks = tokio::time::interval(ROTATE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let org = state.authority.org();
    while state.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match keys.rotate(org, &state.lease_keys, state.clock.now()).await {
            Ok(true) => {
                let keys = state.lease_keys.read().unwrap_or_else(PoisonError::into_inner);
                state.exchange.announce_lease_keys(keys.announced().collect());
            }
            Ok(false) => {}
            Err(error) => tracing::error!("the lease keys could not be rotated; the old ones go on: {error:#}"),
        }
    }
}

/// The keys of a control plane that shares its database.
fn keyring(data: &config::Data) -> anyhow::Result<Option<Keyring>> {
    match (&data.shared.database, &data.shared.key_file) {
        (None, _) => Ok(None),
        (Some(_), Some(file)) => Ok(Some(Keyring::read(file)?)),
        (Some(_), None) => bail!(
            "a control plane on PostgreSQL keeps its keys in the database, sealed: give the key with --key-file \
             (`postern-control new-key FILE` makes one), the same to each of its replicas"
        ),
    }
}

fn cancel_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
