//! What the kernel says about TCP connections of this machine.

use std::{collections::BTreeSet, io, net::SocketAddr};

/// The state of an established connection in `/proc/net/tcp`.
const ESTABLISHED: &str = "01";

/// How many established connections a server on this IPv4 address has, as the kernel sees them.
///
/// Each client's address counts once: the kernel may list a connection twice in a table that changes while it is read.
pub fn survivors(server: SocketAddr) -> io::Result<usize> {
    let SocketAddr::V4(server) = server else { return Err(io::Error::other("only for IPv4")) };
    let local = format!("{:08X}:{:04X}", u32::from_le_bytes(server.ip().octets()), server.port());
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let client = |line: &'_ str| {
        let mut fields = line.split_whitespace().skip(1);
        let (address, client, state) = (fields.next(), fields.next(), fields.next());
        let is_ours = address == Some(local.as_str()) && state == Some(ESTABLISHED);
        client.filter(|_| is_ours).map(str::to_owned)
    };
    Ok(table.lines().filter_map(client).collect::<BTreeSet<_>>().len())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn open_connections_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(survivors(address).unwrap(), 0);
        let _client = TcpStream::connect(address).unwrap();
        let server = listener.accept().unwrap();
        assert_eq!(survivors(address).unwrap(), 1);
        drop(server);
    }
}
