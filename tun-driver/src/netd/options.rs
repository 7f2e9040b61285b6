//! What postern-netd is started with.

use std::path::PathBuf;

use clap::Parser;

use super::{DEFAULT_SOCKET, SOCKET_VARIABLE, policy::DEFAULT_CONFIG};

#[cfg(target_os = "linux")]
const DEFAULT_STATE: &str = "/var/lib/postern-netd";
#[cfg(target_os = "macos")]
const DEFAULT_STATE: &str = "/var/db/postern-netd";
#[cfg(windows)]
const DEFAULT_STATE: &str = r"C:\ProgramData\Postern\netd";

/// Makes virtual network devices for users of Postern: the only part of it that is privileged.
///
/// Needs CAP_NET_ADMIN. It makes a device, addresses, routes and split DNS for the user who asks over the socket, and takes
/// them back when he goes. It carries no traffic.
#[derive(Clone, Debug, Parser)]
#[command(name = "postern-netd", version, about)]
pub struct Options {
    /// Where users ask. Its folder holds the lock of the one netd that may run.
    #[arg(long, env = SOCKET_VARIABLE, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Who may ask, and for which ranges. Without the file: root, and whom polkit allows.
    #[arg(long, env = "POSTERN_NETD_CONFIG", value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Holds what has to outlive a reboot: resolv.conf as it was, while ours is in its place.
    #[arg(long, env = "POSTERN_NETD_STATE", value_name = "DIR", default_value = DEFAULT_STATE)]
    pub state: PathBuf,
    /// Leaves the system's resolver alone: names work only for programs that ask the virtual network themselves.
    #[arg(long, env = "POSTERN_NETD_NO_DNS")]
    pub no_dns: bool,
    /// Does without the second lock (nftables): the look-up of each packet's sender is left as the only one.
    #[arg(long, env = "POSTERN_NETD_NO_FILTER")]
    pub no_filter: bool,
}
