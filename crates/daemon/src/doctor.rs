//! Looks at everything that must work, and says what it saw and what to do.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use postern_local_api::message::{
    Check, CheckGroup, Connection, ControlLink, DoctorReport, NetworkStatus, ResourceStatus, SignIn, Status, StatusApi,
    VERSION, Verdict,
};
use postern_proto::{resource::Health, time::UnixMillis};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

mod network;
mod zones;

pub use zones::{Direct, ZoneState, classify};

use crate::{
    account::{Account, control_client},
    carriage::{Carriage, error_text, printable},
    clock,
    gate::Gate,
    process,
    store::{Config, DeviceKey, Store},
};

/// Beyond this the clock is wrong; beyond a fifth of it, it deserves a word.
const MAX_SKEW: Duration = Duration::from_secs(300);
/// Resources that are looked at one by one; a longer list says little.
const MAX_RESOURCES: usize = 200;

/// See the module.
#[derive(Debug)]
pub struct Doctor {
    pub store: Store,
    pub gate: Arc<Gate>,
    pub carriage: Arc<Carriage>,
    pub skew: Arc<Skew>,
}

/// How far this machine's clock is ahead of the control plane's, as of the last time it was heard from.
#[derive(Debug)]
pub struct Skew(AtomicI64);

impl Skew {
    const UNKNOWN: i64 = i64::MIN;

    pub fn note(&self, theirs: UnixMillis, ours: UnixMillis) {
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        self.0.store(millis(ours.since(theirs)).saturating_sub(millis(theirs.since(ours))), Ordering::Relaxed);
    }

    /// Milliseconds; negative: behind. `None` before the control plane was heard from.
    #[must_use]
    pub fn millis(&self) -> Option<i64> {
        let millis = self.0.load(Ordering::Relaxed);
        (millis != Self::UNKNOWN).then_some(millis)
    }
}

impl Default for Skew {
    fn default() -> Self {
        Self(AtomicI64::new(Self::UNKNOWN))
    }
}

impl Doctor {
    /// Makes every check. `status` is fresh.
    pub async fn examine(
        &self,
        status: &Status,
        account: Option<Arc<Account>>,
        config: Option<Config>,
    ) -> DoctorReport {
        let mut checks = vec![version(), control(config.as_ref()).await, sign_in(status), sync(status), self.clock()];
        checks.push(certificate(account.as_deref()));
        checks.extend(self.gateways().await);
        checks.push(self.isolation().await);
        checks.extend(self.resources(status).await);
        checks.push(network::examine(&status.network));
        checks.extend(names(status).await);
        checks.extend([files(), self.key(), status_api(status)]);
        DoctorReport { checks }
    }

    fn clock(&self) -> Check {
        let check = check("clock", "Clock");
        let Some(millis) = self.skew.millis() else {
            return check.skipped("The control plane has not been heard from since the service started.");
        };
        let seconds = millis.unsigned_abs() / 1000;
        let word = if millis < 0 { "behind" } else { "ahead of" };
        let seen = format!("{seconds} s {word} the control plane's clock");
        match Duration::from_millis(millis.unsigned_abs()) {
            skew if skew > MAX_SKEW => {
                check.failed(seen, "Set this machine's clock: certificates begin and end by it.")
            }
            skew if skew > MAX_SKEW / 5 => check.warning(seen, "Let this machine's clock be set automatically."),
            _ => check.ok(seen),
        }
    }

    async fn gateways(&self) -> Vec<Check> {
        let entries = self.carriage.gateways().entries();
        if entries.is_empty() {
            return vec![check("gateway", "Gateways").skipped("None is known: nobody is signed in, or there is none.")];
        }
        let looks = entries.into_iter().map(|(name, entry)| async move {
            let check = check(format!("gateway:{name}"), format!("Gateway {name}"));
            match entry.probe().await {
                Ok(took) => {
                    check.ok(format!("{} proves itself and takes us, in {} ms", entry.address(), took.as_millis()))
                }
                Err(error) => check.failed(
                    error_text(&error),
                    "Check the network and firewalls between this machine and the gateway.",
                ),
            }
        });
        futures_util::future::join_all(looks).await
    }

    /// Whether our own connection over loopback is recognised as ours: without that every connection is refused.
    async fn isolation(&self) -> Check {
        let check = check("isolation", "Listeners are for you only");
        let own = async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            let address = listener.local_addr()?;
            let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (_client, (stream, peer)) = (client?, accepted?);
            Ok::<_, std::io::Error>(self.gate.admit(&stream, peer, address))
        };
        match own.await {
            Ok(Ok(())) => check.ok("The system says whose a connection is."),
            Ok(Err(refused)) => check.failed(
                format!("A connection of this service to itself was not recognised: {refused}"),
                "Connections are refused until the system answers (sock_diag over netlink); check containers and \
                 security modules.",
            ),
            Err(error) => {
                check.failed(format!("No connection over loopback: {error}"), "Check that the interface lo is up.")
            }
        }
    }

    async fn resources(&self, status: &Status) -> Vec<Check> {
        let connected: Vec<_> = status
            .resources
            .iter()
            .filter(|resource| resource.connection != Connection::Disconnected)
            .take(MAX_RESOURCES)
            .cloned()
            .collect();
        if connected.is_empty() {
            return vec![check("resource", "Connected resources").skipped("None is connected.")];
        }
        let gate = Arc::clone(&self.gate);
        let look = move || connected.iter().map(|status| resource(&gate, status)).collect();
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    fn key(&self) -> Check {
        let check = check("key", "Device key");
        let path = self.store.path::<DeviceKey>();
        let open = |path: &Path| path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
        if !path.exists() {
            return check.skipped("There is none: nobody is signed in.");
        }
        if open(&path) || path.parent().is_some_and(open) {
            let advice = "Close it: chmod 600 for the file, 700 for its folder; then sign out and in again.";
            return check.failed(format!("Others may read {}", path.display()), advice);
        }
        check.ok(format!("In a file that only you may read: {}. No keystore is used.", path.display()))
    }
}

fn version() -> Check {
    let version = env!("CARGO_PKG_VERSION");
    check("version", "Service").ok(format!("posternd {version}, local API version {VERSION}"))
}

async fn control(config: Option<&Config>) -> Check {
    let check = check("control", "Control plane");
    let Some(config) = config else {
        return check.skipped("None is configured; sign in with postern login --control https://…");
    };
    let begun = Instant::now();
    let answer = match control_client(config) {
        Ok(client) => client.ca().await.map_err(|error| printable(&error.to_string())),
        Err(error) => Err(error.to_string()),
    };
    match answer {
        Ok(info) => {
            let trust = if config.ca.is_some() { "the pinned CA" } else { "this machine's roots" };
            let (time, org) = (begun.elapsed().as_millis(), printable(&info.org_name));
            check.ok(format!("{} ({org}) answers in {time} ms and is trusted by {trust}", config.control))
        }
        Err(error) => check.failed(error, "Check the network, and the CA if it was changed: postern login again."),
    }
}

fn sign_in(status: &Status) -> Check {
    let check = check("sign-in", "Sign-in");
    match &status.sign_in {
        SignIn::SignedOut => check.warning("Nobody is signed in.", "Sign in: postern login"),
        SignIn::Locked { account, .. } => {
            check.warning(format!("{} is signed in, but locked.", account.email), "Unlock: postern unlock")
        }
        SignIn::SignedIn { account, must_change_password: true, .. } => check
            .warning(format!("{} has a password for one use.", account.email), "Choose a new one: postern password"),
        SignIn::SignedIn { account, org, .. } => check.ok(format!("{} at {org}", account.email)),
    }
}

fn sync(status: &Status) -> Check {
    let check = check("sync", "News from the control plane");
    match &status.control {
        ControlLink::None => check.skipped("Nobody is signed in."),
        ControlLink::Connecting { url } => check.warning(format!("{url} has not answered yet."), "Try again soon."),
        ControlLink::Connected { .. } => check.ok("Changes arrive at once."),
        ControlLink::Away { error, .. } => {
            check.failed(error.clone(), "Running connections go on, and new ones for about an hour. Check the network.")
        }
    }
}

fn certificate(account: Option<&Account>) -> Check {
    let check = check("certificate", "Device certificate");
    let Some(account) = account else { return check.skipped("There is none: nobody is signed in.") };
    let (span, now) = (account.certificate(), clock::wall());
    let left = span.not_after.since(now);
    let seen = format!("good for {} more minutes", left.as_secs() / 60);
    if left.is_zero() {
        check.failed("It has ended.", "It is renewed as soon as the control plane answers; else sign in again.")
    } else if left < span.not_after.since(span.not_before) / 4 {
        check.warning(seen, "It should have been renewed by now; check the control plane.")
    } else {
        check.ok(seen)
    }
}

fn resource(gate: &Gate, status: &ResourceStatus) -> Check {
    let name = &status.resource.name;
    let check = check(format!("resource:{name}"), format!("Resource {name}"));
    match &status.connection {
        Connection::Disconnected | Connection::Suspended => check.skipped("Held back while locked."),
        Connection::PortInUse { address, holder, .. } => {
            let holder = holder.as_ref().map_or_else(
                || "somebody else".to_owned(),
                |holder| {
                    let program = holder.program.as_deref().unwrap_or("a process");
                    match holder.pid {
                        Some(pid) => format!("{program} (process {pid})"),
                        None => format!("{program} of uid {}", holder.uid),
                    }
                },
            );
            check.failed(
                format!("{address} is held by {holder}"),
                "Stop that program; the port is then taken by itself.",
            )
        }
        Connection::Failed { address, error, .. } => check
            .failed(format!("{address} cannot be listened on: {error}"), "Ask an administrator for another address."),
        Connection::Listening { address } => {
            let holder = gate.owners().listener_holder(*address);
            let ours = holder.as_ref().and_then(|holder| holder.process.as_ref()).map(|process| process.pid);
            if ours != Some(std::process::id()) {
                check.failed(format!("{address} is not held by this service"), "Disconnect and connect it again.")
            } else if let Health::Unhealthy { error } = &status.resource.health {
                let seen = format!("{address} is ours, but gateways cannot reach the resource: {}", printable(error));
                check.warning(seen, "Check the resource itself.")
            } else if let Some(error) = &status.last_error {
                check.warning(format!("{address} is ours; the last connection failed: {error}"), "Try it again.")
            } else {
                check.ok(format!("{address} is ours"))
            }
        }
    }
}

/// The zones of the virtual network, one by one.
async fn names(status: &Status) -> Vec<Check> {
    match &status.network {
        NetworkStatus::Up(up) if up.zones.is_empty() => {
            vec![check("zone", "Zones").skipped("The virtual network has none.")]
        }
        NetworkStatus::Up(up) => zones::examine(up.resolver, &up.zones).await,
        _ => vec![check("zone", "Zones").skipped("There is no virtual network.")],
    }
}

fn files() -> Check {
    let check = check("files", "Open files");
    match process::file_limit() {
        None => check.ok("No limit."),
        Some(limit) if limit < process::COMFORTABLE_FILES => check.warning(
            format!("At most {limit}, enough for about {} connections", limit.saturating_sub(64) / 2),
            "Raise the hard limit (ulimit -Hn, LimitNOFILE).",
        ),
        Some(limit) => check.ok(format!("At most {limit}")),
    }
}

fn status_api(status: &Status) -> Check {
    let check = check("status-api", "Status for scripts");
    match &status.status_api {
        StatusApi::Off => check.skipped("Switched off."),
        StatusApi::Listening { address, token_file } => check.ok(format!("http://{address}, token in {token_file}")),
        StatusApi::Failed { error } => check.warning(error.clone(), "Choose another address: --status-listen"),
    }
}

/// Where a check belongs, by its id.
fn group(id: &str) -> CheckGroup {
    match id.split_once(':').map_or(id, |(kind, _)| kind) {
        "sign-in" | "certificate" | "control" | "sync" => CheckGroup::Identity,
        "gateway" => CheckGroup::Gateways,
        "resource" => CheckGroup::Resources,
        "network" | "zone" => CheckGroup::NamesAndRoutes,
        _ => CheckGroup::ThisComputer,
    }
}

/// A check that has no verdict yet.
struct Open {
    id: String,
    title: String,
    group: CheckGroup,
}

fn check(id: impl Into<String>, title: impl Into<String>) -> Open {
    let id = id.into();
    Open { group: group(&id), id, title: title.into() }
}

impl Open {
    fn ok(self, detail: impl Into<String>) -> Check {
        self.with(Verdict::Ok, detail.into(), None)
    }

    fn skipped(self, detail: impl Into<String>) -> Check {
        self.with(Verdict::Skipped, detail.into(), None)
    }

    fn warning(self, detail: impl Into<String>, advice: &str) -> Check {
        self.with(Verdict::Warning, detail.into(), Some(advice.to_owned()))
    }

    fn failed(self, detail: impl Into<String>, advice: &str) -> Check {
        self.with(Verdict::Failed, detail.into(), Some(advice.to_owned()))
    }

    fn with(self, verdict: Verdict, detail: String, advice: Option<String>) -> Check {
        let (id, title, commands) = (self.id, self.title, Vec::new());
        Check { id, title, verdict, detail, advice, commands, group: self.group, took_micros: None }
    }
}
