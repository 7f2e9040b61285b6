//! One listener: where it is wanted, whether it is open, when it is tried again.

use std::{net::SocketAddr, time::Duration};

use postern_local_api::message::{Connection, PortHolder};

use super::{
    Now,
    backoff::{Jitter, backoff},
};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// An address that is never bound is looked at again only when it changes, or when the user asks.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// Names one attempt to listen, so that an answer to an older one is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

/// Why an address could not be listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindFailure {
    /// Somebody has it.
    InUse { holder: Option<PortHolder> },
    /// The system would not; trying again may help.
    Other { error: String },
    /// It is not allowed; trying again does not help.
    Impossible { error: String },
}

#[derive(Debug, Default)]
pub(super) enum Listener {
    #[default]
    Closed,
    Opening {
        ticket: Ticket,
        address: SocketAddr,
        failures: u32,
    },
    Open {
        ticket: Ticket,
        address: SocketAddr,
    },
    Failed {
        address: SocketAddr,
        failure: BindFailure,
        retry_at: Duration,
        failures: u32,
    },
}

impl Listener {
    /// The attempt that is under way or open.
    pub(super) const fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Opening { ticket, .. } | Self::Open { ticket, .. } => Some(*ticket),
            Self::Closed | Self::Failed { .. } => None,
        }
    }

    pub(super) const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Opening { address, .. } | Self::Open { address, .. } | Self::Failed { address, .. } => Some(*address),
            Self::Closed => None,
        }
    }

    pub(super) const fn is_opening(&self) -> bool {
        matches!(self, Self::Opening { .. })
    }

    pub(super) const fn retry_at(&self) -> Option<Duration> {
        match self {
            Self::Failed { retry_at, .. } => Some(*retry_at),
            Self::Closed | Self::Opening { .. } | Self::Open { .. } => None,
        }
    }

    pub(super) fn may_open(&self, now: Now) -> bool {
        match self {
            Self::Closed => true,
            Self::Failed { retry_at, .. } => *retry_at <= now.boot,
            Self::Opening { .. } | Self::Open { .. } => false,
        }
    }

    pub(super) fn open(&mut self, ticket: Ticket, address: SocketAddr) {
        let failures = if let Self::Failed { failures, .. } = self { *failures } else { 0 };
        *self = Self::Opening { ticket, address, failures };
    }

    pub(super) fn opened(&mut self) {
        if let Self::Opening { ticket, address, .. } = *self {
            *self = Self::Open { ticket, address };
        }
    }

    pub(super) fn failed(&mut self, failure: BindFailure, now: Now, jitter: &mut Jitter) {
        let (address, failures) = match self {
            Self::Opening { address, failures, .. } => (*address, failures.saturating_add(1)),
            Self::Open { address, .. } => (*address, 1),
            Self::Closed | Self::Failed { .. } => return,
        };
        let wait = match failure {
            BindFailure::Impossible { .. } => NEVER,
            BindFailure::InUse { .. } | BindFailure::Other { .. } => backoff(failures, FIRST_RETRY, LAST_RETRY, jitter),
        };
        *self = Self::Failed { address, failure, retry_at: now.boot.saturating_add(wait), failures };
    }

    /// Tries again at once, with the short waits.
    pub(super) fn retry_now(&mut self) {
        if let Self::Failed { retry_at, failures, .. } = self {
            *retry_at = Duration::ZERO;
            *failures = 0;
        }
    }

    /// Gives up the address; returns the attempt to be closed.
    pub(super) fn close(&mut self) -> Option<Ticket> {
        let ticket = self.ticket();
        *self = Self::Closed;
        ticket
    }

    pub(super) fn connection(&self, now: Now) -> Connection {
        match self {
            Self::Closed | Self::Opening { .. } => Connection::Disconnected,
            Self::Open { address, .. } => Connection::Listening { address: *address },
            Self::Failed { address, failure, retry_at, .. } => {
                let (address, retry_at) = (*address, now.wall.plus(retry_at.saturating_sub(now.boot)));
                match failure {
                    BindFailure::InUse { holder } => {
                        Connection::PortInUse { address, holder: holder.clone(), retry_at }
                    }
                    BindFailure::Other { error } | BindFailure::Impossible { error } => {
                        Connection::Failed { address, error: error.clone(), retry_at }
                    }
                }
            }
        }
    }
}
