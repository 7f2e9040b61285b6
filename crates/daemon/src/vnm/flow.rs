//! A flow of the stack as the near end of a stream.
//!
//! The program's SYN is held until the node has opened the stream: a refused target stays refused, and a dead one never
//! looks connected. Dropping a flow refuses or resets it.

use std::{
    cell::Cell,
    fmt,
    future::poll_fn,
    io::{self, IoSlice},
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
};

use postern_netstack::{CloseReason, FlowId, Protocol, RecvError, SendError};
use postern_tunnel::local_end::LocalEnd;

use super::{
    neighbours::Tenure,
    shard::{Shard, Signals},
};

/// See the module.
pub struct FlowEnd {
    shard: Rc<Shard>,
    flow: FlowId,
    signals: Rc<Signals>,
    tenure: Tenure,
    state: Cell<State>,
}

/// What [`FlowEnd::poll_recv`] found.
#[derive(Debug)]
pub enum Received {
    /// So many bytes were taken; or why not.
    Data(io::Result<usize>),
    /// The program sends no more.
    End,
    /// The program broke off.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Held,
    Open,
    Over,
}

impl FlowEnd {
    pub(super) fn new(shard: Rc<Shard>, flow: FlowId, signals: Rc<Signals>, tenure: Tenure) -> Self {
        Self { shard, flow, signals, tenure, state: Cell::new(State::Held) }
    }

    /// The program's address.
    #[must_use]
    pub const fn source(&self) -> SocketAddr {
        self.tenure.source()
    }

    /// Where it connects to.
    #[must_use]
    pub const fn destination(&self) -> SocketAddr {
        self.tenure.destination()
    }

    /// Lets the program in, whoever it is.
    ///
    /// # Errors
    /// It is gone.
    pub fn accept(&self) -> io::Result<()> {
        let accepted = self.shard.stack.borrow_mut().accept(self.flow);
        accepted.map_err(io::Error::other)?;
        self.state.set(State::Open);
        self.shard.kick();
        Ok(())
    }

    /// Gives `take` what came, in place; as many bytes as it says are gone then.
    pub fn poll_recv(&self, cx: &Context<'_>, take: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> Poll<Received> {
        if self.is_broken() || self.state.get() != State::Open {
            return Poll::Ready(Received::Broken);
        }
        let mut taken = Ok(0);
        let read = self.shard.stack.borrow_mut().recv(self.flow, |data| {
            taken = take(data);
            taken.as_ref().copied().unwrap_or_default()
        });
        match read {
            Ok(count) => {
                self.tenure.note_moved(count);
                self.shard.kick();
                Poll::Ready(Received::Data(taken))
            }
            Err(RecvError::Empty) => {
                self.signals.wait_to_read(cx);
                Poll::Pending
            }
            Err(RecvError::Finished) => Poll::Ready(Received::End),
            Err(RecvError::Unknown) => Poll::Ready(Received::Broken),
        }
    }

    /// Gives `fill` the room there is, in place; as many bytes as it says are sent then.
    pub fn poll_send(
        &self,
        cx: &Context<'_>,
        fill: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> Poll<io::Result<io::Result<usize>>> {
        if self.is_broken() || self.state.get() != State::Open {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut filled = Ok(0);
        let sent = self.shard.stack.borrow_mut().send(self.flow, |space| {
            filled = fill(space);
            filled.as_ref().copied().unwrap_or_default()
        });
        match sent {
            Ok(count) => {
                self.tenure.note_moved(count);
                self.shard.kick();
                Poll::Ready(Ok(filled))
            }
            Err(SendError::Full) => {
                self.signals.wait_to_write(cx);
                Poll::Pending
            }
            Err(SendError::Closed | SendError::Unknown) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn give_up(&self, answer: bool) {
        let state = self.state.replace(State::Over);
        let mut stack = self.shard.stack.borrow_mut();
        // A flow that is over already needs nothing.
        let _ = match state {
            State::Held if answer => stack.refuse(self.flow),
            State::Held => stack.drop_flow(self.flow),
            State::Open => stack.abort(self.flow),
            State::Over => return,
        };
        drop(stack);
        self.shard.forget(self.flow);
        self.shard.kick();
    }

    fn is_broken(&self) -> bool {
        !matches!(self.signals.closed(), None | Some(CloseReason::Finished))
    }
}

impl LocalEnd for FlowEnd {
    fn arm(&self) -> io::Result<()> {
        Ok(())
    }

    /// Looks again whose it is: a program that has given up meanwhile left nothing behind that would tell, and its port
    /// may be somebody else's.
    fn opened(&self) -> io::Result<()> {
        if self.shard.gate().admit(Protocol::Tcp, self.source(), self.destination()).is_err() {
            self.give_up(false);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.accept()
    }

    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.is_broken() || self.state.get() == State::Over {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.state.get() == State::Held {
            self.signals.wait_to_read(cx);
            return Poll::Pending;
        }
        let mut stack = self.shard.stack.borrow_mut();
        let mut filled = 0;
        let result = loop {
            let space = buffer.get_mut(filled..).unwrap_or_default();
            let read = stack.recv(self.flow, |data| {
                let count = data.len().min(space.len());
                if let (Some(from), Some(to)) = (data.get(..count), space.get_mut(..count)) {
                    to.copy_from_slice(from);
                }
                count
            });
            match read {
                // The ring may go on at its beginning.
                Ok(count) if count > 0 && filled + count < buffer.len() => filled += count,
                Ok(count) => break Ok(filled + count),
                Err(_) if filled > 0 => break Ok(filled),
                Err(error) => break Err(error),
            }
        };
        drop(stack);
        match result {
            Ok(count) => {
                self.tenure.note_moved(count);
                // The window has opened.
                self.shard.kick();
                Poll::Ready(Ok(count))
            }
            Err(RecvError::Empty) => {
                self.signals.wait_to_read(cx);
                Poll::Pending
            }
            Err(RecvError::Finished) => Poll::Ready(Ok(0)),
            Err(RecvError::Unknown) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.is_broken() || self.state.get() == State::Over {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.state.get() == State::Held {
            self.signals.wait_to_write(cx);
            return Poll::Pending;
        }
        let mut stack = self.shard.stack.borrow_mut();
        let mut written = 0;
        let mut end = None;
        'slices: for slice in slices {
            let mut rest: &[u8] = slice;
            while !rest.is_empty() {
                let sent = stack.send(self.flow, |space| {
                    let count = space.len().min(rest.len());
                    if let (Some(from), Some(to)) = (rest.get(..count), space.get_mut(..count)) {
                        to.copy_from_slice(from);
                    }
                    count
                });
                match sent {
                    Ok(count) if count > 0 => {
                        written += count;
                        rest = rest.get(count..).unwrap_or_default();
                    }
                    Ok(_) => end = Some(SendError::Full),
                    Err(error) => end = Some(error),
                }
                if end.is_some() {
                    break 'slices;
                }
            }
        }
        drop(stack);
        if written > 0 {
            self.tenure.note_moved(written);
            self.shard.kick();
            return Poll::Ready(Ok(written));
        }
        match end {
            None => Poll::Ready(Ok(0)),
            Some(SendError::Full) => {
                self.signals.wait_to_write(cx);
                Poll::Pending
            }
            Some(SendError::Closed | SendError::Unknown) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.is_broken() || self.state.get() != State::Open {
            // Writing tells what is wrong.
            return Poll::Ready(usize::MAX);
        }
        match self.shard.stack.borrow_mut().room(self.flow) {
            Ok(room) => Poll::Ready(room),
            Err(SendError::Full) => {
                self.signals.wait_to_write(cx);
                Poll::Pending
            }
            Err(SendError::Closed | SendError::Unknown) => Poll::Ready(usize::MAX),
        }
    }

    fn end_writing(&self) {
        let _ = self.shard.stack.borrow_mut().close(self.flow);
        self.shard.kick();
    }

    async fn broken(&self) {
        poll_fn(|cx| {
            if self.is_broken() {
                return Poll::Ready(());
            }
            self.signals.wait_for_end(cx);
            Poll::Pending
        })
        .await;
    }

    /// Both directions have ended; the stack says goodbye on its own.
    fn close(self) {
        self.state.set(State::Over);
        self.shard.forget(self.flow);
    }

    fn reset(self) {
        drop(self);
    }
}

impl Drop for FlowEnd {
    fn drop(&mut self) {
        self.give_up(true);
    }
}

impl fmt::Debug for FlowEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flow, tenure, state, .. } = self;
        let mut text = f.debug_struct("FlowEnd");
        text.field("flow", flow).field("tenure", tenure).field("state", state).finish_non_exhaustive()
    }
}
