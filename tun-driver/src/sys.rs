//! The only platform switch: every file below offers the same names.

#[cfg(target_os = "linux")]
#[path = "sys/linux.rs"]
mod imp;
#[cfg(target_os = "macos")]
#[path = "sys/macos.rs"]
mod imp;
#[cfg(windows)]
#[path = "sys/windows.rs"]
mod imp;

#[cfg(not(target_os = "linux"))]
pub(crate) use imp::Declarations;
#[cfg(target_os = "linux")]
pub(crate) use imp::{Filter, Kernel, Link, Lock, Tun, peer_groups, peer_is_alive};
pub(crate) use imp::{Lookup, NetworkEvents, landscape, own_uid, tcp_state};
