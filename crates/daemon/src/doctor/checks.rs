//! The single checks.

use std::{os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use postern_local_api::{
    cause::{Cause, Explanation},
    message::{
        Check, Connection, ControlLink, KeyStorage, ResourceStatus, SignIn, Status, StatusApi, VERSION, Verdict,
    },
    span,
};
use postern_tunnel::{client::Entry, outward::Outward};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::Open;
use crate::{
    account::{Account, control_client},
    carriage::{error_text, printable},
    clock,
    gate::Gate,
    process,
    store::{Config, DeviceKey, Store},
};

/// Beyond this the clock is wrong; beyond a fifth of it, it deserves a word.
const MAX_SKEW: Duration = Duration::from_secs(300);

impl Open {
    /// In the words that the status has for it too.
    fn told(self, verdict: Verdict, cause: &Cause) -> Check {
        let Explanation { what, why, remedy } = cause.explain();
        self.with(verdict, format!("{what} {why}"), Some(remedy))
    }
}

pub(super) fn version(check: Open) -> Check {
    let version = env!("CARGO_PKG_VERSION");
    check.ok(format!("posternd {version}, local API version {VERSION}"))
}

pub(super) fn way_out(check: Open) -> Check {
    let outward = Outward::installed();
    match outward.proxy() {
        None => check.ok("Connections leave straight; no HTTPS proxy is set."),
        Some(proxy) => {
            let origin = if outward.is_from_environment() { "HTTPS_PROXY" } else { "the setting of this service" };
            check.ok(format!("Connections leave through the HTTPS proxy {} ({origin}).", printable(&proxy)))
        }
    }
}

/// What a check says of the proxy that lies between.
fn through(proxy: Option<String>) -> String {
    proxy.map_or_else(String::new, |proxy| format!(", through the proxy {}", printable(&proxy)))
}

pub(super) fn clock(check: Open, skew: Option<i64>) -> Check {
    let Some(millis) = skew else {
        return check.skipped("The control plane has not been heard from since the service started.");
    };
    let seconds = millis.unsigned_abs() / 1000;
    let word = if millis < 0 { "behind" } else { "ahead of" };
    let seen = format!("{seconds} s {word} the control plane's clock");
    match Duration::from_millis(millis.unsigned_abs()) {
        skew if skew > MAX_SKEW => {
            check.told(Verdict::Failed, &Cause::ClockSkew { minutes: seconds / 60, slow: millis < 0 })
        }
        skew if skew > MAX_SKEW / 5 => check.warning(seen, "Let this machine's clock be set automatically."),
        _ => check.ok(seen),
    }
}

pub(super) async fn gateway(check: Open, entry: Arc<Entry>) -> Check {
    match entry.probe().await {
        Ok(took) => {
            let through = through(Outward::installed().proxy_for_address(entry.address()));
            check.ok(format!("{} proves itself and takes us, in {} ms{through}", entry.address(), took.as_millis()))
        }
        Err(error) => {
            check.failed(error_text(&error), "Check the network and firewalls between this machine and the gateway.")
        }
    }
}

/// Whether our own connection over loopback is recognised as ours: without that every connection is refused.
pub(super) async fn isolation(check: Open, gate: &Gate) -> Check {
    let own = async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_client, (stream, peer)) = (client?, accepted?);
        Ok::<_, std::io::Error>(gate.admit(&stream, peer, address))
    };
    match own.await {
        Ok(Ok(())) => check.ok("The system says whose a connection is."),
        Ok(Err(refused)) => check.failed(
            format!("A connection of this service to itself was not recognised: {refused}"),
            "Connections are refused until the system answers (sock_diag over netlink); check containers and security \
             modules.",
        ),
        Err(error) => {
            check.failed(format!("No connection over loopback: {error}"), "Check that the interface lo is up.")
        }
    }
}

pub(super) async fn control(check: Open, config: Option<&Config>) -> Check {
    let Some(config) = config else {
        return check.skipped("None is configured; sign in with postern login --control https://…");
    };
    let begun = Instant::now();
    let answer = match control_client(config) {
        Ok(client) => {
            let through = through(client.outward().proxy_for(client.url().host(), client.url().port()));
            let answer = client.ca().await.map_err(|error| printable(&error.to_string()));
            let url = client.url().to_string();
            let one_of = if url == config.control { String::new() } else { format!(", one of {}", config.control) };
            answer.map(|info| (info, format!("{url}{one_of}"), through))
        }
        Err(error) => Err(error.to_string()),
    };
    match answer {
        Ok((info, url, through)) => {
            let trust = if config.ca.is_some() { "the pinned CA" } else { "this machine's roots" };
            let (time, org) = (begun.elapsed().as_millis(), printable(&info.org_name));
            check.ok(format!("{url} ({org}) answers in {time} ms and is trusted by {trust}{through}"))
        }
        Err(error) => check.failed(error, "Check the network, and the CA if it was changed: postern login again."),
    }
}

pub(super) fn sign_in(check: Open, status: &Status) -> Check {
    match &status.sign_in {
        SignIn::SignedOut => check.warning("Nobody is signed in.", "Sign in: postern login"),
        SignIn::Locked { account, .. } => {
            check.warning(format!("{} is signed in, but locked.", account.email), "Unlock: postern unlock")
        }
        SignIn::SignedIn { must_change_password: true, .. } => check.told(Verdict::Warning, &Cause::PasswordOnce),
        SignIn::SignedIn { account, org, .. } => check.ok(format!("{} at {org}", account.email)),
    }
}

pub(super) fn sync(check: Open, status: &Status) -> Check {
    match &status.control {
        ControlLink::None | ControlLink::Known { .. } => check.skipped("Nobody is signed in."),
        ControlLink::Connecting { url } => check.warning(format!("{url} has not answered yet."), "Try again soon."),
        ControlLink::Connected { .. } => check.ok("Changes arrive at once."),
        ControlLink::Away { url, error, .. } => {
            check.told(Verdict::Failed, &Cause::ControlAway { url: url.clone(), error: error.clone() })
        }
    }
}

pub(super) fn certificate(check: Open, account: Option<&Account>) -> Check {
    let Some(account) = account else { return check.skipped("There is none: nobody is signed in.") };
    let (certificate, now) = (account.certificate(), clock::wall());
    let left = certificate.not_after.since(now);
    let seen = format!("good for {}", span::spell(left));
    if left.is_zero() {
        check.told(Verdict::Failed, &Cause::CertificateEnded)
    } else if left < certificate.not_after.since(certificate.not_before) / 4 {
        check.warning(seen, "It should have been renewed by now; check the control plane.")
    } else {
        check.ok(seen)
    }
}

pub(super) async fn resource(check: Open, gate: Arc<Gate>, status: ResourceStatus) -> Check {
    let Connection::Listening { address } = status.connection else {
        return match (&status.connection, &status.trouble) {
            (Connection::Suspended, _) | (_, None) => check.skipped("Held back while locked."),
            (_, Some(trouble)) => {
                let seen = format!("{} {}", trouble.what, trouble.why);
                check.failed(seen, &trouble.remedy)
            }
        };
    };
    let is_virtual = status.virtual_name.is_some() || status.also_at.is_some() || !address.ip().is_loopback();
    let find = move || gate.owners().listener_holder(address);
    let holder = tokio::task::spawn_blocking(find).await.ok().flatten();
    let ours = holder.as_ref().and_then(|holder| holder.process.as_ref()).map(|process| process.pid);
    if !is_virtual && ours != Some(std::process::id()) {
        return check.failed(format!("{address} is not held by this service"), "Disconnect and connect it again.");
    }
    match &status.trouble {
        None => check.ok(format!("{address} is ours")),
        Some(trouble) => {
            let seen = format!("{address} is ours. {} {}", trouble.what, trouble.why);
            check.warning(seen, &trouble.remedy)
        }
    }
}

pub(super) fn files(check: Open) -> Check {
    match process::file_limit() {
        None => check.ok("No limit."),
        Some(limit) if limit < process::COMFORTABLE_FILES => check.told(Verdict::Warning, &Cause::FewFiles { limit }),
        Some(limit) => check.ok(format!("At most {limit}")),
    }
}

pub(super) fn status_api(check: Open, status: &Status) -> Check {
    match &status.status_api {
        StatusApi::Off => check.skipped("Switched off."),
        StatusApi::Listening { address, token_file } => check.ok(format!("http://{address}, token in {token_file}")),
        StatusApi::Failed { error } => check.told(Verdict::Warning, &Cause::StatusApi { error: error.clone() }),
    }
}

pub(super) fn key(check: Open, status: &Status, store: &Store) -> Check {
    let in_file = |check: Open| {
        let path = store.path::<DeviceKey>();
        let open = |path: &Path| path.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
        if !path.exists() {
            return check.skipped("There is none: nobody is signed in.");
        }
        if open(&path) || path.parent().is_some_and(open) {
            let advice = "Close it: chmod 600 for the file, 700 for its folder; then sign out and in again.";
            return check.failed(format!("Others may read {}", path.display()), advice);
        }
        check.ok(format!("In a file that only you may read: {}. No keystore is used.", path.display()))
    };
    match &status.key_storage {
        KeyStorage::File { .. } => in_file(check),
        KeyStorage::Keystore { name } => check.ok(format!("In {name}.")),
        KeyStorage::Memory => {
            check.warning("In memory only.", "Sign in again after a restart, or keep it: postern key-storage file.")
        }
        KeyStorage::Unreadable { name, reason, missing: false } => {
            let cause = Cause::KeyringLocked { keyring: name.clone(), reason: reason.clone() };
            check.told(Verdict::Failed, &cause)
        }
        KeyStorage::Unreadable { reason, missing: true, .. } => {
            check.told(Verdict::Warning, &Cause::KeyringMissing { reason: reason.clone() })
        }
    }
}
