//! What travels over the local API.
//!
//! | call | body → answer |
//! |---|---|
//! | `GET /v1/hello` | nothing → [`Hello`] |
//! | `GET /v1/status` | nothing → [`Status`] |
//! | `GET /v1/events` | nothing → JSON lines of [`Numbered`]: a snapshot, then events |
//! | `POST /v1/login` | [`Login`] → [`Status`] |
//! | `POST /v1/logout`, `POST /v1/lock` | nothing → [`Status`] |
//! | `POST /v1/unlock` | [`Unlock`] → [`Status`] |
//! | `POST /v1/network` | [`NetworkChoice`] → [`NetworkStatus`] |
//! | `POST /v1/connect`, `POST /v1/disconnect` | [`Selection`] → [`ChangeReport`] |
//! | `GET /v1/sessions` | nothing → `Vec<`[`LiveSession`]`>` |
//! | `POST /v1/doctor` | nothing → [`DoctorReport`] |
//! | `POST /v1/names` | [`NameQuestion`](crate::names::NameQuestion) → [`NameReport`](crate::names::NameReport) |
//! | `POST /v1/control` | [`ControlCall`] → [`ControlAnswer`] |
//! | `POST /v1/shutdown` | nothing → 202 |
//!
//! Every refusal is a [`postern_proto::problem::Problem`].

use std::net::{IpAddr, SocketAddr};

use postern_proto::{
    api::AccountInfo,
    id::{DeviceId, NodeId, ResourceId, StreamId},
    resource::ClientResource,
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// The version of these messages. Client and service of different versions say so in a sentence.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u32,
    /// Version of the service program.
    pub service: String,
    pub pid: u32,
    pub uid: u32,
}

/// Everything a client shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the service program.
    pub service: String,
    pub sign_in: SignIn,
    pub control: ControlLink,
    pub key_storage: KeyStorage,
    /// `None` while signed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_ends: Option<UnixMillis>,
    #[serde(default)]
    pub gateways: Vec<GatewayStatus>,
    /// Everything the account may reach, by name.
    #[serde(default)]
    pub resources: Vec<ResourceStatus>,
    /// The virtual network of this machine.
    #[serde(default)]
    pub network: NetworkStatus,
    /// Uids other than the owner's that may use the listeners (`--allow-uid`).
    #[serde(default)]
    pub allowed_uids: Vec<u32>,
    /// Where scripts may read this status over HTTP.
    pub status_api: StatusApi,
    /// Sentences a person should read: what is wrong and what to do.
    #[serde(default)]
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum SignIn {
    SignedOut,
    SignedIn {
        account: AccountInfo,
        org: String,
        device: DeviceId,
        expires_at: UnixMillis,
        #[serde(default)]
        must_change_password: bool,
    },
    /// Signed in, but nothing may be used until `unlock`.
    Locked {
        account: AccountInfo,
        org: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ControlLink {
    /// No control plane is configured.
    None,
    Connecting {
        url: String,
    },
    Connected {
        url: String,
        since: UnixMillis,
    },
    /// Streams and cached leases go on.
    Away {
        url: String,
        since: UnixMillis,
        error: String,
        retry_at: UnixMillis,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum KeyStorage {
    Keystore {
        name: String,
    },
    /// A file that only the user may read.
    File {
        path: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum StatusApi {
    Off,
    Listening { address: SocketAddr, token_file: String },
    Failed { error: String },
}

/// Virtual Networking Mode on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum NetworkStatus {
    /// The user has not switched it on: resources are reached in loopback mode.
    #[default]
    Off,
    /// Switched on; it comes up when somebody is signed in.
    Waiting,
    /// postern-netd has been asked.
    Starting,
    Up(Box<NetworkUp>),
    /// It is switched on and cannot be had: resources are reached in loopback mode meanwhile.
    Unavailable {
        fault: NetworkFault,
        /// A sentence: what is wrong.
        reason: String,
        /// When it is tried again.
        retry_at: UnixMillis,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkUp {
    /// The name of the network device.
    pub interface: String,
    /// Where the resources are.
    pub subnet: String,
    /// Set when `subnet` is not what the organisation wishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<NetworkMoved>,
    /// The IPv6 network beside it, where this machine has IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// This user's own address in it.
    pub address: IpAddr,
    /// The address that answers names.
    pub resolver: IpAddr,
    /// The zones whose names are asked there.
    pub zones: Vec<String>,
    pub names: NameService,
    pub since: UnixMillis,
    /// What keeps the latest changes, such as new zones, from being applied; it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<String>,
}

/// The virtual network is elsewhere because something on this machine has its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkMoved {
    /// The organisation's subnet.
    pub from: String,
    /// What has it: sentences such as "100.64.0.0/10 is routed to tailscale0 (Tailscale)". Empty when it is free again:
    /// it is taken back when the network is next switched on.
    pub because: Vec<String>,
}

/// How the system asks for the names of the virtual network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum NameService {
    /// Through what the zones are registered: `resolved`, `resolv_conf`, …
    Registered { through: String },
    /// There is no zone to register.
    NoZones,
    /// Names are not asked for; resources are reached by address.
    Unavailable { reason: String },
}

/// Why there is no virtual network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkFault {
    /// postern-netd is not installed or does not run.
    NoService,
    /// postern-netd does not make networks for this user.
    NotPermitted,
    /// The system gives no TUN device.
    NoDevice,
    /// No subnet is free on this machine.
    NoSubnet,
    /// The organisation's settings make no network.
    BadSettings,
    /// Something else; the reason says what.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkChoice {
    pub enabled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    pub id: NodeId,
    pub name: String,
    pub address: String,
    pub state: GatewayState,
    /// Established connections that wait for a stream.
    pub spares: u32,
    /// Time of the last connect and handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_micros: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum GatewayState {
    /// Not tried yet.
    Unknown,
    Reachable,
    Draining,
    Unreachable {
        error: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceStatus {
    #[serde(flatten)]
    pub resource: ClientResource,
    pub connection: Connection,
    /// The name that its address answers to, while it is in the virtual network; a wildcard as `*.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_name: Option<String>,
    /// A loopback address where it is too, beside the one in the virtual network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub also_at: Option<SocketAddr>,
    /// Why it is not in the virtual network, although that is where it belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// Streams carried right now.
    pub streams: u32,
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// When the grant ends, where it has an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_ends: Option<UnixMillis>,
    /// What the last failed stream met, until one succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "connection_state")]
pub enum Connection {
    Disconnected,
    /// Programs reach it at this address: a loopback listener, or a place in the virtual network.
    Listening {
        address: SocketAddr,
    },
    /// Somebody else has the port; tried again at `retry_at`.
    PortInUse {
        address: SocketAddr,
        holder: Option<PortHolder>,
        retry_at: UnixMillis,
    },
    /// The address cannot be bound for another reason.
    Failed {
        address: SocketAddr,
        error: String,
        retry_at: UnixMillis,
    },
    /// Wanted, but held back while locked.
    Suspended,
}

/// The process that has a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortHolder {
    pub uid: u32,
    /// Known where the process is ours to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Login {
    /// `https://host:port`; `None`: the one that the service knows already.
    #[serde(default)]
    pub control: Option<String>,
    #[serde(default)]
    pub trust: Trust,
    pub credential: postern_proto::api::Credential,
}

/// How the control plane proves itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "trust")]
pub enum Trust {
    /// As configured before; for a new address: the system's roots.
    #[default]
    Known,
    /// The organisation's CA certificate, PEM.
    Ca { pem: String },
    /// SHA-256 of the organisation's CA certificate, hex; the service fetches the certificate and compares.
    Fingerprint { sha256: String },
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Unlock {
    pub password: String,
}

/// Which resources a command is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "select")]
pub enum Selection {
    All,
    /// By name, or by id.
    Name {
        name: String,
    },
    /// The filter grammar of `postern_proto::filter`.
    Filter {
        filter: String,
    },
}

/// What `connect` or `disconnect` changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    pub resources: Vec<ResourceStatus>,
    /// How many of them are in another state than before.
    pub changed: u32,
}

/// A stream that is carried now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSession {
    pub stream: StreamId,
    pub resource: ResourceId,
    pub resource_name: String,
    pub peer: SocketAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<NodeId>,
    pub started_at: UnixMillis,
    pub bytes_up: u64,
    pub bytes_down: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReport {
    pub checks: Vec<Check>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// A stable word, for scripts.
    pub id: String,
    pub title: String,
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// What to do about it; only where something is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Commands that look at the same by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    Warning,
    Failed,
    Skipped,
}

/// A call of the control plane's REST API, made with the login that the service holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlCall {
    /// `GET`, `POST`, `PATCH`, `PUT` or `DELETE`.
    pub method: String,
    /// Begins with `/api/v1/`; may hold a query.
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlAnswer {
    pub status: u16,
    /// JSON where the answer was JSON, a string where it was text, null where it was empty.
    pub body: serde_json::Value,
}

/// A line of `GET /v1/events`. Numbers go up by one; the first line is a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    pub seq: u64,
    #[serde(flatten)]
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    Snapshot {
        status: Box<Status>,
    },
    /// The parts of the status that are not resources changed.
    Service {
        status: Box<Status>,
    },
    ResourceChanged {
        resource: Box<ResourceStatus>,
    },
    ResourceRemoved {
        id: ResourceId,
    },
    /// Something a person should see once.
    Notice {
        level: NoticeLevel,
        text: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeLevel {
    Info,
    Warning,
    Error,
}
