//! The end of a stream on this machine, as the carrier sees it: a socket of the kernel, or a flow of another TCP stack.

use std::{
    future::pending,
    io::{self, IoSlice},
    task::{Context, Poll},
};

use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
};

use crate::socket;

/// One connection of a local program. Everything is done by reference, from one task, without waiting.
///
/// Dropping it resets the connection, unless [`LocalEnd::close`] was called: a transfer that was cut never looks
/// complete.
pub trait LocalEnd {
    /// Prepares the connection for being carried. Called once, before anything else.
    fn arm(&self) -> io::Result<()>;

    /// The node has opened the stream: from now on the program may see its connection established. Until then nothing
    /// need be read or taken.
    fn opened(&self) -> io::Result<()>;

    /// Reads what is there, as much as `buffer` takes. Zero is the end of what the program sends.
    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes as much of `slices` as there is room for, and says how much that was.
    fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// How many bytes are worth receiving for it now; pending while it takes none, once it is opened. What does not know
    /// says as many as there are: what it does not take is kept for it then.
    fn poll_room(&self, _cx: &mut Context<'_>) -> Poll<usize> {
        Poll::Ready(usize::MAX)
    }

    /// The first read of a new connection: what came before the runtime has heard of it is read, too.
    fn poll_first_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read(cx, buffer)
    }

    /// The first write of a new connection, which the runtime may not have heard of yet.
    fn poll_first_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_write(cx, slices)
    }

    /// Says that nothing more will be written. That the program is gone already is noticed elsewhere.
    fn end_writing(&self);

    /// Completes when the program breaks off. An orderly end of its writing is no break. It is asked only while nothing
    /// is read, which would show a break too.
    fn broken(&self) -> impl Future<Output = ()>;

    /// Closes in an orderly way, after both directions have ended.
    fn close(self);

    /// Breaks off.
    fn reset(self);
}

impl LocalEnd for TcpStream {
    fn arm(&self) -> io::Result<()> {
        socket::arm(self)
    }

    /// The kernel has established it long ago.
    fn opened(&self) -> io::Result<()> {
        Ok(())
    }

    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        socket::poll_read(self, cx, buffer)
    }

    fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        socket::poll_write(self, cx, slices)
    }

    fn poll_first_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        socket::read_now(self, buffer).map_or_else(|| socket::poll_read(self, cx, buffer), Poll::Ready)
    }

    fn poll_first_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        socket::write_now(self, slices).map_or_else(|| socket::poll_write(self, cx, slices), Poll::Ready)
    }

    fn end_writing(&self) {
        socket::end_writing(self);
    }

    async fn broken(&self) {
        if self.ready(Interest::ERROR).await.is_err() {
            pending::<()>().await;
        }
    }

    fn close(self) {
        socket::close(self);
    }

    fn reset(self) {
        drop(self);
    }
}

/// Prepares a listener so that what it accepts is ready to be carried as [`Accepted`], with no further call for each
/// connection. From then on a connection is reset when this process goes away, from the moment that it is established.
pub fn arm_listener(listener: &TcpListener) -> io::Result<()> {
    socket::arm_listener(listener)
}

/// A connection from a listener that was prepared with [`arm_listener`].
#[derive(Debug)]
pub struct Accepted(pub TcpStream);

impl LocalEnd for Accepted {
    fn arm(&self) -> io::Result<()> {
        if socket::ACCEPTED_INHERITS { Ok(()) } else { self.0.arm() }
    }

    fn opened(&self) -> io::Result<()> {
        self.0.opened()
    }

    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.poll_read(cx, buffer)
    }

    fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, slices)
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        self.0.poll_room(cx)
    }

    fn poll_first_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.poll_first_read(cx, buffer)
    }

    fn poll_first_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.poll_first_write(cx, slices)
    }

    fn end_writing(&self) {
        self.0.end_writing();
    }

    fn broken(&self) -> impl Future<Output = ()> {
        self.0.broken()
    }

    fn close(self) {
        self.0.close();
    }

    fn reset(self) {
        self.0.reset();
    }
}
