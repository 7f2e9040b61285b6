//! A TUN device with several queues and offload.
//!
//! Own ioctls instead of a crate: netd only opens queues and gives them away, and the crates at hand either lack
//! `TUNSETOFFLOAD` (`tun`) or cut large packets into small ones on the way (`tun-rs`), which is what a stack in user
//! space must not have.
#![expect(unsafe_code, reason = "the TUN ioctls have no safe wrapper; each block says why it is sound")]

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::fs::{Mode, OFlags, open};

use crate::network::DEVICE_PREFIX;

/// Bytes in front of each packet: `virtio_net_hdr`.
const VNET_HEADER_BYTES: libc::c_int = 10;
/// Checksums, and TCP segmentation for both families.
const OFFLOAD: libc::c_ulong = (libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6) as libc::c_ulong;

/// A new device, down, with its queues open. It is gone when all of them are closed (unless its holder made it
/// persist).
pub(crate) struct Tun {
    pub(crate) name: String,
    pub(crate) queues: Vec<OwnedFd>,
}

impl Tun {
    /// Makes a device with a name that no other has. Its owner is root: everybody else who may open `/dev/net/tun`
    /// could otherwise attach a queue of his own and take part of the packets. Queues that are handed over work on.
    pub(crate) fn create(queues: u8) -> io::Result<Self> {
        // The kernel puts a free number in: a device that exists already is never attached to.
        let first = open_queue(&format!("{DEVICE_PREFIX}%d"))?;
        let mut tun = Self { name: first.1, queues: vec![first.0] };
        for queue in &tun.queues {
            // SAFETY: the descriptor is open; TUNSETOWNER takes a number, no pointer.
            check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETOWNER as _, 0 as libc::c_ulong) })?;
        }
        for _ in 1..queues {
            tun.queues.push(open_queue(&tun.name)?.0);
        }
        Ok(tun)
    }
}

/// Opens one queue, and tells the device's full name.
fn open_queue(name: &str) -> io::Result<(OwnedFd, String)> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let queue = open("/dev/net/tun", flags, Mode::empty())?;
    let kind = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: kind as libc::c_short },
    };
    // The last byte stays zero.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the descriptor is open; `request` is a whole `ifreq` with a terminated name and outlives the call, which
    // writes the device's terminated name back into it.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })?;
    // SAFETY: the descriptor is open; TUNSETOFFLOAD takes a number, no pointer.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETOFFLOAD as _, OFFLOAD) })?;
    let header = VNET_HEADER_BYTES;
    // SAFETY: the descriptor is open; TUNSETVNETHDRSZ reads one int, which outlives the call.
    check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const header) })?;
    let name = request.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8 as char).collect();
    Ok((queue, name))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
