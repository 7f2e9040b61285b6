//! A connection to an entry: TCP, TLS, and the certainty that it is the node that was meant.

use std::{io, time::Duration};

use postern_proto::{head::Passage, id::NodeId, sync::Peer};
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};

use super::DialError;
use crate::{
    identity::PeerIdentity,
    link::{self, Declined, Established, Link, LinkError, Through},
    outward, socket,
    splice::Inbox,
    tls::{ClientTls, OuterClientTls},
    web,
};

/// For the whole of it.
const DEADLINE: Duration = Duration::from_secs(10);
/// For the connection alone: the first packet is sent again after one and three seconds. Who does not answer then is cut
/// off, and another way may lead there.
const CONNECT: Duration = Duration::from_secs(4);

/// Makes a link to the node of this name; with `outer` within a WebSocket, to whom somebody else may pass it on.
pub(crate) async fn dial(
    address: &str,
    name: &ServerName<'static>,
    tls: &ClientTls,
    outer: Option<&OuterClientTls>,
) -> Result<Box<Link>, DialError> {
    Ok(dial_any(address, name, tls, outer).await?.0)
}

/// The same to whoever answers to this name, and says which node that is.
pub(super) async fn dial_any(
    address: &str,
    name: &ServerName<'static>,
    tls: &ClientTls,
    outer: Option<&OuterClientTls>,
) -> Result<(Box<Link>, Option<NodeId>), DialError> {
    let work = async {
        let stream = connect(address, tls).await.map_err(|source| match source.kind() {
            io::ErrorKind::TimedOut => DialError::TimedOut { address: address.to_owned() },
            _ => unreachable(address, source),
        })?;
        socket::tune(&stream).map_err(|source| unreachable(address, source))?;
        let established = match outer {
            None => link::connect(stream, tls.config().clone(), name.clone()).await,
            Some(outer) => {
                let web = open_web(address, stream, outer).await?;
                link::connect(web, tls.config().clone(), name.clone()).await
            }
        };
        let Established { link, alpn, leaf } = established.map_err(|error| handshake(address, error))?;
        if tls.offers(alpn.as_deref()) {
            Ok((link, leaf.and_then(|leaf| node_of(&leaf, tls))))
        } else {
            Err(handshake(address, "it does not speak the carrier's protocol"))
        }
    };
    timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(DialError::TimedOut { address: address.to_owned() }))
}

/// Makes a link to a relay through a passage of the gateway at this address, over a link to that. The passage is asked for
/// and the inner handshake begun in one flight.
pub(super) async fn dial_through(
    address: &str,
    outer: Box<Link>,
    relay: &ServerName<'static>,
    tls: &ClientTls,
    passage: &Passage,
) -> Result<Box<Link>, DialError> {
    let work = async {
        let through = Through::ask(outer, &passage.write()).await.map_err(|error| handshake(address, error))?;
        let established = link::connect(through, tls.config().clone(), relay.clone()).await;
        let Established { link, alpn, .. } = established.map_err(|error| declined(address, error))?;
        if tls.offers(alpn.as_deref()) {
            Ok(link)
        } else {
            Err(handshake(address, "the relay does not speak the carrier's protocol"))
        }
    };
    timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(DialError::TimedOut { address: address.to_owned() }))
}

/// Whose certificate it is; it was verified.
fn node_of(leaf: &[u8], tls: &ClientTls) -> Option<NodeId> {
    match PeerIdentity::from_leaf(leaf, tls.org()).ok()?.peer {
        Peer::Node { node } => Some(node),
        Peer::Device { .. } => None,
    }
}

/// A refusal of the gateway comes where the inner handshake is awaited.
fn declined(address: &str, error: LinkError) -> DialError {
    let error = io::Error::from(error);
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Declined>()) {
        Some(Declined(refused)) => {
            DialError::Refused { address: address.to_owned(), problem: Box::new(refused.problem.clone()) }
        }
        None => DialError::Relay { address: address.to_owned(), source: error },
    }
}

fn handshake(address: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DialError {
    DialError::Handshake { address: address.to_owned(), source: io::Error::other(error) }
}

fn unreachable(address: &str, source: io::Error) -> DialError {
    DialError::Unreachable { address: address.to_owned(), source }
}

/// Has whoever ends TLS at this address open a WebSocket to a node.
async fn open_web(address: &str, stream: TcpStream, outer: &OuterClientTls) -> Result<web::WebSocket, DialError> {
    let not_trusted = |source| DialError::Outer { address: address.to_owned(), source };
    let host = outward::split(address).map_or(address, |(host, _)| host);
    let name = ServerName::try_from(host.to_owned()).map_err(|error| not_trusted(io::Error::other(error)))?;
    let established = link::connect(stream, outer.config().clone(), name).await;
    let Established { link, .. } = established.map_err(|error| not_trusted(error.into()))?;
    let asked = web::ask(Through::new(link, Inbox::default()), address).await;
    asked.map_err(|error| DialError::WebSocket { address: address.to_owned(), source: error.into() })
}

async fn connect(address: &str, tls: &ClientTls) -> io::Result<TcpStream> {
    let Some((host, port)) = outward::split(address) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no host with a port"));
    };
    Ok(tls.outward().connect(host, port, CONNECT).await?)
}
