//! `postern-netd`, the only privileged part of Postern on a user's machine, and its client.
//!
//! It makes one TUN device for the asking user, with addresses, routes and names that work for this user alone, and
//! hands the open device over. What it sets up lives exactly as long as the asker's connection. It carries no traffic,
//! knows no resource and no key, runs no other program, and takes typed requests only: no text of a request ever
//! reaches a shell or a template.
//!
//! `docs/netd.md` describes the protocol, the configuration and what is undone when.

mod authority;
mod client;
mod footing;
mod host;
mod loopback;
mod message;
mod names;
mod options;
mod place;
#[cfg(target_os = "linux")]
pub(crate) mod plan;
mod policy;
#[cfg(target_os = "linux")]
mod privileges;
mod repair;
mod server;

#[cfg(not(target_os = "linux"))]
pub(crate) use host::by_routes::{Device as TunDevice, Settings};

pub(crate) use loopback::Aliases;

pub use client::{Client, ClientError};
pub use message::{Answer, Code, MAX_LOOPBACK, MAX_MESSAGE, Message, MessageError, PROTOCOL, Problem, Request};
pub use options::Options;

use std::path::PathBuf;

use crate::dns::{SystemDns, SystemDnsConfig};

/// Names another socket than [`DEFAULT_SOCKET`].
pub const SOCKET_VARIABLE: &str = "POSTERN_NETD_SOCKET";
/// Where netd listens.
#[cfg(target_os = "linux")]
pub const DEFAULT_SOCKET: &str = "/run/postern/netd.sock";
/// Where netd listens.
#[cfg(target_os = "macos")]
pub const DEFAULT_SOCKET: &str = "/var/run/postern/netd.sock";
/// Where netd listens: a named pipe.
#[cfg(windows)]
pub const DEFAULT_SOCKET: &str = r"\\.\pipe\postern-netd";

/// Runs the service: gives up privileges, then serves until SIGTERM or SIGINT and takes everything back. To be called
/// while the process has one thread.
///
/// # Errors
/// What keeps it from starting, or from taking everything back.
pub fn run(options: Options) -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    privileges::drop_privileges()?;
    #[cfg(not(target_os = "linux"))]
    crate::sys::drop_privileges()?;
    #[cfg(windows)]
    return crate::sys::under_service_manager(move || serve(options));
    #[cfg(not(windows))]
    serve(options)
}

fn serve(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let names = match options.no_dns {
            true => names::Names::Untouched,
            false => names::Names::System(Box::new(SystemDns::new(dns_config(&options)))),
        };
        server::run(options, names, crate::network::ThisMachine).await
    })
}

#[cfg(target_os = "linux")]
fn dns_config(options: &Options) -> SystemDnsConfig {
    SystemDnsConfig { backup: options.state.join("resolv.conf.backup"), ..SystemDnsConfig::default() }
}

#[cfg(not(target_os = "linux"))]
fn dns_config(_: &Options) -> SystemDnsConfig {
    SystemDnsConfig::default()
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
