//! The client's side: warm connections to the entries of the data path, and [`carry()`], which carries a local connection
//! over one of them.

mod carry;
mod dial;
mod entry;
mod pool;
mod spares;

use std::{io, sync::Arc};

use postern_proto::{
    head::{Refused, Request},
    id::NodeId,
    problem::Problem,
};

pub(crate) use self::dial::dial as dial_node;
pub use self::{carry::carry, entry::Entry};

/// Why an entry could not be dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{address} cannot be reached")]
    Unreachable { address: String, source: io::Error },
    #[error("{address} does not answer")]
    TimedOut { address: String },
    #[error("{address} is not the gateway that it should be, or does not accept this device")]
    Handshake { address: String, source: io::Error },
    #[error("{address} shows no certificate that this machine accepts for that name")]
    Outer { address: String, source: io::Error },
    #[error("{address} opens no WebSocket to a worker")]
    WebSocket { address: String, source: io::Error },
    #[error("{address} opens no passage to the relay: {problem}")]
    Refused { address: String, problem: Box<Problem> },
    #[error("the worker behind {address} that was asked before does not answer any more")]
    OtherWorker { address: String },
    #[error("who answers behind {address} is a worker that was removed from its cluster")]
    Removed { address: String },
    #[error("what answers behind {address} is not the relay that it should be, or does not accept this device")]
    Relay { address: String, source: io::Error },
}

/// One try to open a stream: where, and with which head.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub entry: Arc<Entry>,
    pub request: Request,
}

/// Why a try did not open the stream.
#[derive(Debug)]
pub enum Failure {
    /// The node refused it with 401 (renew the lease), 421 (take the route in it) or 503 (take another node).
    Refused { entry: Arc<Entry>, refused: Refused },
    /// The entry could not be dialled.
    Dial { entry: Arc<Entry>, error: DialError },
    /// The connection broke before the node answered.
    Lost { entry: Arc<Entry> },
}

impl Failure {
    /// What the user is told when nothing else is left to try.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Refused { refused, .. } => refused.problem.clone(),
            Self::Dial { error, .. } => {
                if let DialError::Refused { problem, .. } = error {
                    return problem.as_ref().clone();
                }
                let detail = match std::error::Error::source(error) {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                };
                Problem::new(503, "gateway_unreachable", "The gateway cannot be reached").with_detail(detail)
            }
            Self::Lost { entry } => Problem::new(502, "gateway_lost", "The gateway closed the connection")
                .with_detail(format!("{} closed it without an answer. Try again in a moment.", entry.address())),
        }
    }
}

/// Says where a stream goes, and where else when that fails.
pub trait StreamGuide: Send {
    /// The next try, under the stream's one identifier. `number` counts from 0; `failure` is why the one before did not work. An error ends the stream and
    /// is what the user is told.
    ///
    /// Other refusals than those of [`Failure::Refused`] are final and never asked about; 401 and 421 are tried once.
    fn next_attempt(
        &mut self,
        number: u32,
        failure: Option<&Failure>,
    ) -> impl Future<Output = Result<Attempt, Problem>> + Send;

    /// The try goes over a connection to this node, where it could have been one of several.
    fn connected(&mut self, _node: Option<NodeId>) {}
}
