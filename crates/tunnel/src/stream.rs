//! What is known of a running stream from outside: its counters, the handle that cuts it, and why it ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
};

use futures_util::task::AtomicWaker;
use postern_proto::{frame::ResetCode, problem::Problem, record::EndReason};

/// The handle of one stream: byte counters that may be read while it runs, and [`StreamControl::cut`].
///
/// Clones are the same stream.
#[derive(Clone, Debug, Default)]
pub struct StreamControl(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    up: AtomicU64,
    down: AtomicU64,
    /// 0: not cut; else the code plus one.
    cut: AtomicU32,
    task: AtomicWaker,
}

/// How a stream ended, and what it had carried by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    pub cause: EndCause,
    /// Bytes from the client to the resource.
    pub up: u64,
    /// Bytes from the resource to the client.
    pub down: u64,
}

/// Why a stream ended. Everything but [`EndCause::Done`] resets the sockets at both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// Both sides said that they were done, and everything was handed over.
    Done,
    /// The socket at this end broke off: the user's program at a client, the resource at a node.
    LocalReset,
    /// The other end of the carrier broke the stream off.
    PeerReset(ResetCode),
    /// The carrier's connection closed in the middle.
    LinkLost,
    /// The other end of the carrier sent what it must not send.
    Protocol,
    /// [`StreamControl::cut`].
    Cut(ResetCode),
    /// At a client: the stream was never opened.
    Refused(Box<Problem>),
}

impl StreamControl {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes from the client to the resource so far.
    #[must_use]
    pub fn up(&self) -> u64 {
        self.0.up.load(Ordering::Relaxed)
    }

    /// Bytes from the resource to the client so far.
    #[must_use]
    pub fn down(&self) -> u64 {
        self.0.down.load(Ordering::Relaxed)
    }

    /// Ends the stream at once, busy or idle: the program at this end is reset, the peer is sent `RESET(code)`. Cutting
    /// it again, or when it has ended, does nothing.
    pub fn cut(&self, code: ResetCode) {
        let _ = self.0.cut.compare_exchange(0, code as u32 + 1, Ordering::AcqRel, Ordering::Acquire);
        self.0.task.wake();
    }

    /// The code that the stream was cut with.
    #[must_use]
    pub fn cut_code(&self) -> Option<ResetCode> {
        let code = self.0.cut.load(Ordering::Acquire).checked_sub(1)?;
        Some(ResetCode::from_wire(u16::try_from(code).unwrap_or_default()))
    }

    /// Completes when the stream is cut.
    pub(crate) async fn cutting(&self) -> ResetCode {
        std::future::poll_fn(|cx| {
            self.register(cx.waker());
            self.cut_code().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Has `waker` woken when the stream is cut.
    pub(crate) fn register(&self, waker: &Waker) {
        self.0.task.register(waker);
    }

    pub(crate) fn count_up(&self, bytes: usize) {
        self.0.up.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_down(&self, bytes: usize) {
        self.0.down.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn end(&self, cause: EndCause) -> StreamEnd {
        StreamEnd { cause, up: self.up(), down: self.down() }
    }
}

impl EndCause {
    /// What a node writes into the session record.
    #[must_use]
    pub const fn at_node(&self) -> EndReason {
        match self {
            Self::Done => EndReason::Closed,
            Self::LocalReset => EndReason::TargetReset,
            Self::PeerReset(_) | Self::LinkLost | Self::Protocol => EndReason::ClientReset,
            Self::Cut(ResetCode::Revoked) => EndReason::Revoked,
            Self::Cut(ResetCode::GrantEnded) => EndReason::GrantEnded,
            Self::Cut(ResetCode::Draining) => EndReason::Drained,
            Self::Cut(_) | Self::Refused(_) => EndReason::Abandoned,
        }
    }
}
