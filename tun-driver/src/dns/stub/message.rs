//! As much of a DNS message as a forwarder must read: header and question. Pure; everything else is passed on as it is.

use crate::interface::Zone;

/// The header's length.
const HEADER: usize = 12;
/// The longest name on the wire.
const MAX_NAME: usize = 255;

pub(crate) const FORMAT_ERROR: u8 = 1;
pub(crate) const SERVER_FAILURE: u8 = 2;
pub(crate) const NAME_ERROR: u8 = 3;
pub(crate) const NOT_IMPLEMENTED: u8 = 4;

/// A query that can be passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) id: u16,
    /// The labels in lower case, the first first.
    name: Vec<Vec<u8>>,
    /// Name, type and class as they came.
    question: Vec<u8>,
}

/// Why a message is no query of ours: the reply code, or nothing to say at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoQuery {
    Reply(u8),
    Ignore,
}

impl Query {
    /// Reads a query. What cannot even be answered (too short, an answer itself) is to be ignored.
    pub(crate) fn parse(message: &[u8]) -> Result<Self, NoQuery> {
        let header: &[u8; HEADER] = message.first_chunk().ok_or(NoQuery::Ignore)?;
        if is_answer(header) {
            return Err(NoQuery::Ignore);
        }
        if header[2] & 0x78 != 0 {
            return Err(NoQuery::Reply(NOT_IMPLEMENTED));
        }
        if count(header) != 1 {
            return Err(NoQuery::Reply(FORMAT_ERROR));
        }
        let (name, question) = read_question(message).ok_or(NoQuery::Reply(FORMAT_ERROR))?;
        Ok(Self { id: id(header), name, question: question.to_vec() })
    }

    /// Whether the name is the zone or lies below it, and how many labels they share.
    pub(crate) fn labels_in(&self, zone: &Zone) -> Option<usize> {
        let mut own = self.name.iter().rev();
        let mut shared = 0;
        for label in zone.as_str().rsplit('.') {
            if own.next()?.as_slice() != label.as_bytes() {
                return None;
            }
            shared += 1;
        }
        Some(shared)
    }

    /// Whether `message` is an answer to this query as it was sent with `id`, and its reply code. Servers that change the
    /// case of the name are forgiven.
    pub(crate) fn answered_by(&self, message: &[u8], sent_as: u16) -> Option<u8> {
        let header: &[u8; HEADER] = message.first_chunk()?;
        let (_, question) = read_question(message)?;
        let fits = is_answer(header)
            && id(header) == sent_as
            && count(header) == 1
            && question.eq_ignore_ascii_case(&self.question);
        fits.then_some(header[3] & 0x0f)
    }
}

/// An answer of our own to a message with at least a header: a reply code, and the question repeated where it can be read.
pub(crate) fn refusal(message: &[u8], code: u8) -> Vec<u8> {
    let Some(header) = message.first_chunk::<HEADER>() else { return Vec::new() };
    let question = read_question(message).filter(|_| count(header) == 1).map(|(_, question)| question);
    let mut answer = vec![0; HEADER];
    if let Some(start) = answer.first_chunk_mut::<HEADER>() {
        start[..2].copy_from_slice(&header[..2]);
        // An answer; opcode and "recursion desired" as they came; recursion is available.
        start[2] = 0x80 | (header[2] & 0x79);
        start[3] = 0x80 | (code & 0x0f);
        start[5] = u8::from(question.is_some());
    }
    answer.extend_from_slice(question.unwrap_or_default());
    answer
}

/// The message with another id.
pub(crate) fn with_id(mut message: Vec<u8>, id: u16) -> Vec<u8> {
    if let Some(start) = message.first_chunk_mut::<2>() {
        *start = id.to_be_bytes();
    }
    message
}

/// Whether the answer did not fit into a datagram.
#[cfg(test)]
pub(crate) fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

const fn id(header: &[u8; HEADER]) -> u16 {
    u16::from_be_bytes([header[0], header[1]])
}

const fn is_answer(header: &[u8; HEADER]) -> bool {
    header[2] & 0x80 != 0
}

const fn count(header: &[u8; HEADER]) -> u16 {
    u16::from_be_bytes([header[4], header[5]])
}

/// The labels of the first question in lower case, and its bytes. A question holds no compressed name.
fn read_question(message: &[u8]) -> Option<(Vec<Vec<u8>>, &[u8])> {
    let mut at = HEADER;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        if length > 63 {
            return None;
        }
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(message.get(at..at + length)?.to_ascii_lowercase());
        at += length;
        if at - HEADER >= MAX_NAME {
            return None;
        }
    }
    Some((labels, message.get(HEADER..at + 4)?))
}

#[cfg(test)]
mod tests;
