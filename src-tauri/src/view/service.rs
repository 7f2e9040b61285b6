//! The service and everything of it that is not a resource.

use serde::{Deserialize, Serialize};

use super::Problem;

/// posternd as the window shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Service {
    pub link: Link,
    pub sign_in: SignIn,
    pub control: Control,
    pub keys: KeyStorage,
    pub network: Network,
    pub gateways: Vec<Gateway>,
    /// Worst first; the banner shows the first one.
    pub health: Vec<HealthItem>,
    /// When the device certificate ends; it renews itself before.
    pub certificate_ends: Option<u64>,
    /// Where scripts may read the status: `127.0.0.1:65220`.
    pub status_address: Option<String>,
}

/// Whether posternd answers. While it does not, the rest shows what was last heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Link {
    /// Not heard from yet; it is being started where it does not run.
    Starting,
    Connected {
        /// Version of the service program.
        version: String,
    },
    /// It was there, and is being waited for. It comes back by itself; `start_service` starts it.
    Gone { since: u64, problem: Problem },
    /// It cannot be talked to, and waiting does not help: other version (`versions_differ`), somebody else's socket.
    /// `restart_service` is the remedy for the first.
    Refused { problem: Problem },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum SignIn {
    /// The service was not heard yet.
    Unknown,
    SignedOut {
        /// The organisation's address that was used last, to fill in.
        address: Option<String>,
        /// The e-mail that was used last, to fill in.
        email: Option<String>,
    },
    SignedIn {
        org: String,
        email: String,
        /// The account's own name; may be empty.
        name: String,
        admin: bool,
        /// When the sign-in ends: countdown in the footer from 15 min, banner at 10 and 2.
        ends_at: u64,
        /// The password was made for one use; ask for another (`change_password`). It bars nothing.
        must_change_password: bool,
    },
    /// Signed in, but nothing may be used until `unlock`.
    Locked {
        org: String,
        email: String,
        name: String,
        /// When it was locked, as far as this app saw it.
        since: Option<u64>,
        /// How many connections were closed then, as far as this app saw it.
        closed: Option<u32>,
    },
}

/// The control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Control {
    /// None is configured, or nobody is signed in there.
    None,
    Connecting {
        address: String,
    },
    Connected {
        address: String,
        since: u64,
    },
    /// Connections go on; new ones work on the leases that are held.
    Away {
        address: String,
        since: u64,
        /// Why it cannot be reached.
        error: String,
        retry_at: u64,
    },
}

/// Where the device key is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum KeyStorage {
    /// Not known yet.
    Unknown,
    /// The system's keyring.
    Keyring { name: String },
    /// A file that only the user may read.
    File { path: String },
    /// Only in memory: signing in again is needed after the service ends.
    Memory,
    /// It is in the keyring, and the keyring does not give it out now (locked, gone): offer `set_key_storage`.
    Unreadable { name: String, problem: Problem },
}

/// Where the device key and the sign-in are to be kept from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum KeyChoice {
    /// The system's keyring; also "try again" after the user unlocked it.
    Keyring,
    /// In memory until the service ends.
    Memory,
    /// A file that only the user can read.
    File,
}

/// Virtual Networking Mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Network {
    /// Loopback mode.
    Off,
    /// Switched on; it comes up when somebody is signed in.
    Waiting,
    /// The helper is being asked.
    Starting,
    Up {
        /// `postern0`
        interface: String,
        /// `100.72.0.0/16`
        subnet: String,
        /// The organisation's own range, when something on this machine has that.
        moved_from: Option<String>,
        /// What has it: sentences.
        moved_because: Vec<String>,
        ipv6: Option<String>,
        /// This user's own address in it.
        address: String,
        /// The address that answers names.
        resolver: String,
        /// The zones whose names are asked there, without a dot in front.
        zones: Vec<String>,
        /// Through what names are asked: `resolved`, `resolv_conf` … `null`: there are none, or see `names_problem`.
        names: Option<String>,
        /// Names are not asked for, for this reason; resources are reached by address.
        names_problem: Option<String>,
        /// Names of resources that nobody answers, since no zone could be registered for them.
        left_out: Vec<String>,
        /// What keeps the latest changes from being applied; it is tried again.
        behind: Option<String>,
        since: u64,
    },
    /// Switched on and not to be had: resources are reached in loopback mode meanwhile.
    Unavailable { fault: NetworkFault, problem: Problem, retry_at: u64 },
}

/// Why there is no virtual network; decides which step of the guide failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum NetworkFault {
    /// The helper postern-netd is not installed or does not run (step 1).
    NoService,
    /// It does not make networks for this user (step 2).
    NotPermitted,
    /// The system gives no TUN device (step 3).
    NoDevice,
    /// No range is free on this machine (step 1).
    NoSubnet,
    /// The organisation's settings make no network (step 1).
    BadSettings,
    /// Something else; the problem says what (step 3).
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Gateway {
    pub id: String,
    pub name: String,
    pub address: String,
    pub state: GatewayState,
    /// Why it is unreachable.
    pub error: Option<String>,
    /// Warm connections that wait for use.
    pub spares: u32,
    pub latency_micros: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum GatewayState {
    Unknown,
    Reachable,
    Draining,
    Unreachable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Severity {
    Info,
    Warn,
    Error,
}

/// Something a person should know about the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct HealthItem {
    #[serde(flatten)]
    pub problem: Problem,
    pub severity: Severity,
    /// The resource that it is about; "Show" leads there.
    pub resource: Option<String>,
    pub since: u64,
}

/// Something to show once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Notice {
    pub level: NoticeLevel,
    pub text: String,
    pub resource: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum NoticeLevel {
    Info,
    Warning,
    Error,
}

/// What `sign_in` needs.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct SignInRequest {
    /// The organisation's address as it was typed: `northwind.postern.example`, `https://host:port`. `null`: the one
    /// that the service knows already, for renewing.
    pub address: Option<String>,
    pub trust: Trust,
    pub credential: Credential,
}

/// How the control plane proves itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "trust")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Trust {
    /// As before; for a new address by the system's certificate authorities. When this fails, the problem has the code
    /// `control_untrusted`: ask for the fingerprint then.
    Known,
    /// SHA-256 of the organisation's own CA certificate, 64 hex digits, colons and spaces allowed.
    Fingerprint { sha256: String },
    /// The organisation's own CA certificate, PEM.
    Ca { pem: String },
}

/// What an account proves itself with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "method")]
#[cfg_attr(test, derive(ts_rs::TS))]
pub enum Credential {
    Password {
        email: String,
        password: String,
    },
    /// "Use a service token".
    ServiceToken {
        token: String,
    },
}

/// What is known about an organisation's address without asking anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct AddressVerdict {
    /// As it will be used: `https://northwind.postern.example`. `null`: see `problem`.
    pub url: Option<String>,
    pub problem: Option<Problem>,
    /// It is the address that the service used last, whose certificate it knows.
    pub known: bool,
}
