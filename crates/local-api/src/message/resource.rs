//! One resource, and how it stands.

use std::{net::SocketAddr, time::Duration};

use postern_proto::{resource::ClientResource, time::UnixMillis};
use serde::{Deserialize, Serialize};

use super::{Route, Trouble};

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
    /// How it stands, in one word.
    #[serde(default)]
    pub state: ResourceState,
    /// Since when it has been in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<UnixMillis>,
    /// Whether it is to be connected: what the user or the account's default wishes, whatever came of it.
    #[serde(default)]
    pub wanted: bool,
    /// What keeps it from being used, or kept its last stream from getting through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// A command that uses it and can be pasted as it is; what `postern command NAME` prints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The port that the user chose for the address it has now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_override: Option<u16>,
    /// The port that it would have without that; only while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_port: Option<u16>,
    /// The way that the next stream would take; `None` while no gateway is known for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// When a stream of it last began, in this run of the service or an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<UnixMillis>,
    /// When the lease that is held ends. It renews itself well before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ends: Option<UnixMillis>,
}

/// How a resource stands: the same words in window, tray, notifications and shell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceState {
    /// It can be used.
    Connected,
    /// It is wanted, and on its way.
    Connecting,
    /// Not wanted.
    #[default]
    Off,
    /// It can be used, and the access ends within [`ResourceState::EXPIRING_FROM`].
    Expiring,
    /// It can be used, but not as it should be: it is slow.
    Degraded,
    /// It is wanted and cannot be used.
    Unhealthy,
    /// A person has to agree first.
    NeedsApproval,
    /// Wanted, but held back until `unlock`.
    Locked,
}

impl ResourceState {
    pub const ALL: [Self; 8] = [
        Self::Connected,
        Self::Connecting,
        Self::Off,
        Self::Expiring,
        Self::Degraded,
        Self::Unhealthy,
        Self::NeedsApproval,
        Self::Locked,
    ];

    /// How long before its end an access counts as expiring.
    pub const EXPIRING_FROM: Duration = Duration::from_secs(30 * 60);

    /// As the shell prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Connecting => "connecting",
            Self::Off => "off",
            Self::Expiring => "expiring",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::NeedsApproval => "needs-approval",
            Self::Locked => "locked",
        }
    }

    /// Whether programs get through.
    #[must_use]
    pub const fn passes(self) -> bool {
        matches!(self, Self::Connected | Self::Expiring | Self::Degraded)
    }
}

impl ResourceStatus {
    /// A resource that is off.
    #[must_use]
    pub const fn off(resource: ClientResource) -> Self {
        Self {
            resource,
            connection: Connection::Disconnected,
            virtual_name: None,
            also_at: None,
            fallback: None,
            streams: 0,
            bytes_up: 0,
            bytes_down: 0,
            grant_ends: None,
            last_error: None,
            state: ResourceState::Off,
            since: None,
            wanted: false,
            trouble: None,
            command: None,
            port_override: None,
            assigned_port: None,
            route: None,
            last_used: None,
            lease_ends: None,
        }
    }
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
