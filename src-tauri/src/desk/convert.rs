//! From the messages of the local API to what the window sees. Pure; the only place where the two meet.

use postern_local_api::{
    cause::{Cause, Explanation},
    client::ClientError,
    command::endpoint,
    message::{self, Connection, ControlLink, NameService, NetworkStatus, ResourceStatus, Status, StatusApi},
    proto::{problem::Problem as Refusal, resource},
};

use crate::{
    service::StartError,
    settings::Stored,
    view::{
        Control, Gateway, GatewayState, HealthItem, Hop, KeyStorage, Kind, Link, Network, NetworkFault, Problem,
        ResourceState, Route, Row, Service, Severity, SignIn, row::Trouble,
    },
};

/// What the sign-in page and the lock know beside the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) locked_since: Option<u64>,
    pub(crate) closed: Option<u32>,
}

pub(crate) fn kind(kind: resource::Kind) -> Kind {
    match kind {
        resource::Kind::Tcp => Kind::Tcp,
        resource::Kind::Http => Kind::Http,
        resource::Kind::Postgres => Kind::Postgres,
        resource::Kind::Mysql => Kind::Mysql,
        resource::Kind::Redis => Kind::Redis,
        resource::Kind::Ssh => Kind::Ssh,
    }
}

pub(crate) fn state(state: message::ResourceState) -> ResourceState {
    match state {
        message::ResourceState::Connected => ResourceState::Connected,
        message::ResourceState::Connecting => ResourceState::Connecting,
        message::ResourceState::Off => ResourceState::Off,
        message::ResourceState::Expiring => ResourceState::Expiring,
        message::ResourceState::Degraded => ResourceState::Degraded,
        message::ResourceState::Unhealthy => ResourceState::Unhealthy,
        message::ResourceState::NeedsApproval => ResourceState::NeedsApproval,
        message::ResourceState::Locked => ResourceState::Locked,
    }
}

/// A row; its places among favourites and recents are filled in by whoever knows them.
pub(crate) fn row(from: &ResourceStatus) -> Row {
    let ResourceStatus { resource, .. } = from;
    let address = match from.connection {
        Connection::Listening { address }
        | Connection::PortInUse { address, .. }
        | Connection::Failed { address, .. } => address,
        Connection::Disconnected | Connection::Suspended => (resource.bind.ip, resource.bind.port).into(),
    };
    let named = endpoint(from).to_string();
    let entry = from.route.as_ref().and_then(|route| route.hops.first());
    Row {
        id: resource.id.to_string(),
        name: resource.name.clone(),
        kind: kind(resource.kind),
        tags: resource.tags.iter().map(|(key, value)| tag(key, value)).collect(),
        dns_name: Some(named).filter(|named| *named != address.to_string()),
        address: address.to_string(),
        port: address.port(),
        entry: entry.map(|hop| hop.name.clone()),
        latency_micros: entry.and_then(|hop| hop.latency_micros),
        state: state(from.state),
        trouble: from.trouble.as_ref().map(trouble),
        wanted: from.wanted,
        may_switch: from.state != message::ResourceState::NeedsApproval,
        ends_at: from.grant_ends.map(|at| at.0),
        favourite: None,
        recent: None,
        port_override: from.port_override,
        streams: from.streams,
        bytes_up: from.bytes_up,
        bytes_down: from.bytes_down,
    }
}

fn tag(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key}={value}") }
}

fn trouble(from: &message::Trouble) -> Trouble {
    Trouble {
        problem: problem_of(&from.code, &from.what, &from.why, &from.remedy),
        at: from.at.0,
        retry_at: from.retry_at.map(|at| at.0),
    }
}

pub(crate) fn problem_of(code: &str, what: &str, why: &str, remedy: &str) -> Problem {
    Problem {
        code: code.to_owned(),
        what: what.to_owned(),
        why: why.to_owned(),
        remedy: remedy.to_owned(),
        field: None,
    }
}

pub(crate) fn route(from: &message::Route) -> Route {
    let hops: Vec<Hop> = from
        .hops
        .iter()
        .map(|hop| Hop { name: hop.name.clone(), latency_micros: hop.latency_micros, up: hop.up })
        .collect();
    let latency_micros = hops.iter().map(|hop| hop.latency_micros).sum();
    Route { hops, latency_micros }
}

/// Everything of the service but its resources. `status` is what was heard last, if anything was.
pub(crate) fn service(link: &Link, status: Option<&Status>, stored: &Stored, memory: &Memory) -> Service {
    let Some(status) = status else {
        return Service {
            link: link.clone(),
            sign_in: SignIn::Unknown,
            control: Control::None,
            keys: KeyStorage::Unknown,
            network: Network::Off,
            gateways: Vec::new(),
            health: Vec::new(),
            certificate_ends: None,
            status_address: None,
        };
    };
    Service {
        link: link.clone(),
        sign_in: sign_in(&status.sign_in, &status.control, stored, memory),
        control: control(&status.control),
        keys: keys(&status.key_storage),
        network: network(&status.network),
        gateways: status.gateways.iter().map(gateway).collect(),
        health: status.health.iter().map(health).collect(),
        certificate_ends: status.certificate_ends.map(|at| at.0),
        status_address: match &status.status_api {
            StatusApi::Listening { address, .. } => Some(address.to_string()),
            StatusApi::Off | StatusApi::Failed { .. } => None,
        },
    }
}

fn sign_in(from: &message::SignIn, control: &ControlLink, stored: &Stored, memory: &Memory) -> SignIn {
    match from {
        message::SignIn::SignedOut => {
            // Who started the service may have told it where to sign in.
            let address = control.url().map(str::to_owned).or_else(|| stored.address.clone());
            SignIn::SignedOut { address, email: stored.email.clone() }
        }
        message::SignIn::SignedIn { account, org, expires_at, must_change_password, .. } => SignIn::SignedIn {
            org: org.clone(),
            email: account.email.clone(),
            name: account.name.clone(),
            admin: account.admin,
            ends_at: expires_at.0,
            must_change_password: *must_change_password,
        },
        message::SignIn::Locked { account, org } => SignIn::Locked {
            org: org.clone(),
            email: account.email.clone(),
            name: account.name.clone(),
            since: memory.locked_since,
            closed: memory.closed,
        },
    }
}

fn control(from: &ControlLink) -> Control {
    match from {
        ControlLink::None | ControlLink::Known { .. } => Control::None,
        ControlLink::Connecting { url } => Control::Connecting { address: url.clone() },
        ControlLink::Connected { url, since } => Control::Connected { address: url.clone(), since: since.0 },
        ControlLink::Away { url, since, error, retry_at } => {
            Control::Away { address: url.clone(), since: since.0, error: error.clone(), retry_at: retry_at.0 }
        }
    }
}

fn keys(from: &message::KeyStorage) -> KeyStorage {
    match from {
        message::KeyStorage::Keystore { name } => KeyStorage::Keyring { name: name.clone() },
        message::KeyStorage::File { path } => KeyStorage::File { path: path.clone() },
        message::KeyStorage::Memory => KeyStorage::Memory,
        message::KeyStorage::Unreadable { name, reason, missing } => {
            let reason = reason.clone();
            let cause = match missing {
                true => Cause::KeyringMissing { reason },
                false => Cause::KeyringLocked { keyring: name.clone(), reason },
            };
            let Explanation { what, why, remedy } = cause.explain();
            KeyStorage::Unreadable { name: name.clone(), problem: problem_of(cause.code(), &what, &why, &remedy) }
        }
    }
}

fn network(from: &NetworkStatus) -> Network {
    match from {
        NetworkStatus::Off => Network::Off,
        NetworkStatus::Waiting => Network::Waiting,
        NetworkStatus::Starting => Network::Starting,
        NetworkStatus::Up(up) => {
            let (names, names_problem) = match &up.names {
                NameService::Registered { through } => (Some(through.clone()), None),
                NameService::NoZones => (None, None),
                NameService::Unavailable { reason } => (None, Some(reason.clone())),
            };
            Network::Up {
                interface: up.interface.clone(),
                subnet: up.subnet.clone(),
                moved_from: up.moved.as_ref().map(|moved| moved.from.clone()),
                moved_because: up.moved.as_ref().map(|moved| moved.because.clone()).unwrap_or_default(),
                ipv6: up.ipv6.clone(),
                address: up.address.to_string(),
                resolver: up.resolver.to_string(),
                zones: up.zones.clone(),
                names,
                names_problem,
                left_out: up.left_out.clone(),
                behind: up.behind.clone(),
                since: up.since.0,
            }
        }
        NetworkStatus::Unavailable { fault, reason, retry_at } => {
            let cause = Cause::NetworkUnavailable { fault: *fault, reason: reason.clone() };
            let Explanation { what, why, remedy } = cause.explain();
            Network::Unavailable {
                fault: fault_of(*fault),
                problem: problem_of(cause.code(), &what, &why, &remedy),
                retry_at: retry_at.0,
            }
        }
    }
}

const fn fault_of(fault: message::NetworkFault) -> NetworkFault {
    match fault {
        message::NetworkFault::NoService => NetworkFault::NoService,
        message::NetworkFault::NotPermitted => NetworkFault::NotPermitted,
        message::NetworkFault::NoDevice => NetworkFault::NoDevice,
        message::NetworkFault::NoSubnet => NetworkFault::NoSubnet,
        message::NetworkFault::BadSettings => NetworkFault::BadSettings,
        message::NetworkFault::Failed => NetworkFault::Failed,
    }
}

fn gateway(from: &message::GatewayStatus) -> Gateway {
    let (state, error) = match &from.state {
        message::GatewayState::Unknown => (GatewayState::Unknown, None),
        message::GatewayState::Reachable => (GatewayState::Reachable, None),
        message::GatewayState::Draining => (GatewayState::Draining, None),
        message::GatewayState::Unreachable { error } => (GatewayState::Unreachable, Some(error.clone())),
    };
    Gateway {
        id: from.id.to_string(),
        name: from.name.clone(),
        address: from.address.clone(),
        state,
        error,
        spares: from.spares,
        latency_micros: from.handshake_micros,
    }
}

fn health(from: &message::HealthItem) -> HealthItem {
    HealthItem {
        problem: problem_of(&from.code, &from.what, &from.why, &from.remedy),
        severity: match from.severity {
            message::Severity::Info => Severity::Info,
            message::Severity::Warn => Severity::Warn,
            message::Severity::Error => Severity::Error,
        },
        resource: from.resource.map(|id| id.to_string()),
        since: from.since.0,
    }
}

/// A failed call, in the form of the design.
pub(crate) fn problem(error: &ClientError) -> Problem {
    match error {
        ClientError::NotRunning { .. } => problem_of(
            "service_gone",
            "The Postern service is not running.",
            "Nothing answers at its socket.",
            "It is started by itself; start it by hand when it does not come back.",
        ),
        ClientError::NotOurs { reason, .. } => problem_of(
            "service_not_ours",
            "The socket of the Postern service is not yours.",
            reason,
            "Nothing was sent. Ask whoever looks after this computer.",
        ),
        ClientError::VersionMismatch { ours, theirs, service } => {
            let age = if theirs < ours { "older" } else { "newer" };
            let theirs = service.as_deref().unwrap_or("unknown");
            problem_of(
                "versions_differ",
                &format!("The service is {age} than this window."),
                &format!(
                    "Window {}, service {theirs}; one of them was not restarted after an update.",
                    env!("CARGO_PKG_VERSION")
                ),
                "Restart the service; open connections close for about 2 s.",
            )
        }
        ClientError::Refused(refusal) => refused(refusal),
        ClientError::Garbled { .. } => problem_of(
            "service_garbled",
            "The service gave an answer that makes no sense.",
            &error.to_string(),
            "Restart the service.",
        ),
        ClientError::BrokenOff { .. } => {
            problem_of("service_gone", "The service went away before it answered.", &error.to_string(), "Try again.")
        }
        ClientError::Silent { after, .. } => problem_of(
            "service_silent",
            &format!("The service did not answer within {} s.", after.as_secs()),
            "",
            "Try again; restart the service when that does not help.",
        ),
    }
}

/// The service was there and is no longer. How that was noticed is of no use to a person.
pub(crate) fn lost(error: &ClientError) -> Problem {
    match error {
        ClientError::NotRunning { .. } | ClientError::BrokenOff { .. } => problem_of(
            "service_gone",
            "The Postern service has stopped.",
            "Its connections ended with it.",
            "Start it. After an update it comes back by itself.",
        ),
        ClientError::NotOurs { .. }
        | ClientError::VersionMismatch { .. }
        | ClientError::Refused(_)
        | ClientError::Garbled { .. }
        | ClientError::Silent { .. } => problem(error),
    }
}

/// What the service or the control plane refused.
pub(crate) fn refused(refusal: &Refusal) -> Problem {
    let what = sentence(&refusal.title);
    let rules: Vec<String> =
        refusal.violations.iter().map(|violation| format!("{}: {}", violation.field, violation.rule)).collect();
    let why = sentence(&refusal.detail.clone().unwrap_or_else(|| rules.join("; ")));
    Problem {
        code: refusal.code.clone(),
        what,
        why,
        remedy: remedy(&refusal.code).to_owned(),
        field: refusal.violations.first().map(|violation| violation.field.clone()).or_else(|| field(&refusal.code)),
    }
}

/// With a capital letter and a full stop; nothing of nothing.
fn sentence(text: &str) -> String {
    let mut letters = text.trim().chars();
    let Some(first) = letters.next() else { return String::new() };
    let end = if text.trim_end().ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{}{}{end}", first.to_uppercase(), letters.as_str())
}

fn remedy(code: &str) -> &'static str {
    match code {
        "bad_control_url" => "Check the address with your admin.",
        "control_untrusted" => "Check the address, or give the fingerprint that your admin has.",
        "control_unreachable" => "Check the address and the network, then try again.",
        "login_locked" => "Wait until the pause is over, then try again.",
        "bad_trust" => "Copy the fingerprint again: 64 hex digits.",
        "signed_out" => "Sign in.",
        "locked" => "Unlock.",
        _ => "",
    }
}

/// Which field of a form a code is about.
fn field(code: &str) -> Option<String> {
    let field = match code {
        "bad_control_url" | "no_control_plane" | "control_unreachable" | "control_untrusted" => "address",
        "login_failed" | "login_locked" | "wrong_password" => "password",
        "bad_trust" => "trust",
        "port_range" | "port_taken" => "port",
        _ => return None,
    };
    Some(field.to_owned())
}

/// posternd could not be started.
pub(crate) fn not_started(error: &StartError) -> Problem {
    let (code, remedy) = match error {
        StartError::NotInstalled => ("service_missing", "Install posternd, or put it beside this program."),
        StartError::NotRun { .. } | StartError::Ended { .. } => ("service_failed", "Look at the log, then try again."),
        StartError::Silent { .. } => ("service_silent", "Try again."),
    };
    problem_of(code, "The Postern service cannot be started.", &format!("{error}."), remedy)
}
