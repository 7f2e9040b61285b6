//! What clients dial: gateways one by one, and proxy clusters, of which any worker will do.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::{ClusterId, IdError, NodeId};

/// A node, or a cluster whose workers stand for each other. Written as its identifier, `nod_…` or `clu_…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Door {
    Node(NodeId),
    Cluster(ClusterId),
}

impl Door {
    /// The DNS name that the certificate of whoever opens must have. Clients verify it; nobody resolves it.
    #[must_use]
    pub fn tls_name(self) -> String {
        match self {
            Self::Node(node) => node.tls_name(),
            Self::Cluster(cluster) => cluster.tls_name(),
        }
    }

    /// The node, when it is one.
    #[must_use]
    pub const fn node(self) -> Option<NodeId> {
        match self {
            Self::Node(node) => Some(node),
            Self::Cluster(_) => None,
        }
    }
}

impl From<NodeId> for Door {
    fn from(node: NodeId) -> Self {
        Self::Node(node)
    }
}

impl From<ClusterId> for Door {
    fn from(cluster: ClusterId) -> Self {
        Self::Cluster(cluster)
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => node.fmt(f),
            Self::Cluster(cluster) => cluster.fmt(f),
        }
    }
}

impl FromStr for Door {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse().map(Self::Cluster).or_else(|_| text.parse().map(Self::Node))
    }
}

impl Serialize for Door {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Door {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// What lies between TCP and the mutual TLS session of the carrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryCarrier {
    /// Nothing.
    #[default]
    Direct,
    /// WebSocket frames within a TLS session that somebody else may end.
    WebSocket,
    /// One of a newer control plane: the entry cannot be used.
    #[serde(other)]
    Unknown,
}

impl EntryCarrier {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::WebSocket => "websocket",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_written_as_the_identifier_of_what_it_is() {
        for text in ["nod_01JABCDEFGHJKMNPQRSTVWXYZ0", "clu_01JABCDEFGHJKMNPQRSTVWXYZ0"] {
            let door: Door = text.parse().unwrap();
            assert_eq!(door.to_string(), text);
            assert_eq!(serde_json::to_string(&door).unwrap(), format!("{text:?}"));
            assert_eq!(serde_json::from_str::<Door>(&format!("{text:?}")).unwrap(), door);
        }
        assert!("res_01JABCDEFGHJKMNPQRSTVWXYZ0".parse::<Door>().is_err());
    }

    #[test]
    fn a_node_and_a_cluster_never_have_the_same_name() {
        let ulid = ulid::Ulid(7);
        let (node, cluster) = (Door::Node(NodeId::from_ulid(ulid)), Door::Cluster(ClusterId::from_ulid(ulid)));
        assert_ne!(node.tls_name(), cluster.tls_name());
        assert_eq!(cluster.tls_name(), "00000000000000000000000007.cluster.postern.internal");
    }

    #[test]
    fn a_carrier_of_a_newer_control_plane_is_read_as_one_that_is_not_known() {
        assert_eq!(serde_json::from_str::<EntryCarrier>(r#""quic""#).unwrap(), EntryCarrier::Unknown);
        assert_eq!(serde_json::from_str::<EntryCarrier>(r#""websocket""#).unwrap(), EntryCarrier::WebSocket);
    }
}
