//! An open queue of a device within a runtime: frames in, frames out. A frame is a packet after its 10-byte virtio header.
#![expect(unsafe_code, reason = "registering a descriptor is the caller's word that it stays open; the block says why")]

use std::{
    io,
    task::{Context, Poll, ready},
};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::interface::Queue;

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
        let device = unsafe { AsyncFd::register(queue) }?;
        Ok(Self { device })
    }

    /// Reads one frame into `buffer`; what does not fit is lost.
    ///
    /// # Errors
    /// `EBADFD` when the device is gone.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.device.poll_read_ready(cx))?;
            match rustix::io::read(self.device.get_ref(), &mut *buffer) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Writes one frame. It is tried first and waited for then: a device takes nearly always.
    ///
    /// # Errors
    /// `EBADFD` when the device is gone; anything else is about this frame alone.
    pub fn poll_write(&self, cx: &mut Context<'_>, frame: &[u8]) -> Poll<io::Result<()>> {
        loop {
            match rustix::io::write(self.device.get_ref(), frame) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(Errno::AGAIN) => ready!(self.device.poll_write_ready(cx))?.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

/// Whether an error of a queue says that its device is gone.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::BADFD)
}
