//! The resource model: what may be reached and how it is described.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{
    door::Door,
    head::Wanted,
    id::{ClusterId, NodeId, ResourceId},
    name::HostPattern,
    port::PortSet,
};

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

/// Where a resource appears on the user's machine: in loopback mode, in the virtual network, or in both at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BindMode {
    Loopback,
    Vnm,
    Both,
}

impl BindMode {
    /// Whether the resource has an address in the virtual network.
    #[must_use]
    pub const fn is_virtual(self) -> bool {
        matches!(self, Self::Vnm | Self::Both)
    }
}

/// Where a resource appears on the user's machine.
///
/// `ip` and `port` are its main address: in loopback mode at loopback, else in the virtual network. There the port is
/// that of the resource's own one; the further ports of the resource appear under their own numbers beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BindAddress {
    pub mode: BindMode,
    pub ip: IpAddr,
    pub port: u16,
    /// Only in Virtual Networking Mode: the alias. A wildcard stands for several hosts, each of which gets an address of
    /// its own on the user's machine; `ip` then is that of the resource's own host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<HostPattern>,
    /// Only in Virtual Networking Mode: the loopback address. With [`BindMode::Both`] it is used beside the virtual one,
    /// with [`BindMode::Vnm`] where a machine cannot have the virtual network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loopback: Option<LoopbackAddress>,
}

/// A bind address in loopback mode. It reaches the resource's own port on its own host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LoopbackAddress {
    pub ip: IpAddr,
    pub port: u16,
}

impl BindAddress {
    /// An address in loopback mode.
    #[must_use]
    pub const fn loopback(ip: IpAddr, port: u16) -> Self {
        Self { mode: BindMode::Loopback, ip, port, dns_name: None, loopback: None }
    }

    /// Where it is, or would be, in loopback mode.
    #[must_use]
    pub fn loopback_address(&self) -> Option<SocketAddr> {
        match self.mode {
            BindMode::Loopback => Some(SocketAddr::new(self.ip, self.port)),
            BindMode::Vnm | BindMode::Both => self.loopback.map(|loopback| SocketAddr::new(loopback.ip, loopback.port)),
        }
    }

    /// Where its own port is in the virtual network.
    #[must_use]
    pub fn virtual_address(&self) -> Option<SocketAddr> {
        self.mode.is_virtual().then(|| SocketAddr::new(self.ip, self.port))
    }

    /// Whether its alias stands for several hosts.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.dns_name.as_ref().is_some_and(HostPattern::is_wildcard)
    }
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
    /// Ports in the virtual network beside that of `bind`; each leads to the same port of the resource.
    #[serde(default, skip_serializing_if = "PortSet::is_empty")]
    pub ports: PortSet,
    /// Goes up with each change of the resource; leases name it.
    pub revision: u64,
    /// The nodes that can dial it, gateways and relays, best first. Empty: any gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<NodeId>,
    /// The cluster over which alone it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
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
    /// Its own host: a name or an IP literal.
    pub host: String,
    /// Its own port.
    pub port: u16,
    /// Ports that may be dialled beside its own.
    #[serde(default, skip_serializing_if = "PortSet::is_empty")]
    pub ports: PortSet,
    /// Hosts that may be dialled, each as it is asked for, beside its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
    pub revision: u64,
    /// Whether loopback, link-local, metadata and the node's own addresses may be dialled for it.
    #[serde(default)]
    pub allow_local: bool,
    /// Whether new streams need a control plane heard from within 15 s (DESIGN §4.4).
    #[serde(default)]
    pub strict: bool,
    /// The nodes that may dial it; `None`: every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<NodeId>>,
}

impl ClientResource {
    /// Where streams to it come out: its cluster; else the nodes that can dial it, best first. Empty: any gateway.
    #[must_use]
    pub fn ends(&self) -> Vec<Door> {
        match self.cluster {
            Some(cluster) => vec![cluster.into()],
            None => self.via.iter().copied().map(Door::from).collect(),
        }
    }

    /// What a connection to a port of one of its virtual addresses wants: `None` when it has no such port, so that the
    /// connection is refused. The host is not filled in.
    #[must_use]
    pub fn wanted(&self, port: u16) -> Option<Wanted> {
        let port = match port {
            port if port == self.bind.port => 0,
            port if self.ports.contains(port) => port,
            _ => return None,
        };
        self.bind.mode.is_virtual().then_some(Wanted { port, host: None })
    }
}

/// Why a node does not dial what is asked of a resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfReach {
    #[error("port {port} is none of its ports")]
    Port { port: u16 },
    #[error("host {host} is none of its hosts")]
    Host { host: String },
}

impl NodeResource {
    /// The host and port to dial for what is wanted.
    pub fn target<'a>(&'a self, wanted: &'a Wanted) -> Result<(&'a str, u16), OutOfReach> {
        let port = match wanted.port {
            0 => self.port,
            port if port == self.port || self.ports.contains(port) => port,
            port => return Err(OutOfReach::Port { port }),
        };
        let host = match &wanted.host {
            None => &self.host,
            Some(host) if *host.as_str() == *self.host => &self.host,
            Some(host) if self.hosts.iter().any(|pattern| pattern.matches(host)) => host.as_str(),
            Some(host) => return Err(OutOfReach::Host { host: host.to_string() }),
        };
        Ok((host, port))
    }
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
        /// The code that a stream would be refused with, where the node tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
}

impl Health {
    /// For a reason that has no code.
    #[must_use]
    pub fn unhealthy(error: impl Into<String>) -> Self {
        Self::Unhealthy { error: error.into(), code: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_resource() -> NodeResource {
        NodeResource {
            id: ResourceId::from_ulid(ulid::Ulid(1)),
            name: "cluster".to_owned(),
            kind: Kind::Redis,
            tags: Tags::new(),
            host: "n1.redis.internal".to_owned(),
            port: 6379,
            ports: "7000-7005".parse().unwrap(),
            hosts: vec!["*.redis.internal".parse().unwrap(), "spare.example".parse().unwrap()],
            revision: 1,
            allow_local: false,
            strict: false,
            egress: None,
        }
    }

    fn wanted(port: u16, host: Option<&str>) -> Wanted {
        Wanted { port, host: host.map(|host| host.parse().unwrap()) }
    }

    #[test]
    fn a_node_dials_what_is_asked_within_the_ports_and_hosts_of_the_resource() {
        let resource = node_resource();
        for (port, host, target) in [
            (0, None, ("n1.redis.internal", 6379)),
            (6379, None, ("n1.redis.internal", 6379)),
            (7005, None, ("n1.redis.internal", 7005)),
            (0, Some("n1.redis.internal"), ("n1.redis.internal", 6379)),
            (7000, Some("n6.redis.internal"), ("n6.redis.internal", 7000)),
            (7000, Some("spare.example"), ("spare.example", 7000)),
        ] {
            assert_eq!(resource.target(&wanted(port, host)), Ok(target));
        }
        for port in [1, 6380, 7006, 65535] {
            assert_eq!(resource.target(&wanted(port, None)), Err(OutOfReach::Port { port }));
        }
        for host in ["redis.internal", "n1.redis.internal.example", "x.spare.example", "localhost", "metadata"] {
            let refused = Err(OutOfReach::Host { host: host.to_owned() });
            assert_eq!(resource.target(&wanted(7000, Some(host))), refused);
        }
    }

    #[test]
    fn a_resource_without_a_list_has_its_own_port_and_host_only() {
        let single = NodeResource { ports: PortSet::default(), hosts: Vec::new(), ..node_resource() };
        assert_eq!(single.target(&Wanted::default()), Ok(("n1.redis.internal", 6379)));
        assert!(single.target(&wanted(7000, None)).is_err());
        assert!(single.target(&wanted(0, Some("n2.redis.internal"))).is_err());
    }

    #[test]
    fn the_own_port_appears_at_the_bind_port_and_every_other_under_its_number() {
        let mut resource = ClientResource {
            id: ResourceId::from_ulid(ulid::Ulid(1)),
            name: "cluster".to_owned(),
            kind: Kind::Redis,
            tags: Tags::new(),
            bind: BindAddress {
                mode: BindMode::Vnm,
                ip: [100, 72, 1, 0].into(),
                port: 16379,
                dns_name: Some("*.redis.internal".parse().unwrap()),
                loopback: Some(LoopbackAddress { ip: [127, 0, 0, 1].into(), port: 10000 }),
            },
            ports: "7000-7005".parse().unwrap(),
            revision: 1,
            via: Vec::new(),
            cluster: None,
            health: Health::Unknown,
        };
        assert_eq!(resource.wanted(16379), Some(wanted(0, None)));
        assert_eq!(resource.wanted(7003), Some(wanted(7003, None)));
        assert_eq!(resource.wanted(6379), None);
        assert_eq!(resource.bind.virtual_address(), Some("100.72.1.0:16379".parse().unwrap()));
        assert_eq!(resource.bind.loopback_address(), Some("127.0.0.1:10000".parse().unwrap()));
        let json = serde_json::to_string(&resource).unwrap();
        assert_eq!(serde_json::from_str::<ClientResource>(&json).unwrap(), resource);
        resource.bind = BindAddress::loopback([127, 0, 0, 1].into(), 10000);
        assert_eq!((resource.wanted(10000), resource.bind.virtual_address()), (None, None));
    }

    #[test]
    fn what_an_older_control_plane_says_is_still_understood() {
        let text = r#"{"mode":"vnm","ip":"100.72.0.3","port":5432,"dns_name":"db.my-org"}"#;
        let bind: BindAddress = serde_json::from_str(text).unwrap();
        assert_eq!((bind.loopback_address(), bind.is_wildcard()), (None, false));
    }

    #[test]
    fn every_kind_is_read_back_from_its_name() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse::<Kind>().unwrap(), kind);
        }
        assert!("gopher".parse::<Kind>().is_err());
    }
}
