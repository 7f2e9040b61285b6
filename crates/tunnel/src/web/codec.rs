//! WebSocket frames (RFC 6455 §5), read and written where they lie.
//!
//! The carrier is a stream of bytes: where one message ends and the next begins means nothing, so a frame of any length
//! is read as it comes and nothing is allocated for it. Sans-IO.

use super::End;

/// The longest header.
pub(super) const HEADER: usize = 14;
/// The longest payload of a control frame.
const CONTROL: usize = 125;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// Why bytes are no frames of the carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a WebSocket frame of a kind that the carrier does not use")]
    Kind,
    #[error("a WebSocket frame is masked and should not be, or the other way round")]
    Mask,
    #[error("a WebSocket frame has a length that no frame has")]
    Length,
}

/// Takes the frames out of what comes in.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Whether frames that come in are masked.
    masked: bool,
    header: [u8; HEADER],
    /// How much of the header has come.
    come: usize,
    opcode: Opcode,
    /// How much of the payload is still to come.
    left: u64,
    mask: [u8; 4],
    /// What has come of a control frame.
    control: Vec<u8>,
    /// A message was begun and not ended.
    within_message: bool,
    /// The payload of the last ping that was not answered yet.
    pub(super) ping: Option<Vec<u8>>,
    /// The other end has said that it closes.
    pub(super) closed: bool,
}

impl Decoder {
    pub(super) const fn at(end: End) -> Self {
        Self {
            masked: matches!(end, End::Node),
            header: [0; HEADER],
            come: 0,
            opcode: Opcode::Continuation,
            left: 0,
            mask: [0; 4],
            control: Vec::new(),
            within_message: false,
            ping: None,
            closed: false,
        }
    }

    /// Whether nothing of a data frame is under way.
    pub(super) const fn is_between_data(&self) -> bool {
        self.left == 0 || !matches!(self.opcode, Opcode::Continuation | Opcode::Binary)
    }

    /// Takes the framing out of `bytes`: what they carry stands at their front afterwards; how long that is. What comes
    /// after the end is passed over.
    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> Result<usize, FrameError> {
        let (mut at, mut filled) = (0, 0);
        while at < bytes.len() && !self.closed {
            if self.left == 0 {
                let byte = bytes.get(at).copied().unwrap_or_default();
                at += 1;
                self.take_header(byte)?;
                continue;
            }
            let here = bytes.len() - at;
            let count = usize::try_from(self.left).map_or(here, |left| left.min(here));
            let payload = bytes.get_mut(at..at + count).unwrap_or_default();
            if self.masked {
                mask(self.mask, payload);
                self.mask.rotate_left(count % 4);
            }
            self.left -= count as u64;
            if self.is_control() {
                self.control.extend_from_slice(payload);
                if self.left == 0 {
                    self.end_control();
                }
            } else {
                if filled < at {
                    bytes.copy_within(at..at + count, filled);
                }
                filled += count;
            }
            at += count;
        }
        Ok(filled)
    }

    const fn is_control(&self) -> bool {
        matches!(self.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }

    fn take_header(&mut self, byte: u8) -> Result<(), FrameError> {
        let Some(place) = self.header.get_mut(self.come) else { return Err(FrameError::Length) };
        *place = byte;
        self.come += 1;
        match self.come {
            1 => self.begin(byte),
            2 if (byte & 0x80 != 0) != self.masked => Err(FrameError::Mask),
            2 if self.is_control() && usize::from(byte & 0x7f) > CONTROL => Err(FrameError::Length),
            come if come == header_length(self.header) => self.end_header(),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, byte: u8) -> Result<(), FrameError> {
        let ends = byte & 0x80 != 0;
        self.opcode = match byte & 0x7f {
            0 if self.within_message => Opcode::Continuation,
            2 if !self.within_message => Opcode::Binary,
            8 if ends => Opcode::Close,
            9 if ends => Opcode::Ping,
            10 if ends => Opcode::Pong,
            _ => return Err(FrameError::Kind),
        };
        if !self.is_control() {
            self.within_message = !ends;
        }
        Ok(())
    }

    fn end_header(&mut self) -> Result<(), FrameError> {
        let [_, short, rest @ ..] = self.header;
        let (length, least) = match short & 0x7f {
            126 => (u64::from(u16::from_be_bytes([rest[0], rest[1]])), 126),
            127 => (rest.first_chunk().map_or(0, |long| u64::from_be_bytes(*long)), 1 << 16),
            short => (u64::from(short), 0),
        };
        if length < least || length >> 63 != 0 {
            return Err(FrameError::Length);
        }
        if self.masked {
            let from = self.come.saturating_sub(4);
            self.mask = self.header.get(from..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        }
        self.left = length;
        self.come = 0;
        if self.is_control() && length == 0 {
            self.end_control();
        }
        Ok(())
    }

    fn end_control(&mut self) {
        let payload = std::mem::take(&mut self.control);
        match self.opcode {
            Opcode::Ping => self.ping = Some(payload),
            Opcode::Close => self.closed = true,
            Opcode::Pong | Opcode::Binary | Opcode::Continuation => {}
        }
    }
}

/// How long the header is, once its first two bytes are there.
const fn header_length(header: [u8; HEADER]) -> usize {
    let [_, short, ..] = header;
    let length = match short & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if short & 0x80 != 0 { 4 } else { 0 }
}

/// A header, and how long it is.
pub(super) fn header(opcode: Opcode, length: usize, mask: Option<[u8; 4]>) -> ([u8; HEADER], usize) {
    let mut header = [0; HEADER];
    let mut used = 0;
    let mut put = |bytes: &[u8]| {
        if let Some(space) = header.get_mut(used..used + bytes.len()) {
            space.copy_from_slice(bytes);
            used += bytes.len();
        }
    };
    put(&[0x80 | opcode as u8]);
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => put(&[masked | length]),
        (_, Ok(length)) => {
            put(&[masked | 126]);
            put(&length.to_be_bytes());
        }
        _ => {
            put(&[masked | 127]);
            put(&(length as u64).to_be_bytes());
        }
    }
    if let Some(mask) = mask {
        put(&mask);
    }
    (header, used)
}

/// Masks, or takes the mask off, beginning with its first byte.
pub(super) fn mask(mask: [u8; 4], bytes: &mut [u8]) {
    let [a, b, c, d] = mask;
    // As many bytes at once as a processor's registers hold: the compiler makes vectors of it.
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests;
