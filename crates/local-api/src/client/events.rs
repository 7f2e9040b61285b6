//! The event stream: one connection ([`Events`]), and one that survives restarts of the service ([`Follow`]).

use std::time::Duration;

use hyper::Method;
use tokio::time::sleep;

use super::{ClientError, Lines, LocalClient};
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
    lines: Lines<Numbered>,
    sequence: Sequence,
}

impl Events {
    pub(super) async fn open(client: &LocalClient) -> Result<Self, ClientError> {
        client.hello().await?;
        let lines = Lines::open(client, Method::GET, "/v1/events").await?;
        Ok(Self { lines, sequence: Sequence::default() })
    }

    /// The next event. After an error the stream is of no more use; open another, which begins with a snapshot.
    ///
    /// Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Numbered, ClientError> {
        let Some(numbered) = self.lines.next().await? else {
            return Err(broken_off("the service closed the stream".to_owned()));
        };
        self.sequence.check(&numbered).map_err(|gap| garbled(gap.to_string()))?;
        Ok(numbered)
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
