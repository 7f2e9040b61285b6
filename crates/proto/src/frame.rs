//! Frames of the carrier: what goes through a TLS connection between a client and a node (DESIGN §4.1).
//!
//! A connection carries one stream at a time. Each side speaks in frames: a header of four bytes (type, length in 24
//! bits) and a payload. The client begins a stream with `HEAD`, the node answers with `REPLY`; then both send `DATA`
//! and each ends its direction with `END`. When the node has sent its own `END` and has handed everything up to the
//! client's `END` to the target, it says `DONE`: the connection is free for the next `HEAD`. Only then, because until then
//! a `RESET` of this stream may be on its way. `RESET` breaks the stream off and the connection with it.
//!
//! ```text
//! client  HEAD DATA* END                    HEAD…     | RESET anywhere
//! node    REPLY(200) DATA* END DONE              | REPLY(other) | RESET before DONE
//!
//! client  HEAD DATA*                LAST HEAD…
//! node    REPLY(200) DATA* OVER               REPLY…  | RESET before REPLY
//! ```
//!
//! Most streams end at the target first, which spares them the wait for `DONE`: a node that ends before the client did says
//! with `OVER` how many bytes it has handed to the target. When those are all, the client's `LAST` ends the stream without
//! an answer. The node may have broken the stream off meanwhile. Its `RESET` then comes before the `REPLY` of the next
//! stream, whose head it has not looked at: a node says nothing else about a stream before its `REPLY`.
//!
//! A `REPLY` that refuses is all that the node says; the connection is free when the client has sent its `END`. The client
//! may send `DATA` before the reply, no more than [`MAX_UNANSWERED`] bytes.
//!
//! [`Reader`] reads these frames from a buffer without copying; nothing here waits or allocates.

/// Length of a frame's header.
pub const HEADER: usize = 4;
/// The longest payload of a `DATA` frame.
pub const MAX_DATA: usize = 256 * 1024;
/// What a sender puts into one `DATA` frame at most: with its header it fills 16 TLS records to the last byte.
pub const FULL_DATA: usize = MAX_DATA - HEADER;
/// The longest `HEAD` or `REPLY`.
pub const MAX_TEXT: usize = 16 * 1024;
/// How many bytes of `DATA` frames, headers and all, a client sends before it has the reply. It keeps their content to
/// send it again elsewhere.
pub const MAX_UNANSWERED: usize = 64 * 1024;

const RESET_LENGTH: usize = 2;
const OVER_LENGTH: usize = 8;

/// The type of a frame, as its first byte says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Head = 1,
    Reply = 2,
    Data = 3,
    End = 4,
    Reset = 5,
    Done = 6,
    Over = 7,
    Last = 8,
}

/// Why a stream was broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ResetCode {
    /// Something failed that has no code of its own; unknown codes of newer peers are read as this one.
    Internal = 0,
    /// The peer sent what it must not send.
    Protocol = 1,
    /// The program at the client's side broke off its connection.
    ClientReset = 2,
    /// The resource broke off its connection.
    TargetReset = 3,
    /// The account, device, resource or grant was revoked.
    Revoked = 4,
    /// The grant ended.
    GrantEnded = 5,
    /// The node stops, and the time for running streams is over.
    Draining = 6,
    /// The user disconnected, locked or logged out.
    Disconnected = 7,
}

/// The header of a frame, with a length that fits its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    kind: Kind,
    length: u32,
}

/// What a peer did that no frame allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("there is no frame of type {0}")]
    UnknownKind(u8),
    #[error("a frame of type {kind:?} cannot be {length} bytes long")]
    BadLength { kind: Kind, length: u32 },
}

/// A piece of the incoming bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The whole text of a `HEAD` frame.
    Head(&'a [u8]),
    /// The whole text of a `REPLY` frame.
    Reply(&'a [u8]),
    /// Bytes of the stream: all or a part of a `DATA` frame, never empty.
    Data(&'a [u8]),
    End,
    Reset(ResetCode),
    Done,
    /// A node's `END`, with how many bytes of the client's the target's system has.
    Over(u64),
    /// A client's `END` that asks for no `DONE`.
    Last,
}

/// Reads frames from the front of a buffer. It remembers only how much of a `DATA` frame is still to come.
///
/// It is `Copy`, so that a caller can look ahead and take only what it could pass on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    data_left: u32,
}

impl Reader {
    /// The piece at the front of `input` and how many bytes of `input` it takes up; `None` when more bytes are needed
    /// to tell. `DATA` is handed out as it comes, everything else when it is complete.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<(Piece<'a>, usize)>, FrameError> {
        if self.data_left > 0 {
            return Ok(self.data(input, 0));
        }
        let Some((header, rest)) = input.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let header = Header::read(*header)?;
        if header.kind == Kind::Data {
            // The header alone is left in the buffer: it is taken with the first byte after it.
            if rest.is_empty() {
                return Ok(None);
            }
            self.data_left = header.length;
            return Ok(self.data(rest, HEADER));
        }
        let Some(payload) = rest.get(..header.len()) else {
            return Ok(None);
        };
        let piece = match header.kind {
            Kind::Head => Piece::Head(payload),
            Kind::Reply => Piece::Reply(payload),
            Kind::End => Piece::End,
            Kind::Done => Piece::Done,
            Kind::Over => Piece::Over(payload.first_chunk().copied().map_or(0, u64::from_be_bytes)),
            Kind::Last => Piece::Last,
            Kind::Reset | Kind::Data => Piece::Reset(ResetCode::read(payload)),
        };
        Ok(Some((piece, HEADER + header.len())))
    }

    /// Passes over `bytes` bytes of `DATA` at the front of `input`, and says how much of `input` they take up with their
    /// headers. They must have been handed out by a copy of this reader.
    pub fn advance(&mut self, input: &[u8], bytes: usize) -> Result<usize, FrameError> {
        let (mut at, mut left) = (0, bytes);
        while left > 0 {
            let Some((Piece::Data(data), taken)) = self.next(input.get(at..).unwrap_or_default())? else {
                break;
            };
            let over = data.len().saturating_sub(left);
            self.data_left = self.data_left.saturating_add(u32::try_from(over).unwrap_or_default());
            at += taken - over;
            left -= data.len() - over;
        }
        Ok(at)
    }

    fn data<'a>(&mut self, input: &'a [u8], before: usize) -> Option<(Piece<'a>, usize)> {
        let take = input.len().min(usize::try_from(self.data_left).unwrap_or(usize::MAX));
        let piece = input.get(..take).filter(|piece| !piece.is_empty())?;
        self.data_left = self.data_left.saturating_sub(u32::try_from(take).unwrap_or(u32::MAX));
        Some((Piece::Data(piece), before + take))
    }
}

impl Header {
    /// `None` when a frame of this type cannot be that long.
    #[must_use]
    pub const fn new(kind: Kind, length: usize) -> Option<Self> {
        let fits = match kind {
            Kind::Head | Kind::Reply => length >= 1 && length <= MAX_TEXT,
            Kind::Data => length >= 1 && length <= MAX_DATA,
            Kind::End | Kind::Done | Kind::Last => length == 0,
            Kind::Over => length == OVER_LENGTH,
            Kind::Reset => length == RESET_LENGTH,
        };
        #[expect(clippy::cast_possible_truncation, reason = "no type is longer than 256 KiB")]
        if fits { Some(Self { kind, length: length as u32 }) } else { None }
    }

    pub fn read(bytes: [u8; HEADER]) -> Result<Self, FrameError> {
        let [kind, a, b, c] = bytes;
        let length = u32::from_be_bytes([0, a, b, c]);
        let kind = Kind::read(kind).ok_or(FrameError::UnknownKind(kind))?;
        Self::new(kind, length as usize).ok_or(FrameError::BadLength { kind, length })
    }

    #[must_use]
    pub const fn write(self) -> [u8; HEADER] {
        let [_, a, b, c] = self.length.to_be_bytes();
        [self.kind as u8, a, b, c]
    }

    #[must_use]
    pub const fn kind(self) -> Kind {
        self.kind
    }

    /// Length of the payload.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the length of what follows, not of this value")]
    pub const fn len(self) -> usize {
        self.length as usize
    }
}

impl Kind {
    const fn read(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Head,
            2 => Self::Reply,
            3 => Self::Data,
            4 => Self::End,
            5 => Self::Reset,
            6 => Self::Done,
            7 => Self::Over,
            8 => Self::Last,
            _ => return None,
        })
    }
}

/// An `END` frame.
pub const END: [u8; HEADER] = [Kind::End as u8, 0, 0, 0];
/// A `DONE` frame.
pub const DONE: [u8; HEADER] = [Kind::Done as u8, 0, 0, 0];
/// A `LAST` frame.
pub const LAST: [u8; HEADER] = [Kind::Last as u8, 0, 0, 0];

/// A whole `OVER` frame: the target's system has `handed` bytes.
#[must_use]
pub const fn over(handed: u64) -> [u8; HEADER + OVER_LENGTH] {
    let [a, b, c, d, e, f, g, h] = handed.to_be_bytes();
    [Kind::Over as u8, 0, 0, OVER_LENGTH as u8, a, b, c, d, e, f, g, h]
}

impl ResetCode {
    const ALL: [Self; 8] = [
        Self::Internal,
        Self::Protocol,
        Self::ClientReset,
        Self::TargetReset,
        Self::Revoked,
        Self::GrantEnded,
        Self::Draining,
        Self::Disconnected,
    ];

    /// A whole `RESET` frame.
    #[must_use]
    pub const fn frame(self) -> [u8; HEADER + RESET_LENGTH] {
        let [a, b] = (self as u16).to_be_bytes();
        [Kind::Reset as u8, 0, 0, RESET_LENGTH as u8, a, b]
    }

    /// The code with this number; [`ResetCode::Internal`] when there is none.
    #[must_use]
    pub fn from_wire(code: u16) -> Self {
        Self::ALL.into_iter().find(|known| *known as u16 == code).unwrap_or(Self::Internal)
    }

    fn read(payload: &[u8]) -> Self {
        Self::from_wire(payload.first_chunk().copied().map_or(0, u16::from_be_bytes))
    }
}

#[cfg(test)]
mod tests;
