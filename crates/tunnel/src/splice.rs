//! The loop that carries one stream: a local end on one side, a link on the other, both directions in one task.
//!
//! It owns no buffer while nothing is under way. The local end is read only when the link has taken what was read
//! before, the link only when the local end has taken what was received: that is the back-pressure.

mod inbox;

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use postern_proto::{
    frame::{
        DONE, END, FULL_DATA, FrameError, HEADER, Header, Kind, LAST, MAX_UNANSWERED, Piece, Reader, ResetCode, over,
    },
    head::{Refused, Reply},
};
use tokio::{
    net::TcpStream,
    time::{Sleep, sleep},
};

pub(crate) use self::inbox::Inbox;
use crate::{
    lanes,
    link::{Link, LinkError, SEALED},
    local_end::LocalEnd,
    scratch,
    stream::{EndCause, StreamControl},
};

/// How many pieces of data go to the local end in one call.
const SLICES: usize = 32;

/// How often data is moved before other streams have their turn: at most 512 KiB each way. The runtime's own limit of 128
/// calls would let a few busy streams hold up everybody else for tenths of a second.
const ROUNDS: u32 = 2;

/// A link opens at least so much: two records.
const LEAST_ROOM: usize = 2 * SEALED;

/// How often it is looked whether the peer is still there while nothing of what it sends is taken.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the answer waits for what the target says first. Longer than a target of the same site takes; a client that
/// has more to send than it may before the answer waits no longer than this for it.
const HELD: Duration = Duration::from_millis(10);
/// What a link may hold in the kernel when it breaks; tuned systems allow 32 MiB.
const MOST_GATHERED: usize = 64 << 20;

/// At which end of the carrier the loop runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Node,
}

/// Something that the caller has to act on. The loop goes on after [`Event::Opened`] and is over after the others.
#[derive(Debug)]
pub(crate) enum Event {
    /// The node has opened the stream.
    Opened,
    /// The node has refused the stream. The link is ready for another one.
    Refused(Refused),
    /// Both directions ended. The link is ready for another stream.
    Done,
}

/// Why a stream broke.
#[derive(Debug)]
pub(crate) enum Break {
    Local,
    Peer(ResetCode),
    Link(LinkError),
    Protocol,
    Cut(ResetCode),
}

/// What a client has sent before the reply, to send it again elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    data: Vec<u8>,
    /// The local program had ended its direction.
    ended: bool,
    /// How much room the frames took up that carried `data`.
    framed: usize,
}

impl Replay {
    pub(crate) const fn has_data(&self) -> bool {
        !self.data.is_empty()
    }
}

pub(crate) struct Splice<'a, L = TcpStream> {
    local: &'a L,
    link: &'a mut Link,
    control: &'a StreamControl,
    side: Side,
    /// The frame that goes out before everything else: `HEAD` or `REPLY`.
    opening: Option<Vec<u8>>,
    /// Client: set until the reply.
    unanswered: Option<&'a mut Replay>,
    reader: Reader,
    inbox: Inbox,
    /// The local end did not take what is in the inbox.
    blocked: bool,
    sent_end: bool,
    got_end: bool,
    /// Nothing more will be said of this stream: `DONE` by the node, or `LAST` by the client.
    done: bool,
    /// Client: what the target's system had when the node ended.
    handed: Option<u64>,
    refused: Option<Refused>,
    /// The opening is with the socket.
    announced: bool,
    /// The local end was not read before.
    unread: bool,
    /// The local end is new and was not written to before.
    unwritten: bool,
    /// Runs from when the local end took nothing, and on while it takes nothing again and again.
    patience: Option<Pin<Box<Sleep>>>,
    /// The link broke, and everything that it had is in the inbox.
    gathered: bool,
    /// Node: the answer waits for what the target says first, so long at most.
    held: Option<Pin<Box<Sleep>>>,
}

impl<'a, L: LocalEnd> Splice<'a, L> {
    /// A client's stream: `head` is the text of its `HEAD` frame, and `replay` what was sent in vain before.
    pub(crate) fn client(
        local: &'a L,
        link: &'a mut Link,
        control: &'a StreamControl,
        head: &[u8],
        replay: &'a mut Replay,
    ) -> Self {
        let mut opening = text_frame(Kind::Head, head);
        replay.framed = 0;
        if !replay.data.is_empty() {
            opening.extend(data_header(replay.data.len()));
            opening.extend_from_slice(&replay.data);
            replay.framed = HEADER + replay.data.len();
        }
        let sent_end = replay.ended;
        if sent_end {
            opening.extend(END);
        }
        let mut splice = Self::new(local, link, control, Side::Client, opening, Inbox::default());
        splice.unanswered = Some(replay);
        splice.sent_end = sent_end;
        splice
    }

    /// A node's stream: the reply goes out first, and before it is with the socket nothing goes to the target, unless
    /// [`Splice::answer_with_the_target`] is called. `inbox` holds what the client sent ahead.
    pub(crate) fn node(local: &'a L, link: &'a mut Link, control: &'a StreamControl, inbox: Inbox) -> Self {
        let opening = text_frame(Kind::Reply, &Reply::Opened.write());
        let mut splice = Self::new(local, link, control, Side::Node, opening, inbox);
        splice.blocked = true;
        splice
    }

    /// Has the answer travel with what the target says to what the client has sent ahead, when that comes soon: one
    /// packet less that wakes the client. Only for a client that says how old its stream is (decision 0008).
    pub(crate) fn answer_with_the_target(&mut self) {
        if !self.inbox.is_empty() {
            self.held = Some(Box::pin(sleep(HELD)));
        }
    }

    fn new(
        local: &'a L,
        link: &'a mut Link,
        control: &'a StreamControl,
        side: Side,
        opening: Vec<u8>,
        inbox: Inbox,
    ) -> Self {
        lanes::stir();
        Self {
            local,
            link,
            control,
            side,
            opening: Some(opening),
            unanswered: None,
            reader: Reader::default(),
            inbox,
            blocked: false,
            sent_end: false,
            got_end: false,
            done: false,
            handed: None,
            refused: None,
            announced: false,
            // What a client's program says at once goes out with the head.
            unread: side == Side::Client,
            unwritten: side == Side::Node,
            patience: None,
            gathered: false,
            held: None,
        }
    }

    /// Runs until there is something to act on.
    pub(crate) async fn run(&mut self) -> Result<Event, Break> {
        let mut broken = pin!(self.local.broken());
        let mut lost = pin!(self.link.broken());
        std::future::poll_fn(|cx| {
            let result = self.poll(cx);
            // While the local end is not read, an error is the only sign that its program broke off.
            if result.is_pending() && !self.reads_local() && broken.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Break::Local));
            }
            // While the link is not read, neither is its end.
            if result.is_pending() && self.blocked && self.announced && !self.gathered {
                if lost.as_mut().poll(cx).is_ready() {
                    return self.gather(cx).map(Err);
                }
                // Once our direction has ended all of the stream may be on its way to us, out of a process that has done its
                // work: a probe would have its system throw that away.
                if !self.sent_end
                    && let Poll::Ready(Err(error)) = self.poll_patience(cx)
                {
                    return Poll::Ready(Err(error.into()));
                }
            }
            // The other end does as is done above, while it takes nothing; and we would see it.
            self.link.expect_beats(result.is_pending() && self.announced && !self.got_end && !self.blocked);
            result
        })
        .await
    }

    /// Asks for a sign of the peer now and then while the local end takes nothing.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
            ready!(patience.as_mut().poll(cx));
            self.patience = None;
            // What waits to be sent asks as well.
            if self.link.is_flushed() {
                self.link.probe(cx)?;
            }
        }
    }

    /// Takes everything that a broken link had received. When that is all of the stream, its program still gets it;
    /// otherwise nothing more will come, and it is told at once.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<Break> {
        self.gathered = true;
        let mut inbox = std::mem::take(&mut self.inbox);
        let error = loop {
            let received = scratch::plain(|buffer| {
                let received = self.link.poll_recv(cx, buffer);
                if let Poll::Ready(Ok(count)) = received {
                    inbox.push(buffer.get(..count).unwrap_or_default());
                }
                received
            });
            match received {
                Poll::Ready(Ok(count)) if count > 0 && inbox.bytes().len() < MOST_GATHERED => {}
                Poll::Ready(Err(error)) => break error,
                _ => break LinkError::Closed(io::ErrorKind::ConnectionReset.into()),
            }
        };
        self.inbox = inbox;
        if self.side == Side::Client && self.sent_end && self.holds_done() {
            Poll::Pending
        } else {
            Poll::Ready(Break::Link(error))
        }
    }

    /// Whether the end of the whole stream is in the inbox.
    fn holds_done(&self) -> bool {
        let (mut reader, mut at) = (self.reader, 0);
        loop {
            match reader.next(self.inbox.bytes().get(at..).unwrap_or_default()) {
                Ok(Some((Piece::Done, _))) => return true,
                Ok(Some((_, taken))) => at += taken,
                Ok(None) | Err(_) => return false,
            }
        }
    }

    /// Gives the answer that was held back after all: without it a client takes what comes next to be about the stream
    /// before.
    pub(crate) fn answer_late(&mut self) {
        if let Some(mut opening) = self.opening.take() {
            let _ = self.link.send(&mut Context::from_waker(std::task::Waker::noop()), &mut opening);
        }
    }

    /// Client: whether the node has answered. What it says before that is about the stream before this one.
    pub(crate) const fn is_answered(&self) -> bool {
        self.unanswered.is_none()
    }

    /// What was received beyond the end of this stream.
    pub(crate) fn into_inbox(self) -> Inbox {
        self.inbox
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Break>> {
        self.control.register(cx.waker());
        if self.held.as_mut().is_some_and(|held| held.as_mut().poll(cx).is_ready()) {
            self.held = None;
        }
        for _ in 0..ROUNDS {
            if let Some(code) = self.control.cut_code() {
                return Poll::Ready(Err(Break::Cut(code)));
            }
            let unanswered = self.unanswered.is_some();
            let sent = self.send(cx);
            let received = match &sent {
                // The peer may have said why before it closed.
                Err(Break::Link(_)) => self.receive_all(cx)?,
                Err(_) => false,
                Ok(_) => self.receive(cx)?,
            };
            if let Some(refused) = self.refused.take() {
                return Poll::Ready(self.after_refusal(cx, refused));
            }
            let sent = sent?;
            if self.blocked && self.held.take().is_some() {
                continue;
            }
            if unanswered && self.unanswered.is_none() {
                return Poll::Ready(Ok(Event::Opened));
            }
            if self.is_over() {
                return Poll::Ready(Ok(Event::Done));
            }
            if !sent && !received {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_over(&self) -> bool {
        self.done && self.link.is_flushed()
    }

    /// Whether everything of this stream was received; what follows belongs to the next one.
    const fn is_received(&self) -> bool {
        match self.side {
            Side::Client => self.done,
            Side::Node => self.got_end && self.sent_end,
        }
    }

    /// Whether the node has to say that it is done with the stream.
    fn owes_done(&self) -> bool {
        self.side == Side::Node && self.sent_end && self.got_end && !self.done
    }

    fn reads_local(&self) -> bool {
        !self.sent_end && self.link.is_flushed() && self.room() > 0
    }

    /// Local end to link. True when something moved.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<bool, Break> {
        let mut moved = false;
        if !self.link.is_flushed() {
            match self.link.poll_flush(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Ok(false),
            }
            self.announced = true;
            moved = true;
        }
        if self.opening.is_none() && (self.sent_end || self.room() == 0) && !self.owes_done() {
            return Ok(moved);
        }
        let filled = scratch::local(|buffer| -> Result<usize, Break> {
            let mut filled = 0;
            if let Some(opening) = &self.opening {
                filled = put(buffer, 0, opening);
            }
            let read = self.read_local(cx, buffer.get_mut(filled..).unwrap_or_default())?;
            if read == 0 && self.held.is_some() {
                return Ok(0);
            }
            filled += read;
            (self.opening, self.held) = (None, None);
            if self.owes_done() {
                filled += put(buffer, filled, &DONE);
                self.done = true;
            }
            if filled > 0 {
                self.link.send(cx, buffer.get_mut(..filled).unwrap_or_default())?;
            }
            Ok(filled)
        })?;
        self.announced |= self.link.is_flushed();
        Ok(moved || filled > 0)
    }

    /// Reads the local end into a frame at the front of `buffer`; how long the frame is.
    fn read_local(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Result<usize, Break> {
        let room = self.room();
        if self.sent_end || room == 0 {
            return Ok(0);
        }
        let Some(space) = buffer.get_mut(HEADER..HEADER + room) else {
            return Ok(0);
        };
        let read = if std::mem::take(&mut self.unread) {
            self.local.poll_first_read(cx, space)
        } else {
            self.local.poll_read(cx, space)
        };
        let mut count = match read {
            Poll::Ready(result) => result.map_err(|_| Break::Local)?,
            Poll::Pending => return Ok(0),
        };
        if count == 0 {
            return Ok(self.end(buffer, 0));
        }
        let mut ended = false;
        if (self.held.is_some() || (self.side == Side::Node && self.control.down() == 0))
            && let Some(rest) = space.get_mut(count..).filter(|rest| !rest.is_empty())
            // What says all at once often ends at once, too: then that travels with it.
            && let Poll::Ready(more) = self.local.poll_first_read(cx, rest)
        {
            let more = more.map_err(|_| Break::Local)?;
            count += more;
            ended = more == 0;
        }
        if let (Some(replay), Some(data)) = (&mut self.unanswered, space.get(..count)) {
            replay.data.extend_from_slice(data);
            replay.framed += HEADER + count;
        }
        match self.side {
            Side::Client => self.control.count_up(count),
            Side::Node => self.control.count_down(count),
        }
        put(buffer, 0, &data_header(count));
        let filled = HEADER + count;
        Ok(filled + if ended { self.end(buffer, filled) } else { 0 })
    }

    /// Ends our direction with a frame at `at`; how long that is.
    fn end(&mut self, buffer: &mut [u8], at: usize) -> usize {
        self.sent_end = true;
        if let Some(replay) = &mut self.unanswered {
            replay.ended = true;
        }
        match self.side {
            Side::Node if !self.got_end => put(buffer, at, &over(self.control.up())),
            Side::Client if self.handed == Some(self.control.up()) => {
                self.done = true;
                put(buffer, at, &LAST)
            }
            _ => put(buffer, at, &END),
        }
    }

    /// How many bytes the next frame may hold.
    fn room(&self) -> usize {
        match &self.unanswered {
            Some(replay) => MAX_UNANSWERED.saturating_sub(replay.framed + HEADER),
            None => FULL_DATA,
        }
    }

    /// Link to local end. True when something moved.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<bool, Break> {
        if !(self.announced || self.held.is_some()) || self.is_received() {
            return Ok(false);
        }
        let mut moved = false;
        if self.blocked {
            let mut inbox = std::mem::take(&mut self.inbox);
            let taken = self.deliver(cx, inbox.bytes())?;
            inbox.take(taken);
            self.inbox = inbox;
            moved = taken > 0;
            if self.blocked || self.is_received() {
                return Ok(moved);
            }
        }
        let Poll::Ready(room) = self.poll_room(cx) else {
            self.blocked = true;
            return Ok(moved);
        };
        let received = scratch::plain(|buffer| -> Result<bool, Break> {
            let kept = put(buffer, 0, self.inbox.bytes());
            let end = kept.saturating_add(room).min(buffer.len());
            let count = match self.link.poll_recv(cx, buffer.get_mut(kept..end).unwrap_or_default()) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Ok(false),
            };
            if count == 0 {
                return Err(Break::Link(LinkError::Closed(io::ErrorKind::UnexpectedEof.into())));
            }
            // The client goes on, and needs room for that.
            self.held = None;
            let input = buffer.get(..kept + count).unwrap_or_default();
            let taken = self.deliver(cx, input)?;
            self.inbox = Inbox::new(input.get(taken..).unwrap_or_default());
            Ok(true)
        })?;
        Ok(moved || received)
    }

    /// How much to receive at once: what the local end does not take must be copied and kept. Before the reply and after
    /// the end nothing comes for the local end.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.unanswered.is_some() || self.got_end {
            return Poll::Ready(usize::MAX);
        }
        self.local.poll_room(cx).map(|room| room.max(LEAST_ROOM))
    }

    fn receive_all(&mut self, cx: &mut Context<'_>) -> Result<bool, Break> {
        let mut moved = false;
        while self.refused.is_none() && self.receive(cx)? {
            moved = true;
        }
        Ok(moved)
    }

    /// Passes on what stands at the front of `input`, and says how much of it that was.
    fn deliver(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Result<usize, Break> {
        self.blocked = false;
        let mut at = 0;
        // A node that refuses the stream may say at once that it leaves; the refusal is what the stream is told.
        while !self.is_received() && self.refused.is_none() {
            let rest = input.get(at..).unwrap_or_default();
            let mut slices = [IoSlice::new(&[]); SLICES];
            let (count, other) = look_ahead(self.reader, rest, &mut slices)?;
            if let Some(data) = slices.get(..count).filter(|data| !data.is_empty()) {
                if self.got_end || self.unanswered.is_some() {
                    return Err(Break::Protocol);
                }
                let written = if std::mem::take(&mut self.unwritten) {
                    self.local.poll_first_write(cx, data)
                } else {
                    self.local.poll_write(cx, data)
                };
                let Poll::Ready(written) = written else {
                    self.blocked = true;
                    break;
                };
                let written = written.map_err(|_| Break::Local)?;
                match self.side {
                    Side::Client => self.control.count_down(written),
                    Side::Node => self.control.count_up(written),
                }
                at += self.reader.advance(rest, written)?;
            } else if let Some((piece, taken)) = other {
                self.accept(piece)?;
                at += taken;
            } else {
                break;
            }
        }
        Ok(at)
    }

    /// Takes a piece that is not data.
    fn accept(&mut self, piece: Piece<'_>) -> Result<(), Break> {
        match piece {
            Piece::Reset(code) => Err(Break::Peer(code)),
            Piece::End if !self.got_end && self.unanswered.is_none() => {
                self.got_end = true;
                self.local.end_writing();
                Ok(())
            }
            Piece::Over(handed) if self.side == Side::Client && !self.got_end && self.unanswered.is_none() => {
                self.got_end = true;
                self.handed = Some(handed);
                self.local.end_writing();
                Ok(())
            }
            // Nothing is on its way to the target that it could still break off from.
            Piece::Last if self.side == Side::Node && self.sent_end && !self.got_end => {
                self.got_end = true;
                self.done = true;
                self.local.end_writing();
                Ok(())
            }
            Piece::Done if self.side == Side::Client && self.sent_end && self.got_end => {
                self.done = true;
                Ok(())
            }
            Piece::Reply(text) if !self.got_end => {
                let replay = self.unanswered.take().ok_or(Break::Protocol)?;
                match Reply::read(text).map_err(|_| Break::Protocol)? {
                    Reply::Opened => *replay = Replay::default(),
                    Reply::Refused(refused) => {
                        self.got_end = true;
                        self.refused = Some(refused);
                    }
                }
                Ok(())
            }
            _ => Err(Break::Protocol),
        }
    }

    /// Ends our direction of a refused stream, so that the link may carry another one.
    fn after_refusal(&mut self, cx: &mut Context<'_>, refused: Refused) -> Result<Event, Break> {
        if !self.sent_end {
            self.sent_end = true;
            let _ = self.link.send(cx, &mut END.to_vec());
        }
        Ok(Event::Refused(refused))
    }
}

impl Break {
    /// The code that tells the peer, when it can still be told.
    pub(crate) const fn code(&self, side: Side) -> Option<ResetCode> {
        match (self, side) {
            (Self::Local, Side::Client) => Some(ResetCode::ClientReset),
            (Self::Local, Side::Node) => Some(ResetCode::TargetReset),
            (Self::Protocol, _) => Some(ResetCode::Protocol),
            (Self::Cut(code), _) => Some(*code),
            (Self::Peer(_) | Self::Link(_), _) => None,
        }
    }
}

impl From<Break> for EndCause {
    fn from(broken: Break) -> Self {
        match broken {
            Break::Local => Self::LocalReset,
            Break::Peer(code) => Self::PeerReset(code),
            Break::Link(LinkError::Closed(_)) => Self::LinkLost,
            Break::Link(LinkError::Tls(_) | LinkError::Record(_)) | Break::Protocol => Self::Protocol,
            Break::Cut(code) => Self::Cut(code),
        }
    }
}

impl From<LinkError> for Break {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<FrameError> for Break {
    fn from(_: FrameError) -> Self {
        Self::Protocol
    }
}

/// The data at the front of `input`, as slices, and the first piece after it that is not data.
fn look_ahead<'i>(
    mut reader: Reader,
    input: &'i [u8],
    slices: &mut [IoSlice<'i>],
) -> Result<(usize, Option<(Piece<'i>, usize)>), FrameError> {
    let mut at = 0;
    for (count, slice) in slices.iter_mut().enumerate() {
        match reader.next(input.get(at..).unwrap_or_default())? {
            Some((Piece::Data(data), taken)) => {
                *slice = IoSlice::new(data);
                at += taken;
            }
            other => return Ok((count, other)),
        }
    }
    Ok((slices.len(), None))
}

/// A frame of text. The texts that are written here fit into one.
pub(crate) fn text_frame(kind: Kind, text: &[u8]) -> Vec<u8> {
    let mut frame = Header::new(kind, text.len()).map(Header::write).unwrap_or_default().to_vec();
    frame.extend_from_slice(text);
    frame
}

fn data_header(length: usize) -> [u8; HEADER] {
    Header::new(Kind::Data, length).map(Header::write).unwrap_or_default()
}

/// Copies `bytes` to `at`, and says how long they are. The buffers are made large enough for all that is put there.
fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    match buffer.get_mut(at..at + bytes.len()) {
        Some(space) => {
            space.copy_from_slice(bytes);
            bytes.len()
        }
        None => 0,
    }
}
