//! What Postern needs from the operating system about sockets and virtual networks.
//!
//! - [`socket_owner`]: who owns the other end of a connection on this machine.
//! - [`interface`]: what a user's virtual network should look like, and what it came to look like.
//! - [`frames`]: an open queue of such a network's device.
//! - [`netd`]: the privileged service `postern-netd` (device, addresses, routes, names for the asking user) and its
//!   client.
//! - [`dns`]: the names of a virtual network in the system's resolver.
//! - [`network`]: what else is on this machine: networks that collide, and changes.
//!
//! This crate speaks addresses and names only; it knows no resource, no account and no key, opens no connection to
//! another machine and carries no traffic. It is the one place with `unsafe`; each platform sits in its own file behind
//! the same signatures.

pub mod dns;
pub mod frames;
pub mod interface;
pub mod netd;
pub mod network;
pub mod socket_owner;
mod sys;
