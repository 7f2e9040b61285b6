//! Bytes through another link: what an inner TLS session between a client and a relay travels on, end to end, over the
//! links of the gateways between (DESIGN §4.3).
//!
//! The outer link belongs to it alone and ends with it. What is sealed for the inner session is sealed once more for the
//! outer one; nothing but copying happens here.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use postern_proto::{
    frame::{Kind, MAX_TEXT, Piece, Reader},
    head::{Refused, Reply},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Link, LinkError, SEALED};
use crate::{
    scratch,
    splice::{Inbox, text_frame},
};

/// An outer link is received into room for two records; less is filled from a copy.
const LEAST_ROOM: usize = 2 * SEALED;

pub(crate) struct Through {
    link: Box<Link>,
    /// What the outer link had and nobody has taken.
    received: Inbox,
    /// The gateway has not said yet that the passage is open; what is sent meanwhile waits there.
    awaits_reply: bool,
}

/// A gateway did not open the passage.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Declined(pub(crate) Box<Refused>);

impl Through {
    /// A passage that was opened; `received` came after the frame that opened it.
    pub(crate) const fn new(link: Box<Link>, received: Inbox) -> Self {
        Self { link, received, awaits_reply: false }
    }

    /// Asks for a passage with the text of a `HEAD` frame. The answer is read with the first bytes that come back, so that
    /// the inner handshake is on its way at once; a refusal is an error of the kind [`Declined`].
    pub(crate) async fn ask(mut link: Box<Link>, head: &[u8]) -> Result<Self, LinkError> {
        let mut frame = text_frame(Kind::Head, head);
        std::future::poll_fn(|cx| Poll::Ready(link.send(cx, &mut frame))).await?;
        Ok(Self { link, received: Inbox::default(), awaits_reply: true })
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.awaits_reply {
            ready!(self.poll_reply(cx))?;
        }
        if self.received.is_empty() {
            if buffer.len() > LEAST_ROOM {
                return self.link.poll_recv(cx, buffer).map_err(Into::into);
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(0));
            }
        }
        let count = self.received.bytes().len().min(buffer.len());
        if let (Some(space), Some(bytes)) = (buffer.get_mut(..count), self.received.bytes().get(..count)) {
            space.copy_from_slice(bytes);
        }
        self.received.take(count);
        Poll::Ready(Ok(count))
    }

    /// Writes nothing while the outer link has not got rid of what was written before: that is the back-pressure.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let link = &mut self.link;
        Poll::Ready(scratch::local(|buffer| {
            let mut filled = 0;
            for slice in slices {
                let space = buffer.get_mut(filled..).unwrap_or_default();
                let count = slice.len().min(space.len());
                if let (Some(space), Some(bytes)) = (space.get_mut(..count), slice.get(..count)) {
                    space.copy_from_slice(bytes);
                }
                filled += count;
            }
            link.send(cx, buffer.get_mut(..filled).unwrap_or_default())?;
            Ok(filled)
        }))
    }

    /// Writes what need not be copied.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        self.link.send(cx, bytes).map_err(io::Error::from)?;
        Poll::Ready(Ok(bytes.len()))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_flush(cx).map_err(Into::into)
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.link.is_flushed()
    }

    /// Nothing has come, and the outer link is up.
    pub(super) fn is_quiet(&mut self) -> bool {
        !self.awaits_reply && self.received.is_empty() && self.link.is_alive()
    }

    pub(super) const fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn bring_home(&mut self) -> io::Result<()> {
        self.link.bring_home()
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match Reader::default().next(self.received.bytes()) {
                Ok(Some((Piece::Reply(text), taken))) => {
                    match Reply::read(text) {
                        Ok(Reply::Opened) => {}
                        Ok(Reply::Refused(refused)) => {
                            return Poll::Ready(Err(io::Error::other(Declined(Box::new(refused)))));
                        }
                        Err(error) => return Poll::Ready(Err(io::Error::other(error))),
                    }
                    self.received.take(taken);
                    self.awaits_reply = false;
                    return Poll::Ready(Ok(()));
                }
                Ok(None) if self.received.bytes().len() <= 2 * MAX_TEXT => {}
                _ => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Receives more; zero is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { link, received, .. } = self;
        scratch::plain(|plain| {
            let count = ready!(link.poll_recv(cx, plain))?;
            received.push(plain.get(..count).unwrap_or_default());
            Poll::Ready(Ok(count))
        })
    }
}

/// For the inner handshake.
impl AsyncRead for Through {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = ready!(Self::poll_read(self.get_mut(), cx, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Through {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Self::poll_write(self.get_mut(), cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_flush(self.get_mut(), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().link.poll_close(cx).map_err(Into::into)
    }
}
