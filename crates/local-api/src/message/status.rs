//! Who answers, and everything that a client shows.

use std::net::SocketAddr;

use postern_proto::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::{GatewayStatus, HealthItem, KeyStorage, NetworkStatus, ResourceStatus, SignIn};

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
    /// Sentences a person should read: what is wrong and what to do. All of them are in `health` too.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What is wrong, worst first, then what has been so the longest.
    #[serde(default)]
    pub health: Vec<HealthItem>,
}

impl ControlLink {
    /// Where the control plane is, as far as it is known.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Known { url } | Self::Connecting { url } | Self::Connected { url, .. } | Self::Away { url, .. } => {
                Some(url)
            }
        }
    }
}

impl Status {
    /// Of a service that has just begun: nobody is signed in and nothing is wrong.
    #[must_use]
    pub fn signed_out(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            sign_in: SignIn::SignedOut,
            control: ControlLink::None,
            key_storage: KeyStorage::Memory,
            certificate_ends: None,
            gateways: Vec::new(),
            resources: Vec::new(),
            network: NetworkStatus::Off,
            allowed_uids: Vec::new(),
            status_api: StatusApi::Off,
            warnings: Vec::new(),
            health: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ControlLink {
    /// No control plane is configured.
    None,
    /// It is configured, and nobody is signed in there.
    Known {
        url: String,
    },
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
#[serde(rename_all = "snake_case", tag = "state")]
pub enum StatusApi {
    Off,
    Listening { address: SocketAddr, token_file: String },
    Failed { error: String },
}
