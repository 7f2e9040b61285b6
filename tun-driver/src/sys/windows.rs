//! Not asked yet on this platform: every question is answered "unsupported", so that every peer is refused.

use std::{io, net::SocketAddr};

use socket2::SockRef;

use crate::socket_owner::{Owner, Process, TcpState};

#[derive(Debug)]
pub(crate) struct Lookup(());

impl Lookup {
    pub(crate) fn open() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn exact(&self, _source: SocketAddr, _destination: SocketAddr) -> io::Result<Option<Owner>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn holder(&self, _address: SocketAddr) -> io::Result<Option<Owner>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

pub(crate) fn tcp_state(_socket: &SockRef<'_>) -> io::Result<TcpState> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn own_uid() -> u32 {
    0
}

pub(crate) fn process_of(_owner: &Owner) -> Option<Process> {
    None
}
