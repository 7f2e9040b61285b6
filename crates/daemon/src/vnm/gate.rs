//! Whose packets are answered: the owner's, and those of users who were allowed by `--allow-uid`.
//!
//! The routes into the virtual network are the owner's alone, but a program of somebody else can name the device itself
//! (`SO_BINDTODEVICE`, `IP_PKTINFO`). So nothing is answered before the kernel has said whose socket it is.

use std::{cell::Cell, io, net::SocketAddr};

use postern_netstack::Protocol;
use tun_driver::{
    interface::Interface,
    socket_owner::{Peer, SocketOwners, Transport, own_uid},
};

use crate::gate::Refused;

/// See the module. One for each shard.
#[derive(Debug)]
pub struct TunGate {
    owners: SocketOwners,
    admitted: Vec<u32>,
    device: Cell<u32>,
}

impl TunGate {
    /// `allowed`: uids besides our own.
    ///
    /// # Errors
    /// The system does not let us ask.
    pub fn open(allowed: &[u32], interface: &Interface) -> io::Result<Self> {
        let admitted = [own_uid()].into_iter().chain(allowed.iter().copied()).collect();
        Ok(Self { owners: SocketOwners::open()?, admitted, device: Cell::new(interface.index) })
    }

    pub fn set_interface(&self, interface: &Interface) {
        self.device.set(interface.index);
    }

    /// Who sent a packet from `source` to `destination`, when that is somebody who gets an answer.
    ///
    /// # Errors
    /// Nobody who gets one.
    pub fn admit(&self, protocol: Protocol, source: SocketAddr, destination: SocketAddr) -> Result<u32, Refused> {
        let transport = match protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
            Protocol::Echo => Transport::Echo,
        };
        match self.owners.sender(transport, source, destination, self.device.get()) {
            Peer::Known(owner) if self.admitted.contains(&owner.uid) => Ok(owner.uid),
            Peer::Known(owner) => Err(Refused::Foreign(owner.uid)),
            Peer::Unknown => Err(Refused::Unknown),
        }
    }
}
