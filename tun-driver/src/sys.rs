//! The only platform switch: every file below offers the same names.

#[cfg(unix)]
mod uid;

#[cfg(target_os = "linux")]
#[path = "sys/linux.rs"]
mod imp;
#[cfg(target_os = "macos")]
#[path = "sys/macos.rs"]
mod imp;
#[cfg(windows)]
#[path = "sys/windows.rs"]
mod imp;

#[cfg(target_os = "macos")]
pub(crate) use imp::peer_credentials;
pub(crate) use imp::{
    Accepted, Channel, Handover, Listener, Lookup, LoopbackAliases, NetworkEvents, Packet, Received, User,
    is_the_administrators, landscape, own_uid, tcp_state,
};
#[cfg(not(target_os = "linux"))]
pub(crate) use imp::{Declarations, Device, drop_privileges};
#[cfg(target_os = "linux")]
pub(crate) use imp::{Filter, Kernel, Link, Lock, Tun, end_connections_from, peer_groups, peer_is_alive};
pub use imp::{FrameQueue, is_gone};
#[cfg(windows)]
pub(crate) use imp::{service_stopped, under_service_manager};

/// What of macOS needs no macOS is tested here.
#[cfg(all(test, target_os = "linux"))]
#[path = "sys/macos/channel.rs"]
mod framed_channel;
