//! Who owns the other end of a TCP connection on this machine, and who has a port.
//!
//! A loopback port of Postern works only for the user it belongs to. The order of checks in an accept loop matters
//! (each step closes a hole that was shown to exist): accept, then at once [`SocketOwners::peer`], then
//! [`tcp_state`] must not say [`TcpState::Close`], and only then anything else. Whatever is [`Peer::Unknown`] is to be
//! refused: the owner of a connection that is gone already cannot be told any more.

use std::{io, net::SocketAddr};

use socket2::SockRef;

use crate::sys;

/// States of a TCP connection, as the kernel names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    Established,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    /// A state that this program does not know.
    Other(u8),
}

impl TcpState {
    /// Whether the socket got beyond the handshake and is not closed altogether.
    const fn was_connected(self) -> bool {
        match self {
            Self::Established
            | Self::FinWait1
            | Self::FinWait2
            | Self::TimeWait
            | Self::CloseWait
            | Self::LastAck
            | Self::Closing => true,
            Self::SynSent | Self::SynReceived | Self::Close | Self::Listen | Self::Other(_) => false,
        }
    }
}

/// The socket that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user who made the socket. On Windows, where users have no number: [`own_uid`] for the user who runs this
    /// program, `u32::MAX` for anybody else.
    pub uid: u32,
    /// The kernel's number of the socket; on Windows that of the process.
    pub inode: u64,
    pub state: TcpState,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Known(Owner),
    /// Nobody can be named: the socket is gone, closed already, or not on this machine. To be refused.
    Unknown,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
    /// An ICMP echo request: the port of its source is the identifier, that of its destination is nothing.
    Echo,
}

/// Who has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub uid: u32,
    /// Known only where this program may look at the process.
    pub process: Option<Process>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// The program's name, without control characters.
    pub program: String,
}

/// Answers questions about sockets of this machine over one kept connection to the kernel. Cheap to ask (about 4 µs on
/// Linux, measured with 10,000 sockets open); one for the whole program is enough, threads take turns.
#[derive(Debug)]
pub struct SocketOwners {
    lookup: sys::Lookup,
}

impl SocketOwners {
    /// Opens the connection to the kernel.
    ///
    /// # Errors
    /// What the system says, or `Unsupported` on a platform where the question cannot be asked.
    pub fn open() -> io::Result<Self> {
        Ok(Self { lookup: sys::Lookup::open()? })
    }

    /// Who owns the socket at the far end of an accepted connection: `peer` is its address, `local` is ours.
    ///
    /// The look-up is exact: only a socket with just these two addresses counts, and only one that is or was connected:
    /// who is still connecting from a port that became free cannot be the one who was accepted. A socket that answers
    /// with uid 0 and inode 0 is one that its process has left already, so nobody's. When the question cannot be put at
    /// all the answer is [`Peer::Unknown`] too.
    #[must_use]
    pub fn peer(&self, peer: SocketAddr, local: SocketAddr) -> Peer {
        let (peer, local) = (canonical(peer), canonical(local));
        match self.lookup.exact(peer, local) {
            Ok(Some(owner)) if owner.state.was_connected() && (owner.uid, owner.inode) != (0, 0) => Peer::Known(owner),
            Ok(_) | Err(_) => Peer::Unknown,
        }
    }

    /// Whose socket sent a packet into the TUN device with the number `device`, from `source` to `destination`. To be
    /// asked while the packet is new: a TCP socket may still be connecting then.
    ///
    /// The device counts: a socket that is bound to a device (`SO_BINDTODEVICE`), as one that walks round the routing rules
    /// is, is found by no question that leaves it out. Only a socket with just these two addresses is an answer, or for
    /// datagrams one without a peer. An echo request is its sender's only when nobody else could have sent it, for the
    /// kernel lists such sockets without their device; reading the list takes a fraction of a millisecond.
    #[must_use]
    pub fn sender(&self, transport: Transport, source: SocketAddr, destination: SocketAddr, device: u32) -> Peer {
        let (source, destination) = (canonical(source), canonical(destination));
        match self.lookup.sender(transport, source, destination, device) {
            Ok(Some(owner)) if owner.state != TcpState::Listen && (owner.uid, owner.inode) != (0, 0) => {
                Peer::Known(owner)
            }
            Ok(_) | Err(_) => Peer::Unknown,
        }
    }

    /// Who keeps `address` from being bound: the listener there, else any socket with that local port. `None` when
    /// nobody can be named. Reads `/proc` on Linux: blocking, milliseconds.
    #[must_use]
    pub fn listener_holder(&self, address: SocketAddr) -> Option<Holder> {
        self.lookup.holder(canonical(address)).ok().flatten()
    }
}

/// The state of a connection, read from its own socket.
///
/// # Errors
/// What the system says.
pub fn tcp_state(socket: &SockRef<'_>) -> io::Result<TcpState> {
    sys::tcp_state(socket)
}

/// The user who runs this program.
#[must_use]
pub fn own_uid() -> u32 {
    sys::own_uid()
}

/// IPv4 in IPv6 clothes is IPv4: the kernel keeps such a connection once, in the IPv4 table.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
