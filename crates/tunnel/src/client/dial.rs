//! A connection to an entry: TCP, TLS, and the certainty that it is the node that was meant.

use std::{io, net::SocketAddr, time::Duration};

use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::DialError;
use crate::{
    happy_eyeballs,
    link::{self, Established, Link},
    socket,
    tls::{self, ClientTls},
};

/// For the whole of it.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn dial(address: &str, name: &ServerName<'static>, tls: &ClientTls) -> Result<Box<Link>, DialError> {
    let work = async {
        let stream = connect(address).await.map_err(|source| unreachable(address, source))?;
        socket::tune(&stream).map_err(|source| unreachable(address, source))?;
        let established = link::connect(stream, tls.config().clone(), name.clone()).await;
        let Established { link, alpn, .. } = established.map_err(|error| handshake(address, error))?;
        match alpn {
            Some(alpn) if alpn == tls::ALPN => Ok(link),
            _ => Err(handshake(address, "it does not speak the carrier's protocol")),
        }
    };
    timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(DialError::TimedOut { address: address.to_owned() }))
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
