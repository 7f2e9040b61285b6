//! What an administrator configures, as the API shows it and as the store keeps it.

use std::collections::BTreeSet;

use postern_proto::{
    door::EntryCarrier,
    id::{AccessKeyId, AccountId, ClusterId, GrantId, NodeId, OrgId, ResourceId, RoleId, RuleId, WindowId},
    name::{Email, HostPattern},
    port::PortSet,
    resource::{BindAddress, Kind, Tags},
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The organisation that a database holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Org {
    pub id: OrgId,
    pub name: String,
    /// Changes when the database was restored from a backup.
    pub epoch: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccountKind {
    User,
    Service,
}

impl AccountKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
        }
    }
}

/// A user or a service account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Account {
    #[schema(value_type = String, example = "acc_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    pub id: AccountId,
    #[schema(value_type = String, format = Email)]
    pub email: Email,
    pub name: String,
    pub kind: AccountKind,
    /// Whether it may call the administration API.
    pub admin: bool,
    /// A suspended account cannot sign in and reaches nothing.
    pub suspended: bool,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub tags: Tags,
    /// Milliseconds since 1970.
    #[schema(value_type = u64)]
    pub created_at: UnixMillis,
    /// The organisation's revision at its last change.
    pub revision: u64,
}

/// A role: what its rules name, its members may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Role {
    #[schema(value_type = String, example = "rol_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    pub id: RoleId,
    pub name: String,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub tags: Tags,
    pub revision: u64,
}

/// One rule of a role: a fixed list of resources, or a query that is matched against every resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Rule {
    #[schema(value_type = String, example = "rul_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    pub id: RuleId,
    #[schema(value_type = String)]
    pub role: RoleId,
    #[serde(flatten)]
    pub what: RuleTarget,
    pub revision: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleTarget {
    /// A static rule.
    #[schema(value_type = Vec<String>)]
    Resources(BTreeSet<ResourceId>),
    /// A dynamic rule, in the filter grammar.
    Query(String),
}

/// An account's membership in a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Member {
    #[schema(value_type = String)]
    pub role: RoleId,
    #[schema(value_type = String)]
    pub account: AccountId,
    pub revision: u64,
}

/// A direct grant of one resource to one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Grant {
    #[schema(value_type = String, example = "grt_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    pub id: GrantId,
    #[schema(value_type = String)]
    pub account: AccountId,
    #[schema(value_type = String)]
    pub resource: ResourceId,
    /// When it ends by itself, in milliseconds since 1970; null: it has no end.
    #[schema(value_type = Option<u64>)]
    pub ends_at: Option<UnixMillis>,
    pub reason: String,
    #[schema(value_type = u64)]
    pub created_at: UnixMillis,
    pub revision: u64,
}

/// Something to reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Resource {
    #[schema(value_type = String, example = "res_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    pub id: ResourceId,
    pub name: String,
    #[schema(value_type = String, example = "postgres")]
    pub kind: Kind,
    /// A host name or an IP address, as the gateway sees it.
    pub host: String,
    pub port: u16,
    /// Ports beside its own that may be reached in the virtual network, each a port or a range.
    #[schema(value_type = Vec<String>, example = json!(["7000-7005", "9000"]))]
    pub ports: PortSet,
    /// Which hosts under its wildcard alias may be reached; empty: all of them.
    #[schema(value_type = Vec<String>, example = json!(["*.eu.kafka.internal"]))]
    pub hosts: Vec<HostPattern>,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub tags: Tags,
    #[schema(value_type = BindAddressSchema)]
    pub bind: BindAddress,
    /// Whether loopback, link-local, metadata and the node's own addresses may be dialled for it.
    pub allow_local: bool,
    /// Whether new streams need a control plane heard from within 15 s.
    pub strict: bool,
    /// The cluster over which alone it is reached; null: gateways and relays.
    #[schema(value_type = Option<String>)]
    pub cluster: Option<ClusterId>,
    /// Which nodes may dial it, in the filter grammar over `name`, `id`, `kind`, `group` and `tags` of nodes; null: all.
    #[schema(example = "kind:relay tags:site=fra")]
    pub egress: Option<String>,
    #[schema(value_type = u64)]
    pub created_at: UnixMillis,
    pub revision: u64,
}

/// Where a resource appears on the user's machine.
#[derive(ToSchema)]
#[schema(as = BindAddress)]
#[expect(dead_code, reason = "describes the type of postern-proto, which knows nothing of OpenAPI")]
pub struct BindAddressSchema {
    /// `loopback`, `vnm` or `both`.
    mode: String,
    /// In loopback mode the loopback address, else that in the virtual network.
    ip: String,
    port: u16,
    /// Only in Virtual Networking Mode. A wildcard such as `*.kafka.internal` stands for several hosts.
    dns_name: Option<String>,
    /// Only in Virtual Networking Mode: the loopback address, which with `both` is used besides, and with `vnm` where a
    /// machine cannot have the virtual network.
    loopback: Option<LoopbackAddressSchema>,
}

/// An address in loopback mode.
#[derive(ToSchema)]
#[schema(as = LoopbackAddress)]
#[expect(dead_code, reason = "describes the type of postern-proto, which knows nothing of OpenAPI")]
pub(super) struct LoopbackAddressSchema {
    ip: String,
    port: u16,
}

/// A gateway, a relay or a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Node {
    #[schema(value_type = String, example = "nod_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    pub id: NodeId,
    pub name: String,
    pub kind: NodeKind,
    /// Its peering group: relays park links at gateways of the same group. Empty: the group without a name.
    pub group: String,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub tags: Tags,
    /// Where clients dial it, as `host:port`; null until an administrator or the gateway itself says so.
    pub advertise: Option<String>,
    /// SHA-256 of its public key; null: it waits for its enrolment.
    pub spki_sha256: Option<String>,
    #[schema(value_type = Option<u64>)]
    pub enrolled_at: Option<UnixMillis>,
    /// Set while an administrator wants it out of service: when what it still carries is cut.
    #[schema(value_type = Option<u64>)]
    pub drain_ends_at: Option<UnixMillis>,
    /// Set while a drain waits for a maintenance window: the seconds that what still runs has from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub planned_drain: Option<u64>,
    /// The cluster that a worker belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub cluster: Option<ClusterId>,
    /// What a worker enrolled with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub access_key: Option<AccessKeyId>,
    #[schema(value_type = u64)]
    pub created_at: UnixMillis,
    pub revision: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    Gateway,
    /// Listens nowhere: it is reached through gateways.
    Relay,
    /// Enrols with a key pair of its cluster, and is reached at the address of that.
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

/// A proxy cluster: workers that stand for each other behind one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Cluster {
    #[schema(value_type = String, example = "clu_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    pub id: ClusterId,
    pub name: String,
    /// Where clients dial it, as `host:port`: usually a layer-4 balancer.
    pub advertise: String,
    /// `direct`, or `websocket` where something before the workers ends TLS.
    #[schema(value_type = String)]
    pub carrier: EntryCarrier,
    /// The authority (PEM) of the outer certificate with carrier `websocket`; null: what clients' machines trust.
    pub authority: Option<String>,
    /// Workers that were removed while their certificates go on, oldest first.
    #[serde(skip)]
    pub removed: Vec<RemovedWorker>,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub tags: Tags,
    #[schema(value_type = u64)]
    pub created_at: UnixMillis,
    pub revision: u64,
}

/// When nodes may be taken out of service by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MaintenanceWindow {
    #[schema(value_type = String, example = "win_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    pub id: WindowId,
    pub name: String,
    /// When it opens: a cron expression of five fields, in UTC.
    #[schema(example = "0 2 * * sun")]
    pub schedule: String,
    /// How long it stays open, in seconds.
    pub duration: u64,
    /// Whether something begins in it only at nodes that carry no stream.
    pub require_idleness: bool,
    /// Which nodes it is for, in the filter grammar over `name`, `id`, `role`, `kind`, `group` and `tags`; null: all.
    #[schema(example = "role:gateway tags:site=fra")]
    pub nodes: Option<String>,
    #[schema(value_type = u64)]
    pub created_at: UnixMillis,
    pub revision: u64,
}

/// A worker that nobody is to believe any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedWorker {
    pub node: NodeId,
    /// When its last certificate ends.
    pub until: UnixMillis,
}
