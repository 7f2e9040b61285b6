//! A connection to an entry: TCP, TLS, and the certainty that it is the node that was meant.

use std::{io, net::SocketAddr, time::Duration};

use postern_proto::head::Passage;
use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::DialError;
use crate::{
    happy_eyeballs,
    link::{self, Declined, Established, Link, LinkError, Through},
    socket,
    tls::ClientTls,
};

/// For the whole of it.
const DEADLINE: Duration = Duration::from_secs(10);

/// Makes a link to the node of this name.
pub(crate) async fn dial(address: &str, name: &ServerName<'static>, tls: &ClientTls) -> Result<Box<Link>, DialError> {
    let work = async {
        let stream = connect(address).await.map_err(|source| unreachable(address, source))?;
        socket::tune(&stream).map_err(|source| unreachable(address, source))?;
        let established = link::connect(stream, tls.config().clone(), name.clone()).await;
        let Established { link, alpn, .. } = established.map_err(|error| handshake(address, error))?;
        if tls.offers(alpn.as_deref()) {
            Ok(link)
        } else {
            Err(handshake(address, "it does not speak the carrier's protocol"))
        }
    };
    timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(DialError::TimedOut { address: address.to_owned() }))
}

/// Makes a link to a relay through a passage of the gateway at this address. The passage is asked for and the inner
/// handshake begun in one flight.
pub(super) async fn dial_through(
    (address, gateway): (&str, &ServerName<'static>),
    relay: &ServerName<'static>,
    tls: &ClientTls,
    passage: &Passage,
) -> Result<Box<Link>, DialError> {
    let outer = dial(address, gateway, tls).await?;
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

async fn connect(address: &str) -> io::Result<TcpStream> {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return TcpStream::connect(address).await;
    }
    let addresses: Vec<SocketAddr> = lookup_host(address).await?.collect();
    Ok(happy_eyeballs::connect(&addresses, DEADLINE).await?.0)
}
