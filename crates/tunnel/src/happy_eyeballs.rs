//! Connecting to the first of several addresses that answers (Happy Eyeballs, RFC 8305).
//!
//! Addresses are tried in turn, families alternating, each [`STAGGER`] after the one before or at once when that one
//! failed. It never resolves a name and never tries an address that it was not given.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// How long an attempt has the field for itself ("Connection Attempt Delay", RFC 8305 §5).
pub const STAGGER: Duration = Duration::from_millis(250);

/// Connects to the first of `addresses` that answers within `limit`, and says which one that was.
///
/// When none connects, the error is that of the address that tells most: one that answered before one that was silent
/// ([`io::ErrorKind::TimedOut`]), and that before one to which nothing could be sent.
pub async fn connect(addresses: &[SocketAddr], limit: Duration) -> io::Result<(TcpStream, SocketAddr)> {
    if let [address] = addresses {
        let connected = timeout(limit, connect_to(*address)).await;
        return Ok((connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?, *address));
    }
    let mut told = None;
    match timeout(limit, race(interleave(addresses), &mut told)).await {
        Ok(Some(connected)) => return Ok(connected),
        Ok(None) => {}
        Err(_) => tell(&mut told, io::ErrorKind::TimedOut.into()),
    }
    Err(told.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
}

/// Keeps the error that tells more; of two alike the first.
fn tell(told: &mut Option<io::Error>, error: io::Error) {
    let weight = |error: &io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => 2,
        io::ErrorKind::TimedOut => 1,
        _ => 0,
    };
    if told.as_ref().is_none_or(|told| weight(told) < weight(&error)) {
        *told = Some(error);
    }
}

async fn race(addresses: Vec<SocketAddr>, told: &mut Option<io::Error>) -> Option<(TcpStream, SocketAddr)> {
    let mut waiting = addresses.into_iter().peekable();
    let mut attempts = JoinSet::new();
    let mut next_at = Instant::now();
    loop {
        // Not through the timer, which counts in milliseconds.
        if next_at <= Instant::now()
            && let Some(address) = waiting.next()
        {
            attempts.spawn(async move { Ok((connect_to(address).await?, address)) });
            next_at = Instant::now() + STAGGER;
        }
        tokio::select! {
            Some(ended) = attempts.join_next() => match ended {
                Ok(Ok(connected)) => return Some(connected),
                Ok(Err(error)) => {
                    tell(told, error);
                    next_at = Instant::now();
                }
                Err(_) => {}
            },
            () = sleep_until(next_at), if waiting.peek().is_some() => {}
            else => return None,
        }
    }
}

/// Connects to one address. Within a machine that is done when the call returns, which the runtime would only learn of in
/// its next round of events, on whatever thread.
async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let kind = Type::STREAM;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let kind = kind.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if !is_under_way(&error) => return Err(error),
        _ => {}
    }
    let connected = socket.peer_addr().is_ok();
    let stream = TcpStream::from_std(socket.into())?;
    if !connected {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

#[cfg(unix)]
fn is_under_way(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

#[cfg(not(unix))]
fn is_under_way(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Alternates the address families, beginning with the family of the first address (RFC 8305 §4).
fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_v6 = |address: &SocketAddr| matches!(address.ip(), IpAddr::V6(_));
    let first_is_v6 = addresses.first().is_some_and(is_v6);
    let (mut ours, mut others): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(|address| is_v6(address) == first_is_v6);
    ours.reverse();
    others.reverse();
    let mut mixed = Vec::with_capacity(addresses.len());
    while !(ours.is_empty() && others.is_empty()) {
        mixed.extend(ours.pop());
        mixed.extend(others.pop());
    }
    mixed
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn families_alternate_from_the_first_address_on() {
        let all: Vec<SocketAddr> =
            ["[::1]:1", "[::1]:2", "[::1]:3", "127.0.0.1:4"].iter().map(|text| text.parse().unwrap()).collect();
        let ports: Vec<u16> = interleave(&all).iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [1, 4, 2, 3]);
    }

    #[tokio::test]
    async fn a_dead_address_gives_way_to_one_that_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let alive = listener.local_addr().unwrap();
        let (stream, address) = connect(&[dead, alive], Duration::from_secs(5)).await.unwrap();
        assert_eq!((stream.peer_addr().unwrap(), address), (alive, alive));
    }

    #[test]
    fn what_answered_tells_more_than_what_was_silent_or_could_not_be_asked() {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
        for (kinds, most) in [
            (vec![NetworkUnreachable, ConnectionRefused, TimedOut], ConnectionRefused),
            (vec![NetworkUnreachable, TimedOut, HostUnreachable], TimedOut),
            (vec![HostUnreachable, NetworkUnreachable], HostUnreachable),
        ] {
            let mut told = None;
            kinds.into_iter().for_each(|kind| tell(&mut told, kind.into()));
            assert_eq!(told.unwrap().kind(), most);
        }
    }

    #[tokio::test]
    async fn the_error_is_that_of_the_address_when_none_answers() {
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for addresses in [vec![dead], vec![dead, dead]] {
            let error = connect(&addresses, Duration::from_secs(5)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        assert!(connect(&[], Duration::from_secs(5)).await.is_err());
    }
}
