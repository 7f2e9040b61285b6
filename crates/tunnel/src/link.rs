//! One authenticated TLS connection between a client and a node, after its handshake.
//!
//! rustls is driven directly: what the socket has is read in one call into a buffer of the thread, decrypted until
//! nothing is left, and what is written goes out in one call. A link holds no buffer of its own while it is idle.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    task::{Context, Poll, Waker},
};

use postern_proto::frame::ResetCode;
use rustls::Connection;
use tokio::net::TcpStream;

use crate::{scratch, socket};

/// Stop gathering when less room than one record is left for the plaintext.
const RECORD: usize = 16 * 1024 + 256;

pub(crate) struct Link {
    wire: Wire,
    tls: Connection,
    /// The socket has ended.
    ended: bool,
}

/// What carries the TLS bytes. A carrier inside a WebSocket would be another variant.
pub(crate) enum Wire {
    Tcp(TcpStream),
}

/// Why a link is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The peer closed it, or it broke.
    #[error("the connection closed")]
    Closed(#[from] io::Error),
    #[error("the peer broke the TLS protocol")]
    Tls(#[from] rustls::Error),
}

impl Link {
    pub(crate) fn new(wire: TcpStream, tls: impl Into<Connection>) -> Self {
        let mut tls = tls.into();
        // The limit would make writes short; back-pressure is kept by not reading while something is unsent.
        tls.set_buffer_limit(None);
        Self { wire: Wire::Tcp(wire), tls, ended: false }
    }

    /// Encrypts `plain` and writes what the socket takes at once; the rest waits for [`Link::poll_flush`]. The content of
    /// `plain` is undefined afterwards.
    pub(crate) fn send(&mut self, cx: &mut Context<'_>, plain: &mut [u8]) -> Result<(), LinkError> {
        self.tls.writer().write_all(plain)?;
        match self.poll_flush(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Whether everything that was sent is with the socket.
    pub(crate) fn is_flushed(&self) -> bool {
        !self.tls.wants_write()
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Outgoing { wire: &self.wire, cx }) {
                Ok(0) => return Poll::Ready(Err(LinkError::Closed(io::ErrorKind::WriteZero.into()))),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Decrypts into `plain` until the socket has no more or `plain` is nearly full; `plain` has room for two records.
    /// Zero means that the peer closed the connection in an orderly way.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>, plain: &mut [u8]) -> Poll<Result<usize, LinkError>> {
        let mut filled = 0;
        if self.drain(plain, &mut filled)? || filled > 0 {
            return Poll::Ready(Ok(filled));
        }
        if self.ended {
            return Poll::Ready(Err(LinkError::Closed(io::ErrorKind::UnexpectedEof.into())));
        }
        scratch::wire(|wire| {
            loop {
                let room = plain.len().saturating_sub(filled + RECORD).min(wire.len());
                let Some(space) = wire.get_mut(..room).filter(|space| !space.is_empty()) else {
                    return Poll::Ready(Ok(filled));
                };
                let count = match self.wire.poll_read(cx, space) {
                    Poll::Ready(result) => result?,
                    Poll::Pending if filled > 0 => return Poll::Ready(Ok(filled)),
                    Poll::Pending => return Poll::Pending,
                };
                if count == 0 {
                    self.ended = true;
                    return Poll::Ready(if filled > 0 { Ok(filled) } else { Err(LinkError::Closed(eof())) });
                }
                let mut records = wire.get(..count).unwrap_or_default();
                while !records.is_empty() {
                    self.tls.read_tls(&mut records)?;
                    self.tls.process_new_packets()?;
                    if self.drain(plain, &mut filled)? {
                        self.ended = true;
                        return Poll::Ready(Ok(filled));
                    }
                }
                if filled > 0 && count < room {
                    return Poll::Ready(Ok(filled));
                }
            }
        })
    }

    /// Whether an idle link may take a stream: nothing has come and it has not ended. A link that has something to say
    /// while no stream is on it says that it closes.
    pub(crate) fn is_alive(&mut self) -> bool {
        let quiet = matches!(self.tls.reader().read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        quiet && !self.ended && self.is_flushed() && self.wire.is_quiet()
    }

    /// Tells the peer why the stream is broken off and closes, without waiting: when the socket is full, the peer sees
    /// only that the connection closed in the middle.
    pub(crate) fn reset(mut self, code: ResetCode) {
        let _ = self.send(&mut Context::from_waker(Waker::noop()), &mut code.frame());
    }

    /// Says goodbye and closes, without waiting, so that the peer knows that nothing is on the way.
    pub(crate) fn close(mut self) {
        self.tls.send_close_notify();
        let _ = self.poll_flush(&mut Context::from_waker(Waker::noop()));
    }

    /// Moves decrypted bytes into `plain`; true at the orderly end.
    fn drain(&mut self, plain: &mut [u8], filled: &mut usize) -> Result<bool, LinkError> {
        loop {
            let Some(space) = plain.get_mut(*filled..).filter(|space| !space.is_empty()) else {
                return Ok(false);
            };
            match self.tls.reader().read(space) {
                Ok(0) => return Ok(true),
                Ok(count) => *filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Wire {
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => socket::poll_read(stream, cx, buffer),
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => socket::poll_write(stream, cx, slices),
        }
    }

    fn is_quiet(&self) -> bool {
        match self {
            Self::Tcp(stream) => {
                matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
        }
    }
}

/// Where rustls writes its records.
struct Outgoing<'a, 'b> {
    wire: &'a Wire,
    cx: &'a mut Context<'b>,
}

impl io::Write for Outgoing<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.wire.poll_write(self.cx, slices) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn eof() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}
