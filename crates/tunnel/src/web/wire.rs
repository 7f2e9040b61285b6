//! The stream of bytes within a WebSocket, over a socket or over the outer TLS session: what the inner TLS session travels
//! on.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use super::{
    End,
    codec::{self, Decoder, HEADER, Opcode},
};
use crate::{
    link::{Link, Wire},
    scratch,
    splice::Inbox,
};

/// How often a node sends a ping: below the shortest idle limit of common balancers (60 s), with room for one that is late.
const PING_EVERY: Duration = Duration::from_secs(20);
/// While so much waits to be sent no ping is answered and none is sent: what waits keeps the connection as well.
const BUSY: usize = 4096;
/// `1000`: it ends as it should (RFC 6455 §7.4.1).
const NORMAL_CLOSURE: [u8; 2] = [3, 0xe8];

pub(crate) struct WebSocket {
    end: End,
    below: Wire,
    /// Came with the upgrade, and nobody has looked at it.
    received: Inbox,
    decoder: Decoder,
    /// Framed, and not taken by what is below yet; whole frames but for the first one's beginning.
    unsent: Inbox,
    /// When the next ping is due, at a node.
    next_ping: Option<Pin<Box<Sleep>>>,
    said_goodbye: bool,
}

impl WebSocket {
    /// After the upgrade; `received` came behind it.
    pub(super) fn new(end: End, below: Wire, received: &[u8]) -> Self {
        Self {
            end,
            below,
            received: Inbox::new(received),
            decoder: Decoder::at(end),
            unsent: Inbox::default(),
            next_ping: None,
            said_goodbye: false,
        }
    }

    /// Reads what the frames hold. Zero is the end.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(read) = self.poll_below(cx, buffer) else {
                self.poll_ping(cx)?;
                return Poll::Pending;
            };
            let count = self.take(cx, buffer.get_mut(..read?).unwrap_or_default())?;
            if let Some(count) = count {
                return Poll::Ready(Ok(count));
            }
        }
    }

    /// Frames what is written. Writes nothing while what is below has not got rid of what was written before: that is the
    /// back-pressure.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        Poll::Ready(scratch::local(|buffer| {
            let room = buffer.len().saturating_sub(HEADER);
            let length = slices.iter().map(|slice| slice.len()).sum::<usize>().min(room);
            let key = self.key();
            let (header, start) = codec::header(Opcode::Binary, length, key);
            let mut filled = put(buffer, 0, header.get(..start).unwrap_or_default());
            for slice in slices {
                let left = start + length - filled;
                filled += put(buffer, filled, slice.get(..slice.len().min(left)).unwrap_or_default());
            }
            let frame = buffer.get_mut(..filled).unwrap_or_default();
            if let Some(key) = key {
                codec::mask(key, frame.get_mut(start..).unwrap_or_default());
            }
            let sent = match self.below.poll_send(cx, frame) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => 0,
            };
            self.unsent.push(frame.get(sent..).unwrap_or_default());
            Ok(length)
        }))
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(self.below.poll_write(cx, &[IoSlice::new(self.unsent.bytes())]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.take(sent);
        }
        self.below.poll_flush(cx)
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.unsent.is_empty() && self.below.is_flushed()
    }

    /// Nothing has come but pings, which are answered, and what is below is up.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut buffer = [0; 512];
        loop {
            match self.poll_below(&mut cx, &mut buffer) {
                Poll::Pending => return self.decoder.is_between_data() && self.is_flushed(),
                Poll::Ready(Ok(read)) => {
                    let taken = self.take(&mut cx, buffer.get_mut(..read).unwrap_or_default());
                    if !matches!(taken, Ok(None)) {
                        return false;
                    }
                }
                Poll::Ready(Err(_)) => return false,
            }
        }
    }

    /// Says once that it closes, to what stands between as well.
    pub(crate) fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.said_goodbye, true) {
            self.queue(Opcode::Close, &NORMAL_CLOSURE);
        }
        ready!(self.poll_flush(cx))?;
        self.below.poll_goodbye(cx)
    }

    pub(crate) fn socket(&self) -> &Arc<TcpStream> {
        self.below.socket()
    }

    /// The link that it goes through.
    pub(crate) fn link(&self) -> Option<&Link> {
        self.below.link()
    }

    pub(crate) fn register_here(&mut self) -> io::Result<()> {
        // It belongs to the runtime that it was made in.
        self.next_ping = None;
        self.below.register_here()
    }

    /// Reads with all framing.
    fn poll_below(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.received.is_empty() {
            return self.below.poll_read(cx, buffer);
        }
        let count = put(buffer, 0, self.received.bytes());
        self.received.take(count);
        Poll::Ready(Ok(count))
    }

    /// Takes the payload out of what was read: how much there is, zero at the end, `None` when there was only framing.
    fn take(&mut self, cx: &mut Context<'_>, read: &mut [u8]) -> io::Result<Option<usize>> {
        if read.is_empty() {
            return Ok(Some(0));
        }
        let count = self.decoder.decode(read).map_err(io::Error::other)?;
        if let Some(payload) = self.decoder.ping.take()
            && self.unsent.bytes().len() < BUSY
        {
            self.queue(Opcode::Pong, &payload);
            self.try_flush(cx)?;
        }
        let over = count == 0 && self.decoder.closed;
        Ok((count > 0 || over).then_some(count))
    }

    /// Sends a ping when one is due, and has the task woken for the next one.
    fn poll_ping(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.end == End::Client {
            return Ok(());
        }
        let mut due = false;
        let timer = self.next_ping.get_or_insert_with(|| Box::pin(sleep(PING_EVERY)));
        while timer.as_mut().poll(cx).is_ready() {
            due = true;
            timer.as_mut().reset(Instant::now() + PING_EVERY);
        }
        if due && self.unsent.bytes().len() < BUSY {
            self.queue(Opcode::Ping, &[]);
            self.try_flush(cx)?;
        }
        Ok(())
    }

    fn try_flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    fn queue(&mut self, opcode: Opcode, payload: &[u8]) {
        let key = self.key();
        let (header, length) = codec::header(opcode, payload.len(), key);
        let mut payload = payload.to_vec();
        codec::mask(key.unwrap_or_default(), &mut payload);
        self.unsent.push(header.get(..length).unwrap_or_default());
        self.unsent.push(&payload);
    }

    /// A new one for each frame, that nobody can foresee (RFC 6455 §5.3).
    fn key(&self) -> Option<[u8; 4]> {
        (self.end == End::Client).then(rand::random)
    }
}

/// Copies what there is room for to `at`, and says how much that is.
fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let space = buffer.get_mut(at..).unwrap_or_default();
    let count = bytes.len().min(space.len());
    if let (Some(space), Some(bytes)) = (space.get_mut(..count), bytes.get(..count)) {
        space.copy_from_slice(bytes);
    }
    count
}

/// For the inner handshake.
impl AsyncRead for WebSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = ready!(Self::poll_read(self.get_mut(), cx, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Self::poll_write(self.get_mut(), cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_goodbye(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::{ErrorKind, Read as _},
        net::TcpListener,
    };

    use tokio::time::advance;

    use super::*;

    const NOTHING: [u8; 0] = [];

    /// One end on which nothing was sent, and what its peer receives.
    async fn idle(end: End) -> (WebSocket, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (peer, _) = listener.accept().unwrap();
        peer.set_nonblocking(true).unwrap();
        stream.writable().await.unwrap();
        (WebSocket::new(end, Wire::Tcp(Arc::new(stream)), &[]), peer)
    }

    /// Reads as one who waits for a stream does, and nothing comes; what the peer has received.
    async fn waits(socket: &mut WebSocket, peer: &mut std::net::TcpStream) -> Vec<u8> {
        poll_fn(|cx| {
            assert!(socket.poll_read(cx, &mut [0; 16]).is_pending());
            Poll::Ready(())
        })
        .await;
        let mut received = [0; 16];
        match peer.read(&mut received) {
            Ok(count) => received.get(..count).unwrap_or_default().to_vec(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_sends_a_ping_over_a_connection_that_waits_every_twenty_seconds() {
        let (mut node, mut peer) = idle(End::Node).await;
        assert_eq!(waits(&mut node, &mut peer).await, NOTHING);
        for _ in 0..3 {
            advance(PING_EVERY - Duration::from_millis(100)).await;
            assert_eq!(waits(&mut node, &mut peer).await, NOTHING, "it is early");
            advance(Duration::from_millis(200)).await;
            assert_eq!(waits(&mut node, &mut peer).await, [0x89, 0], "a ping without a payload, unmasked");
        }
        // Nobody looked for a while: one ping says as much as many.
        advance(10 * PING_EVERY).await;
        assert_eq!(waits(&mut node, &mut peer).await, [0x89, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_sends_no_pings() {
        let (mut client, mut peer) = idle(End::Client).await;
        for _ in 0..10 {
            assert_eq!(waits(&mut client, &mut peer).await, NOTHING);
            advance(PING_EVERY).await;
        }
    }
}
