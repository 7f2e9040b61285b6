//! What the kernel knows about the process at the other end of a Unix socket.
#![expect(unsafe_code, reason = "these socket options have no safe wrapper; each block says why it is sound")]

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The supplementary groups that it had when it connected. `NGROUPS_MAX` is 65,536.
pub(crate) fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut length = size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: the descriptor is open for as long as it is borrowed; the kernel writes at most `length` bytes, all of
        // them within `groups`, and the length that it has or would need into `length`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// Whether the process that connected still runs. Kernels before 6.5 cannot tell: there the answer is yes.
pub(crate) fn peer_is_alive(socket: BorrowedFd<'_>) -> bool {
    let mut pidfd: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as it is borrowed; the kernel writes one int into `pidfd`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut pidfd).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return io::Error::last_os_error().raw_os_error() == Some(libc::ENOPROTOOPT);
    }
    // SAFETY: the kernel just made this descriptor for us, and nobody else has it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A pidfd becomes readable when its process ends.
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready == 0)
}
