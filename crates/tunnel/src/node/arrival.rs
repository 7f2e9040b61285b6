//! What connections to a node come in: as they are, behind balancers that say whose they are, within WebSockets.

use std::{io, net::SocketAddr};

use ipnet::IpNet;
use postern_proto::proxy_header::{PREFIX, client, rest_length};
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::watch};

use crate::{
    link::{self, Established, LinkError, Through, Transport},
    splice::Inbox,
    tls::{OuterServerTls, ServerTls},
    web,
};

/// How connections arrive at a listener.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    pub carrier: Carrier,
    pub balancers: Balancers,
    /// This node is a bridge: it passes every client on as it comes, whatever the carrier, and lets nodes park links.
    pub bridges: bool,
    /// While it says `true` nobody is let in and the port is closed, so that a balancer sends its clients elsewhere. Those who
    /// had come are served.
    pub shut: Option<watch::Receiver<bool>>,
}

/// What lies between TCP and the mutual TLS session of the carrier.
#[derive(Clone, Debug, Default)]
pub enum Carrier {
    /// Nothing.
    #[default]
    Direct,
    /// WebSocket frames over plain HTTP: a balancer before this node ends TLS.
    PlainWebSocket,
    /// WebSocket frames within a TLS session that this node ends. A certificate that comes over the channel is used for
    /// the connections after that.
    WebSocket(watch::Receiver<OuterServerTls>),
}

/// The balancers that begin their connections with a PROXY protocol header (version 2), by their addresses. Nobody else's
/// connection may begin with one, and theirs must.
#[derive(Clone, Debug, Default)]
pub struct Balancers(Vec<IpNet>);

impl Balancers {
    #[must_use]
    pub const fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    #[must_use]
    pub fn contains(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }
}

impl Arrival {
    /// Makes the mutual TLS session on a connection, after whatever is around it.
    pub(super) async fn handshake(
        &self,
        stream: impl Transport + Send + 'static,
        tls: &ServerTls,
    ) -> Result<Established, LinkError> {
        let tls = tls.config().clone();
        match &self.carrier {
            Carrier::Direct => link::accept(stream, tls).await,
            Carrier::PlainWebSocket => {
                let web = web::grant(stream).await.map_err(io::Error::from)?;
                link::accept(web, tls).await
            }
            Carrier::WebSocket(outer) => {
                let outer = outer.borrow().config().clone();
                let Established { link, .. } = link::accept(stream, outer).await?;
                let web = web::grant(Through::new(link, Inbox::default())).await.map_err(io::Error::from)?;
                link::accept(web, tls).await
            }
        }
    }
}

/// Reads the header with which a balancer begins a connection, and nothing behind it: where the client's connection comes
/// from, if the balancer says so.
pub(super) async fn announced(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut prefix = [0; PREFIX];
    stream.read_exact(&mut prefix).await?;
    let length = rest_length(&prefix).map_err(io::Error::other)?;
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    client(&prefix, &rest).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balancers_are_known_by_their_networks_and_ipv4_in_ipv6_is_ipv4() {
        let balancers = Balancers::new(vec!["10.1.0.0/16".parse().unwrap(), "2001:db8::7/128".parse().unwrap()]);
        for (address, known) in [
            ("10.1.2.3:1", true),
            ("[::ffff:10.1.2.3]:1", true),
            ("10.2.2.3:1", false),
            ("[2001:db8::7]:1", true),
            ("[2001:db8::8]:1", false),
        ] {
            assert_eq!(balancers.contains(address.parse().unwrap()), known, "{address}");
        }
        assert!(!Balancers::default().contains("10.1.2.3:1".parse().unwrap()));
    }
}
