//! Messages of the control plane's REST API that machines exchange: signing in, certificates, leases, enrolment and
//! session records. (What people administer is described in the OpenAPI document of `postern-control`.)
//!
//! | call | who | body → answer |
//! |---|---|---|
//! | `POST /api/v1/login` | anyone | [`LoginRequest`] → [`LoginResponse`] |
//! | `POST /api/v1/logout` | bearer | nothing → 204 |
//! | `GET /api/v1/ca` | anyone | nothing → [`CaInfo`] |
//! | `POST /api/v1/devices/certificate` | bearer or device certificate | [`CertificateRequest`] → [`CertificateResponse`] |
//! | `POST /api/v1/leases` | device certificate | [`LeaseRequest`] → [`LeaseResponse`] |
//! | `POST /api/v1/nodes/enrol` | one-time token or key pair of a cluster in the body | [`EnrolRequest`] → [`EnrolResponse`] |
//! | `POST /api/v1/nodes/certificate` | node certificate | [`CertificateRequest`] → [`CertificateResponse`] |
//! | `POST /api/v1/nodes/records` | node certificate | [`RecordBatch`] → [`RecordAck`] |
//! | `GET /api/v1/nodes/records` | node certificate | nothing → [`RecordAck`]: what is stored already |
//! | `POST /api/v1/devices/events` | device certificate | [`DeviceEvents`] → 204 |
//! | `GET /api/v1/sync` | device or node certificate | WebSocket, or long poll: see [`crate::sync`] |

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{
    id::{AccessKeyId, AccountId, ClusterId, DeviceId, LoginId, NodeId, OrgId, ResourceId},
    record::Record,
    time::UnixMillis,
};

/// How long a device certificate lasts at most.
pub const DEVICE_CERTIFICATE_HOURS: u64 = 12;
/// How long a node certificate lasts.
pub const NODE_CERTIFICATE_DAYS: u64 = 7;

#[derive(Clone, Serialize, Deserialize)]
pub struct LoginRequest {
    #[serde(flatten)]
    pub credential: Credential,
    pub device: DeviceInfo,
    /// PKCS#10 request in PEM, signed by the device key (P-256).
    pub csr: String,
}

/// What an account proves itself with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "method")]
pub enum Credential {
    Password { email: String, password: String },
    ServiceToken { token: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Shown to administrators; usually the host name.
    pub name: String,
    pub os: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct LoginResponse {
    pub login: LoginId,
    /// Bearer token of this login: 32 random bytes, base64url. It works only together with the device's certificate.
    pub token: String,
    pub expires_at: UnixMillis,
    pub account: AccountInfo,
    pub device: DeviceId,
    pub certificate: CertificateResponse,
    pub ca: CaInfo,
    /// Set when the password was made for one use and the account should choose another. It bars nothing.
    #[serde(default)]
    pub must_change_password: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountInfo {
    pub id: AccountId,
    pub email: String,
    pub name: String,
    /// Whether it may call the administration API.
    pub admin: bool,
    pub service: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaInfo {
    pub org: OrgId,
    pub org_name: String,
    /// The organisation's CA certificate in PEM.
    pub certificate: String,
    /// SHA-256 of the certificate (DER), lower-case hex.
    pub fingerprint: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRequest {
    /// PKCS#10 in PEM. Only its key and its signature count; every name in it is ignored.
    pub csr: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateResponse {
    /// The leaf in PEM.
    pub certificate: String,
    pub not_after: UnixMillis,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// At most 1,000.
    pub resources: Vec<ResourceId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseResponse {
    pub leases: Vec<IssuedLease>,
    /// Resources that the account may not reach, or that are not there: the two are not told apart.
    pub denied: Vec<ResourceId>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedLease {
    pub resource: ResourceId,
    pub token: String,
    pub issued_at: UnixMillis,
    pub not_after: UnixMillis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_ends: Option<UnixMillis>,
}

/// The token stays out of logs.
impl fmt::Debug for IssuedLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedLease")
            .field("resource", &self.resource)
            .field("issued_at", &self.issued_at)
            .field("not_after", &self.not_after)
            .field("grant_ends", &self.grant_ends)
            .finish_non_exhaustive()
    }
}

/// The role of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// Listens for clients.
    #[default]
    Gateway,
    /// Listens nowhere: it is reached through gateways.
    Relay,
    /// Listens for clients that come to the address of its cluster.
    Worker,
}

impl NodeKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Relay => "relay",
            Self::Worker => "worker",
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The one-time token; empty with a key pair.
    #[serde(default)]
    pub token: String,
    /// What a worker shows instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_pair: Option<KeyPair>,
    /// What the program is; the token must be one for that.
    #[serde(default)]
    pub kind: NodeKind,
    pub csr: String,
    /// Where clients will dial this node, as `host:port`; `None` keeps what the administrator set.
    #[serde(default)]
    pub advertise: Option<String>,
}

/// A key pair of a cluster: who has it may make any number of workers of that cluster.
#[derive(Clone, Serialize, Deserialize)]
pub struct KeyPair {
    /// Which pair it is. It is no secret.
    pub access_key: AccessKeyId,
    pub secret_key: String,
    /// What the worker would like to be called, for people; usually the name of its machine.
    #[serde(default)]
    pub worker: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolResponse {
    pub node: NodeId,
    pub name: String,
    /// Of a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
    pub certificate: CertificateResponse,
    pub ca: CaInfo,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordBatch {
    /// In order, without gaps; at most 1,000. Records that are stored already are skipped.
    pub records: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordAck {
    /// Everything up to and including this number is stored; 0: nothing yet.
    pub stored: u64,
    /// The hash of that record.
    pub hash: String,
}

/// What a device reports for the audit: refusals at its loopback listeners, wider use by other users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEvents {
    /// At most 1,000.
    pub events: Vec<DeviceEvent>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEvent {
    pub at: UnixMillis,
    #[serde(flatten)]
    pub what: DeviceEventKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum DeviceEventKind {
    /// Another user, or nobody that could be named, connected to a listener and was reset.
    PeerRefused { resource: ResourceId, bind: SocketAddr, uid: Option<u32>, count: u64 },
    /// The service was started with other users allowed.
    PeersAllowed { uids: Vec<u32> },
}
