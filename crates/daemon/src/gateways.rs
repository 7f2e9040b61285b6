//! The ways into the data path: gateways, relays behind them, clusters of workers, how they are doing, and which one a stream should take.
//!
//! Pure but for the [`Entry`] values that it hands out: what happened is told to it, with the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use postern_local_api::message::{GatewayState, GatewayStatus, Hop, Route};
use postern_proto::{
    door::Door,
    id::NodeId,
    sync::{ClusterInfo, GatewayInfo, LeavingWorker, RelayInfo},
    time::UnixMillis,
};
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
/// A gateway that is doubted for no reason is looked at again so often at most: a balancer in front of it may cut whatever
/// stands idle for some seconds.
const DOUBTS_APART: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Gateways {
    known: BTreeMap<Way, Gateway>,
    relays: BTreeMap<NodeId, RelayInfo>,
    tls: Option<ClientTls>,
    jitter: Jitter,
}

/// A gateway, a relay through one, or a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    pub door: Door,
    pub relay: Option<NodeId>,
}

/// An entry as the control plane lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    Gateway(GatewayInfo),
    Cluster(ClusterInfo),
}

impl Way {
    /// The way that an entry leads.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        Self { door: entry.door(), relay: entry.relay() }
    }

    /// Who dials the resource.
    #[must_use]
    pub fn end(self) -> Door {
        self.relay.map_or(self.door, Door::from)
    }

    const fn direct(self) -> Self {
        Self { relay: None, ..self }
    }
}

impl<D: Into<Door>> From<D> for Way {
    fn from(door: D) -> Self {
        Self { door: door.into(), relay: None }
    }
}

impl Listed {
    const fn door(&self) -> Door {
        match self {
            Self::Gateway(gateway) => Door::Node(gateway.id),
            Self::Cluster(cluster) => Door::Cluster(cluster.id),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Gateway(gateway) => &gateway.name,
            Self::Cluster(cluster) => &cluster.name,
        }
    }

    /// Where it is dialled, as `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        match self {
            Self::Gateway(gateway) => &gateway.address,
            Self::Cluster(cluster) => &cluster.address,
        }
    }

    /// A cluster never takes no new streams: its workers leave one by one.
    const fn is_draining(&self) -> bool {
        matches!(self, Self::Gateway(gateway) if gateway.draining)
    }

    /// When its streams are cut, where it takes no new ones and that is known.
    fn drain_ends(&self) -> Option<UnixMillis> {
        match self {
            Self::Gateway(gateway) => gateway.drain_ends.filter(|_| gateway.draining),
            Self::Cluster(_) => None,
        }
    }

    /// Its workers that are on their way out of service.
    fn leaving(&self) -> &[LeavingWorker] {
        match self {
            Self::Gateway(_) => &[],
            Self::Cluster(cluster) => &cluster.leaving,
        }
    }

    /// Whether connections that were made to one lead where those to the other do.
    fn leads_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Gateway(one), Self::Gateway(other)) => one.address == other.address,
            (Self::Cluster(one), Self::Cluster(other)) => {
                (&one.address, one.carrier, &one.authority) == (&other.address, other.carrier, &other.authority)
            }
            _ => false,
        }
    }
}

#[derive(Debug)]
struct Gateway {
    info: Listed,
    relay: Option<Behind>,
    entry: Arc<Entry>,
    state: State,
    connect_time: Option<Duration>,
    /// The connect time that routes go by.
    near: Steady,
    /// That from the gateway to the relay.
    far: Steady,
    /// Boot clock.
    probe_at: Duration,
    /// When the next doubt is followed up at the earliest (boot clock).
    doubt_from: Duration,
}

/// A time that moves only when what is measured is another one: two ways that are about as fast do not take turns, however
/// near they lie to the border between two steps of speed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Steady(Option<Duration>);

/// What is known of the relay at the end of a way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Behind {
    name: String,
    /// From the gateway on, where it has parked links; `None`: another gateway has to pass streams on.
    latency: Option<Duration>,
    draining: bool,
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
        Self { known: BTreeMap::new(), relays: BTreeMap::new(), tls: None, jitter: Jitter::new(seed) }
    }

    /// Uses this certificate for connections to come; `None` closes all idle connections and forgets every gateway.
    pub fn set_tls(&mut self, tls: Option<ClientTls>) {
        match &tls {
            Some(tls) => self.known.values().for_each(|gateway| gateway.entry.set_tls(tls.clone())),
            None => self.known.values().for_each(|gateway| gateway.entry.close()),
        }
        if tls.is_none() {
            self.known.clear();
            self.relays.clear();
        }
        self.tls = tls;
    }

    /// The entries that there are now.
    ///
    /// # Errors
    /// One that cannot be dialled at all; it is left out.
    pub fn set(&mut self, infos: Vec<Listed>, relays: Vec<RelayInfo>) -> Result<(), TlsError> {
        let Some(tls) = self.tls.clone() else { return Ok(()) };
        let mut before = std::mem::take(&mut self.known);
        self.relays = relays.into_iter().map(|relay| (relay.id, relay)).collect();
        let mut result = Ok(());
        for info in infos {
            let gateway = info.door().node();
            let behind =
                self.relays.values().filter_map(|relay| Some((Some(relay.id), Some(Behind::of(relay, gateway?)?))));
            for (relay, behind) in [(None, None)].into_iter().chain(behind) {
                let way = Way { door: info.door(), relay };
                let kept = before.remove(&way).filter(|gateway| gateway.info.leads_as(&info));
                let gateway = match kept {
                    Some(gateway) => Ok(gateway.told(info.clone(), behind)),
                    None => Gateway::new(info.clone(), relay, behind, &tls),
                };
                match gateway {
                    Ok(gateway) => {
                        if gateway.leaves() {
                            // What stands idle there would hold up the gateway's end.
                            gateway.entry.rest();
                        }
                        gateway.know_workers();
                        self.known.insert(way, gateway);
                    }
                    Err(error) => result = Err(error),
                }
            }
        }
        // Those that are gone, or have moved.
        before.values().for_each(|gateway| gateway.entry.close());
        result
    }

    /// The gateway for the next stream: among `via` (any, when that is empty) but not among `tried`, one that works,
    /// and the fastest of those. When all are known to fail the one whose pause ends first is tried all the same.
    #[must_use]
    pub fn choose(&self, via: &[Door], tried: &[Way], now: Duration) -> Option<Arc<Entry>> {
        Some(Arc::clone(&self.best(via, tried, now)?.1.entry))
    }

    /// The best two ways when nothing is known of either, and nothing stands ready: then whichever answers first is taken.
    #[must_use]
    pub fn rivals(&self, via: &[Door], tried: &[Way], now: Duration) -> Option<[Arc<Entry>; 2]> {
        let (way, first) = self.best(via, tried, now)?;
        let rest: Vec<Way> = tried.iter().copied().chain([way]).collect();
        let (other, second) = self.best(via, &rest, now)?;
        let unproven = |way: Way, gateway: &Gateway| {
            gateway.state == State::Unknown
                && gateway.connect_time.is_none()
                && gateway.entry.idle() == 0
                && self.reluctance(way, gateway, now).0 == 0
        };
        let open = way.door != other.door && unproven(way, first) && unproven(other, second);
        open.then(|| [Arc::clone(&first.entry), Arc::clone(&second.entry)])
    }

    /// The way that the next stream would take.
    #[must_use]
    pub fn route(&self, via: &[Door], now: Duration) -> Option<Route> {
        Some(self.hops(self.best(via, &[], now)?.0))
    }

    /// The way that a stream has taken.
    #[must_use]
    pub fn route_of(&self, way: Way) -> Option<Route> {
        self.known.contains_key(&way).then(|| self.hops(way))
    }

    /// Whether any node goes out of service at a time that is known.
    #[must_use]
    pub fn any_leaves(&self) -> bool {
        let leaves = |info: &Listed| info.drain_ends().is_some() || !info.leaving().is_empty();
        let gateways = self.direct().any(|gateway| leaves(&gateway.info));
        gateways || self.relays.values().any(|relay| relay.draining && relay.drain_ends.is_some())
    }

    /// When the streams of a way are cut because a node on it goes out of service, and which node that is. `worker`: who
    /// carries them at a cluster.
    #[must_use]
    pub fn leaves(&self, way: Way, worker: Option<NodeId>) -> Option<(UnixMillis, String)> {
        let entry = self.known.get(&way.direct()).map(|gateway| &gateway.info);
        let gateway = entry.and_then(|info| Some((info.drain_ends()?, info.name().to_owned())));
        let relay = way.relay.and_then(|relay| self.relays.get(&relay)).filter(|relay| relay.draining);
        let relay = relay.and_then(|relay| Some((relay.drain_ends?, relay.name.clone())));
        let worker = entry.and_then(|info| info.leaving().iter().find(|leaving| Some(leaving.id) == worker));
        let worker = worker.map(|worker| (worker.ends, worker.name.clone()));
        gateway.into_iter().chain(relay).chain(worker).min()
    }

    /// The workers that were removed while their certificates go on.
    #[must_use]
    pub fn removed(&self) -> BTreeSet<NodeId> {
        let clusters = self.direct().filter_map(|gateway| match &gateway.info {
            Listed::Cluster(cluster) => Some(&cluster.removed),
            Listed::Gateway(_) => None,
        });
        clusters.flatten().copied().collect()
    }

    fn hops(&self, way: Way) -> Route {
        let first = self.known.get(&way.direct()).map(Gateway::hop);
        let second = way.relay.and_then(|_| self.known.get(&way)).and_then(|gateway| {
            let relay = gateway.relay.as_ref()?;
            let up = !matches!(gateway.state, State::Unreachable { .. });
            Some(Hop { name: relay.name.clone(), latency_micros: relay.latency.map(micros), up })
        });
        Route { hops: first.into_iter().chain(second).collect() }
    }

    /// Whether any gateway leads to where these do (any, when there is none).
    #[must_use]
    pub fn reach(&self, via: &[Door], now: Now) -> Reach {
        let mut away: Option<(Vec<String>, String, Duration)> = None;
        for (_, gateway) in self.known.iter().filter(|(way, _)| leads(**way, via)) {
            let State::Unreachable { error, until, .. } = &gateway.state else { return Reach::Up };
            let (names, _, retry) = away.get_or_insert_with(|| (Vec::new(), error.clone(), *until));
            if !names.iter().any(|name| name == gateway.info.name()) {
                names.push(gateway.info.name().to_owned());
            }
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
    pub fn name(&self, end: Door) -> Option<String> {
        let entry = self.known.get(&Way::from(end)).map(|gateway| gateway.info.name());
        entry.or_else(|| self.relays.get(&end.node()?).map(|relay| relay.name.as_str())).map(str::to_owned)
    }

    fn best(&self, via: &[Door], tried: &[Way], now: Duration) -> Option<(Way, &Gateway)> {
        let candidates = self.known.iter().filter(|(way, _)| leads(**way, via) && !tried.contains(way));
        let best = candidates.min_by_key(|(way, gateway)| {
            let place = via.iter().position(|other| *other == way.end()).unwrap_or(usize::MAX);
            let passed_on = gateway.relay.as_ref().is_some_and(|relay| relay.latency.is_none());
            (self.reluctance(**way, gateway, now), passed_on, self.slowness(**way, gateway), place, **way)
        });
        best.map(|(way, gateway)| (*way, gateway))
    }

    /// That of the gateway holds for every way through it.
    fn reluctance(&self, way: Way, gateway: &Gateway, now: Duration) -> (u8, Duration) {
        let own = gateway.reluctance(now);
        let first = self.known.get(&way.direct()).filter(|_| way.relay.is_some());
        first.map_or(own, |first| own.max(first.reluctance(now)))
    }

    /// In steps of [`SAME_SPEED`]; unknown speed is fast until proven otherwise.
    fn slowness(&self, way: Way, gateway: &Gateway) -> u128 {
        let near = self.known.get(&way.direct()).and_then(|gateway| gateway.near.0);
        (near.unwrap_or_default() + gateway.far.0.unwrap_or_default()).as_nanos() / SAME_SPEED.as_nanos()
    }

    /// A gateway's own entry.
    #[must_use]
    pub fn entry(&self, door: impl Into<Door>) -> Option<Arc<Entry>> {
        Some(Arc::clone(&self.known.get(&Way::from(door))?.entry))
    }

    /// Every entry with the name of its gateway.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, Arc<Entry>)> {
        self.direct().map(|gateway| (gateway.info.name().to_owned(), Arc::clone(&gateway.entry))).collect()
    }

    /// The entries that are to be looked at now, to find out how fast they answer and whether those that failed are
    /// back, and those where an idle connection broke: who uses nothing for hours is told all the same.
    #[must_use]
    pub fn take_due_probes(&mut self, now: Duration) -> Vec<Arc<Entry>> {
        let mut due = Vec::new();
        for gateway in self.known.values_mut() {
            // Of a relay one hears whether it is there; only a way that failed is looked at. That no connection to one can be
            // made ready says nothing: the lease that was shown last may have ended.
            let failed = matches!(gateway.state, State::Unreachable { .. });
            if gateway.relay.is_some() && !failed {
                continue;
            }
            if gateway.entry.is_doubtful() {
                gateway.doubt(now);
            }
            if gateway.probe_at <= now {
                gateway.probe_at = now.saturating_add(PROBE_EVERY);
                due.push(Arc::clone(&gateway.entry));
            }
        }
        due
    }

    /// It answered, in this time where that was measured.
    pub fn note_reached(&mut self, way: impl Into<Way>, connect_time: Option<Duration>) {
        if let Some(gateway) = self.known.get_mut(&way.into()) {
            if matches!(gateway.state, State::Unreachable { .. }) {
                // The doubt was right.
                gateway.doubt_from = Duration::ZERO;
            }
            if !matches!(gateway.state, State::Draining { .. }) {
                gateway.state = State::Reachable;
            }
            gateway.connect_time = match (gateway.connect_time, connect_time) {
                // One slow answer moves streams nowhere.
                (Some(before), Some(now)) => Some((before * 3 + now) / 4),
                (before, now) => now.or(before),
            };
            gateway.near.follow(gateway.connect_time);
        }
    }

    /// It did not answer, or broke a connection off. It is looked at again when its pause is over.
    pub fn note_failed(&mut self, way: impl Into<Way>, error: String, now: Duration) {
        let Some(gateway) = self.known.get_mut(&way.into()) else { return };
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
    pub fn note_draining(&mut self, way: impl Into<Way>, now: Duration) {
        if let Some(gateway) = self.known.get_mut(&way.into()) {
            gateway.state = State::Draining { until: now.saturating_add(DRAIN_PAUSE) };
        }
    }

    #[must_use]
    pub fn status(&self, now: Duration) -> Vec<GatewayStatus> {
        self.direct().map(|gateway| gateway.status(now)).collect()
    }

    fn direct(&self) -> impl Iterator<Item = &Gateway> {
        self.known.values().filter(|gateway| gateway.relay.is_none())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

impl Gateway {
    fn new(info: Listed, relay: Option<NodeId>, behind: Option<Behind>, tls: &ClientTls) -> Result<Self, TlsError> {
        let entry = match (&info, relay) {
            (Listed::Gateway(gateway), None) => Entry::new(gateway.id, gateway.address.as_str(), tls.clone()),
            (Listed::Gateway(gateway), Some(relay)) => {
                Entry::to_relay(gateway.id, gateway.address.as_str(), relay, tls.clone())
            }
            (Listed::Cluster(cluster), _) => Entry::to_cluster(cluster, tls.clone()),
        }?;
        let far = Steady(behind.as_ref().and_then(|relay| relay.latency));
        let (near, state) = (Steady::default(), State::Unknown);
        let (probe_at, doubt_from) = (Duration::ZERO, Duration::ZERO);
        Ok(Self { info, relay: behind, entry, state, connect_time: None, near, far, probe_at, doubt_from })
    }

    /// Nobody is to speak to workers that were removed, and idle connections would hold up those that go out of service.
    fn know_workers(&self) {
        let Listed::Cluster(cluster) = &self.info else { return };
        self.entry.set_removed(cluster.removed.iter().copied().collect());
        cluster.leaving.iter().for_each(|worker| self.entry.rest_at(Some(worker.id)));
    }

    /// Brings the next look forward. What leaves says goodbye by itself, and what failed is looked at anyway.
    fn doubt(&mut self, now: Duration) {
        if matches!(self.state, State::Unknown | State::Reachable) && !self.leaves() {
            let at = now.max(self.doubt_from);
            self.probe_at = self.probe_at.min(at);
            self.doubt_from = at.saturating_add(DOUBTS_APART);
        }
    }

    /// 0: take it. Else later than every gateway with a lower number; those that fail in the order of their pauses.
    fn reluctance(&self, now: Duration) -> (u8, Duration) {
        match &self.state {
            State::Unreachable { until, .. } if *until > now => (2, *until),
            State::Draining { until } if *until > now => (1, Duration::ZERO),
            _ if self.leaves() => (1, Duration::ZERO),
            // Being looked at: nobody else should have to find out while another one works.
            State::Unreachable { .. } => (0, Duration::from_nanos(1)),
            State::Unknown | State::Reachable | State::Draining { .. } => (0, Duration::ZERO),
        }
    }

    /// Whether the gateway or the relay takes no new streams.
    fn leaves(&self) -> bool {
        self.info.is_draining() || self.relay.as_ref().is_some_and(|relay| relay.draining)
    }

    /// The same with what is said of it now. One that is back in service is looked at again at once: that it took no
    /// streams a moment ago counts no more.
    fn told(self, info: Listed, relay: Option<Behind>) -> Self {
        let left = self.leaves();
        let mut now = Self { info, relay, ..self };
        now.far.follow(now.relay.as_ref().and_then(|relay| relay.latency));
        if left && !now.leaves() && !matches!(now.state, State::Reachable) {
            Self { state: State::Unknown, probe_at: Duration::ZERO, ..now }
        } else {
            now
        }
    }

    fn hop(&self) -> Hop {
        let up = !matches!(self.state, State::Unreachable { .. });
        Hop { name: self.info.name().to_owned(), latency_micros: self.latency_micros(), up }
    }

    fn latency_micros(&self) -> Option<u64> {
        self.connect_time.map(micros)
    }

    fn status(&self, now: Duration) -> GatewayStatus {
        let state = match &self.state {
            State::Unreachable { error, .. } => GatewayState::Unreachable { error: error.clone() },
            State::Draining { until } if *until > now => GatewayState::Draining,
            _ if self.info.is_draining() => GatewayState::Draining,
            State::Unknown => GatewayState::Unknown,
            State::Reachable | State::Draining { .. } => GatewayState::Reachable,
        };
        GatewayStatus {
            id: self.info.door(),
            name: self.info.name().to_owned(),
            address: self.info.address().to_owned(),
            state,
            spares: u32::try_from(self.entry.idle()).unwrap_or(u32::MAX),
            handshake_micros: self.latency_micros(),
        }
    }
}

impl Steady {
    fn follow(&mut self, measured: Option<Duration>) {
        let same = self.0.zip(measured).is_some_and(|(steady, now)| now.abs_diff(steady) < SAME_SPEED.max(steady / 4));
        if !same {
            self.0 = measured;
        }
    }
}

impl Behind {
    /// `None` while no way leads to the relay.
    fn of(relay: &RelayInfo, gateway: NodeId) -> Option<Self> {
        let at = relay.parked.iter().find(|at| at.gateway == gateway);
        let latency = at.map(|at| Duration::from_micros(at.latency_micros));
        let draining = relay.draining;
        (!relay.parked.is_empty()).then(|| Self { name: relay.name.clone(), latency, draining })
    }
}

/// Whether a way ends at one of these nodes; at any gateway, when there is none.
fn leads(way: Way, via: &[Door]) -> bool {
    if via.is_empty() { way.relay.is_none() && way.door.node().is_some() } else { via.contains(&way.end()) }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
