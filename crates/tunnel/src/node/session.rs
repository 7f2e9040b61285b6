//! The streams of one link, one after the other: head, decision, transfer.

use std::{
    future::poll_fn,
    net::SocketAddr,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use postern_proto::{
    frame::{Kind, MAX_UNANSWERED, Piece, Reader, ResetCode},
    head::{Head, HeadError, Passage, Refused, Reply, Request},
    problem::Problem,
    time::UnixMillis,
};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{OpenRequest, Opened, PassRequest, Passed, Server, StreamHandler, leave::Leave, passage};
use crate::{
    identity::PeerIdentity,
    link::Link,
    scratch, socket,
    splice::{Event, Inbox, Side, Splice, text_frame},
    stream::EndCause,
};

/// From the first byte of a head to its last; also for a refused client to end its direction.
const HEAD: Duration = Duration::from_secs(10);
/// A link without a stream for so long is closed. Clients close theirs after minutes.
const IDLE: Duration = Duration::from_secs(20 * 60);
/// What a client may have sent before the reply: its data, and a frame that ends it.
const MOST_HELD: usize = MAX_UNANSWERED + 16;

/// Serves `link` until it closes, breaks, or the node stops.
pub(super) async fn run<H: StreamHandler>(server: &Server<H>, link: Box<Link>, caller: Caller<'_>, leave: &Leave) {
    let mut session = Session { link, inbox: Inbox::default(), caller, leave };
    let quit = loop {
        if let Err(quit) = session.stream(server).await {
            break quit;
        }
    };
    match quit {
        Quit::Over => session.link.close(),
        Quit::Reset(code) => session.link.reset(code),
        Quit::Broken => {}
    }
}

/// Who is at the other end of a link.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) peer: &'a PeerIdentity,
    pub(super) address: SocketAddr,
    /// From before the link's handshake.
    pub(super) begun: std::time::Instant,
}

/// Why a link is given up.
enum Quit {
    /// Nothing is under way on it.
    Over,
    Reset(ResetCode),
    Broken,
}

struct Session<'a> {
    link: Box<Link>,
    /// What was received and not looked at yet.
    inbox: Inbox,
    caller: Caller<'a>,
    leave: &'a Leave,
}

impl Session<'_> {
    /// Serves the next stream. The link takes another one afterwards, unless it is given up.
    async fn stream<H: StreamHandler>(&mut self, server: &Server<H>) -> Result<(), Quit> {
        let spare = server.spares.begin();
        let head = self.next_head().await?;
        drop(spare);
        let (opened, ages) = match head {
            Ok(Head::Passage(passage)) => return self.pass(server, &passage).await,
            Ok(Head::Stream(request)) => {
                let opened = match self.refusal(server, &request) {
                    None => self.open(server, &request).await?,
                    Some(refused) => Err(refused),
                };
                (opened, request.age().is_some())
            }
            Err(error) => {
                let problem = Problem::new(400, "bad_head", "The request is malformed").with_detail(error.to_string());
                self.refuse(problem.into()).await?;
                return Err(Quit::Over);
            }
        };
        match opened {
            Ok(opened) => self.transfer(server, opened, ages).await,
            Err(refused) => self.refuse(refused).await,
        }
    }

    /// Waits for a head. A link may be idle for long; a head that has begun must come quickly.
    async fn next_head(&mut self) -> Result<Result<Head, HeadError>, Quit> {
        let mut deadline = None;
        loop {
            match Reader::default().next(self.inbox.bytes()) {
                Ok(Some((Piece::Head(text), taken))) => {
                    let head = Head::read(text);
                    self.inbox.take(taken);
                    return Ok(head);
                }
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return Err(Quit::Reset(ResetCode::Protocol)),
            }
            let leave = self.leave;
            if self.inbox.is_empty() {
                tokio::select! {
                    biased;
                    filled = timeout(IDLE, self.fill()) => filled.unwrap_or(Err(Quit::Over))?,
                    // Whoever has just sent one is told by this that nobody has seen it.
                    () = leave.last_call() => return Err(Quit::Reset(ResetCode::Draining)),
                }
            } else {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + HEAD);
                timeout_at(deadline, self.fill()).await.unwrap_or(Err(Quit::Over))?;
            }
        }
    }

    /// Opens a passage and copies until it ends; the link ends with it, for what a client sends after this head are not
    /// frames any more.
    async fn pass<H: StreamHandler>(&mut self, server: &Server<H>, passage: &Passage) -> Result<(), Quit> {
        let wish = PassRequest { peer: self.caller.peer, client: self.caller.address, passage };
        let passed = match self.standing() {
            None => Box::pin(server.handler.pass(wish)).await,
            Some(refused) => Err(refused),
        };
        let (reply, passed) = match passed {
            Ok(passed) => (Reply::Opened, Some(passed)),
            Err(refused) => (Reply::Refused(refused), None),
        };
        let mut reply = text_frame(Kind::Reply, &reply.write());
        let link = &mut self.link;
        let sent = async {
            poll_fn(|cx| Poll::Ready(link.send(cx, &mut reply))).await?;
            poll_fn(|cx| link.poll_flush(cx)).await
        };
        let sent = timeout(HEAD, sent).await;
        let Some(Passed { onward, control, done }) = passed else { return Err(Quit::Over) };
        let running = server.live.begin(&control, done);
        if !matches!(sent, Ok(Ok(()))) {
            running.end(EndCause::LinkLost);
            return Err(Quit::Broken);
        }
        let inbox = std::mem::take(&mut self.inbox);
        let cause = passage::carry(&mut *self.link, inbox, onward, &control).await;
        running.end(cause);
        Err(Quit::Over)
    }

    /// Why a stream is refused before the handler is asked.
    fn refusal<H>(&self, server: &Server<H>, request: &Request) -> Option<Refused> {
        // First of all: a client that is told anything else may go elsewhere with what it sent.
        if server.opened.contains(self.caller.peer.peer, request.stream()) || self.may_be_forgotten(server, request) {
            return Some(repeated());
        }
        self.standing()
    }

    /// Why nothing new may begin on this link.
    fn standing(&self) -> Option<Refused> {
        if self.leave.stop.is_cancelled() {
            let problem = Problem::new(503, "draining", "The gateway is shutting down");
            return Some(problem.with_detail("It takes no new connections. Another gateway may.").into());
        }
        if self.caller.peer.is_over(unix_now()) {
            let problem = Problem::new(401, "certificate_expired", "The device's certificate has ended");
            return Some(problem.with_detail("Connect again with a renewed certificate.").into());
        }
        None
    }

    /// Whether the stream may have been opened before this node began to remember, by the process before this one. The
    /// head was written after the link's handshake had begun, so what was first tried so long before it was not tried
    /// before this moment less that time.
    fn may_be_forgotten<H>(&self, server: &Server<H>, request: &Request) -> bool {
        let age = request.age().filter(|age| !age.is_zero());
        age.is_some_and(|age| !server.opened.reaches_back_to(self.caller.begun.checked_sub(age)))
    }

    /// Asks the handler, and holds what the client sends meanwhile.
    async fn open<H: StreamHandler>(
        &mut self,
        server: &Server<H>,
        request: &Request,
    ) -> Result<Result<Opened, Refused>, Quit> {
        let gone = CancellationToken::new();
        let wish = OpenRequest { peer: self.caller.peer, client: self.caller.address, request, gone: &gone };
        let mut opening = Box::pin(server.handler.open(wish));
        let (link, inbox) = (&mut self.link, &mut self.inbox);
        let mut quit = None;
        let opened = poll_fn(|cx| {
            if let Poll::Ready(opened) = opening.as_mut().poll(cx) {
                return Poll::Ready(opened);
            }
            if quit.is_none()
                && let Poll::Ready(why) = poll_hold(link, inbox, cx)
            {
                quit = Some(why);
                gone.cancel();
            }
            Poll::Pending
        })
        .await;
        drop(opening);
        let Ok(Opened { target, control, done }) = opened else {
            return quit.map_or(Ok(opened), Err);
        };
        let first =
            quit.is_none() && server.opened.insert(self.caller.peer.peer, request.stream(), std::time::Instant::now());
        if first {
            return Ok(Ok(Opened { target, control, done }));
        }
        let _ = socket::arm(&target);
        drop(target);
        server.live.begin(&control, done).end(EndCause::LinkLost);
        quit.map_or_else(|| Ok(Err(repeated())), Err)
    }

    /// Carries an opened stream to its end. `ages`: the client leaves it to us to refuse what may have been opened before.
    async fn transfer<H: StreamHandler>(&mut self, server: &Server<H>, opened: Opened, ages: bool) -> Result<(), Quit> {
        let Opened { target, control, done } = opened;
        let running = server.live.begin(&control, done);
        if socket::arm(&target).is_err() {
            running.end(EndCause::LocalReset);
            return Err(Quit::Reset(ResetCode::TargetReset));
        }
        let mut splice = Splice::node(&target, &mut self.link, &control, std::mem::take(&mut self.inbox));
        if ages {
            splice.answer_with_the_target();
        }
        let result = loop {
            match splice.run().await {
                Ok(Event::Opened) => {}
                Ok(Event::Done | Event::Refused(_)) => break Ok(()),
                Err(broken) => {
                    splice.answer_late();
                    break Err(broken);
                }
            }
        };
        self.inbox = splice.into_inbox();
        match result {
            Ok(()) => {
                socket::close(target);
                running.end(EndCause::Done);
                Ok(())
            }
            Err(broken) => {
                drop(target);
                let quit = broken.code(Side::Node).map_or(Quit::Broken, Quit::Reset);
                running.end(broken.into());
                Err(quit)
            }
        }
    }

    /// Says no, and reads what the client had sent ahead to its end, so that the link can be used again.
    async fn refuse(&mut self, refused: Refused) -> Result<(), Quit> {
        let mut reply = text_frame(Kind::Reply, &Reply::Refused(refused).write());
        let work = async {
            poll_fn(|cx| Poll::Ready(self.link.send(cx, &mut reply))).await.map_err(|_| Quit::Broken)?;
            poll_fn(|cx| self.link.poll_flush(cx)).await.map_err(|_| Quit::Broken)?;
            self.pass_over().await
        };
        timeout(HEAD, work).await.unwrap_or(Err(Quit::Over))
    }

    async fn pass_over(&mut self) -> Result<(), Quit> {
        let mut reader = Reader::default();
        let mut left = MOST_HELD;
        loop {
            let Ok(next) = reader.next(self.inbox.bytes()) else {
                return Err(Quit::Reset(ResetCode::Protocol));
            };
            let Some((piece, taken)) = next else {
                self.fill().await?;
                continue;
            };
            let quit = match piece {
                Piece::Data(_) if taken <= left => None,
                Piece::End => Some(Ok(())),
                Piece::Reset(_) => Some(Err(Quit::Broken)),
                _ => Some(Err(Quit::Reset(ResetCode::Protocol))),
            };
            left = left.saturating_sub(taken);
            self.inbox.take(taken);
            if let Some(quit) = quit {
                return quit;
            }
        }
    }

    /// Receives more into the inbox.
    async fn fill(&mut self) -> Result<(), Quit> {
        let (link, inbox) = (&mut self.link, &mut self.inbox);
        poll_fn(|cx| poll_fill(link, inbox, cx)).await
    }
}

fn repeated() -> Refused {
    let problem = Problem::new(409, "stream_repeated", "The connection broke while it was opened");
    problem.with_detail("What was sent first may have arrived, so it is not sent again. Connect again.").into()
}

/// Receives while a handler is asked: ready when the client is gone or sent more than it may.
fn poll_hold(link: &mut Link, inbox: &mut Inbox, cx: &mut Context<'_>) -> Poll<Quit> {
    loop {
        match poll_fill(link, inbox, cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(quit)) => return Poll::Ready(quit),
            Poll::Ready(Ok(())) if inbox.bytes().len() > MOST_HELD => {
                return Poll::Ready(Quit::Reset(ResetCode::Protocol));
            }
            Poll::Ready(Ok(())) => {}
        }
    }
}

fn poll_fill(link: &mut Link, inbox: &mut Inbox, cx: &mut Context<'_>) -> Poll<Result<(), Quit>> {
    scratch::plain(|buffer| match link.poll_recv(cx, buffer) {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => Poll::Ready(Err(Quit::Broken)),
        Poll::Ready(Ok(count)) => {
            inbox.push(buffer.get(..count).unwrap_or_default());
            Poll::Ready(Ok(()))
        }
    })
}

fn unix_now() -> UnixMillis {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
