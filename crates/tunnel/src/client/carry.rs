//! Carrying one local connection: find a connection, open the stream with the first bytes in the same flight, send them
//! again elsewhere when that did not work, and copy until the end.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use postern_proto::{
    frame::ResetCode,
    head::{Refused, Request},
    id::NodeId,
    problem::Problem,
};
use tokio::time::timeout;

use super::{Attempt, DialError, Entry, Failure, StreamGuide, pool::Warm};
use crate::{
    link::LinkError,
    local_end::LocalEnd,
    splice::{Break, Event, Replay, Side, Splice},
    stream::{EndCause, StreamControl, StreamEnd},
};

/// No stream is tried more often, whatever the guide says.
const MOST_ATTEMPTS: u32 = 12;
/// How often a connection may close without an answer while bytes are under way.
const MOST_LOSSES: u32 = 4;
/// A node dials for up to 10 s before it answers; one that says nothing for this long is not waited for.
const REPLY_DEADLINE: Duration = Duration::from_secs(30);

/// Carries `local` to the resource that the guide's requests name, until both sides are done or it breaks.
///
/// The local program is reset whenever anything but an orderly end happened, so that a truncated transfer never looks
/// complete. Every byte it sends goes to the target once, whatever attempts were needed: bytes are sent again only when
/// the node refused the stream, or its connection closed without an answer. A node hands its answer to TCP before it
/// writes to the target, so an answer that was given comes before the close; but a balancer in between may have lost it.
/// So once bytes are under way, the same node is asked again and nobody else: it refuses to open one stream twice. For
/// that the guide's requests carry one identifier for all attempts of a stream, and another one for every stream.
pub async fn carry(local: impl LocalEnd, mut guide: impl StreamGuide, control: StreamControl) -> StreamEnd {
    if local.arm().is_err() {
        return control.end(EndCause::LocalReset);
    }
    let mut opening = Opening::default();
    let cause = loop {
        let (warm, entry, request) = match Box::pin(opening.prepare(&local, &mut guide, &control)).await {
            Ok(prepared) => prepared,
            Err(cause) => break cause,
        };
        let node = warm.node;
        let again = match transfer(&local, warm, &entry, &request, &mut opening.replay, &control).await {
            Ok(()) => break EndCause::Done,
            Err(Stop::Ended(cause)) => break cause,
            Err(Stop::Refused(refused)) => {
                if refused.problem.status == 503 {
                    // Another one may take it; this one would be asked first on its other connections.
                    entry.rest_at(node);
                }
                opening.on_refused(entry, refused)
            }
            Err(Stop::Unanswered) => {
                entry.distrust(node);
                opening.on_lost((entry, request, node))
            }
            Err(Stop::Unseen) => opening.on_lost((entry, request, node)),
            Err(Stop::Silent) => {
                entry.distrust(node);
                opening.on_silent(entry)
            }
            Err(Stop::Unwelcome(error)) => {
                opening.on_unwelcome(entry, error);
                Ok(())
            }
        };
        if let Err(cause) = again {
            break cause;
        }
    };
    if cause == EndCause::Done {
        local.close();
    } else {
        local.reset();
    }
    control.end(cause)
}

/// Why a transfer stopped.
enum Stop {
    Ended(EndCause),
    Refused(Refused),
    /// The connection closed before anything came back.
    Unanswered,
    /// The node broke the stream before this one off, and with it the connection, before it saw the head.
    Unseen,
    /// The node's machine is not heard any more, and has not answered: it may have opened the stream.
    Silent,
    /// The node did not accept the client's certificate; a client learns that only after its handshake.
    Unwelcome(rustls::Error),
}

/// Where a stream was tried, with which head, and which node answered there, if that could be one of several.
type Asked = (Arc<Entry>, Request, Option<NodeId>);

/// What is remembered over the attempts of one stream.
#[derive(Default)]
struct Opening {
    replay: Replay,
    attempts: u32,
    failure: Option<Failure>,
    /// A connection closed without an answer: the same node is asked again before the guide is. It knows whether it had
    /// opened the stream.
    again: Option<Asked>,
    losses: u32,
    /// When what is under way was first sent.
    begun: Option<Moment>,
    renewed: bool,
    rerouted: bool,
}

impl Opening {
    /// A connection and a head for the next attempt.
    async fn prepare(
        &mut self,
        local: &impl LocalEnd,
        guide: &mut impl StreamGuide,
        control: &StreamControl,
    ) -> Result<(Warm, Arc<Entry>, Request), EndCause> {
        tokio::select! {
            prepared = self.find(guide) => prepared,
            () = local.broken() => Err(EndCause::LocalReset),
            code = control.cutting() => Err(EndCause::Cut(code)),
        }
    }

    async fn find(&mut self, guide: &mut impl StreamGuide) -> Result<(Warm, Arc<Entry>, Request), EndCause> {
        let refused = |problem| EndCause::Refused(Box::new(problem));
        loop {
            let (entry, request, connection) = if let Some((entry, request, node)) = self.again.take() {
                let connection = if self.replay.has_data() {
                    // Another worker does not know whether the stream was opened.
                    Ok(entry.fresh_to(node).await.map_err(|_| EndCause::LinkLost)?)
                } else {
                    entry.fresh().await
                };
                (entry, request, connection)
            } else {
                if self.attempts >= MOST_ATTEMPTS {
                    return Err(refused(self.failure.as_ref().map_or_else(no_gateway, Failure::problem)));
                }
                let number = self.attempts;
                self.attempts += 1;
                let attempt = guide.next_attempt(number, self.failure.as_ref()).await;
                let Attempt { entry, request } = attempt.map_err(refused)?;
                let connection = entry.connection().await;
                (entry, request, connection)
            };
            match connection {
                Ok(warm) => {
                    guide.connected(warm.node);
                    // Whoever removes a worker cuts the streams that are known to run over it then. This one is known now.
                    if entry.is_removed(warm.node) {
                        if self.losses > 0 && self.replay.has_data() {
                            // Elsewhere the bytes might arrive a second time.
                            return Err(EndCause::LinkLost);
                        }
                        let error = DialError::Removed { address: entry.address().to_owned() };
                        self.failure = Some(Failure::Dial { entry, error });
                        continue;
                    }
                    // Only now: the node counts from when it took the connection.
                    return Ok((warm, entry, request.aged(self.age())));
                }
                Err(error) => self.failure = Some(Failure::Dial { entry, error }),
            }
        }
    }

    /// How long ago what is sent now was first sent.
    fn age(&mut self) -> Duration {
        match self.begun.filter(|_| self.replay.has_data()) {
            Some(begun) => begun.elapsed(),
            None => {
                self.begun = Some(Moment::now());
                Duration::ZERO
            }
        }
    }

    /// Whether another attempt may help; the problem is the end otherwise.
    fn on_refused(&mut self, entry: Arc<Entry>, refused: Refused) -> Result<(), EndCause> {
        let again = match refused.problem.status {
            401 => !std::mem::replace(&mut self.renewed, true),
            421 => !std::mem::replace(&mut self.rerouted, true),
            503 => true,
            _ => false,
        };
        if !again {
            return Err(EndCause::Refused(Box::new(refused.problem)));
        }
        self.failure = Some(Failure::Refused { entry, refused });
        // Nobody has got any of it.
        self.begun = None;
        Ok(())
    }

    fn on_lost(&mut self, asked: Asked) -> Result<(), EndCause> {
        self.losses += 1;
        match self.losses {
            1 => self.again = Some(asked),
            // Elsewhere the bytes might arrive a second time.
            2..MOST_LOSSES if self.replay.has_data() => self.again = Some(asked),
            _ if self.replay.has_data() => return Err(EndCause::LinkLost),
            _ => self.failure = Some(Failure::Lost { entry: asked.0 }),
        }
        Ok(())
    }

    /// With nothing under way another way is tried. Otherwise the same node would have to be asked, which is out of reach.
    fn on_silent(&mut self, entry: Arc<Entry>) -> Result<(), EndCause> {
        if self.replay.has_data() {
            return Err(EndCause::LinkLost);
        }
        let error = DialError::TimedOut { address: entry.address().to_owned() };
        self.failure = Some(Failure::Dial { entry, error });
        Ok(())
    }

    fn on_unwelcome(&mut self, entry: Arc<Entry>, error: rustls::Error) {
        let error = DialError::Handshake { address: entry.address().to_owned(), source: io::Error::other(error) };
        self.failure = Some(Failure::Dial { entry, error });
    }
}

/// A reading of two clocks: one stands still while the machine sleeps, the other may be set.
#[derive(Clone, Copy)]
struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// The longer of the two times since then.
    fn elapsed(self) -> Duration {
        self.steady.elapsed().max(self.wall.elapsed().unwrap_or_default())
    }
}

/// Runs one attempt on one connection, to the end of the stream when it is opened.
async fn transfer(
    local: &impl LocalEnd,
    mut warm: Warm,
    entry: &Arc<Entry>,
    request: &Request,
    replay: &mut Replay,
    control: &StreamControl,
) -> Result<(), Stop> {
    let mut splice = Splice::client(local, &mut warm.link, control, &request.write(), replay);
    let (mut answered, mut waited) = (false, false);
    let result = loop {
        let event = if answered {
            splice.run().await
        } else {
            timeout(REPLY_DEADLINE, splice.run()).await.unwrap_or_else(|_| {
                waited = true;
                Err(silence())
            })
        };
        match event {
            Ok(Event::Opened) => {
                answered = true;
                if local.opened().is_err() {
                    break Err(Break::Local);
                }
            }
            other => break other,
        }
    };
    answered |= splice.is_answered();
    let clean = splice.into_inbox().is_empty();
    match result {
        Ok(event) => {
            if clean && warm.link.is_flushed() {
                entry.give_back(warm);
            }
            match event {
                Event::Refused(refused) => Err(Stop::Refused(refused)),
                Event::Opened | Event::Done => Ok(()),
            }
        }
        Err(Break::Link(LinkError::Closed(error))) if !answered && proves_unanswered(&error) => Err(Stop::Unanswered),
        Err(Break::Link(LinkError::Closed(error)))
            if error.kind() == io::ErrorKind::TimedOut && !answered && !waited =>
        {
            Err(Stop::Silent)
        }
        // It says so where it waited for a head, so it has not seen this one.
        Err(Break::Peer(ResetCode::Draining)) if !answered => Err(Stop::Refused(leaves())),
        Err(Break::Peer(_)) if !answered => Err(Stop::Unseen),
        Err(Break::Link(LinkError::Tls(error @ rustls::Error::AlertReceived(_)))) if !answered => {
            Err(Stop::Unwelcome(error))
        }
        Err(broken) => {
            if matches!(&broken, Break::Link(LinkError::Closed(error)) if error.kind() == io::ErrorKind::TimedOut) {
                // What stands idle there leads nowhere either.
                entry.distrust(warm.node);
            }
            if let Some(code) = broken.code(Side::Client) {
                warm.link.reset(code);
            }
            Err(Stop::Ended(broken.into()))
        }
    }
}

/// Whether the connection closed in a way that shows that the node never opened the stream. Silence does not: the node
/// may have opened it and the answer is still on its way.
fn proves_unanswered(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
}

fn silence() -> Break {
    Break::Link(LinkError::Closed(io::ErrorKind::TimedOut.into()))
}

/// What a node that stops would have said.
fn leaves() -> Refused {
    Problem::new(503, "draining", "The gateway takes no new connections").into()
}

fn no_gateway() -> Problem {
    Problem::new(503, "no_gateway", "No gateway took the connection")
}
