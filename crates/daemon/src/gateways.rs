//! The gateways: which are known, how they are doing, and which one a stream should take.
//!
//! Pure but for the [`Entry`] values that it hands out: what happened is told to it, with the time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use postern_local_api::message::{GatewayState, GatewayStatus, Hop, Route};
use postern_proto::{id::NodeId, sync::GatewayInfo, time::UnixMillis};
use postern_tunnel::{
    client::Entry,
    tls::{ClientTls, TlsError},
};

use crate::{
    engine::{Jitter, Now, backoff},
    standing::Reach,
};

/// A gateway that failed is left alone for so long at first, twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A gateway that said 503 gets no new streams for so long; when it goes on draining, the control plane says so too.
const DRAIN_PAUSE: Duration = Duration::from_secs(15);
/// Connect times that differ by less do not count as different: streams then spread by order instead of by noise.
const SAME_SPEED: Duration = Duration::from_millis(5);
/// How often a gateway that works is looked at.
const PROBE_EVERY: Duration = Duration::from_secs(5 * 60);

/// See the module.
#[derive(Debug)]
pub struct Gateways {
    known: BTreeMap<NodeId, Gateway>,
    tls: Option<ClientTls>,
    jitter: Jitter,
}

#[derive(Debug)]
struct Gateway {
    info: GatewayInfo,
    entry: Arc<Entry>,
    state: State,
    connect_time: Option<Duration>,
    /// Boot clock.
    probe_at: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Unknown,
    Reachable,
    /// It said 503; boot clock.
    Draining {
        until: Duration,
    },
    Unreachable {
        error: String,
        failures: u32,
        until: Duration,
    },
}

impl Gateways {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { known: BTreeMap::new(), tls: None, jitter: Jitter::new(seed) }
    }

    /// Uses this certificate for connections to come; `None` closes all idle connections and forgets every gateway.
    pub fn set_tls(&mut self, tls: Option<ClientTls>) {
        match &tls {
            Some(tls) => self.known.values().for_each(|gateway| gateway.entry.set_tls(tls.clone())),
            None => self.known.values().for_each(|gateway| gateway.entry.close()),
        }
        if tls.is_none() {
            self.known.clear();
        }
        self.tls = tls;
    }

    /// The gateways that there are now.
    ///
    /// # Errors
    /// One that cannot be dialled at all; it is left out.
    pub fn set(&mut self, infos: Vec<GatewayInfo>) -> Result<(), TlsError> {
        let Some(tls) = self.tls.clone() else { return Ok(()) };
        let mut before = std::mem::take(&mut self.known);
        let mut result = Ok(());
        for info in infos {
            let kept = before.remove(&info.id).filter(|gateway| gateway.info.address == info.address);
            let gateway = match kept {
                Some(gateway) => Ok(Gateway { info, ..gateway }),
                None => Gateway::new(info, &tls),
            };
            match gateway {
                Ok(gateway) => {
                    self.known.insert(gateway.info.id, gateway);
                }
                Err(error) => result = Err(error),
            }
        }
        // Those that are gone, or have moved.
        before.values().for_each(|gateway| gateway.entry.close());
        result
    }

    /// The gateway for the next stream: among `via` (any, when that is empty) but not among `tried`, one that works,
    /// and the fastest of those. When all are known to fail the one whose pause ends first is tried all the same.
    #[must_use]
    pub fn choose(&self, via: &[NodeId], tried: &[NodeId], now: Duration) -> Option<Arc<Entry>> {
        Some(Arc::clone(&self.best(via, tried, now)?.entry))
    }

    /// The way that the next stream would take.
    #[must_use]
    pub fn route(&self, via: &[NodeId], now: Duration) -> Option<Route> {
        Some(Route { hops: vec![self.best(via, &[], now)?.hop()] })
    }

    /// Whether any gateway leads to where these do (any, when there is none).
    #[must_use]
    pub fn reach(&self, via: &[NodeId], now: Now) -> Reach {
        let leads = |gateway: &&Gateway| via.is_empty() || via.contains(&gateway.info.id);
        let mut away: Option<(Vec<String>, String, Duration)> = None;
        for gateway in self.known.values().filter(leads) {
            let State::Unreachable { error, until, .. } = &gateway.state else { return Reach::Up };
            let (names, _, retry) = away.get_or_insert_with(|| (Vec::new(), error.clone(), *until));
            names.push(gateway.info.name.clone());
            *retry = (*retry).min(*until);
        }
        match away {
            None => Reach::NoGateway,
            Some((gateways, error, until)) => {
                // Whole seconds, so that the same time reads the same.
                let retry_at = UnixMillis(now.wall.plus(until.saturating_sub(now.boot)).0 / 1000 * 1000);
                Reach::Away { gateways, error, retry_at }
            }
        }
    }

    #[must_use]
    pub fn name(&self, node: NodeId) -> Option<String> {
        Some(self.known.get(&node)?.info.name.clone())
    }

    fn best(&self, via: &[NodeId], tried: &[NodeId], now: Duration) -> Option<&Gateway> {
        let candidates = self
            .known
            .values()
            .filter(|gateway| (via.is_empty() || via.contains(&gateway.info.id)) && !tried.contains(&gateway.info.id));
        candidates.min_by_key(|gateway| {
            let id = gateway.info.id;
            let place = via.iter().position(|other| *other == id).unwrap_or(usize::MAX);
            (gateway.reluctance(now), gateway.slowness(), place, id)
        })
    }

    #[must_use]
    pub fn entry(&self, node: NodeId) -> Option<Arc<Entry>> {
        Some(Arc::clone(&self.known.get(&node)?.entry))
    }

    /// Every entry with the name of its gateway.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, Arc<Entry>)> {
        self.known.values().map(|gateway| (gateway.info.name.clone(), Arc::clone(&gateway.entry))).collect()
    }

    /// The entries that are to be looked at now, to find out how fast they answer and whether those that failed are
    /// back.
    #[must_use]
    pub fn take_due_probes(&mut self, now: Duration) -> Vec<Arc<Entry>> {
        let due = self.known.values_mut().filter(|gateway| gateway.probe_at <= now);
        due.map(|gateway| {
            gateway.probe_at = now.saturating_add(PROBE_EVERY);
            Arc::clone(&gateway.entry)
        })
        .collect()
    }

    /// It answered, in this time where that was measured.
    pub fn note_reached(&mut self, node: NodeId, connect_time: Option<Duration>) {
        if let Some(gateway) = self.known.get_mut(&node) {
            if !matches!(gateway.state, State::Draining { .. }) {
                gateway.state = State::Reachable;
            }
            gateway.connect_time = connect_time.or(gateway.connect_time);
        }
    }

    /// It did not answer, or broke a connection off. It is looked at again when its pause is over.
    pub fn note_failed(&mut self, node: NodeId, error: String, now: Duration) {
        let Some(gateway) = self.known.get_mut(&node) else { return };
        let failures = match gateway.state {
            // Many streams fail at once when a gateway dies: that is one failure.
            State::Unreachable { failures, until, .. } if until > now => failures,
            State::Unreachable { failures, .. } => failures.saturating_add(1),
            State::Unknown | State::Reachable | State::Draining { .. } => 1,
        };
        let until = now.saturating_add(backoff(failures, FIRST_PAUSE, LONGEST_PAUSE, &mut self.jitter));
        gateway.state = State::Unreachable { error, failures, until };
        gateway.probe_at = until;
    }

    /// It said that it takes no new streams.
    pub fn note_draining(&mut self, node: NodeId, now: Duration) {
        if let Some(gateway) = self.known.get_mut(&node) {
            gateway.state = State::Draining { until: now.saturating_add(DRAIN_PAUSE) };
        }
    }

    #[must_use]
    pub fn status(&self, now: Duration) -> Vec<GatewayStatus> {
        self.known.values().map(|gateway| gateway.status(now)).collect()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

impl Gateway {
    fn new(info: GatewayInfo, tls: &ClientTls) -> Result<Self, TlsError> {
        let entry = Entry::new(info.id, info.address.clone(), tls.clone())?;
        Ok(Self { info, entry, state: State::Unknown, connect_time: None, probe_at: Duration::ZERO })
    }

    /// 0: take it. Else later than every gateway with a lower number; those that fail in the order of their pauses.
    fn reluctance(&self, now: Duration) -> (u8, Duration) {
        match &self.state {
            State::Unreachable { until, .. } if *until > now => (2, *until),
            State::Draining { until } if *until > now => (1, Duration::ZERO),
            _ if self.info.draining => (1, Duration::ZERO),
            State::Unknown | State::Reachable | State::Draining { .. } | State::Unreachable { .. } => {
                (0, Duration::ZERO)
            }
        }
    }

    /// In steps of [`SAME_SPEED`]; unknown speed is fast until proven otherwise.
    fn slowness(&self) -> u128 {
        self.connect_time.unwrap_or_default().as_nanos() / SAME_SPEED.as_nanos()
    }

    fn hop(&self) -> Hop {
        let up = !matches!(self.state, State::Unreachable { .. });
        Hop { name: self.info.name.clone(), latency_micros: self.latency_micros(), up }
    }

    fn latency_micros(&self) -> Option<u64> {
        self.connect_time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }

    fn status(&self, now: Duration) -> GatewayStatus {
        let state = match &self.state {
            State::Unreachable { error, .. } => GatewayState::Unreachable { error: error.clone() },
            State::Draining { until } if *until > now => GatewayState::Draining,
            _ if self.info.draining => GatewayState::Draining,
            State::Unknown => GatewayState::Unknown,
            State::Reachable | State::Draining { .. } => GatewayState::Reachable,
        };
        GatewayStatus {
            id: self.info.id,
            name: self.info.name.clone(),
            address: self.info.address.clone(),
            state,
            spares: u32::try_from(self.entry.idle()).unwrap_or(u32::MAX),
            handshake_micros: self.latency_micros(),
        }
    }
}

#[cfg(test)]
mod tests;
