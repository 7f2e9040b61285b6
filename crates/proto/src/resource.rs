//! The resource model: what may be reached and how it is described.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, ResourceId};

/// What speaks at the resource. It decides the default port and how clients present the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Tcp,
    Http,
    Postgres,
    Mysql,
    Redis,
    Ssh,
}

impl Kind {
    pub const ALL: [Self; 6] = [Self::Tcp, Self::Http, Self::Postgres, Self::Mysql, Self::Redis, Self::Ssh];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
            Self::Ssh => "ssh",
        }
    }

    /// The port of the resource itself when none is given. 49150 for `tcp` follows the product this one replaces, so
    /// that definitions can be carried over.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Tcp => 49150,
            Self::Http => 80,
            Self::Postgres => 5432,
            Self::Mysql => 3306,
            Self::Redis => 6379,
            Self::Ssh => 22,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of resource; known kinds are tcp, http, postgres, mysql, redis, ssh")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// Tags: key and value, both plain text. A tag without a value has the empty value.
pub type Tags = BTreeMap<String, String>;

/// Where a resource appears on the user's machine: loopback mode, or the virtual network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BindMode {
    Loopback,
    Vnm,
}

/// A bind address: IP and port, and in Virtual Networking Mode a DNS name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BindAddress {
    pub mode: BindMode,
    pub ip: IpAddr,
    pub port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<String>,
}

/// What a client is told about a resource it may reach. It holds nothing that only a node needs (host, port).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientResource {
    pub id: ResourceId,
    pub name: String,
    pub kind: Kind,
    #[serde(default)]
    pub tags: Tags,
    pub bind: BindAddress,
    /// Goes up with each change of the resource; leases name it.
    pub revision: u64,
    /// The nodes that can carry streams to it, best first. Empty: any gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<NodeId>,
    pub health: Health,
}

/// What an egress node is told about a resource that it may dial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeResource {
    pub id: ResourceId,
    pub name: String,
    pub kind: Kind,
    #[serde(default)]
    pub tags: Tags,
    /// A host name or an IP literal.
    pub host: String,
    pub port: u16,
    pub revision: u64,
    /// Whether loopback, link-local, metadata and the node's own addresses may be dialled for it.
    #[serde(default)]
    pub allow_local: bool,
    /// Whether new streams need a control plane heard from within 15 s (DESIGN §4.4).
    #[serde(default)]
    pub strict: bool,
}

/// Whether a resource answers, as its nodes see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Health {
    /// No node has reported yet.
    #[default]
    Unknown,
    Healthy,
    Unhealthy {
        /// What the check saw, fit to be shown to a person.
        error: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_back_from_its_name() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse::<Kind>().unwrap(), kind);
        }
        assert!("gopher".parse::<Kind>().is_err());
    }
}
