//! A passage at a gateway or a bridge: bytes from the client's link to the relay's and back, as they come. They are a TLS session
//! between those two, so nothing of it is understood here.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
    time::Duration,
};

use postern_proto::frame::ResetCode;
use tokio::time::timeout;

use crate::{
    link::{Link, LinkError},
    park::OpenPassage,
    scratch,
    splice::Inbox,
    stream::{EndCause, StreamControl},
};

/// What one round passes on: as many records as a link sends in one go.
const ROUND: usize = 256 * 1024;
/// How often bytes are moved before others have their turn.
const ROUNDS: u32 = 2;
/// How long what was received may take to be passed on after the other side has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Copies until one side ends. What had come is passed on before the other side is closed. The relay's link is closed,
/// the client's is left to the caller.
pub(super) async fn carry(
    client: &mut impl Pipe,
    inbox: Inbox,
    onward: OpenPassage,
    control: &StreamControl,
) -> EndCause {
    let OpenPassage { link: mut relay, inbox: from_relay } = onward;
    let (mut up, mut down) = (Direction::new(inbox), Direction::new(from_relay));
    let cause = poll_fn(|cx| {
        control.register(cx.waker());
        for _ in 0..ROUNDS {
            if let Some(code) = control.cut_code() {
                return Poll::Ready(EndCause::Cut(code));
            }
            let went_up = up.poll(cx, client, &mut *relay, |count| control.count_up(count));
            let went_down = down.poll(cx, &mut *relay, client, |count| control.count_down(count));
            match (went_up, went_down) {
                (Poll::Ready(Err(end)), _) => return Poll::Ready(end.at_client()),
                (_, Poll::Ready(Err(end))) => return Poll::Ready(end.at_relay()),
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
                _ => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    if !matches!(cause, EndCause::Cut(_)) {
        let flushed = poll_fn(|cx| {
            let (one, other) = (relay.poll_flush(cx), client.poll_flush(cx));
            if one.is_pending() || other.is_pending() { Poll::Pending } else { Poll::Ready(()) }
        });
        let _ = timeout(LAST_WORDS, flushed).await;
    }
    relay.close();
    cause
}

/// What bytes go into and come out of.
pub(super) trait Pipe {
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, LinkError>>;
    fn send(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Result<(), LinkError>;
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>>;
}

impl Pipe for Link {
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, LinkError>> {
        Self::poll_recv(self, cx, buffer)
    }

    fn send(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Result<(), LinkError> {
        Self::send(self, cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Self::poll_flush(self, cx)
    }
}

/// How one side ended.
enum End {
    /// It closed, in whatever way: what it meant is said within the session that it carried.
    Closed,
    /// It cannot be written to.
    Lost,
}

impl End {
    const fn at_client(self) -> EndCause {
        match self {
            Self::Closed => EndCause::Done,
            Self::Lost => EndCause::PeerReset(ResetCode::Internal),
        }
    }

    const fn at_relay(self) -> EndCause {
        match self {
            Self::Closed => EndCause::Done,
            Self::Lost => EndCause::LinkLost,
        }
    }
}

/// One way through.
struct Direction {
    /// What came before the passage was open.
    first: Option<Inbox>,
}

impl Direction {
    fn new(first: Inbox) -> Self {
        Self { first: Some(first).filter(|first| !first.is_empty()) }
    }

    /// Moves what is there; pending when nothing can be moved. Reads no more than the other side has taken.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Pipe,
        to: &mut impl Pipe,
        count: impl Fn(usize),
    ) -> Poll<Result<(), End>> {
        ready!(to.poll_flush(cx)).map_err(|_| End::Lost)?;
        if let Some(first) = self.first.take() {
            count(first.bytes().len());
            let mut bytes = first.bytes().to_vec();
            return Poll::Ready(pass(cx, to, &mut bytes));
        }
        scratch::plain(|plain| {
            let room = plain.get_mut(..ROUND).unwrap_or_default();
            match ready!(from.poll_recv(cx, room)) {
                Ok(0) | Err(_) => Poll::Ready(Err(End::Closed)),
                Ok(received) => {
                    count(received);
                    Poll::Ready(pass(cx, to, room.get_mut(..received).unwrap_or_default()))
                }
            }
        })
    }
}

/// Sends in parts that a link takes in one go; what the socket does not take waits in the link.
fn pass(cx: &mut Context<'_>, to: &mut impl Pipe, bytes: &mut [u8]) -> Result<(), End> {
    for part in bytes.chunks_mut(ROUND) {
        to.send(cx, part).map_err(|_: LinkError| End::Lost)?;
    }
    Ok(())
}
