//! What the made-up service shows. The first resources are those of the design.

use std::{fmt, net::SocketAddr};

use postern_local_api::{
    client::ClientError,
    message::{
        Connection, ControlLink, GatewayState, GatewayStatus, HealthItem, Hop, KeyStorage, LiveSession, NameService,
        NetworkFault, NetworkMoved, NetworkStatus, NetworkUp, ResourceState, ResourceStatus, Route, Severity, SignIn,
        Status, StatusApi, Trouble,
    },
    proto::{
        api::AccountInfo,
        id::{AccountId, DeviceId, NodeId, ResourceId, StreamId},
        port::PortSet,
        resource::{BindAddress, ClientResource, Health, Kind},
        time::UnixMillis,
    },
};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// So many resources, the first of them in the states of the design.
    Resources(u32),
    /// Forty, and bytes that grow.
    Busy,
    SignedOut,
    Locked,
    /// The control plane is away.
    Offline,
    /// It is there, and then it is gone.
    ServiceGone,
    /// Every error of the design at once.
    Errors,
    /// The sign-in ends in a few minutes, and so does some access.
    Expiring,
    KeyringLocked,
    /// Virtual Networking is on, and has moved.
    Network,
    /// Virtual Networking is refused.
    NetworkRefused,
    /// The service is of another version.
    VersionsDiffer,
    /// The password was made for one use.
    FirstPassword,
    Update,
}

/// Words and what they stand for; numbers beside them.
const WORDS: &[(&str, Scenario)] = &[
    ("busy", Scenario::Busy),
    ("signed-out", Scenario::SignedOut),
    ("locked", Scenario::Locked),
    ("offline", Scenario::Offline),
    ("service-gone", Scenario::ServiceGone),
    ("errors", Scenario::Errors),
    ("expiring", Scenario::Expiring),
    ("keyring-locked", Scenario::KeyringLocked),
    ("network", Scenario::Network),
    ("network-refused", Scenario::NetworkRefused),
    ("versions-differ", Scenario::VersionsDiffer),
    ("first-password", Scenario::FirstPassword),
    ("update", Scenario::Update),
];

/// A word that is no scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown(String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
        write!(f, "{:?} is no scenario; there are numbers of resources up to 100000 and {}", self.0, words.join(", "))
    }
}

impl std::error::Error for Unknown {}

impl Default for Scenario {
    fn default() -> Self {
        Self::Resources(40)
    }
}

impl Scenario {
    pub fn of(word: &str) -> Result<Self, Unknown> {
        let number = word.parse().ok().filter(|number| *number <= 100_000).map(Self::Resources);
        let named = WORDS.iter().find(|(known, _)| *known == word).map(|(_, scenario)| *scenario);
        number.or(named).ok_or_else(|| Unknown(word.to_owned()))
    }

    /// All of them, with the word that chooses each, for fixtures.
    pub fn all() -> impl Iterator<Item = (&'static str, Self)> {
        [("0", Self::Resources(0)), ("40", Self::Resources(40))].into_iter().chain(WORDS.iter().copied())
    }

    pub(crate) fn refusal(self) -> Option<ClientError> {
        (self == Self::VersionsDiffer).then(|| ClientError::VersionMismatch {
            ours: postern_local_api::message::VERSION,
            theirs: 0,
            service: Some("0.0.9".to_owned()),
        })
    }

    /// The status at a time.
    #[must_use]
    pub fn status(self, now: u64) -> Status {
        let mut status = signed_in(now);
        let count = if let Self::Resources(count) = self { count } else { 40 };
        status.resources = resources(count, now);
        match self {
            Self::Resources(_) | Self::Busy | Self::ServiceGone | Self::NetworkRefused | Self::VersionsDiffer => {}
            Self::SignedOut => status = signed_out(),
            Self::Locked => lock(&mut status),
            Self::Offline => away(&mut status, now),
            Self::Errors => status.health = errors(&status.resources, now),
            Self::Expiring => expire(&mut status, now),
            Self::KeyringLocked => {
                let reason = "It waits for its password.".to_owned();
                let name = "GNOME Keyring".to_owned();
                status.key_storage = KeyStorage::Unreadable { name, reason, missing: false };
                status.health = health(&["keyring_locked"], &status.resources, now);
            }
            Self::Network => network(&mut status, now),
            Self::FirstPassword => {
                if let SignIn::SignedIn { must_change_password, .. } = &mut status.sign_in {
                    *must_change_password = true;
                }
            }
            Self::Update => status.health = health(&["update_ready"], &status.resources, now),
        }
        status.resources.sort_by(|a, b| a.resource.name.cmp(&b.resource.name));
        status
    }
}

fn account() -> AccountInfo {
    AccountInfo {
        id: AccountId::from_ulid(7.into()),
        email: "mara@northwind.example".to_owned(),
        name: "Mara Lindqvist".to_owned(),
        admin: false,
        service: false,
    }
}

fn signed_out() -> Status {
    let mut status = Status::signed_out(env!("CARGO_PKG_VERSION"));
    status.key_storage = KeyStorage::Keystore { name: "GNOME Keyring".to_owned() };
    status
}

fn signed_in(now: u64) -> Status {
    let url = "https://northwind.postern.example".to_owned();
    Status {
        sign_in: SignIn::SignedIn {
            account: account(),
            org: "Northwind".to_owned(),
            device: DeviceId::from_ulid(8.into()),
            expires_at: UnixMillis(now + 6 * HOUR + 12 * MINUTE),
            must_change_password: false,
        },
        control: ControlLink::Connected { url, since: UnixMillis(now - 3 * HOUR) },
        certificate_ends: Some(UnixMillis(now + 9 * HOUR)),
        gateways: vec![
            gateway(1, "gw-fra-1", Some(8_100)),
            gateway(2, "gw-ams-2", Some(14_200)),
            gateway(3, "gw-iad-1", None),
        ],
        status_api: StatusApi::Listening {
            address: SocketAddr::from(([127, 0, 0, 1], 65220)),
            token_file: "~/.local/state/postern/status-token".to_owned(),
        },
        ..signed_out()
    }
}

fn gateway(n: u128, name: &str, handshake_micros: Option<u64>) -> GatewayStatus {
    let state = match handshake_micros {
        Some(_) => GatewayState::Reachable,
        None => GatewayState::Unreachable { error: "no reply on port 5000 in 3 s".to_owned() },
    };
    GatewayStatus {
        id: NodeId::from_ulid(n.into()).into(),
        name: name.to_owned(),
        address: format!("{name}.northwind.example:5000"),
        state,
        spares: u32::from(handshake_micros.is_some()),
        handshake_micros,
    }
}

/// Name, kind, tags, port, state: the list of the design.
const DESIGN: &[(&str, Kind, &[&str], u16, ResourceState)] = &[
    ("orders-primary", Kind::Postgres, &["prod", "eu", "team=payments"], 15432, ResourceState::Connected),
    ("metrics-prod-eu", Kind::Http, &["prod", "eu"], 16443, ResourceState::Connected),
    ("bastion-fra", Kind::Ssh, &["prod", "eu"], 10022, ResourceState::Expiring),
    ("sessions-cache", Kind::Redis, &["prod"], 16379, ResourceState::Connecting),
    ("billing-replica", Kind::Mysql, &["prod", "eu"], 13306, ResourceState::Unhealthy),
    ("grafana", Kind::Http, &["internal"], 18300, ResourceState::Connected),
    ("orders-staging", Kind::Postgres, &["staging"], 15433, ResourceState::Off),
    ("analytics-warehouse", Kind::Postgres, &["prod"], 15440, ResourceState::NeedsApproval),
    ("build-runner-07", Kind::Ssh, &["ci"], 10031, ResourceState::Off),
    ("feature-flags", Kind::Http, &["staging"], 18310, ResourceState::Off),
    ("kafka-broker-1", Kind::Tcp, &["prod", "eu"], 19092, ResourceState::Degraded),
    ("ledger-archive", Kind::Mysql, &["prod"], 13310, ResourceState::NeedsApproval),
    ("vault-admin", Kind::Http, &["prod", "us"], 18200, ResourceState::Unhealthy),
    ("wiki", Kind::Http, &["internal"], 18080, ResourceState::Off),
];

const SERVICES: &[&str] =
    &["orders", "billing", "search", "ledger", "users", "mail", "events", "stock", "prices", "audit"];
const PLACES: &[&str] = &["prod", "staging", "dev", "ci"];

fn resources(count: u32, now: u64) -> Vec<ResourceStatus> {
    (0..count).map(|n| resource(n, now)).collect()
}

fn resource(n: u32, now: u64) -> ResourceStatus {
    let id = ResourceId::from_ulid((0x0190_0000_0000_0000_0000_0000_0000_0000_u128 + u128::from(n) + 1).into());
    let port = 20_000 + u16::try_from(n % 40_000).unwrap_or(0);
    let pick = |words: &[&'static str], at: usize| words.get(at % words.len()).copied().unwrap_or_default();
    let at = n as usize;
    let (name, kind, tags, port, state) = match DESIGN.get(at) {
        Some((name, kind, tags, port, state)) => ((*name).to_owned(), *kind, tags.to_vec(), *port, *state),
        None => {
            let kind = Kind::ALL.get(at % Kind::ALL.len()).copied().unwrap_or(Kind::Tcp);
            let (service, place) = (pick(SERVICES, at), pick(PLACES, at / SERVICES.len()));
            let name = format!("{service}-{kind}-{place}-{n:04}");
            (name, kind, vec![place, if at.is_multiple_of(3) { "eu" } else { "us" }], port, ResourceState::Off)
        }
    };
    let tags = tags.into_iter().map(|tag| {
        let (key, value) = tag.split_once('=').unwrap_or((tag, ""));
        (key.to_owned(), value.to_owned())
    });
    let mut status = ResourceStatus::off(ClientResource {
        id,
        name,
        kind,
        tags: tags.collect(),
        bind: BindAddress::loopback([127, 0, 0, 1].into(), port),
        ports: PortSet::default(),
        revision: 1,
        via: Vec::new(),
        cluster: None,
        health: Health::Healthy,
    });
    status.command = Some(postern_local_api::command::command(&status));
    status.route = Some(route(at));
    show(&mut status, state, now);
    status
}

fn route(n: usize) -> Route {
    let hop = |name: &str, micros: u64| Hop { name: name.to_owned(), latency_micros: Some(micros), up: true };
    let mut hops = match n % 3 {
        0 => vec![hop("gw-fra-1", 8_100), hop("relay-dc2", 900)],
        1 => vec![hop("gw-ams-2", 14_200)],
        _ => vec![hop("gw-fra-1", 8_900)],
    };
    // vault-admin of the design leads through a gateway that is away.
    if DESIGN.get(n).is_some_and(|(name, ..)| *name == "vault-admin") {
        hops = vec![Hop { name: "gw-iad-1".to_owned(), latency_micros: None, up: false }];
    }
    Route { hops }
}

/// Puts a resource into a state, with all that goes with it.
fn show(status: &mut ResourceStatus, state: ResourceState, now: u64) {
    status.state = state;
    status.wanted = !matches!(state, ResourceState::Off | ResourceState::NeedsApproval);
    status.since = Some(UnixMillis(now - 2 * HOUR));
    if status.wanted {
        let bind = &status.resource.bind;
        status.connection = Connection::Listening { address: SocketAddr::new(bind.ip, bind.port) };
        status.last_used = Some(UnixMillis(now - u64::from(bind.port % 50) * MINUTE));
        status.lease_ends = Some(UnixMillis(now + 11 * MINUTE));
    }
    match state {
        ResourceState::Connected => {
            (status.streams, status.bytes_up, status.bytes_down) = (2, 96_000_000, 1_400_000_000);
        }
        ResourceState::Expiring => {
            status.grant_ends = Some(UnixMillis(now + 24 * MINUTE));
            (status.streams, status.bytes_up, status.bytes_down) = (1, 40_000, 910_000);
        }
        ResourceState::Degraded => {
            status.trouble = Some(trouble(
                "slow",
                "Gateway gw-fra-1 is losing packets.",
                "Its last handshake took 412 ms.",
                "Nothing to do here; admins see it too.",
                now,
            ));
            if let Some(hop) = status.route.as_mut().and_then(|route| route.hops.first_mut()) {
                hop.latency_micros = Some(412_000);
            }
        }
        ResourceState::Unhealthy if status.resource.name == "vault-admin" => {
            status.trouble = Some(trouble(
                "gateway_away",
                "vault-admin cannot be reached.",
                "gw-iad-1 does not answer and no other gateway leads there.",
                "Nothing to do here; admins see it too.",
                now,
            ));
        }
        ResourceState::Unhealthy => {
            status.trouble = Some(trouble(
                "target_refused",
                "The target refused the connection.",
                "relay-dc2 reached 10.20.4.18, but nothing listens on port 3306. Your access is fine.",
                "Ask Team Billing whether it is down.",
                now,
            ));
        }
        ResourceState::NeedsApproval => {
            status.trouble = Some(trouble(
                "needs_approval",
                "A colleague has to approve it.",
                "It is granted for 4 h each time.",
                "Ask your admin.",
                now,
            ));
        }
        ResourceState::Connecting | ResourceState::Off | ResourceState::Locked => {}
    }
}

/// What becomes of a resource after connecting.
pub(super) fn settle(status: &mut ResourceStatus, now: u64) {
    let designed = DESIGN.iter().find(|(name, ..)| *name == status.resource.name).map(|(.., state)| *state);
    let state = match designed {
        Some(state @ (ResourceState::Unhealthy | ResourceState::Degraded | ResourceState::Expiring)) => state,
        _ => ResourceState::Connected,
    };
    let (connection, since, used) = (status.connection.clone(), status.since, status.last_used);
    show(status, state, now);
    if connection != Connection::Suspended {
        status.connection = connection;
    }
    (status.since, status.last_used) = (since, used.or(status.last_used));
    if state == ResourceState::Connected {
        status.streams = 0;
    }
}

fn trouble(code: &str, what: &str, why: &str, remedy: &str, now: u64) -> Trouble {
    Trouble {
        code: code.to_owned(),
        what: what.to_owned(),
        why: why.to_owned(),
        remedy: remedy.to_owned(),
        at: UnixMillis(now - 2 * MINUTE),
        retry_at: Some(UnixMillis(now + 14_000)),
    }
}

fn lock(status: &mut Status) {
    status.sign_in = SignIn::Locked { account: account(), org: "Northwind".to_owned() };
    for resource in status.resources.iter_mut().filter(|one| one.wanted) {
        (resource.state, resource.streams) = (ResourceState::Locked, 0);
        resource.connection = Connection::Suspended;
        resource.trouble = None;
    }
}

fn away(status: &mut Status, now: u64) {
    status.control = ControlLink::Away {
        url: "https://northwind.postern.example".to_owned(),
        since: UnixMillis(now - 29 * MINUTE),
        error: "no answer in 10 s".to_owned(),
        retry_at: UnixMillis(now + 8_000),
    };
    status.health = health(&["control_away"], &status.resources, now);
}

fn expire(status: &mut Status, now: u64) {
    if let SignIn::SignedIn { expires_at, .. } = &mut status.sign_in {
        *expires_at = UnixMillis(now + 9 * MINUTE + 41_000);
    }
    status.health = health(&["sign_in_ends"], &status.resources, now);
}

fn network(status: &mut Status, now: u64) {
    status.network = network_up(now);
    for (n, one) in status.resources.iter_mut().enumerate() {
        let ip = [100, 91, u8::try_from(n / 200).unwrap_or(u8::MAX), u8::try_from(n % 200 + 9).unwrap_or(u8::MAX)];
        let name = format!("{}.northwind", one.resource.name);
        one.resource.bind.ip = ip.into();
        one.resource.bind.port = one.resource.kind.default_port();
        one.resource.bind.mode = postern_local_api::proto::resource::BindMode::Vnm;
        one.resource.bind.dns_name = name.parse().ok();
        if one.wanted {
            one.connection = Connection::Listening { address: SocketAddr::new(ip.into(), one.resource.bind.port) };
            one.virtual_name = Some(name);
        }
        one.command = Some(postern_local_api::command::command(one));
    }
    status.health = health(&["range_taken"], &status.resources, now);
}

pub(super) fn network_up(now: u64) -> NetworkStatus {
    NetworkStatus::Up(Box::new(NetworkUp {
        interface: "postern0".to_owned(),
        subnet: "100.91.0.0/16".to_owned(),
        moved: Some(NetworkMoved {
            from: "100.72.0.0/16".to_owned(),
            because: vec!["100.72.0.0/16 is routed to tailscale0 (Tailscale)".to_owned()],
        }),
        ipv6: None,
        address: [100, 91, 0, 1].into(),
        resolver: [100, 91, 0, 2].into(),
        zones: vec!["northwind".to_owned()],
        names: NameService::Registered { through: "resolved".to_owned() },
        since: UnixMillis(now - 3 * HOUR),
        behind: None,
        left_out: Vec::new(),
    }))
}

pub(super) fn network_refused(now: u64) -> NetworkStatus {
    NetworkStatus::Unavailable {
        fault: NetworkFault::NotPermitted,
        reason: "The question was closed, or your account may not answer it.".to_owned(),
        retry_at: UnixMillis(now + 30_000),
    }
}

pub(super) fn sessions(status: &Status, now: u64) -> Vec<LiveSession> {
    let open = status.resources.iter().flat_map(|one| (0..one.streams).map(move |n| (one, n)));
    open.map(|(one, n)| LiveSession {
        stream: StreamId::from_ulid((u128::from(one.resource.bind.port) << 32 | u128::from(n)).into()),
        resource: one.resource.id,
        resource_name: one.resource.name.clone(),
        peer: SocketAddr::from(([127, 0, 0, 1], 51_000 + u16::try_from(n).unwrap_or(0))),
        gateway: Some(NodeId::from_ulid(1.into()).into()),
        route: None,
        started_at: UnixMillis(now - u64::from(n + 1) * 40 * MINUTE),
        ends_at: None,
        bytes_up: one.bytes_up / u64::from(one.streams.max(1)),
        bytes_down: one.bytes_down / u64::from(one.streams.max(1)),
    })
    .collect()
}

/// Code, severity, what, why, remedy, resource.
type Text = (&'static str, Severity, &'static str, &'static str, &'static str, Option<&'static str>);

const HEALTH: &[Text] = &[
    (
        "keyring_locked",
        Severity::Error,
        "The keyring is locked, so your device key cannot be read.",
        "It opens with your login password.",
        "Unlock it, keep the key in memory until you quit, or in a file only you can read.",
        None,
    ),
    (
        "lease_expired",
        Severity::Error,
        "The proof of access ran out and could not be renewed.",
        "The control plane is away since 11:02.",
        "New connections work again when it is back. Open ones go on.",
        None,
    ),
    (
        "control_away",
        Severity::Warn,
        "Control plane away since 11:02.",
        "Your connections do not pass through it.",
        "It is tried again by itself.",
        None,
    ),
    (
        "dns_taken",
        Severity::Warn,
        "Names under .northwind go to another resolver.",
        "WARP took over DNS at 11:04.",
        "Register our names again. Loopback addresses still work.",
        None,
    ),
    (
        "gateway_away",
        Severity::Warn,
        "vault-admin cannot be reached.",
        "gw-iad-1 does not answer and no other gateway leads there.",
        "Nothing to do here; admins see it too.",
        Some("vault-admin"),
    ),
    (
        "target_refused",
        Severity::Warn,
        "billing-replica refuses connections.",
        "relay-dc2 reached 10.20.4.18, but nothing listens on port 3306. Your access is fine.",
        "Ask Team Billing whether it is down.",
        Some("billing-replica"),
    ),
    (
        "port_taken",
        Severity::Warn,
        "grafana could not open port 18300.",
        "java (pid 4127) holds it.",
        "Stop java, or use 18301.",
        Some("grafana"),
    ),
    (
        "sign_in_ends",
        Severity::Warn,
        "Sign-in ends in 9 min.",
        "It lasts 8 h.",
        "Renew now and open connections stay open.",
        None,
    ),
    (
        "update_ready",
        Severity::Info,
        "Postern 0.2.0 is ready.",
        "Restarting closes 5 connections for about 2 s; they come back by themselves.",
        "Restart when it suits you.",
        None,
    ),
    (
        "range_taken",
        Severity::Info,
        "The address range moved to 100.91.0.0/16.",
        "Tailscale took 100.72.0.0/16.",
        "Nothing for names; look up addresses you wrote down.",
        None,
    ),
];

fn errors(resources: &[ResourceStatus], now: u64) -> Vec<HealthItem> {
    let codes: Vec<&str> = HEALTH.iter().map(|(code, ..)| *code).filter(|code| *code != "sign_in_ends").collect();
    health(&codes, resources, now)
}

fn health(codes: &[&str], resources: &[ResourceStatus], now: u64) -> Vec<HealthItem> {
    let wanted = HEALTH.iter().filter(|(code, ..)| codes.contains(code));
    wanted
        .map(|(code, severity, what, why, remedy, about)| HealthItem {
            until: None,
            code: (*code).to_owned(),
            severity: *severity,
            what: (*what).to_owned(),
            why: (*why).to_owned(),
            remedy: (*remedy).to_owned(),
            resource: about
                .and_then(|name| resources.iter().find(|one| one.resource.name == name).map(|one| one.resource.id)),
            since: UnixMillis(now - 29 * MINUTE),
        })
        .collect()
}

/// Favourites and recents of the design, for a made-up service.
pub(crate) fn favour(stored: &mut crate::settings::Stored) {
    let id = |name: &str| {
        let at = DESIGN.iter().position(|(known, ..)| *known == name).unwrap_or_default();
        resource(u32::try_from(at).unwrap_or_default(), 3 * HOUR).resource.id.to_string()
    };
    stored.favourites = ["orders-primary", "metrics-prod-eu", "bastion-fra"].map(id).to_vec();
}
