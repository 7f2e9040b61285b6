//! Who may use a listener: the owner's processes, and those of users who were allowed by `--allow-uid`.

use std::{io, net::SocketAddr};

use socket2::SockRef;
use tokio::net::TcpStream;
use tun_driver::socket_owner::{Peer, SocketOwners, TcpState, own_uid, tcp_state};

/// See the module.
#[derive(Debug)]
pub struct Gate {
    owners: SocketOwners,
    admitted: Vec<u32>,
}

/// Why a connection was reset before a byte of it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it belongs to uid {0}")]
    Foreign(u32),
    #[error("nobody can be named who it belongs to")]
    Unknown,
}

impl Gate {
    /// `allowed`: uids besides our own.
    ///
    /// # Errors
    /// Where the system does not let us ask, no listener may be opened.
    pub fn open(allowed: &[u32]) -> io::Result<Self> {
        let admitted = [own_uid()].into_iter().chain(allowed.iter().copied()).collect();
        Ok(Self { owners: SocketOwners::open()?, admitted })
    }

    /// To be asked straight after `accept`, before anything else. `local` is the listener's address.
    ///
    /// The order matters: first who has the far end, then whether the connection is still alive. A connection that is
    /// gone frees its port for somebody else, about whom the first answer would be; one that is alive owns its pair of
    /// addresses, so the answer was about it.
    ///
    /// # Errors
    /// Why the connection is to be reset.
    pub fn admit(&self, stream: &TcpStream, peer: SocketAddr, local: SocketAddr) -> Result<(), Refused> {
        let Peer::Known(owner) = self.owners.peer(peer, local) else { return Err(Refused::Unknown) };
        match tcp_state(&SockRef::from(stream)) {
            Ok(TcpState::Close) | Err(_) => return Err(Refused::Unknown),
            Ok(_) => {}
        }
        if self.admitted.contains(&owner.uid) { Ok(()) } else { Err(Refused::Foreign(owner.uid)) }
    }

    #[must_use]
    pub const fn owners(&self) -> &SocketOwners {
        &self.owners
    }
}

impl Refused {
    #[must_use]
    pub const fn uid(self) -> Option<u32> {
        match self {
            Self::Foreign(uid) => Some(uid),
            Self::Unknown => None,
        }
    }
}
