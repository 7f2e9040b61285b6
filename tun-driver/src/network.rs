//! What else is on this machine: networks that collide with a virtual one, and changes of the network.
//!
//! [`Landscape`] holds the machine's networks as values, [`choose_subnet`] decides over them; both are pure.
//! [`Landscape::read`] and [`Watch`] ask the system, need no privilege and change nothing.

use std::io;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

mod change;
mod choice;
mod landscape;
mod product;
#[cfg(any(target_os = "macos", test))]
pub(crate) mod route_dump;
#[cfg(any(target_os = "macos", test))]
pub(crate) mod route_message;
mod watch;

pub use change::{Change, Settle};
pub use choice::{Choice, NoFreeSubnet, choose_subnet, rebase};
pub use landscape::{DEVICE_PREFIX, HostInterface, HostRoute, Landscape};
pub use watch::Watch;

use crate::sys;

/// A network of this machine that overlaps a wished one. Its text says so in words: "100.64.0.0/10 is routed to
/// tailscale0 (Tailscale)".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The address or route that overlaps.
    pub network: IpNet,
    #[serde(default)]
    pub kind: ConflictKind,
    /// The interface it belongs to; empty for a route without one, and for a name server.
    pub interface: String,
    /// The product that the interface looks like ("Tailscale", "Cloudflare WARP"), when it is a known one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
}

/// By what title a network is somebody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// An interface has an address in it.
    Address,
    #[default]
    Route,
    /// The next router of a route.
    Gateway,
    /// A name server that the system asks.
    Resolver,
    /// The product on that interface keeps it to itself, whatever the routes say.
    Reserved,
}

/// The networks that this machine has: its addresses, and its routes in every table but default routes.
pub trait HostNetworks: Send + Sync + 'static {
    /// Everything that overlaps one of `wanted`, leaving out the interfaces with a number in `ours`.
    ///
    /// # Errors
    /// What the system says.
    fn conflicts(&self, wanted: &[IpNet], ours: &[u32]) -> io::Result<Vec<Conflict>>;
}

/// The machine that this program runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisMachine;

impl HostNetworks for ThisMachine {
    fn conflicts(&self, wanted: &[IpNet], ours: &[u32]) -> io::Result<Vec<Conflict>> {
        let landscape = Landscape::read()?;
        Ok(wanted.iter().flat_map(|wanted| landscape.conflicts(*wanted, ours)).collect())
    }
}

impl Landscape {
    /// Reads interfaces, addresses, the routes of every table, and the name servers. Needs no privilege.
    ///
    /// # Errors
    /// What the system says.
    pub fn read() -> io::Result<Self> {
        sys::landscape()
    }
}

#[cfg(test)]
mod tests;
