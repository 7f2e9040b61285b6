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
mod authority;
#[cfg(target_os = "linux")]
mod channel;
#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod host;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
pub(crate) mod plan;
#[cfg(target_os = "linux")]
mod policy;
#[cfg(target_os = "linux")]
mod privileges;
#[cfg(target_os = "linux")]
mod repair;
#[cfg(target_os = "linux")]
mod server;

#[cfg(target_os = "linux")]
pub use client::{Client, ClientError};
pub use message::{Answer, Code, MAX_MESSAGE, Message, MessageError, PROTOCOL, Problem, Request};
#[cfg(target_os = "linux")]
pub use options::Options;

use std::path::PathBuf;

#[cfg(target_os = "linux")]
use crate::dns::{SystemDns, SystemDnsConfig};

/// Names another socket than [`DEFAULT_SOCKET`].
pub const SOCKET_VARIABLE: &str = "POSTERN_NETD_SOCKET";
/// Where netd listens.
pub const DEFAULT_SOCKET: &str = "/run/postern/netd.sock";

/// Runs the service: gives up privileges, then serves until SIGTERM or SIGINT and takes everything back. To be called
/// while the process has one thread.
///
/// # Errors
/// What keeps it from starting, or from taking everything back.
#[cfg(target_os = "linux")]
pub fn run(options: Options) -> anyhow::Result<()> {
    privileges::drop_privileges()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let names = match options.no_dns {
            true => names::Names::Untouched,
            false => names::Names::System(Box::new(SystemDns::new(SystemDnsConfig {
                backup: options.state.join("resolv.conf.backup"),
                ..SystemDnsConfig::default()
            }))),
        };
        server::run(options, names, crate::network::ThisMachine).await
    })
}

/// Where netd is to be found: [`SOCKET_VARIABLE`], else [`DEFAULT_SOCKET`].
#[must_use]
pub fn socket_path() -> PathBuf {
    std::env::var_os(SOCKET_VARIABLE)
        .filter(|path| !path.is_empty())
        .map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from)
}

/// What must hold for any bytes that an asker may send: they are refused, or mean the same once written and read again,
/// and what they wish for is judged. For the fuzzer and its corpus.
///
/// # Panics
/// When it does not hold.
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub fn check_request(bytes: &[u8]) {
    let Ok(message) = Message::<Request>::parse(bytes) else { return };
    if let Request::Configure { interface } = &message.body {
        let _ = policy::Policy::default().check(interface);
    }
    // Longer when written than when read: a number of zones that no judge lets through.
    let Ok(written) = message.encode() else { return };
    let again = Message::<Request>::parse(&written).ok();
    assert!(again.as_ref() == Some(&message), "{message:?} is read as {again:?}");
}
