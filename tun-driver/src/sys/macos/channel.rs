//! One end of a connection between posternd and netd: whole packets, with open files beside them. Unix sockets keep no
//! packets apart here (there is no `SOCK_SEQPACKET`), so each begins with its length.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
};

use crate::{interface::MAX_QUEUES, netd::MAX_MESSAGE};

/// A number in little-endian form: how many bytes follow.
const LENGTH: usize = 4;
/// Read at once at most.
const PART: usize = 16 * 1024;

/// A connection that was accepted.
pub(crate) type Accepted = UnixStream;

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: UnixStream,
    incoming: Mutex<Incoming>,
}

/// What came of a packet so far: a wait that is given up loses nothing.
#[derive(Debug, Default)]
struct Incoming {
    bytes: Vec<u8>,
    files: Vec<OwnedFd>,
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
    /// Longer than [`MAX_MESSAGE`], or with more files than a device has queues; the connection is of no use any more.
    TooLong,
    /// The other end is gone.
    Closed,
}

impl Channel {
    /// Takes a connected socket over.
    #[expect(clippy::unnecessary_wraps, reason = "other platforms may fail")]
    pub(crate) fn new(stream: Accepted) -> io::Result<Self> {
        Ok(Self { stream, incoming: Mutex::default() })
    }

    pub(crate) async fn connect(path: &Path) -> io::Result<Self> {
        Self::new(UnixStream::connect(path).await?)
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(crate) async fn send(&self, bytes: &[u8], files: &[OwnedFd]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let whole = [&length.to_le_bytes(), bytes].concat();
        let files: Vec<BorrowedFd<'_>> = files.iter().map(OwnedFd::as_fd).collect();
        let mut sent = 0;
        while let Some(rest) = whole.get(sent..).filter(|rest| !rest.is_empty()) {
            // The files go with the first byte.
            let with = if sent == 0 { files.as_slice() } else { &[] };
            sent += self.stream.async_io(Interest::WRITABLE, || send_part(self.stream.as_fd(), rest, with)).await?;
        }
        Ok(())
    }

    /// May be given up and called again.
    pub(crate) async fn receive(&self) -> io::Result<Received> {
        loop {
            if let Some(received) = self.incoming().take() {
                return Ok(received);
            }
            let came = self.stream.async_io(Interest::READABLE, || self.incoming().read(self.stream.as_fd())).await;
            match came {
                Ok(0) => return Ok(Received::Closed),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Received::Closed),
                other => other?,
            };
        }
    }

    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Incoming {
    /// The packet, once it is there. What a peer announces is bounded before memory is taken for it.
    fn take(&mut self) -> Option<Received> {
        let length = u32::from_le_bytes(*self.bytes.first_chunk()?) as usize;
        if length == 0 || length > MAX_MESSAGE || self.files.len() > usize::from(MAX_QUEUES) {
            return Some(Received::TooLong);
        }
        let end = LENGTH + length;
        let bytes = self.bytes.get(LENGTH..end)?.to_vec();
        self.bytes.drain(..end);
        Some(Received::Packet(Packet { bytes, files: std::mem::take(&mut self.files) }))
    }

    /// Reads to the end of the packet at most, so that files stay with the packet that they came with.
    fn read(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let wanted = match self.bytes.first_chunk() {
            Some(length) => LENGTH + u32::from_le_bytes(*length) as usize - self.bytes.len(),
            None => LENGTH - self.bytes.len(),
        };
        let mut part = [0; PART];
        let part = part.get_mut(..wanted.min(PART)).unwrap_or_default();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_QUEUES as usize))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = recvmsg(socket, &mut [IoSliceMut::new(part)], &mut control, RecvFlags::empty())?;
        for ancillary in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = ancillary {
                self.files.extend(received);
            }
        }
        for file in &self.files {
            rustix::io::ioctl_fioclex(file)?;
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more open files than a device has queues"));
        }
        self.bytes.extend_from_slice(part.get(..message.bytes).unwrap_or_default());
        Ok(message.bytes)
    }
}

fn send_part(socket: BorrowedFd<'_>, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_QUEUES as usize))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more open files than a device has queues"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty())?)
}

/// Takes connections.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
}

impl Listener {
    /// Listens at a path where nothing is yet.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        Ok(Self { socket: UnixListener::bind(path)? })
    }

    pub(crate) async fn accept(&mut self) -> io::Result<Accepted> {
        Ok(self.socket.accept().await?.0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    async fn pair() -> (Channel, Channel) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netd.sock");
        let mut listener = Listener::bind(&path).unwrap();
        let one = Channel::connect(&path).await.unwrap();
        (one, Channel::new(listener.accept().await.unwrap()).unwrap())
    }

    async fn packet(channel: &Channel) -> Packet {
        match channel.receive().await.unwrap() {
            Received::Packet(packet) => packet,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn packets_and_their_files_stay_together() {
        let (one, other) = pair().await;
        let (mut reader, writer) = io::pipe().unwrap();
        let long = vec![7; MAX_MESSAGE];
        let sending = async {
            one.send(b"first", &[]).await.unwrap();
            one.send(&long, &[OwnedFd::from(writer)]).await.unwrap();
            one.send(b"third", &[]).await.unwrap();
        };
        let receiving = async {
            let first = packet(&other).await;
            assert_eq!((first.bytes.as_slice(), first.files.len()), (b"first".as_slice(), 0));
            let mut second = packet(&other).await;
            assert_eq!((second.bytes == long, second.files.len()), (true, 1));
            let third = packet(&other).await;
            assert_eq!((third.bytes.as_slice(), third.files.len()), (b"third".as_slice(), 0));
            std::fs::File::from(second.files.remove(0)).write_all(b"through").unwrap();
        };
        tokio::join!(sending, receiving);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(one);
        assert!(matches!(other.receive().await.unwrap(), Received::Closed));
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_loses_nothing() {
        let (one, other) = pair().await;
        let whole = [&5_u32.to_le_bytes()[..], b"hello"].concat();
        for byte in whole {
            one.stream().writable().await.unwrap();
            one.stream().try_write(&[byte]).unwrap();
            let moment = std::time::Duration::from_millis(5);
            match tokio::time::timeout(moment, other.receive()).await {
                Ok(Ok(Received::Packet(packet))) => return assert_eq!(packet.bytes, b"hello"),
                Ok(unexpected) => panic!("{unexpected:?}"),
                Err(_given_up) => {}
            }
        }
        panic!("the packet never came");
    }

    #[tokio::test]
    async fn a_length_that_no_message_has_ends_the_conversation() {
        for length in [0, u32::try_from(MAX_MESSAGE).unwrap() + 1, u32::MAX] {
            let (one, other) = pair().await;
            one.stream().writable().await.unwrap();
            one.stream().try_write(&length.to_le_bytes()).unwrap();
            assert!(matches!(other.receive().await.unwrap(), Received::TooLong), "{length}");
        }
    }
}
