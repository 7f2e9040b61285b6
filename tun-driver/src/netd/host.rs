//! The machine, as netd changes it: what each connection wants, and the steps that make it so.
//!
//! Every change goes the same way: what is wanted is computed as a value, what is there is read from the system, and the
//! difference is applied. Asking twice, repairing what somebody else took away and undoing what an earlier run left are
//! the same code.

use std::io;

#[cfg(any(not(target_os = "linux"), test))]
use ipnet::Ipv4Net;

use crate::{interface::Interface, sys::Handover};

#[cfg(any(not(target_os = "linux"), test))]
pub(crate) mod by_routes;
#[cfg(target_os = "linux")]
mod by_rules;

#[cfg(target_os = "linux")]
pub(crate) use by_rules::Host;
#[cfg(not(target_os = "linux"))]
pub(crate) type Host = by_routes::Host<crate::sys::Device>;

/// A connection's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seat(pub(crate) u64);

/// A step that the system refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error("another connection of this user has a device")]
    AlreadyInUse,
    #[error("no free addresses in this subnet")]
    NoFreeSlot,
    /// Where all users share one routing table, a network is one user's.
    #[cfg(any(not(target_os = "linux"), test))]
    #[error("{0} is another user's")]
    TakenByAnother(Ipv4Net),
    #[error("cannot make a TUN device: {0}")]
    NoTun(io::Error),
    #[error("cannot {step}: {source}")]
    Step { step: &'static str, source: io::Error },
}

pub(super) trait Doing<T> {
    fn doing(self, step: &'static str) -> Result<T, HostError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, step: &'static str) -> Result<T, HostError> {
        self.map_err(|source| HostError::Step { step, source })
    }
}

/// What changed for a connection.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) interface: Interface,
    /// Of a new device; empty when it stays.
    pub(crate) queues: Vec<Handover>,
}

/// What a repair came to. It goes on behind a fault: an address or a route that one user cannot have holds up nobody else's.
/// Rules are settled for all at once, and only in their order.
#[derive(Debug, Default)]
pub(crate) struct Repair {
    /// How much was put back.
    pub(crate) put_back: usize,
    /// The first step that the system refused.
    pub(crate) fault: Option<HostError>,
}

impl Repair {
    fn note(&mut self, step: Result<usize, HostError>) {
        match step {
            Ok(put_back) => self.put_back += put_back,
            Err(fault) => {
                self.fault.get_or_insert(fault);
            }
        }
    }
}
