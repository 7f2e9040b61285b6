//! What else is on this machine: networks that collide with a virtual one.

use std::io;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A network of this machine that overlaps a wished one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The address or route that overlaps.
    pub network: IpNet,
    /// The interface it belongs to; empty for a route without one.
    pub interface: String,
    /// The product that the interface looks like ("Tailscale", "Cloudflare WARP"), when it is a known one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
}

/// The networks that this machine has: its addresses, and its routes in every table but default routes.
pub trait HostNetworks: Send + Sync + 'static {
    /// Everything that overlaps one of `wanted`, leaving out the interfaces with a number in `ours`.
    ///
    /// # Errors
    /// What the system says.
    fn conflicts(&self, wanted: &[IpNet], ours: &[u32]) -> io::Result<Vec<Conflict>>;
}
