//! Who sends echo requests (`ping`). The kernel answers no exact question about these sockets, but lists them in `/proc`:
//! ping sockets with the identifier that their packets bear, raw sockets without one.

use std::{fs, io, net::IpAddr};

use crate::socket_owner::{Owner, TcpState};

/// Numbers of ICMP and ICMPv6: what raw sockets have in place of a port.
const ICMP: u16 = 1;
const ICMPV6: u16 = 58;

/// The one user who can have sent a packet with this identifier. Nobody, when several users could have: whoever has a raw
/// socket can send any. Root's raw sockets keep nobody from being named, for root could be anybody anyway.
pub(super) fn sender(source: IpAddr, identifier: u16) -> io::Result<Option<Owner>> {
    let (ping, raw, protocol) = match source {
        IpAddr::V4(_) => ("icmp", "raw", ICMP),
        IpAddr::V6(_) => ("icmp6", "raw6", ICMPV6),
    };
    let mut candidates = owners(&read(ping)?, identifier);
    let (root, others): (Vec<_>, Vec<_>) = owners(&read(raw)?, protocol).into_iter().partition(|owner| owner.uid == 0);
    candidates.extend(others);
    let first = candidates.first().or_else(|| root.first()).copied();
    Ok(first.filter(|first| candidates.iter().all(|other| other.uid == first.uid)))
}

fn read(table: &str) -> io::Result<String> {
    match fs::read_to_string(format!("/proc/thread-self/net/{table}")) {
        // No IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

/// The sockets with this local port. Columns: slot, local address and port (hex), remote, state, queues, timer,
/// retransmits, uid, timeout, inode.
fn owners(table: &str, port: u16) -> Vec<Owner> {
    let of_line = |line: &str| {
        let mut columns = line.split_whitespace();
        let local = columns.nth(1)?.rsplit_once(':')?.1;
        let uid = columns.nth(5)?.parse().ok()?;
        let inode = columns.nth(1)?.parse().ok()?;
        let same = u16::from_str_radix(local, 16).ok()? == port;
        same.then_some(Owner { uid, inode, state: TcpState::Other(0) })
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        4660: 00000000:1234 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 777 2 0 0\n\
        \x20  7: 0100007F:0007 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 42 2 0 0\n";

    #[test]
    fn a_socket_is_found_by_its_identifier() {
        let found = owners(TABLE, 0x1234);
        assert_eq!(found, [Owner { uid: 1000, inode: 777, state: TcpState::Other(0) }]);
        assert_eq!(owners(TABLE, 7).len(), 1);
        assert!(owners(TABLE, 8).is_empty() && owners("", 7).is_empty());
    }
}
