//! The packets of a device within a runtime: a pipe to netd, each packet after its length (two bytes, little-endian). The
//! virtio header is made here.
#![expect(unsafe_code, reason = "a pipe is taken over from its handle; the block says why it is sound")]

use std::{
    io,
    os::windows::io::IntoRawHandle as _,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::net::windows::named_pipe::NamedPipeClient;

use crate::interface::Queue;

/// A virtio header.
const HEADER: usize = 10;
const LENGTH: usize = 2;
/// Room for a packet of the largest size at least.
const PART: usize = 128 * 1024;

/// See the module. Reads and writes are done by reference, without waiting.
#[derive(Debug)]
pub struct FrameQueue {
    pipe: NamedPipeClient,
    incoming: Mutex<Incoming>,
    /// What is left of the frame that is written.
    outgoing: Mutex<Vec<u8>>,
}

/// What was read, and how much of it was taken.
#[derive(Debug, Default)]
struct Incoming {
    bytes: Vec<u8>,
    taken: usize,
}

impl Incoming {
    fn take(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let rest = self.bytes.get(self.taken..)?;
        let (length, rest) = rest.split_first_chunk::<LENGTH>()?;
        let packet = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
        self.taken += LENGTH + packet.len();
        let (header, room) = buffer.split_first_chunk_mut::<HEADER>()?;
        *header = [0; HEADER];
        let count = packet.len().min(room.len());
        room.iter_mut().zip(packet).for_each(|(to, from)| *to = *from);
        Some(HEADER + count)
    }

    /// Makes room for more.
    fn room(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.taken.min(self.bytes.len()));
        self.taken = 0;
        self.bytes.reserve(PART);
        &mut self.bytes
    }
}

impl FrameQueue {
    /// Within a runtime, which tells of what the queue is ready for.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(queue: Queue) -> io::Result<Self> {
        // SAFETY: the handle is that of a pipe, opened for overlapped use, and owned by nobody else.
        let pipe = unsafe { NamedPipeClient::from_raw_handle(queue.into_raw_handle()) }?;
        Ok(Self { pipe, incoming: Mutex::default(), outgoing: Mutex::default() })
    }

    /// Reads one frame into `buffer`; what does not fit is lost.
    ///
    /// # Errors
    /// The device is gone.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(count) = incoming.take(buffer) {
                return Poll::Ready(Ok(count));
            }
            ready!(self.pipe.poll_read_ready(cx))?;
            match self.pipe.try_read_buf(incoming.room()) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Writes one frame. When it has to wait, it is to be called again with the same one.
    ///
    /// # Errors
    /// The device is gone; anything else is about this frame alone.
    pub fn poll_write(&self, cx: &mut Context<'_>, frame: &[u8]) -> Poll<io::Result<()>> {
        let mut outgoing = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        if outgoing.is_empty() {
            let packet = frame.get(HEADER..).unwrap_or_default();
            let Ok(length) = u16::try_from(packet.len()) else {
                return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
            };
            outgoing.extend(length.to_le_bytes());
            outgoing.extend(packet);
        }
        while !outgoing.is_empty() {
            match self.pipe.try_write(&outgoing) {
                Ok(written) => drop(outgoing.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.pipe.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether an error of a queue says that its device is gone.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected | io::ErrorKind::ConnectionReset)
}
