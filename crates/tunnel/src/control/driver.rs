use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use postern_proto::{
    id::ResourceId,
    lease::Revocation,
    problem::Problem,
    replica::{Change, OutOfStep, Replica},
    sync::{ClientFrame, ServerFrame},
    time::UnixMillis,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Backoff, CallError, ControlClient, LongPoll, SyncChannel, SyncSocket};

/// Events that may wait for the consumer. When it is full the loop waits, and with it the control plane.
const EVENTS: usize = 256;
/// Frames that may wait to be sent. While the control plane is away they are dropped: see [`SyncEvent::Connected`].
const OUTBOX: usize = 64;

/// What the consumer is told, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum SyncEvent {
    /// The control plane has answered. What was sent before may be lost: send again what matters.
    Connected {
        /// The control plane's clock.
        now: UnixMillis,
        /// Whether frames come by long polling because no WebSocket passed.
        polling: bool,
    },
    /// The replica has changed.
    Changed(Vec<Change>),
    /// Everything is there that the control plane had to say on this connection so far; comes once on each.
    Complete,
    /// Cut what matches, now.
    Revoked(Vec<Revocation>),
    /// All subjects of a `Live` frame are answered.
    Checked,
    CheckHealth(ResourceId),
    /// The connection is down, or an attempt to make one has failed; the next follows after `retry_in`.
    Away {
        error: CallError,
        retry_in: Duration,
    },
}

/// Keeps a replica up to date until it is cancelled.
pub struct SyncLoop {
    client: Arc<ControlClient>,
    agent: String,
    timing: SyncTiming,
    shared: Shared,
    events: mpsc::Sender<SyncEvent>,
    outbox: mpsc::Receiver<ClientFrame>,
    /// Whether the consumer was told so on this connection.
    complete: bool,
}

/// The consumer's end of a [`SyncLoop`].
pub struct SyncHandle {
    /// Bounded: while it is full the loop waits.
    pub events: mpsc::Receiver<SyncEvent>,
    /// Frames for the control plane. They are dropped while it is away.
    pub outbox: mpsc::Sender<ClientFrame>,
    shared: Shared,
}

/// How patient a [`SyncLoop`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncTiming {
    /// A connection is down when nothing was heard after two pings.
    pub ping_every: Duration,
    /// How long one long poll waits for news.
    pub poll_wait: Duration,
    /// A connection that lived this long makes the next attempts quick again.
    pub stable_after: Duration,
}

impl Default for SyncTiming {
    fn default() -> Self {
        Self {
            ping_every: Duration::from_secs(10),
            // As often as a ping: `strict` resources need to know within 15 s that the control plane is there.
            poll_wait: Duration::from_secs(10),
            stable_after: Duration::from_secs(5),
        }
    }
}

#[derive(Clone)]
struct Shared {
    replica: Arc<Mutex<Replica>>,
    heard: Arc<watch::Sender<Option<Instant>>>,
}

/// Why a connection ended.
enum Ended {
    Cancelled,
    /// The identity has changed: connect again at once, quietly.
    Renewed,
    Failed(CallError),
}

impl From<CallError> for Ended {
    fn from(error: CallError) -> Self {
        Self::Failed(error)
    }
}

impl SyncHandle {
    /// A look at what is held. Keep it short: frames wait meanwhile.
    pub fn replica(&self) -> MutexGuard<'_, Replica> {
        self.shared.replica()
    }

    /// When the control plane was last heard from.
    #[must_use]
    pub fn heard(&self) -> watch::Receiver<Option<Instant>> {
        self.shared.heard.subscribe()
    }
}

impl SyncLoop {
    /// `agent`: program and version. `replica`: what was held when the program last ran.
    #[must_use]
    pub fn new(
        client: Arc<ControlClient>,
        agent: impl Into<String>,
        replica: Replica,
        timing: SyncTiming,
    ) -> (Self, SyncHandle) {
        let (events_in, events) = mpsc::channel(EVENTS);
        let (outbox, outbox_out) = mpsc::channel(OUTBOX);
        let shared = Shared { replica: Arc::new(Mutex::new(replica)), heard: Arc::new(watch::Sender::new(None)) };
        let sync = Self {
            client,
            agent: agent.into(),
            timing,
            shared: shared.clone(),
            events: events_in,
            outbox: outbox_out,
            complete: false,
        };
        (sync, SyncHandle { events, outbox, shared })
    }

    /// Runs until `cancel` or until nobody listens any more. No answer of the control plane ends it.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut backoff = Backoff::default();
        while !cancel.is_cancelled() && !self.events.is_closed() {
            let begun = Instant::now();
            let called = self.client.url().clone();
            let ended = tokio::select! {
                () = cancel.cancelled() => Ended::Cancelled,
                Err(ended) = self.connect() => ended,
            };
            let error = match ended {
                Ended::Cancelled => return,
                Ended::Renewed => continue,
                Ended::Failed(error) => error,
            };
            // Whatever was refused there is refused by the other replicas too.
            if error.problem().is_none_or(|problem| problem.status >= 500) {
                self.client.leave(&called);
            }
            if begun.elapsed() >= self.timing.stable_after {
                backoff.reset();
            }
            let retry_in = backoff.next(rand::random());
            tracing::debug!(%error, ?retry_in, "sync connection is down");
            let _ = self.events.send(SyncEvent::Away { error, retry_in }).await;
            self.rest(retry_in, &cancel).await;
        }
    }

    /// Waits before the next attempt and drops what should be sent meanwhile.
    async fn rest(&mut self, span: Duration, cancel: &CancellationToken) {
        let wait = sleep(span);
        tokio::pin!(wait);
        loop {
            tokio::select! {
                () = &mut wait => return,
                () = cancel.cancelled() => return,
                () = self.events.closed() => return,
                Some(_) = self.outbox.recv() => {}
            }
        }
    }

    async fn connect(&mut self) -> Result<Never, Ended> {
        let mut renewed = self.client.identity_changes();
        self.complete = false;
        match self.client.sync().await? {
            SyncChannel::Socket(mut socket) => self.follow_socket(&mut socket, &mut renewed).await,
            SyncChannel::Polling(poll) => self.follow_polls(&poll, &mut renewed).await,
        }
    }

    async fn follow_socket(
        &mut self,
        socket: &mut SyncSocket,
        renewed: &mut watch::Receiver<u64>,
    ) -> Result<Never, Ended> {
        let hello = self.shared.replica().hello(self.agent.clone());
        socket.send(&ClientFrame::Hello(hello)).await?;
        let mut pings = interval_at(Instant::now() + self.timing.ping_every, self.timing.ping_every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sent, mut unanswered) = (0, 0);
        loop {
            tokio::select! {
                frame = socket.next() => {
                    unanswered = 0;
                    self.handle(frame, None).await?;
                }
                Some(frame) = self.outbox.recv() => socket.send(&frame).await?,
                _ = pings.tick() => {
                    if unanswered >= 2 {
                        return Err(self.fail("it has not answered two pings").into());
                    }
                    unanswered += 1;
                    sent += 1;
                    socket.send(&ClientFrame::Ping { n: sent }).await?;
                }
                Ok(()) = renewed.changed() => return Err(Ended::Renewed),
            }
        }
    }

    async fn follow_polls(&mut self, poll: &LongPoll, renewed: &mut watch::Receiver<u64>) -> Result<Never, Ended> {
        let mut hello = self.shared.replica().hello(self.agent.clone());
        let mut greeted = false;
        loop {
            let wait = if greeted { self.timing.poll_wait } else { Duration::ZERO };
            let frames = {
                let polled = poll.poll(&hello, wait);
                tokio::pin!(polled);
                loop {
                    tokio::select! {
                        frames = &mut polled => break frames?,
                        // Beside the poll, not instead of it: a dropped poll could lose what its answer says only once.
                        Some(frame) = self.outbox.recv() => {
                            for frame in poll.send(&[frame]).await? {
                                self.handle(Ok(frame), Some(true)).await?;
                            }
                        }
                        Ok(()) = renewed.changed() => return Err(Ended::Renewed),
                    }
                }
            };
            if !greeted && !matches!(frames.first(), Some(ServerFrame::Welcome(_))) {
                return Err(CallError::garbled(self.client.url(), "a poll was answered without a welcome").into());
            }
            self.shared.hear();
            for frame in frames {
                self.handle(Ok(frame), Some(greeted)).await?;
                greeted = true;
            }
            hello = self.shared.replica().hello_again(self.agent.clone());
        }
    }

    /// Applies one frame and tells the consumer. `polling`: `None` on a socket, else whether the consumer knows already
    /// that the control plane is there (each poll is answered with a welcome).
    async fn handle(&mut self, frame: Result<ServerFrame, CallError>, polling: Option<bool>) -> Result<(), CallError> {
        let frame = frame.inspect_err(|error| {
            if matches!(error, CallError::Garbled { .. }) {
                self.shared.replica().forget_revisions();
            }
        })?;
        self.shared.hear();
        let changes = self.shared.replica().apply(&frame).map_err(|error| self.out_of_step(&error))?;
        let event = match frame {
            ServerFrame::Welcome(_) if polling == Some(true) => None,
            ServerFrame::Welcome(welcome) => {
                Some(SyncEvent::Connected { now: welcome.now, polling: polling.is_some() })
            }
            ServerFrame::Revoke { revocations } => Some(SyncEvent::Revoked(revocations)),
            ServerFrame::Checked => Some(SyncEvent::Checked),
            ServerFrame::CheckHealth { resource } => Some(SyncEvent::CheckHealth(resource)),
            ServerFrame::Bye { code, title } => return Err(CallError::Refused(Problem::new(503, code, title))),
            ServerFrame::Snapshot { .. } | ServerFrame::Delta { .. } | ServerFrame::Pong { .. } => None,
        };
        if let Some(event) = event {
            let _ = self.events.send(event).await;
        }
        if !changes.is_empty() {
            let _ = self.events.send(SyncEvent::Changed(changes)).await;
        }
        if !self.complete && self.shared.replica().is_complete() {
            self.complete = true;
            let _ = self.events.send(SyncEvent::Complete).await;
        }
        Ok(())
    }

    fn out_of_step(&self, error: &OutOfStep) -> CallError {
        tracing::error!(%error, "the control plane's frames do not fit; keeping what is held and asking afresh");
        CallError::garbled(self.client.url(), error)
    }

    fn fail(&self, reason: &str) -> CallError {
        CallError::unreachable(self.client.url(), reason)
    }
}

impl Shared {
    fn replica(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self) {
        self.heard.send_replace(Some(Instant::now()));
    }
}

/// A connection only ever ends with a reason.
enum Never {}
