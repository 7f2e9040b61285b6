//! One end of a connection between posternd and netd: whole packets, with open files beside them.
#![expect(unsafe_code, reason = "tokio asks for a promise about the descriptor; the block says why it holds")]

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, recv,
    recvmsg, sendmsg, socket_with,
};
use tokio::io::unix::AsyncFd;

use super::Handover;
use crate::{interface::MAX_QUEUES, netd::MAX_MESSAGE};

/// Connections that wait to be taken. More wait in their own `connect`.
const BACKLOG: i32 = 64;

/// A connection that was accepted.
pub(crate) type Accepted = OwnedFd;

/// A connected `SOCK_SEQPACKET` socket, non-blocking.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: AsyncFd<OwnedFd>,
}

/// One packet.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    /// Close-on-exec.
    pub(crate) files: Vec<OwnedFd>,
}

/// What arrived.
#[derive(Debug)]
pub(crate) enum Received {
    Packet(Packet),
    /// Longer than [`MAX_MESSAGE`], or with more files than a device has queues; it was thrown away.
    TooLong,
    /// The other end is gone.
    Closed,
}

impl Channel {
    /// Takes a connected socket over. Needs a tokio runtime.
    pub(crate) fn new(socket: Accepted) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket: register(socket)? })
    }

    #[expect(clippy::unused_async, reason = "other platforms may have to wait")]
    pub(crate) async fn connect(path: &Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &address)?;
        Self::new(socket)
    }

    pub(crate) async fn send(&self, bytes: &[u8], files: &[Handover]) -> io::Result<()> {
        let files: Vec<BorrowedFd<'_>> = files.iter().map(OwnedFd::as_fd).collect();
        loop {
            let mut ready = self.socket.writable().await?;
            match ready.try_io(|socket| send_packet(socket.as_fd(), bytes, &files)) {
                Ok(sent) => return sent,
                Err(_not_ready) => {}
            }
        }
    }

    pub(crate) async fn receive(&self) -> io::Result<Received> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| receive_packet(socket.as_fd())) {
                Ok(received) => return received,
                Err(_not_ready) => {}
            }
        }
    }
}

/// Takes connections.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: AsyncFd<OwnedFd>,
}

impl Listener {
    /// Listens at a path where nothing is yet.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        Ok(Self { socket: register(socket)? })
    }

    pub(crate) async fn accept(&mut self) -> io::Result<Accepted> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| Ok(accept_with(socket.get_ref(), flags)?)) {
                Ok(accepted) => return accepted,
                Err(_not_ready) => {}
            }
        }
    }
}

fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the value that is handed over, stays the same one for all of that value's life,
    // and is closed only when tokio gives the value up or drops it.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

fn send_packet(socket: BorrowedFd<'_>, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_QUEUES as usize))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more open files than a device has queues"));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// Looks how long the packet is first, so that what a peer announces is bounded before memory is taken for it.
fn receive_packet(socket: BorrowedFd<'_>) -> io::Result<Received> {
    let peek = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    let (_, length) = match recv(socket, &mut [0_u8; 1], peek) {
        Err(rustix::io::Errno::CONNRESET) => return Ok(Received::Closed),
        other => other?,
    };
    // An empty packet looks like the end of the connection, and nobody has a reason to send one.
    if length == 0 {
        return Ok(Received::Closed);
    }
    let mut bytes = vec![0; length.min(MAX_MESSAGE)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_QUEUES as usize))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let mut files = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            files.extend(received);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Ok(Received::TooLong);
    }
    Ok(Received::Packet(Packet { bytes, files }))
}
