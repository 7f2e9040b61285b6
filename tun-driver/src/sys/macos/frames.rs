//! A utun socket within a runtime. Each packet has its family in front of it (four bytes in network order), and no
//! virtio header: that one is made here.
#![expect(unsafe_code, reason = "registering a descriptor is the caller's word that it stays open; the block says why")]

use std::{
    io::{self, IoSlice},
    task::{Context, Poll, ready},
};

use rustix::io::Errno;
use tokio::io::{Interest, unix::AsyncFd};

use crate::interface::Queue;

/// A virtio header, and the family at its end while a packet is read.
const HEADER: usize = 10;
const FAMILY: usize = 4;
const INET: u32 = 2;
const INET6: u32 = 30;

/// See the module. Reads and writes are done by reference, without waiting.
#[derive(Debug)]
pub struct FrameQueue {
    device: AsyncFd<Queue>,
}

impl FrameQueue {
    /// Within a runtime, which tells of what the queue is ready for.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(queue: Queue) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is open for as long as it lives, names the same descriptor all that time, and is moved into
        // the `AsyncFd`, which hands out no owned or mutable access to it here.
        let device = unsafe { AsyncFd::register_with_interest(queue, Interest::READABLE | Interest::WRITABLE) };
        Ok(Self { device: device.map_err(io::Error::from)? })
    }

    /// Reads one frame into `buffer`; what does not fit is lost.
    ///
    /// # Errors
    /// The device is gone.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.device.poll_read_ready(cx))?;
            let behind = buffer.get_mut(HEADER - FAMILY..).unwrap_or_default();
            match rustix::io::read(self.device.get_ref(), &mut *behind) {
                Ok(0) => return Poll::Ready(Err(Errno::NXIO.into())),
                Ok(count) => {
                    if let Some(header) = buffer.first_chunk_mut::<HEADER>() {
                        *header = [0; HEADER];
                    }
                    return Poll::Ready(Ok(HEADER - FAMILY + count));
                }
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Writes one frame. It is tried first and waited for then: a device takes nearly always.
    ///
    /// # Errors
    /// The device is gone; anything else is about this frame alone.
    pub fn poll_write(&self, cx: &mut Context<'_>, frame: &[u8]) -> Poll<io::Result<()>> {
        let Some(packet) = frame.get(HEADER..).filter(|packet| !packet.is_empty()) else {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        };
        let family = if packet.first().is_some_and(|byte| byte >> 4 == 6) { INET6 } else { INET };
        let family = family.to_be_bytes();
        loop {
            match rustix::io::writev(self.device.get_ref(), &[IoSlice::new(&family), IoSlice::new(packet)]) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(Errno::AGAIN | Errno::NOBUFS) => ready!(self.device.poll_write_ready(cx))?.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

/// Whether an error of a queue says that its device is gone.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NXIO | Errno::BADF | Errno::NOTCONN))
}
