//! Where netd stands: the lock that only one holds, the place where it is asked, the signal that ends it.

#[cfg(unix)]
#[path = "footing/unix.rs"]
mod imp;
#[cfg(windows)]
#[path = "footing/windows.rs"]
mod imp;

pub(super) use imp::{Footing, stop_signal};
