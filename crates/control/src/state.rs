//! What every request handler may use.

use std::sync::{Arc, Mutex, RwLock};

use postern_proto::name::DnsName;
use tokio_util::sync::CancellationToken;

use crate::{
    allowance::Allowance, authority::Authority, clock::Clock, journal::Journal, lease_keys::LeaseKeys,
    metrics::Metrics, password::Passwords, store::Store, sync::Exchange,
};

/// Handed to every handler; clones share everything.
#[derive(Clone)]
pub struct AppState {
    pub store: Store,
    pub clock: Clock,
    pub authority: Arc<Authority>,
    pub passwords: Arc<Passwords>,
    pub lease_keys: Arc<RwLock<LeaseKeys>>,
    pub exchange: Exchange,
    pub journal: Journal,
    pub metrics: Arc<Metrics>,
    /// The DNS names under which it is reached.
    pub names: Arc<Vec<DnsName>>,
    /// What devices may still write into the audit.
    pub allowance: Arc<Mutex<Allowance>>,
    /// Cancelled when the control plane is told to stop.
    pub stop: CancellationToken,
}
