//! What to type to use a resource: the one place that knows it, for the shell, the window and the tray.

use std::{fmt, net::SocketAddr};

use postern_proto::{name::HostPattern, resource::Kind};

use crate::message::{Connection, ResourceStatus};

/// Where programs reach a resource, as a person would write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The address that is listened on, else the one it will have; in the virtual network its name, unless that stands for
/// several hosts. (A name of this type is fit to stand in a command that a person pastes into a shell.)
#[must_use]
pub fn endpoint(resource: &ResourceStatus) -> Endpoint {
    let address = address(resource);
    let name = alias(resource).filter(|name| !name.is_wildcard());
    let host = name.map_or_else(|| address.ip().to_string(), |name| name.to_string());
    Endpoint { host, port: address.port() }
}

/// The wildcard that stands for several hosts of the resource, beside its [`endpoint`], as `*.name`.
#[must_use]
pub fn wildcard(resource: &ResourceStatus) -> Option<Endpoint> {
    let name = alias(resource).filter(HostPattern::is_wildcard)?;
    Some(Endpoint { host: name.to_string(), port: address(resource).port() })
}

fn address(resource: &ResourceStatus) -> SocketAddr {
    match resource.connection {
        Connection::Listening { address } | Connection::PortInUse { address, .. } => address,
        _ => SocketAddr::new(resource.resource.bind.ip, resource.resource.bind.port),
    }
}

fn alias(resource: &ResourceStatus) -> Option<HostPattern> {
    match resource.connection {
        // The name that is in force, where there is one.
        Connection::Listening { .. } => resource.virtual_name.as_ref().and_then(|name| name.parse().ok()),
        // Only at loopback are ports taken.
        Connection::PortInUse { .. } => None,
        _ => resource.resource.bind.dns_name.clone(),
    }
}

/// A command that uses the resource and can be pasted into a shell as it is.
#[must_use]
pub fn command(resource: &ResourceStatus) -> String {
    write_command(resource.resource.kind, &endpoint(resource))
}

fn write_command(kind: Kind, endpoint: &Endpoint) -> String {
    let Endpoint { host, port } = endpoint;
    let in_url = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    match (kind, *port) {
        (Kind::Tcp, port) => format!("nc {host} {port}"),
        (Kind::Http, 80) => format!("curl http://{in_url}/"),
        (Kind::Http, 443) => format!("curl https://{in_url}/"),
        (Kind::Http, port) => format!("curl http://{in_url}:{port}/"),
        (Kind::Postgres, port) => format!("psql -h {host} -p {port}"),
        (Kind::Mysql, port) => format!("mysql -h {host} -P {port} --protocol=tcp"),
        (Kind::Redis, port) => format!("redis-cli -h {host} -p {port}"),
        (Kind::Ssh, 22) => format!("ssh {host}"),
        (Kind::Ssh, port) => format!("ssh -p {port} {host}"),
    }
}

#[cfg(test)]
mod tests {
    use postern_proto::{
        id::ResourceId,
        port::PortSet,
        resource::{BindAddress, BindMode, ClientResource, Health, LoopbackAddress, Tags},
        time::UnixMillis,
    };

    use super::*;

    fn resource(kind: Kind, bind: BindAddress) -> ResourceStatus {
        let id = ResourceId::from_ulid(1.into());
        let (ports, via) = (PortSet::default(), Vec::new());
        let (name, tags, health) = ("orders".to_owned(), Tags::new(), Health::Unknown);
        ResourceStatus::off(ClientResource {
            id,
            name,
            kind,
            tags,
            bind,
            ports,
            revision: 1,
            via,
            cluster: None,
            health,
        })
    }

    fn at_loopback(kind: Kind, port: u16) -> String {
        command(&resource(kind, BindAddress::loopback([127, 0, 0, 1].into(), port)))
    }

    #[test]
    fn each_kind_has_the_command_of_its_usual_program() {
        assert_eq!(at_loopback(Kind::Tcp, 15000), "nc 127.0.0.1 15000");
        assert_eq!(at_loopback(Kind::Http, 18300), "curl http://127.0.0.1:18300/");
        assert_eq!(at_loopback(Kind::Postgres, 15432), "psql -h 127.0.0.1 -p 15432");
        assert_eq!(at_loopback(Kind::Mysql, 13306), "mysql -h 127.0.0.1 -P 13306 --protocol=tcp");
        assert_eq!(at_loopback(Kind::Redis, 16379), "redis-cli -h 127.0.0.1 -p 16379");
        assert_eq!(at_loopback(Kind::Ssh, 10022), "ssh -p 10022 127.0.0.1");
    }

    #[test]
    fn the_name_stands_for_the_address_while_it_is_in_force() {
        let bind = BindAddress {
            mode: BindMode::Vnm,
            ip: [100, 72, 1, 0].into(),
            port: 443,
            dns_name: Some("wiki.my-org".parse().unwrap()),
            loopback: Some(LoopbackAddress { ip: [127, 0, 0, 1].into(), port: 10000 }),
        };
        let mut wiki = resource(Kind::Http, bind);
        assert_eq!(command(&wiki), "curl https://wiki.my-org/");
        wiki.connection = Connection::Listening { address: "127.0.0.1:10000".parse().unwrap() };
        assert_eq!(command(&wiki), "curl http://127.0.0.1:10000/");
        wiki.connection = Connection::Listening { address: "100.72.1.0:443".parse().unwrap() };
        wiki.virtual_name = Some("wiki.my-org".to_owned());
        assert_eq!(endpoint(&wiki).to_string(), "wiki.my-org:443");
        wiki.virtual_name = Some("*.my-org".to_owned());
        assert_eq!(command(&wiki), "curl https://100.72.1.0/");
        assert_eq!(wildcard(&wiki).unwrap().to_string(), "*.my-org:443");
        // Ports are taken at loopback only, so that is where it was to be.
        let address = "127.0.0.1:10000".parse().unwrap();
        wiki.connection = Connection::PortInUse { address, holder: None, retry_at: UnixMillis(0) };
        assert_eq!((command(&wiki), wildcard(&wiki)), ("curl http://127.0.0.1:10000/".to_owned(), None));
    }

    #[test]
    fn ports_that_go_without_saying_are_left_out() {
        let short = |kind, port| write_command(kind, &Endpoint { host: "a.my-org".to_owned(), port });
        assert_eq!(short(Kind::Ssh, 22), "ssh a.my-org");
        assert_eq!(short(Kind::Http, 80), "curl http://a.my-org/");
        assert_eq!(short(Kind::Postgres, 5432), "psql -h a.my-org -p 5432");
    }
}
