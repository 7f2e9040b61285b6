//! What the kernel knows about the process at the other end of a Unix socket.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use super::{Channel, User};

/// Its user and groups (sixteen at most) when it connected.
pub(crate) fn peer_credentials(channel: &Channel) -> io::Result<(User, Vec<u32>)> {
    let mut peer = libc::xucred { cr_version: 0, cr_uid: 0, cr_ngroups: 0, cr_groups: [0; 16] };
    let mut length = libc::socklen_t::try_from(size_of::<libc::xucred>()).unwrap_or_default();
    // SAFETY: the descriptor is open for as long as it is borrowed; the kernel writes at most `length` bytes, the size of
    // `peer`, and how many into `length`.
    let result = unsafe {
        libc::getsockopt(
            channel.as_fd().as_raw_fd(),
            libc::SOL_LOCAL,
            libc::LOCAL_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if peer.cr_version != libc::XUCRED_VERSION {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "credentials in an unknown form"));
    }
    let count = usize::try_from(peer.cr_ngroups).unwrap_or_default();
    Ok((User(peer.cr_uid), peer.cr_groups.into_iter().take(count).collect()))
}
