//! The least that user space can do with the device, as a floor for whatever does more: each packet is read, gets other
//! addresses, and is written again. TCP runs between the program's kernel and the target's, which is the same one, so a
//! byte passes the device twice; a query comes back as if it were its answer.
#![expect(clippy::indexing_slicing, reason = "a benchmark of packets that are at least as long as their headers")]

use std::{
    future::poll_fn,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    task::{Context, Poll, ready},
};

use postern_netstack::{MAX_PACKET, VIRTIO_HEADER};
use tokio::runtime::{Builder, LocalOptions};
use tun_driver::{
    frames::{FrameQueue, is_gone},
    interface::Queue,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is that of the pseudo-header only.
const PARTIAL: u8 = 1;
/// Packets before other work of the thread has its turn.
const BURST: usize = 64;

/// Where packets go.
#[derive(Clone, Copy)]
pub(crate) struct Bounce {
    /// What programs connect to.
    pub(crate) entry: SocketAddrV4,
    /// As whom programs reach the target.
    pub(crate) stand_in: Ipv4Addr,
    /// At an address of the device, so that its packets come back here.
    pub(crate) target: SocketAddrV4,
    pub(crate) resolver: Ipv4Addr,
}

impl Bounce {
    /// Until the device is gone.
    pub(crate) fn run(self, queue: Queue) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        let _within = runtime.enter();
        let queue = FrameQueue::open(queue)?;
        let mut frame = vec![0; VIRTIO_HEADER + MAX_PACKET];
        // As a task, as the stack's loop is one.
        runtime.block_on(runtime.spawn_local(poll_fn(move |cx| {
            for _ in 0..BURST {
                ready!(self.pass(cx, &queue, &mut frame))?;
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })))?
    }

    fn pass(&self, cx: &mut Context<'_>, queue: &FrameQueue, frame: &mut [u8]) -> Poll<io::Result<()>> {
        let count = ready!(queue.poll_read(cx, frame))?;
        if !self.turn(&mut frame[..count]) {
            return Poll::Ready(Ok(()));
        }
        match queue.poll_write(cx, &frame[..count]) {
            Poll::Ready(Err(error)) if is_gone(&error) => Poll::Ready(Err(error)),
            // What the device does not take is lost, and sent again by who sent it.
            _ => Poll::Ready(Ok(())),
        }
    }

    /// False for what goes nowhere.
    fn turn(&self, frame: &mut [u8]) -> bool {
        let Some((virtio, packet)) = frame.split_first_chunk_mut::<VIRTIO_HEADER>() else { return false };
        if packet.len() < 40 || packet[0] != 0x45 {
            return false;
        }
        let destination = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
        match packet[9] {
            TCP => self.turn_segment(destination, packet, virtio[0] & PARTIAL != 0),
            UDP if destination == self.resolver => {
                *virtio = [0; VIRTIO_HEADER];
                turn_query(packet);
                true
            }
            _ => false,
        }
    }

    fn turn_segment(&self, destination: Ipv4Addr, packet: &mut [u8], partial: bool) -> bool {
        if destination == *self.entry.ip() {
            write_ends(packet, self.stand_in, *self.target.ip());
            packet[22..24].copy_from_slice(&self.target.port().to_be_bytes());
        } else if destination == self.stand_in {
            write_ends(packet, *self.entry.ip(), *self.target.ip());
            packet[20..22].copy_from_slice(&self.entry.port().to_be_bytes());
        } else {
            return false;
        }
        let pseudo = sum(&packet[12..20]) + u32::from(TCP) + (packet.len() - 20) as u32;
        packet[36..38].fill(0);
        let checksum = if partial { fold(pseudo) } else { !fold(pseudo + sum(&packet[20..])) };
        packet[36..38].copy_from_slice(&checksum.to_be_bytes());
        packet[10..12].fill(0);
        let header = !fold(sum(&packet[..20]));
        packet[10..12].copy_from_slice(&header.to_be_bytes());
        true
    }
}

/// From whom and to whom. Both ends of the program and of the target are at the same address of the device.
fn write_ends(packet: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr) {
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
}

/// The header's checksum stays what it is; that of UDP is left out.
fn turn_query(packet: &mut [u8]) {
    let (source, rest) = packet[12..].split_at_mut(4);
    source.swap_with_slice(&mut rest[..4]);
    let (source, rest) = packet[20..].split_at_mut(2);
    source.swap_with_slice(&mut rest[..2]);
    packet[26..28].fill(0);
    packet[30] |= 0x80;
    packet[35] = 1;
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
