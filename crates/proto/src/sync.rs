//! Sync: how devices and nodes follow the control plane.
//!
//! One WebSocket at `/api/v1/sync` (TLS client certificate required), JSON text frames. The client says what it has,
//! the server answers with snapshots or deltas for each scope of the subscription, then pushes deltas and revocations.
//! Where WebSockets do not pass, `GET /api/v1/sync?version=1&epoch=…&have=<scope>:<rev>,…&wait=10` waits up to `wait`
//! seconds for news and returns a JSON array of the same server frames: a `Welcome` first, all parts of a snapshot
//! in one answer. `POST /api/v1/sync` takes a JSON array of client frames and answers likewise, without the welcome.
//!
//! Right after each `Welcome` a node also gets a `Revoke` with the revocations of the last
//! [`crate::lease::LIFETIME`] and [`crate::lease::FAIL_STATIC`] together, so that it misses none that was made while it
//! was away.
//!
//! What is absent from a fresh snapshot is gone: the receiver drops it and cuts what hangs on it.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    bind,
    door::EntryCarrier,
    id::{AccountId, ClusterId, DeviceId, NodeId, OrgId, ResourceId},
    lease::{Revocation, StreamSubject},
    resource::{ClientResource, Health, NodeResource},
    time::UnixMillis,
};

/// The version of these frames. A server refuses another one with a sentence, not a decode error.
pub const VERSION: u32 = 1;
/// The largest frame that either side accepts; bigger snapshots come in parts.
pub const MAX_FRAME: usize = 1 << 20;

/// A node says again how a resource is after this time (and up to a round of its checks), though nothing has changed. What
/// it said counts for longer.
pub const HEALTH_AGAIN: Duration = Duration::from_secs(5 * 60);

/// The scope of proxy clusters. A device is subscribed to it that says, as one that can read its items, that it holds
/// some revision of it, if only 0: then it holds nothing yet. So an older program is told nothing that it cannot read.
pub const CLUSTERS: &str = "clusters";

/// `org`, `account:acc_…`, `node:nod_…`, `gateways`, `clusters` or `cluster:clu_…`.
pub type Scope = String;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "t")]
pub enum ClientFrame {
    Hello(Hello),
    /// Nodes, after each snapshot: the subjects of their live streams. The answer is a `Revoke` for each that may no
    /// longer live, then `Checked`.
    Live {
        subjects: Vec<StreamSubject>,
    },
    /// Nodes, after each welcome and when it changes: where clients dial the node as `host:port` (`None` keeps what is
    /// known), whether it refuses new streams, and then when those that run are cut.
    Presence {
        #[serde(default)]
        advertise: Option<String>,
        draining: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        drain_ends: Option<UnixMillis>,
    },
    /// Nodes, after each welcome, every now and then, and at once when the last stream of a draining node has ended.
    Load {
        load: NodeLoad,
    },
    /// Relays, after each welcome and when it changes: the gateways at which links are parked.
    Parked {
        at: Vec<ParkedAt>,
    },
    /// Nodes: what their health checks saw.
    Health {
        reports: Vec<HealthReport>,
    },
    Ping {
        n: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u32,
    /// The program and its version, for the list of devices and nodes.
    pub agent: String,
    #[serde(default)]
    pub epoch: String,
    /// The revision that the client holds of each scope; 0: nothing yet, and it can read what is in it.
    #[serde(default)]
    pub have: BTreeMap<Scope, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "t")]
pub enum ServerFrame {
    Welcome(Welcome),
    /// All items of a scope, in `of` parts, `part` counting from 0 (an empty scope is part 0 of 1 without items). The
    /// scope is replaced when the last part is there; no delta of the scope comes in between.
    Snapshot {
        scope: Scope,
        rev: u64,
        part: u32,
        of: u32,
        items: Vec<Item>,
    },
    /// Changes of a scope since `from`: first `del`, then `put`. A receiver that is not at `from` connects again with
    /// an empty `have`.
    Delta {
        scope: Scope,
        from: u64,
        to: u64,
        put: Vec<Item>,
        del: Vec<ItemKey>,
    },
    /// Cut what matches, now.
    Revoke {
        revocations: Vec<Revocation>,
    },
    /// All subjects of a `Live` frame are answered.
    Checked,
    /// Nodes: check this resource's health at once and report it.
    CheckHealth {
        resource: ResourceId,
    },
    Pong {
        n: u64,
        now: UnixMillis,
    },
    /// The server closes the connection and says why; `code` is that of a problem.
    Bye {
        code: String,
        title: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub version: u32,
    pub org: OrgId,
    /// Changes when the control plane was restored from a backup: everything held so far is void.
    pub epoch: String,
    pub now: UnixMillis,
    pub scopes: Vec<Scope>,
}

/// One thing that a scope holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "k")]
pub enum Item {
    /// Scope `org`.
    Settings(NetworkSettings),
    /// Scope `org`: a key that leases are signed with (Ed25519 public key, 64 hex digits).
    LeaseKey { id: String, public: String },
    /// Scope `org`: an entry into the data path.
    Gateway(GatewayInfo),
    /// Scope `org`: a node behind gateways.
    Relay(RelayInfo),
    /// Scope `clusters` of devices, scope `cluster:…` of its workers: workers behind one address.
    Cluster(ClusterInfo),
    /// Scope `account:…`: who the account is.
    Account { id: AccountId, email: String, name: String },
    /// Scope `account:…`: a resource that the account may reach.
    Access(ClientResource),
    /// Scope `gateways`: a resource that gateways and relays dial. Scope `cluster:…`: one that its workers dial.
    Resource(NodeResource),
    /// Scope `node:…`: the node's own record, and what it is to do.
    Node {
        id: NodeId,
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        drain: Option<DrainOrder>,
    },
    /// Scope `node:…`: of a relay the gateways where it may park links, of a gateway the relays that may do so.
    Neighbours { nodes: Vec<NodeId> },
}

/// What names an item within its scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "k")]
pub enum ItemKey {
    Settings,
    LeaseKey { id: String },
    Gateway { id: NodeId },
    Relay { id: NodeId },
    Cluster { id: ClusterId },
    Account { id: AccountId },
    Access { id: ResourceId },
    Resource { id: ResourceId },
    Node { id: NodeId },
    Neighbours,
}

impl Item {
    #[must_use]
    pub fn key(&self) -> ItemKey {
        match self {
            Self::Settings(_) => ItemKey::Settings,
            Self::LeaseKey { id, .. } => ItemKey::LeaseKey { id: id.clone() },
            Self::Gateway(gateway) => ItemKey::Gateway { id: gateway.id },
            Self::Relay(relay) => ItemKey::Relay { id: relay.id },
            Self::Cluster(cluster) => ItemKey::Cluster { id: cluster.id },
            Self::Account { id, .. } => ItemKey::Account { id: *id },
            Self::Access(resource) => ItemKey::Access { id: resource.id },
            Self::Resource(resource) => ItemKey::Resource { id: resource.id },
            Self::Node { id, .. } => ItemKey::Node { id: *id },
            Self::Neighbours { .. } => ItemKey::Neighbours,
        }
    }
}

/// The organisation's network settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSettings {
    /// Where loopback mode binds, in CIDR form; inside 127.0.0.0/8.
    pub loopback_range: String,
    /// Whether addresses other than the first of the range are used.
    pub multi_loopback: bool,
    /// The organisation's virtual subnet, in CIDR form.
    pub vnm_subnet: String,
    /// The zone of names in the virtual network; a resource without a name of its own gets one here.
    #[serde(default = "default_zone")]
    pub dns_zone: String,
    /// Whether resources have IPv6 addresses too: see [`crate::bind::ipv6_address`].
    #[serde(default)]
    pub vnm_ipv6: bool,
}

fn default_zone() -> String {
    bind::DEFAULT_ZONE.to_owned()
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            loopback_range: "127.0.0.1/32".to_owned(),
            multi_loopback: false,
            vnm_subnet: "100.72.0.0/16".to_owned(),
            dns_zone: default_zone(),
            vnm_ipv6: false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayInfo {
    pub id: NodeId,
    pub name: String,
    /// Where clients dial it, as `host:port`.
    pub address: String,
    /// Set while the gateway takes no new streams.
    #[serde(default)]
    pub draining: bool,
    /// When what runs over a draining gateway is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_ends: Option<UnixMillis>,
}

/// A proxy cluster: workers that stand for each other behind one address, usually that of a layer-4 balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    pub id: ClusterId,
    pub name: String,
    /// Where clients dial it, as `host:port`.
    pub address: String,
    #[serde(default)]
    pub carrier: EntryCarrier,
    /// The authority (PEM) of the certificate that the outer TLS session of a [`EntryCarrier::WebSocket`] has; `None`:
    /// one that the client's machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Workers that take no new streams, while some may still run over them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<LeavingWorker>,
    /// Workers that were removed while their certificates go on: who shows one of them is not spoken to. Newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<NodeId>,
}

/// A worker on its way out of service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavingWorker {
    pub id: NodeId,
    pub name: String,
    /// When what runs over it is cut.
    pub ends: UnixMillis,
}

/// A relay: it is reached through the gateways where it has parked links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayInfo {
    pub id: NodeId,
    pub name: String,
    /// Where it can be reached now; empty while it is away.
    #[serde(default)]
    pub parked: Vec<ParkedAt>,
    /// Set while the relay takes no new streams.
    #[serde(default)]
    pub draining: bool,
    /// When what runs over a draining relay is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_ends: Option<UnixMillis>,
}

/// A node is to take no new streams until this order is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainOrder {
    /// When what still runs is cut.
    pub ends_at: UnixMillis,
}

/// How much a node has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLoad {
    /// Streams that it carries, to resources and to relays.
    pub streams: u64,
    /// Of all processors of its machine, by this process, lately; in thousandths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_permille: Option<u32>,
}

/// A gateway at which a relay has parked links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedAt {
    pub gateway: NodeId,
    /// How long a message takes there and back, rounded so that it seldom changes.
    pub latency_micros: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    pub resource: ResourceId,
    pub health: Health,
    pub checked_at: UnixMillis,
    /// How long the TCP connect took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_micros: Option<u64>,
}

/// Who is at the other end of a sync connection, as its certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    Device { account: AccountId, device: DeviceId },
    Node { node: NodeId },
}
