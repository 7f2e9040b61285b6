//! What travels for `POST /v1/names`: how a name is answered, by the resolver of the virtual network and by the system.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameQuestion {
    /// With a dot at its end, the system leaves out its search domains and /etc/hosts.
    pub name: String,
    /// A type of records, such as `A`, `AAAA` or `PTR`.
    pub kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameReport {
    /// As it was asked, without a dot at its end.
    pub name: String,
    pub kind: String,
    /// What the resolver of the virtual network answers. `None` while there is no virtual network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<ResolverAnswer>,
    /// What programs of this machine get.
    pub system: SystemAnswer,
    /// Commands that ask the same by hand.
    #[serde(default)]
    pub commands: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverAnswer {
    pub server: SocketAddr,
    /// How long it took.
    pub micros: u64,
    #[serde(flatten)]
    pub outcome: Asked,
}

/// How asking a DNS server went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Asked {
    Answered {
        /// `NOERROR`, `NXDOMAIN`, `REFUSED` …
        code: String,
        records: Vec<NameRecord>,
        /// What the answer says about itself (Extended DNS Errors, RFC 8914).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        explanation: Option<String>,
    },
    TimedOut,
    Failed {
        error: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRecord {
    pub name: String,
    pub kind: String,
    /// Seconds.
    pub ttl: u32,
    pub data: String,
}

/// What the system's own look-up (getaddrinfo) gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum SystemAnswer {
    Found {
        addresses: Vec<IpAddr>,
    },
    /// There is no such name, or it has no such address.
    NotFound,
    TimedOut,
    Failed {
        error: String,
    },
    /// Programs look up addresses only; this was another type.
    NotAsked,
}
