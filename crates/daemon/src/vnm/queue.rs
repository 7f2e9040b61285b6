//! One queue of the device: packets, and what is left to do for them.

use std::{
    io,
    task::{Context, Poll, ready},
};

use postern_netstack::{MAX_COUPLED, MAX_PACKET, Offload, Transmit, VIRTIO_HEADER};
use tun_driver::{
    frames::{FrameQueue, is_gone},
    interface::Queue,
};

/// A packet of the largest size with its header.
const FRAME: usize = VIRTIO_HEADER + MAX_PACKET;

/// See the module.
#[derive(Debug)]
pub struct PacketQueue {
    device: FrameQueue,
    /// The same queue, for who reads it next.
    handle: Queue,
    incoming: Box<[u8]>,
    outgoing: Box<[u8]>,
    /// How much of `outgoing` waits because the device took no more.
    waiting: usize,
}

impl PacketQueue {
    /// Within a runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(queue: Queue) -> io::Result<Self> {
        let (incoming, outgoing) = (vec![0; FRAME].into(), vec![0; VIRTIO_HEADER + MAX_COUPLED].into());
        let handle = queue.try_clone()?;
        Ok(Self { device: FrameQueue::open(queue)?, handle, incoming, outgoing, waiting: 0 })
    }

    /// The queue for another runtime. What has come and was not taken waits in it.
    #[must_use]
    pub fn into_queue(self) -> Queue {
        self.handle
    }

    /// Whether nothing waits to be sent.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.waiting == 0
    }

    /// Takes one packet. What cannot be understood is left out.
    ///
    /// # Errors
    /// The device is gone.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>, take: impl FnOnce(&[u8], Offload)) -> Poll<io::Result<()>> {
        let count = ready!(self.device.poll_read(cx, &mut self.incoming))?;
        let frame = self.incoming.get(..count).unwrap_or_default();
        if let Ok((offload, packet)) = Offload::decode(frame) {
            take(packet, offload);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends one packet, the one that waits or what `make` writes. False when there is none. A packet that the system
    /// does not take, such as one while the link is down, is left out: its sender repeats it.
    ///
    /// # Errors
    /// The device is gone.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        make: impl FnOnce(&mut [u8]) -> Option<Transmit>,
    ) -> Poll<io::Result<bool>> {
        if self.waiting == 0 {
            let Some((header, packet)) = self.outgoing.split_first_chunk_mut::<VIRTIO_HEADER>() else {
                return Poll::Ready(Ok(false));
            };
            let Some(transmit) = make(packet) else { return Poll::Ready(Ok(false)) };
            *header = transmit.offload.encode();
            self.waiting = VIRTIO_HEADER + transmit.len;
        }
        let frame = self.outgoing.get(..self.waiting).unwrap_or_default();
        match ready!(self.device.poll_write(cx, frame)) {
            Err(error) if is_gone(&error) => return Poll::Ready(Err(error)),
            Err(error) => tracing::debug!("a packet was not taken: {error}"),
            Ok(()) => {}
        }
        self.waiting = 0;
        Poll::Ready(Ok(true))
    }
}
