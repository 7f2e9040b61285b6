//! What Postern needs from the operating system about sockets and, later, virtual network devices.
//!
//! Today: who owns the other end of a connection on this machine ([`socket_owner`]). This crate speaks addresses and
//! numbers only; it knows no resource, no account and no protocol, opens no connection and changes nothing on the
//! host. It is the one place with `unsafe`; each platform sits in its own file behind the same signatures.

pub mod socket_owner;
mod sys;
