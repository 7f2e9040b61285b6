//! Connections of programs that are bound to a device that is gone.
//!
//! No packet will ever come for them. The kernel keeps them all the same, and a program that only reads would wait for ever.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_sock_diag::{
    IPPROTO_TCP, SockDiagDestroy, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};

use super::{Dump, NO_COOKIE, SockDiag, tcp_state_of};
use crate::socket_owner::TcpState;

/// Ends every TCP connection whose own address is one of these, which are nobody's any more: its program sees
/// `ECONNABORTED`. Says how many there were. Needs CAP_NET_ADMIN.
///
/// # Errors
/// What the kernel says, such as that it was built without this (`EOPNOTSUPP`).
pub(crate) fn end_connections_from(addresses: &BTreeSet<IpAddr>) -> io::Result<usize> {
    let mut channel = SockDiag::open()?;
    let mut orphans = Vec::new();
    for is_ipv4 in [true, false] {
        if addresses.iter().any(|address| address.is_ipv4() == is_ipv4) {
            orphans.extend(channel.connections(is_ipv4)?.into_iter().filter(|found| is_orphan(found, addresses)));
        }
    }
    for orphan in &orphans {
        channel.destroy(orphan)?;
    }
    Ok(orphans.len())
}

fn is_orphan(found: &InetResponseHeader, addresses: &BTreeSet<IpAddr>) -> bool {
    // Listeners and what has ended wait for nobody.
    let waits = !matches!(tcp_state_of(found.state), TcpState::Listen | TcpState::TimeWait | TcpState::Close);
    waits && addresses.contains(&found.socket_id.source_address.to_canonical())
}

impl SockDiag {
    /// Every TCP socket of a family.
    fn connections(&mut self, is_ipv4: bool) -> io::Result<Vec<InetResponseHeader>> {
        let nowhere: IpAddr = if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        self.send(NLM_F_REQUEST | NLM_F_DUMP, IPPROTO_TCP, ((nowhere, 0).into(), (nowhere, 0).into()), 0)?;
        let mut found = Vec::new();
        while self.receive(|header| found.push(header))? == Dump::GoesOn {}
        Ok(found)
    }

    /// Ends one; one that is gone already is fine.
    fn destroy(&mut self, found: &InetResponseHeader) -> io::Result<()> {
        let socket_id = SocketId { cookie: NO_COOKIE, ..found.socket_id.clone() };
        let request = InetRequest {
            family: found.family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id,
        };
        let message = SockDiagDestroy::new(SockDiagMessage::InetRequest(request));
        self.send_message(NLM_F_REQUEST | NLM_F_ACK, message)?;
        self.receive(|_| {}).map(|_| ())
    }
}
