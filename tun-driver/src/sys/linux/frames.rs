//! An open queue of a device within a runtime: frames in, frames out. A frame is a packet after its 10-byte virtio header.
#![expect(unsafe_code, reason = "registering a descriptor is the caller's word that it stays open; the block says why")]

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use rustix::io::Errno;
use tokio::io::{Interest, unix::AsyncFd};

use crate::interface::Queue;

/// See the module. Reads and writes are done by reference, without waiting.
pub struct FrameQueue {
    device: Arc<AsyncFd<Queue>>,
    /// Resolves when the device is gone. Its queues are then neither readable nor at their end: the system tells of an
    /// error alone, which whoever waits for something to read would never hear of.
    gone: Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl std::fmt::Debug for FrameQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameQueue").field("device", &self.device).finish_non_exhaustive()
    }
}

impl FrameQueue {
    /// Within a runtime, which tells of what the queue is ready for.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(queue: Queue) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is open for as long as it lives, names the same descriptor all that time, and is moved into
        // the `AsyncFd`, which hands out no owned or mutable access to it here.
        let device = unsafe {
            AsyncFd::register_with_interest(queue, Interest::READABLE | Interest::WRITABLE | Interest::ERROR)
        }?;
        let device = Arc::new(device);
        let watched = Arc::clone(&device);
        let gone = async move {
            let _ = watched.ready(Interest::ERROR).await;
        };
        Ok(Self { device, gone: Mutex::new(Box::pin(gone)) })
    }

    /// Reads one frame into `buffer`; what does not fit is lost.
    ///
    /// # Errors
    /// `EBADFD` when the device is gone.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(guard) = self.device.poll_read_ready(cx) else {
                ready!(self.poll_gone(cx));
                return Poll::Ready(Err(Errno::BADFD.into()));
            };
            let mut guard = guard?;
            match rustix::io::read(self.device.get_ref(), &mut *buffer) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        ready!(gone.as_mut().poll(cx));
        // A future that has ended must not be asked again; that the device is gone stays so.
        *gone = Box::pin(std::future::ready(()));
        Poll::Ready(())
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
    // "Bad address" is what a read says that meets the very moment of going: no buffer of ours is a bad one.
    matches!(Errno::from_io_error(error), Some(Errno::BADFD | Errno::FAULT))
}
