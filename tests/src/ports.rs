//! Ports and loopback addresses that nobody else on this machine uses.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
};

/// A TCP port of 127.0.0.1 that was free a moment ago, for programs that cannot be given port 0. Somebody may take it
/// first: whoever starts such a program tries again with another one.
pub fn free_port() -> io::Result<u16> {
    free_port_of(Ipv4Addr::LOCALHOST.into())
}

/// The same of another address of this machine.
pub fn free_port_of(host: IpAddr) -> io::Result<u16> {
    Ok(TcpListener::bind((host, 0))?.local_addr()?.port())
}

/// A loopback address for one test alone, so that bind addresses that a control plane assigns (always the same first
/// ports) do not meet those of another test.
#[must_use]
pub fn own_loopback() -> Ipv4Addr {
    let [a, b, c]: [u8; 3] = rand::random();
    // Not 127.0/16, where people's own services live, and no network or broadcast look-alike at the end.
    Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254))
}

/// An address on which nothing listens.
pub fn refused_address() -> io::Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}
