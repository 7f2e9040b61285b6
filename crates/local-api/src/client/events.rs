//! The event stream: one connection ([`Events`]), and one that survives restarts of the service ([`Follow`]).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{Method, body::Incoming};
use tokio::time::{sleep, timeout};

use super::{ClientError, Connection, LOCAL_DEADLINE, LocalClient, MAX_ANSWER, decode, refusal, within};
use crate::{
    message::{Event, Numbered},
    mirror::Sequence,
};

const CALL: &str = "GET /v1/events";
/// How long to wait before the first try to reconnect; doubled for each further one.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// The longest pause between two tries: a person who starts the service again sees it within this time.
const LAST_RETRY: Duration = Duration::from_secs(2);

/// The events of one connection. The first is a snapshot; the numbers after it go up by one, which is checked.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    buffer: BytesMut,
    /// How many bytes at the front of the buffer hold no line end.
    searched: usize,
    sequence: Sequence,
    _connection: Connection,
}

impl Events {
    pub(super) async fn open(client: &LocalClient) -> Result<Self, ClientError> {
        client.hello().await?;
        let (response, connection) =
            within(LOCAL_DEADLINE, CALL, client.send(Method::GET, "/v1/events", None, CALL)).await?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        if !(200..=299).contains(&status) {
            let answer = timeout(LOCAL_DEADLINE, body.frame()).await.ok().flatten().and_then(Result::ok);
            let answer = answer.and_then(|frame| frame.into_data().ok()).unwrap_or_default();
            return Err(refusal(CALL, status, &answer));
        }
        let sequence = Sequence::default();
        Ok(Self { body, buffer: BytesMut::new(), searched: 0, sequence, _connection: connection })
    }

    /// The next event. After an error the stream is of no more use; open another, which begins with a snapshot.
    ///
    /// Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Numbered, ClientError> {
        loop {
            if let Some(line) = self.take_line() {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let numbered: Numbered = decode(CALL, &line)?;
                self.sequence.check(&numbered).map_err(|gap| garbled(gap.to_string()))?;
                return Ok(numbered);
            }
            if self.buffer.len() > MAX_ANSWER {
                return Err(garbled(format!("a line is longer than {MAX_ANSWER} bytes")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(broken_off(error.to_string())),
                None => return Err(broken_off("the service closed the stream".to_owned())),
            }
        }
    }

    fn take_line(&mut self) -> Option<Bytes> {
        let fresh = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(at) = fresh.iter().position(|&byte| byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + at + 1).freeze();
        self.searched = 0;
        Some(line)
    }
}

/// What [`Follow`] saw.
#[derive(Debug)]
pub enum Update {
    /// An event. After [`Self::Lost`] the next one is a snapshot, so whoever applies all of them is never out of step.
    Event(Box<Event>),
    /// The service is not there, for this reason; it is tried again. Told once for each loss.
    Lost(ClientError),
}

/// Follows the service's events across its restarts.
#[derive(Debug)]
pub struct Follow {
    client: LocalClient,
    events: Option<Events>,
    /// Tries since the last event.
    failures: u32,
}

impl Follow {
    pub(super) fn new(client: LocalClient) -> Self {
        Self { client, events: None, failures: 0 }
    }

    /// The next event, or word that the service is lost. Waits while there is neither.
    ///
    /// Dropping the future loses no event, but a pause before the next try begins anew: give it a task of its own rather
    /// than a place in a `select!` that turns often.
    ///
    /// Errors: only what no retry can mend ([`ClientError::VersionMismatch`], [`ClientError::NotOurs`],
    /// [`ClientError::Refused`]).
    pub async fn next(&mut self) -> Result<Update, ClientError> {
        loop {
            let error = match &mut self.events {
                Some(events) => match events.next().await {
                    Ok(numbered) => {
                        self.failures = 0;
                        return Ok(Update::Event(Box::new(numbered.event)));
                    }
                    Err(error) => error,
                },
                None => {
                    sleep(self.pause()).await;
                    match self.client.events().await {
                        Ok(events) => {
                            self.events = Some(events);
                            continue;
                        }
                        Err(error) => error,
                    }
                }
            };
            self.events = None;
            if matches!(
                error,
                ClientError::VersionMismatch { .. } | ClientError::NotOurs { .. } | ClientError::Refused(_)
            ) {
                return Err(error);
            }
            self.failures = self.failures.saturating_add(1);
            if self.failures == 1 {
                return Ok(Update::Lost(error));
            }
        }
    }

    fn pause(&self) -> Duration {
        match self.failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST_RETRY.saturating_mul(1 << doublings.min(8)).min(LAST_RETRY),
        }
    }
}

fn garbled(reason: String) -> ClientError {
    ClientError::Garbled { call: CALL.to_owned(), reason }
}

fn broken_off(reason: String) -> ClientError {
    ClientError::BrokenOff { call: CALL.to_owned(), reason }
}
