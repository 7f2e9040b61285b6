//! `postern-netd`, the only privileged part of Postern on a user's machine, and its client.
//!
//! It makes one TUN device for the asking user, with addresses, routes and names that work for this user alone, and
//! hands the open device over. What it sets up lives exactly as long as the asker's connection. It carries no traffic,
//! knows no resource and no key, runs no other program, and takes typed requests only: no text of a request ever
//! reaches a shell or a template.
//!
//! `docs/netd.md` describes the protocol, the configuration and what is undone when.

mod message;

#[cfg(target_os = "linux")]
mod channel;
#[cfg(target_os = "linux")]
mod client;

#[cfg(target_os = "linux")]
pub use client::{Client, ClientError};
pub use message::{Answer, Code, MAX_MESSAGE, Message, MessageError, PROTOCOL, Problem, Request};

use std::path::PathBuf;

/// Names another socket than [`DEFAULT_SOCKET`].
pub const SOCKET_VARIABLE: &str = "POSTERN_NETD_SOCKET";
/// Where netd listens.
pub const DEFAULT_SOCKET: &str = "/run/postern/netd.sock";

/// Where netd is to be found: [`SOCKET_VARIABLE`], else [`DEFAULT_SOCKET`].
#[must_use]
pub fn socket_path() -> PathBuf {
    std::env::var_os(SOCKET_VARIABLE)
        .filter(|path| !path.is_empty())
        .map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from)
}
