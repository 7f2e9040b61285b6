//! One authenticated TLS connection between a client and a node.
//!
//! rustls makes the handshake; afterwards a link seals and opens the records itself, with the keys that rustls derived
//! (its interface for kernel TLS). What the socket has is read in one call into a buffer of the thread, and what is
//! written goes out in one call from where it was sealed. A link holds no buffer of its own while it is idle: two cipher
//! contexts and what it needs to renew its keys.

mod handshake;
mod record;
mod through;

use std::{
    future::pending,
    io::{self, IoSlice},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use postern_proto::frame::ResetCode;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ExtractedSecrets, client::ClientConnectionData,
    kernel::KernelConnection, server::ServerConnectionData,
};
use tokio::{
    io::Interest,
    net::TcpStream,
    runtime::{Handle, Id},
};

use self::record::{Content, FULL, HEADER, Key, TAIL};
pub(crate) use self::{
    handshake::{Established, Transport, accept, connect},
    record::{RecordError, SEALED},
    through::{Declined, Through},
};
use crate::{scratch, socket, splice::Inbox, vigil::Watch, web::WebSocket};

/// Keys that a peer may renew without sending any data between.
const MOST_RENEWALS: u32 = 32;
/// The type of the message with which a server offers to resume a session.
const NEW_SESSION_TICKET: u8 = 4;
/// The `key_update` message without a wish for the peer's.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
/// Records sealed and written in one go.
const RECORDS: usize = 20;

pub(crate) struct Link {
    wire: Wire,
    /// Where the other machine may vanish without a sign, and no link below looks after that.
    watch: Option<Arc<Watch>>,
    /// The runtime that tells of what the socket is ready for.
    home: Id,
    sealing: Key,
    opening: Key,
    renewal: Renewal,
    /// Sealing keys are renewed after so many records.
    limit: u64,
    renewed: u32,
    /// Sealed, and not taken by the socket yet.
    unsent: Inbox,
    /// Received, and not opened yet: less than a record.
    unread: Inbox,
    end: End,
    said_goodbye: bool,
}

/// How far the incoming side has come to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// The peer said goodbye.
    Orderly,
}

/// What carries the TLS bytes.
pub(crate) enum Wire {
    Tcp(Arc<TcpStream>),
    Through(Box<Through>),
    Web(Box<WebSocket>),
}

/// What rustls keeps to derive the next keys.
pub(crate) enum Renewal {
    Client(Box<KernelConnection<ClientConnectionData>>),
    Server(Box<KernelConnection<ServerConnectionData>>),
}

/// Why a link is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The peer closed it, or it broke.
    #[error("the connection closed")]
    Closed(#[from] io::Error),
    #[error("the peer broke the TLS protocol")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Link {
    /// `received` came after the handshake.
    fn new(wire: Wire, secrets: ExtractedSecrets, renewal: Renewal, received: &[u8]) -> Result<Self, LinkError> {
        let watch = if wire.link().is_some() { None } else { Watch::of(wire.socket()) };
        Ok(Self {
            wire,
            watch,
            home: Handle::current().id(),
            sealing: Key::new(secrets.tx)?,
            opening: Key::new(secrets.rx)?,
            limit: renewal.limit(),
            renewal,
            renewed: 0,
            unsent: Inbox::default(),
            unread: Inbox::new(received),
            end: End::Open,
            said_goodbye: false,
        })
    }

    /// Seals `plain` where it lies and writes what the socket takes at once; the rest waits for [`Link::poll_flush`]. At
    /// most [`RECORDS`] full records; the content of `plain` is undefined afterwards.
    pub(crate) fn send(&mut self, cx: &mut Context<'_>, plain: &mut [u8]) -> Result<(), LinkError> {
        if self.sealing.records() >= self.limit {
            self.renew_sealing()?;
        }
        // Between two texts stand the tail of the first and the header of the second.
        let mut between = [[0; TAIL + HEADER]; RECORDS + 1];
        let mut count = 0;
        for text in plain.chunks_mut(FULL) {
            let (header, tail) = self.sealing.seal(Content::Data, text)?;
            let Some([before, after, ..]) = between.get_mut(count..) else {
                return Err(RecordError::BadHeader.into());
            };
            put(before, TAIL, &header);
            put(after, 0, &tail);
            count += 1;
        }
        let mut slices = [IoSlice::new(&[]); 2 * RECORDS + 1];
        let mut used = 0;
        let texts = plain.chunks(FULL).map(Some).chain([None]);
        for (index, (edge, text)) in between.iter().zip(texts).enumerate() {
            let from = if index == 0 { TAIL } else { 0 };
            let to = if index == count { TAIL } else { TAIL + HEADER };
            for part in [edge.get(from..to), text].into_iter().flatten() {
                if let Some(slice) = slices.get_mut(used) {
                    *slice = IoSlice::new(part);
                    used += 1;
                }
            }
        }
        self.write(cx, slices.get(..used).unwrap_or_default())
    }

    /// Whether everything that was sent is with the socket.
    pub(crate) fn is_flushed(&self) -> bool {
        self.unsent.is_empty() && self.wire.is_flushed()
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while !self.unsent.is_empty() {
            let Poll::Ready(written) = self.wire.poll_write(cx, &[IoSlice::new(self.unsent.bytes())]) else {
                return self.pending(cx);
            };
            let written = written?;
            self.stir();
            if written == 0 {
                return Poll::Ready(Err(LinkError::Closed(io::ErrorKind::WriteZero.into())));
            }
            self.unsent.take(written);
        }
        self.wire.poll_flush(cx).map_err(LinkError::Closed)
    }

    /// Opens into `plain` until the socket has no more or `plain` is nearly full; `plain` has room for two records. Zero
    /// means that the peer closed the connection in an orderly way.
    pub(crate) fn poll_recv(&mut self, cx: &mut Context<'_>, plain: &mut [u8]) -> Poll<Result<usize, LinkError>> {
        scratch::wire(|wire| {
            let mut received = put(wire, 0, self.unread.bytes());
            self.unread = Inbox::default();
            let result = self.fill(cx, wire, &mut received, plain);
            self.unread = Inbox::new(wire.get(..received).unwrap_or_default());
            if result.is_pending() { self.pending(cx) } else { result }
        })
    }

    /// Completes when the connection broke, or its other end is silent. Its end, and what had arrived before, is found by
    /// receiving only.
    pub(crate) fn broken(&self) -> impl Future<Output = ()> + use<> {
        let (stream, watch) = (Arc::clone(self.socket()), self.watch().cloned());
        async move {
            let error = async {
                if stream.ready(Interest::ERROR).await.is_err() {
                    pending::<()>().await;
                }
            };
            let silent = std::future::poll_fn(|cx| match &watch {
                Some(watch) => {
                    watch.register(cx.waker());
                    if watch.is_lost() { Poll::Ready(()) } else { Poll::Pending }
                }
                None => Poll::Pending,
            });
            tokio::select! {
                () = error => {}
                () = silent => {}
            }
        }
    }

    /// Whether the other end gives a sign now and then even while it takes nothing, and it is seen when it does not.
    pub(crate) fn expect_beats(&self, beats: bool) {
        if let Some(watch) = self.watch() {
            watch.expect_beats(beats);
        }
    }

    /// That of the link that it goes through, where it does.
    fn watch(&self) -> Option<&Arc<Watch>> {
        self.wire.link().map_or(self.watch.as_ref(), Self::watch)
    }

    fn stir(&self) {
        if let Some(watch) = &self.watch {
            watch.stir();
        }
    }

    /// Nothing can be done now; and never again once the other end is silent.
    fn pending<T>(&self, cx: &mut Context<'_>) -> Poll<Result<T, LinkError>> {
        let Some(watch) = &self.watch else { return Poll::Pending };
        watch.register(cx.waker());
        if watch.is_lost() {
            return Poll::Ready(Err(LinkError::Closed(io::ErrorKind::TimedOut.into())));
        }
        Poll::Pending
    }

    /// The socket under it, and under the link that it goes through.
    fn socket(&self) -> &Arc<TcpStream> {
        self.wire.socket()
    }

    /// Sends a record that holds nothing, which a peer passes over. That of a process that has ended resets the connection
    /// for it, while it would not say anything by itself before what it had sent is taken.
    pub(crate) fn probe(&mut self, cx: &mut Context<'_>) -> Result<(), LinkError> {
        self.send_other(Content::Data, [])?;
        self.try_flush(cx)
    }

    /// Whether an idle link may take a stream: nothing has come and it has not ended. A link that has something to say
    /// while no stream is on it says that it closes.
    pub(crate) fn is_alive(&mut self) -> bool {
        let heard = self.watch.as_ref().is_none_or(|watch| !watch.is_lost());
        self.end == End::Open && heard && self.is_flushed() && self.unread.is_empty() && self.wire.is_quiet()
    }

    /// Whether the runtime that this is called in tells of what the socket is ready for.
    pub(crate) fn is_at_home(&self) -> bool {
        self.home == Handle::current().id()
    }

    /// Has the runtime that this is called in tell of what the socket is ready for: otherwise every packet would wake a
    /// thread of another runtime first, and nothing would any more once that one has ended. Two system calls.
    pub(crate) fn bring_home(&mut self) -> io::Result<()> {
        if !self.is_at_home() {
            self.wire.register_here()?;
            self.home = Handle::current().id();
        }
        Ok(())
    }

    /// Tells the peer why the stream is broken off and closes, without waiting: when the socket is full, the peer sees
    /// only that the connection closed in the middle.
    pub(crate) fn reset(mut self, code: ResetCode) {
        let _ = self.send(&mut Context::from_waker(Waker::noop()), &mut code.frame());
    }

    /// Says goodbye and closes, without waiting, so that the peer knows that nothing is on the way.
    pub(crate) fn close(mut self) {
        let _ = self.poll_close(&mut Context::from_waker(Waker::noop()));
    }

    /// Says goodbye once, and waits until that is with the socket.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if !std::mem::replace(&mut self.said_goodbye, true) {
            self.send_other(Content::Alert, CLOSE_NOTIFY)?;
        }
        ready!(self.poll_flush(cx))?;
        self.wire.poll_goodbye(cx).map_err(LinkError::Closed)
    }

    /// Reads and opens. `received` bytes are at the front of `wire` before and after.
    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut [u8],
        received: &mut usize,
        plain: &mut [u8],
    ) -> Poll<Result<usize, LinkError>> {
        let (mut filled, mut dry) = (0, false);
        loop {
            let used = self.open_all(cx, wire.get(..*received).unwrap_or_default(), plain, &mut filled)?;
            wire.copy_within(used..*received, 0);
            *received -= used;
            let room = plain.len().saturating_sub(filled + SEALED);
            if self.end == End::Orderly || (filled > 0 && (dry || room < SEALED)) {
                return Poll::Ready(Ok(filled));
            }
            let free = wire.len().saturating_sub(*received).min(room);
            let space = wire.get_mut(*received..*received + free).unwrap_or_default();
            match self.wire.poll_read(cx, space) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    *received += count;
                    dry = count < free;
                }
                // What was opened is handed out first; the end is found again.
                _ if filled > 0 => return Poll::Ready(Ok(filled)),
                Poll::Ready(Ok(_)) => return Poll::Ready(Err(LinkError::Closed(io::ErrorKind::UnexpectedEof.into()))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Opens the records that are complete, and says how long they are. Data goes to `plain`.
    fn open_all(
        &mut self,
        cx: &mut Context<'_>,
        records: &[u8],
        plain: &mut [u8],
        filled: &mut usize,
    ) -> Result<usize, LinkError> {
        let mut used = 0;
        while self.end == End::Open {
            let rest = records.get(used..).unwrap_or_default();
            let Some(record) = record::length(rest)?.and_then(|length| rest.get(..length)) else { break };
            let Some(space) = plain.get_mut(*filled..).filter(|space| space.len() >= record.len()) else { break };
            let (content, size) = self.opening.open(record, space)?;
            used += record.len();
            match content {
                Content::Data => {
                    *filled += size;
                    self.renewed = 0;
                }
                Content::Alert => self.on_alert(space.get(..size).unwrap_or_default())?,
                Content::Handshake => self.on_messages(cx, space.get(..size).unwrap_or_default())?,
            }
        }
        Ok(used)
    }

    fn on_alert(&mut self, alert: &[u8]) -> Result<(), LinkError> {
        let &[_, description] = alert else { return Err(RecordError::BadContent.into()) };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => self.end = End::Orderly,
            AlertDescription::UserCanceled => {}
            other => return Err(rustls::Error::AlertReceived(other).into()),
        }
        Ok(())
    }

    /// Whoever ends an outer TLS session may send tickets with which it could be resumed, one or several to a record. They
    /// are passed over: links are never resumed.
    fn on_messages(&mut self, cx: &mut Context<'_>, mut messages: &[u8]) -> Result<(), LinkError> {
        if matches!(self.renewal, Renewal::Client(_)) {
            while let &[NEW_SESSION_TICKET, high, middle, low, ref rest @ ..] = messages {
                self.renewed += 1;
                let length = u32::from_be_bytes([0, high, middle, low]) as usize;
                messages = rest.get(length..).ok_or(RecordError::BadContent)?;
            }
            if messages.is_empty() && self.renewed <= MOST_RENEWALS {
                return Ok(());
            }
        }
        let message = <[u8; 5]>::try_from(messages).map_err(|_| RecordError::BadContent)?;
        self.on_message(cx, message)
    }

    /// The peer renews its key, and may want ours renewed too.
    fn on_message(&mut self, cx: &mut Context<'_>, message: [u8; 5]) -> Result<(), LinkError> {
        let [24, 0, 0, 1, wish @ 0..=1] = message else { return Err(RecordError::BadContent.into()) };
        self.renewed += 1;
        if self.renewed > MOST_RENEWALS {
            return Err(RecordError::BadContent.into());
        }
        self.opening = Key::new(self.renewal.next_opening()?)?;
        if wish == 1 {
            self.renew_sealing()?;
            self.try_flush(cx)?;
        }
        Ok(())
    }

    fn renew_sealing(&mut self) -> Result<(), LinkError> {
        self.send_other(Content::Handshake, KEY_UPDATE)?;
        self.sealing = Key::new(self.renewal.next_sealing()?)?;
        Ok(())
    }

    /// Queues a record that holds no data.
    fn send_other<const N: usize>(&mut self, content: Content, mut text: [u8; N]) -> Result<(), LinkError> {
        let (header, tail) = self.sealing.seal(content, &mut text)?;
        for part in [header.as_slice(), &text, &tail] {
            self.unsent.push(part);
        }
        Ok(())
    }

    /// Writes behind what is unsent; what the socket does not take is kept.
    fn write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Result<(), LinkError> {
        let mut written = 0;
        if self.unsent.is_empty()
            && let Poll::Ready(count) = self.wire.poll_write(cx, slices)
        {
            written = count?;
            self.stir();
        }
        for slice in slices {
            let rest = slice.get(written.min(slice.len())..).unwrap_or_default();
            written -= slice.len() - rest.len();
            self.unsent.push(rest);
        }
        self.try_flush(cx)
    }

    fn try_flush(&mut self, cx: &mut Context<'_>) -> Result<(), LinkError> {
        match self.poll_flush(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }
}

impl Renewal {
    fn next_sealing(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Client(kernel) => kernel.update_tx_secret(),
            Self::Server(kernel) => kernel.update_tx_secret(),
        }
    }

    fn next_opening(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Client(kernel) => kernel.update_rx_secret(),
            Self::Server(kernel) => kernel.update_rx_secret(),
        }
    }

    /// How many records the cipher may seal with one key.
    fn limit(&self) -> u64 {
        let suite = match self {
            Self::Client(kernel) => kernel.negotiated_cipher_suite(),
            Self::Server(kernel) => kernel.negotiated_cipher_suite(),
        };
        suite.tls13().map_or(0, |suite| suite.common.confidentiality_limit)
    }
}

impl Wire {
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => socket::poll_read(stream, cx, buffer),
            Self::Through(through) => through.poll_read(cx, buffer),
            Self::Web(web) => web.poll_read(cx, buffer),
        }
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => socket::poll_write(stream, cx, slices),
            Self::Through(through) => through.poll_write(cx, slices),
            Self::Web(web) => web.poll_write(cx, slices),
        }
    }

    /// Writes what is changed on the way: the content of `bytes` is undefined afterwards.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Through(through) => through.poll_send(cx, bytes),
            Self::Tcp(_) | Self::Web(_) => self.poll_write(cx, &[IoSlice::new(bytes)]),
        }
    }

    /// Hands on what was written; a socket has it at once.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Through(through) => through.poll_flush(cx),
            Self::Web(web) => web.poll_flush(cx),
        }
    }

    /// Says to what stands between the ends that the connection closes, where that is understood.
    pub(crate) fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Through(_) => Poll::Ready(Ok(())),
            Self::Web(web) => web.poll_goodbye(cx),
        }
    }

    pub(crate) fn is_flushed(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::Through(through) => through.is_flushed(),
            Self::Web(web) => web.is_flushed(),
        }
    }

    pub(crate) fn register_here(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                let socket = socket2::SockRef::from(&**stream).try_clone()?;
                *stream = Arc::new(TcpStream::from_std(socket.into())?);
                Ok(())
            }
            Self::Through(through) => through.bring_home(),
            Self::Web(web) => web.register_here(),
        }
    }

    /// The socket under it, and under the link that it goes through.
    pub(crate) fn socket(&self) -> &Arc<TcpStream> {
        match self {
            Self::Tcp(stream) => stream,
            Self::Through(through) => through.link().socket(),
            Self::Web(web) => web.socket(),
        }
    }

    /// The link that it goes through.
    pub(crate) fn link(&self) -> Option<&Link> {
        match self {
            Self::Tcp(_) => None,
            Self::Through(through) => Some(through.link()),
            Self::Web(web) => web.link(),
        }
    }

    fn is_quiet(&mut self) -> bool {
        match self {
            Self::Tcp(stream) => {
                matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Through(through) => through.is_quiet(),
            Self::Web(web) => web.is_quiet(),
        }
    }
}

impl From<TcpStream> for Wire {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(Arc::new(stream))
    }
}

impl From<Through> for Wire {
    fn from(through: Through) -> Self {
        Self::Through(Box::new(through))
    }
}

impl From<WebSocket> for Wire {
    fn from(web: WebSocket) -> Self {
        Self::Web(Box::new(web))
    }
}

impl From<LinkError> for io::Error {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Closed(error) => error,
            other => Self::other(other),
        }
    }
}

/// Copies `bytes` to `at`, and says how long they are. The buffers are large enough for all that is put there.
fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let Some(space) = buffer.get_mut(at..at + bytes.len()) else { return 0 };
    space.copy_from_slice(bytes);
    bytes.len()
}

#[cfg(test)]
mod tests;
