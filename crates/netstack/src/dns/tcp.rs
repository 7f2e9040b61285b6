//! Queries over TCP: two bytes of length before each message, any number of messages on one connection, answered in the
//! order in which they came (RFC 7766).

use super::Outcome;

/// The longest query that is read. The longest name, an EDNS record and its padding take far less.
pub const MAX_QUERY: usize = 4096;
/// Bytes of answers that may wait for the asker to read them. **While there are as many, nothing more is taken**, so that an
/// asker who never reads costs no more than this and one answer.
pub const MAX_WAITING: usize = 64 * 1024;

/// One connection.
#[derive(Debug, Default)]
pub struct TcpQueries {
    /// The beginning of a query whose end has not come.
    partial: Vec<u8>,
    answers: Vec<u8>,
    /// Bytes of `answers` that were sent.
    sent: usize,
    /// The room for one answer, used again.
    scratch: Vec<u8>,
}

/// A query longer than [`MAX_QUERY`]: the connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a query of {0} bytes, more than {MAX_QUERY}")]
pub struct TooLong(pub usize);

impl TcpQueries {
    /// Takes bytes that came, and answers each query that is whole by `answer`, which writes into the buffer it gets (as
    /// [`super::Resolver::answer`] does). Answers how many bytes were taken: fewer than there are when [`MAX_WAITING`]
    /// bytes wait to be sent; the rest is to be brought again after [`TcpQueries::advance`].
    ///
    /// # Errors
    ///
    /// When a query is too long. What was answered before may still be sent.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        mut answer: impl FnMut(&[u8], &mut Vec<u8>) -> Outcome,
    ) -> Result<usize, TooLong> {
        let mut rest = bytes;
        while self.waiting().len() < MAX_WAITING && !rest.is_empty() {
            let missing = self.missing()?;
            let (taken, later) = rest.split_at(missing.min(rest.len()));
            self.partial.extend_from_slice(taken);
            rest = later;
            if self.partial.len() >= 2 && self.missing()? == 0 {
                let outcome = answer(self.partial.get(2..).unwrap_or_default(), &mut self.scratch);
                self.partial.clear();
                self.queue(outcome);
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// What is to be sent.
    #[must_use]
    pub fn waiting(&self) -> &[u8] {
        self.answers.get(self.sent..).unwrap_or_default()
    }

    /// `count` bytes of [`TcpQueries::waiting`] were sent.
    pub fn advance(&mut self, count: usize) {
        self.sent = self.sent.saturating_add(count).min(self.answers.len());
        if self.sent == self.answers.len() || self.sent >= MAX_WAITING {
            self.answers.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Whether a query has begun whose end has not come.
    #[must_use]
    pub fn is_within_query(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Bytes that the length, or else the query, lacks.
    fn missing(&self) -> Result<usize, TooLong> {
        let Some((length, query)) = self.partial.split_first_chunk::<2>() else { return Ok(2 - self.partial.len()) };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > MAX_QUERY { Err(TooLong(length)) } else { Ok(length.saturating_sub(query.len())) }
    }

    fn queue(&mut self, outcome: Outcome) {
        if let (Outcome::Answered(_), Ok(length)) = (outcome, u16::try_from(self.scratch.len())) {
            self.answers.extend_from_slice(&length.to_be_bytes());
            self.answers.extend_from_slice(&self.scratch);
        }
    }
}
