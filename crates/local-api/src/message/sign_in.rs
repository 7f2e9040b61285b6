//! Signing in, and who is signed in.

use postern_proto::{api::AccountInfo, id::DeviceId, time::UnixMillis};
use serde::{Deserialize, Serialize};

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
