//! Ports and loopback addresses that nobody else on this machine uses.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Mutex, PoisonError},
};

use socket2::{Domain, Socket, Type};

/// Below the ports that the kernel gives to connections and to whoever asks for port 0.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// What keeps the ports of this process from other tests, until it ends.
static KEPT: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A TCP port of 127.0.0.1 for this test alone, for programs that cannot be given port 0.
pub fn free_port() -> io::Result<u16> {
    free_port_of(Ipv4Addr::LOCALHOST.into())
}

/// The same of another address of this machine.
///
/// The kernel draws none of these ports for anybody, and no other test is given it: a UDP socket that is kept open here
/// stands for it. A program of somebody else's that wants this very port may still take it first.
pub fn free_port_of(host: IpAddr) -> io::Result<u16> {
    loop {
        let port = rand::random_range(PORTS);
        // Only who holds the port looks at it: otherwise this look would be in the way of the test that has it.
        let free = UdpSocket::bind((host, port)).and_then(|held| look((host, port).into()).map(|()| held));
        match free {
            Ok(held) => {
                KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(held);
                return Ok(port);
            }
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(error),
            Err(_) => {}
        }
    }
}

/// Whether a TCP port can be listened at. Does not listen itself: a program that another thread starts holds a copy of each
/// socket for a moment, and one that listens would be in the way that long.
fn look(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_free_port_is_free_for_tcp_and_given_once() {
        let ports: Vec<u16> = (0..200).map(|_| free_port().unwrap()).collect();
        let different: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(different.len(), ports.len());
        let listeners = ports.iter().map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)));
        assert_eq!(listeners.filter_map(Result::ok).count(), ports.len());
    }

    /// Until it has become another program, a child that another test starts holds a copy of every socket there is.
    #[test]
    fn a_free_port_is_free_while_programs_are_started() {
        let over = std::sync::atomic::AtomicBool::new(false);
        let starting = || {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                std::process::Command::new("true").status().unwrap();
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(starting);
            }
            let taken =
                (0..500).filter(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, free_port().unwrap())).is_err()).count();
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(taken, 0);
        });
    }

    #[test]
    fn an_address_that_is_not_of_this_machine_has_no_free_port() {
        let error = free_port_of(Ipv4Addr::new(192, 0, 2, 1).into()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
