//! One entry into the data path, and the task that keeps connections to it warm.

use std::{
    collections::BTreeSet,
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use postern_proto::{
    door::{Door, EntryCarrier},
    head::Passage,
    id::NodeId,
    sync::ClusterInfo,
    time::UnixMillis,
};
use rustls::pki_types::ServerName;
use tokio::{runtime::Handle, sync::Notify};

use super::{
    DialError,
    dial::{dial_any, dial_through},
    pool::{Now, Pool, Warm},
};
use crate::tls::{self, ClientTls, OuterClientTls, TlsError};

/// How often idle connections are looked after.
const SWEEP: Duration = Duration::from_secs(15);
/// After a failed dial in the background the next one waits, twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often a balancer is asked for the same worker again. It may give turns to a few.
const SAME_WORKER_TRIES: u32 = 4;
/// How often it is asked for another worker than one that was removed.
const OTHER_WORKER_TRIES: u32 = 4;

/// An entry into the data path: one node, or the workers of a cluster, at one address, with the idle connections to it.
///
/// It keeps a few established, authenticated connections ready: one when quiet, more after a burst, none when long idle.
/// They are replaced in the background, aged out in minutes, and never outlive the client certificate.
pub struct Entry {
    door: Door,
    address: String,
    name: ServerName<'static>,
    relay: Option<Behind>,
    /// For an entry over the WebSocket carrier.
    outer: Option<OuterClientTls>,
    pool: Mutex<Pool>,
    /// Wakes the keeper; it outlives the entry, so that the keeper need not.
    wake: Arc<Notify>,
    /// Where the keeper runs: streams may be carried in other runtimes, which end sooner.
    runtime: Option<Handle>,
    keeper: std::sync::Once,
    /// No connection could be made ready, and nobody has heard of it.
    failed_ahead: AtomicBool,
}

/// The relay behind a gateway, when an entry leads through one.
struct Behind {
    gateway: NodeId,
    node: NodeId,
    name: ServerName<'static>,
    /// What is shown to the gateway; without it no passage is asked for ahead of a stream.
    lease: Mutex<Option<String>>,
}

impl Entry {
    /// `address` is `host:port`; the name is resolved with every dial. Connections are kept warm by the runtime that this
    /// is called in, else by the first that asks for one.
    pub fn new(door: impl Into<Door>, address: impl Into<String>, tls: ClientTls) -> Result<Arc<Self>, TlsError> {
        let door = door.into();
        Ok(Arc::new(Self {
            door,
            address: address.into(),
            name: tls::server_name(door)?,
            relay: None,
            outer: None,
            pool: Mutex::new(Pool::new(tls)),
            wake: Arc::new(Notify::new()),
            runtime: Handle::try_current().ok(),
            keeper: std::sync::Once::new(),
            failed_ahead: AtomicBool::new(false),
        }))
    }

    /// An entry that leads to a relay through a passage of a gateway.
    pub fn to_relay(
        gateway: NodeId,
        address: impl Into<String>,
        relay: NodeId,
        tls: ClientTls,
    ) -> Result<Arc<Self>, TlsError> {
        let behind = Behind { gateway, node: relay, name: tls::server_name(relay.into())?, lease: Mutex::default() };
        let mut entry = Self::new(gateway, address, tls)?;
        // Nobody else has it yet.
        if let Some(entry) = Arc::get_mut(&mut entry) {
            entry.relay = Some(behind);
        }
        Ok(entry)
    }

    /// An entry over the WebSocket carrier: what answers at the address ends `outer` and passes on what is within.
    pub fn over_websocket(
        door: impl Into<Door>,
        address: impl Into<String>,
        outer: OuterClientTls,
        tls: ClientTls,
    ) -> Result<Arc<Self>, TlsError> {
        let mut entry = Self::new(door, address, tls)?;
        // Nobody else has it yet.
        if let Some(entry) = Arc::get_mut(&mut entry) {
            entry.outer = Some(outer);
        }
        Ok(entry)
    }

    /// An entry that leads to the workers of a cluster, whichever answers at its address.
    pub fn to_cluster(cluster: &ClusterInfo, tls: ClientTls) -> Result<Arc<Self>, TlsError> {
        let outer = match (cluster.carrier, &cluster.authority) {
            (EntryCarrier::Direct, _) => return Self::new(cluster.id, cluster.address.as_str(), tls),
            (EntryCarrier::WebSocket, Some(authority)) => OuterClientTls::with_authority(authority)?,
            (EntryCarrier::WebSocket, None) => OuterClientTls::with_system_roots()?,
            (EntryCarrier::Unknown, _) => return Err(TlsError::UnknownCarrier),
        };
        Self::over_websocket(cluster.id, cluster.address.as_str(), outer, tls)
    }

    /// Who dials resources: the relay, where the entry leads to one.
    #[must_use]
    pub fn end(&self) -> Door {
        self.relay.as_ref().map_or(self.door, |relay| relay.node.into())
    }

    /// Who is dialled.
    #[must_use]
    pub const fn door(&self) -> Door {
        self.door
    }

    /// The relay that the entry leads to.
    #[must_use]
    pub fn relay(&self) -> Option<NodeId> {
        self.relay.as_ref().map(|relay| relay.node)
    }

    /// A lease to show to the gateway when a passage is asked for.
    pub fn set_lease(&self, lease: &str) {
        let Some(relay) = &self.relay else { return };
        let mut held = relay.lease.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_deref() != Some(lease) {
            *held = Some(lease.to_owned());
        }
    }

    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Takes a renewed certificate for the connections to come. Those that stand idle are used until the certificate ends
    /// that they were made with.
    pub fn set_tls(&self, tls: ClientTls) {
        self.pool().tls = tls;
        self.wake.notify_one();
    }

    /// Makes a spare connection ready, in the background, because a stream is to be expected. Call it within a runtime.
    pub fn warm(self: &Arc<Self>) {
        self.pool().spares.on_use(Instant::now());
        self.keep();
    }

    /// Dials once, keeps the connection as a spare where there is room, and says how long connect and handshake took.
    pub async fn probe(&self) -> Result<Duration, DialError> {
        let begun = Instant::now();
        let warm = self.fresh().await?;
        let took = begun.elapsed();
        let refused = self.pool().put(warm, now());
        farewell(refused);
        Ok(took)
    }

    /// How many connections stand idle.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.pool().idle()
    }

    /// Whether something has happened since the last question that speaks against the entry while no stream runs: an idle
    /// connection broke, or none could be made ready. The ones that broke are given up. No system call while all is well.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        // Both are asked: a doubt is told of once.
        let failed = self.failed_ahead.swap(false, Ordering::Relaxed);
        self.pool().has_broken() || failed
    }

    /// Closes the idle connections and keeps no more; running streams go on, and new ones dial for themselves.
    pub fn close(&self) {
        let idle = {
            let mut pool = self.pool();
            pool.closed = true;
            pool.distrust()
        };
        farewell(idle);
        self.wake.notify_one();
    }

    /// A connection for a stream: an idle one, or a fresh one.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<Warm, DialError> {
        if let Some(warm) = self.take() {
            return Ok(warm);
        }
        match self.fresh().await {
            // The balancer may have given its turns with others to the keeper meanwhile.
            Err(error @ DialError::Removed { .. }) => self.take().ok_or(error),
            fresh => fresh,
        }
    }

    /// Nobody speaks to these nodes any more, whatever they show: idle connections to them are given up. For the entry of a
    /// cluster.
    pub fn set_removed(&self, nodes: BTreeSet<NodeId>) {
        drop(self.pool().set_removed(nodes));
    }

    /// Whether this is a worker that was removed.
    pub(super) fn is_removed(&self, node: Option<NodeId>) -> bool {
        self.pool().is_removed(node)
    }

    /// Dials. Where one of several nodes answers, it is not one that was removed: another one is asked for then.
    pub(super) async fn fresh(&self) -> Result<Warm, DialError> {
        for _ in 0..OTHER_WORKER_TRIES {
            let warm = self.dial().await?;
            if !self.is_removed(warm.node) {
                return Ok(warm);
            }
        }
        Err(DialError::Removed { address: self.address.clone() })
    }

    async fn dial(&self) -> Result<Warm, DialError> {
        let tls = self.pool().tls.clone();
        let (link, node) = dial_any(&self.address, &self.name, &tls, self.outer.as_ref()).await?;
        let node = node.filter(|_| self.door.node().is_none());
        let link = match &self.relay {
            None => link,
            Some(relay) => {
                let lease = relay.lease.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let passage = Passage::new(relay.node, relay.gateway.tls_name(), lease).map_err(|error| {
                    DialError::Handshake { address: self.address.clone(), source: io::Error::other(error) }
                })?;
                dial_through(&self.address, link, &relay.name, &tls, &passage).await?
            }
        };
        Ok(Warm::new(link, node, tls.not_after(), now()))
    }

    /// Dials the node that another connection led to. Behind the address of a cluster anybody may answer: those who are
    /// not the one are kept as spares.
    pub(super) async fn fresh_to(self: &Arc<Self>, node: Option<NodeId>) -> Result<Warm, DialError> {
        for _ in 0..SAME_WORKER_TRIES {
            let warm = self.fresh().await?;
            if warm.node == node {
                return Ok(warm);
            }
            self.give_back(warm);
        }
        Err(DialError::OtherWorker { address: self.address.clone() })
    }

    fn take(self: &Arc<Self>) -> Option<Warm> {
        let (warm, missing) = {
            let mut pool = self.pool();
            let now = now();
            (pool.take(now), pool.missing(now))
        };
        if missing > 0 {
            self.keep();
        }
        warm
    }

    /// Keeps the connection of a finished stream for the next one.
    pub(super) fn give_back(self: &Arc<Self>, warm: Warm) {
        let refused = self.pool().put(warm, now());
        farewell(refused);
    }

    /// Says goodbye on the idle connections: no new streams are to come here.
    pub fn rest(&self) {
        let idle = self.pool().distrust();
        farewell(idle);
    }

    /// The same on those to one of several nodes.
    pub fn rest_at(&self, node: Option<NodeId>) {
        let idle = self.pool().distrust_node(node);
        farewell(idle);
    }

    /// Gives up the idle connections to a node, because one of them turned out dead.
    pub(super) fn distrust(&self, node: Option<NodeId>) {
        drop(self.pool().distrust_node(node));
    }

    /// Makes one spare connection, when one is missing.
    async fn refill(&self) -> Result<bool, DialError> {
        {
            let mut pool = self.pool();
            if pool.missing(now()) == 0 || !self.may_dial_ahead() {
                return Ok(false);
            }
            pool.dialling += 1;
        }
        let fresh = self.fresh().await;
        let refused = {
            let mut pool = self.pool();
            pool.dialling -= 1;
            pool.put(fresh?, now())
        };
        farewell(refused);
        Ok(true)
    }

    /// A gateway opens no passage to a client that shows nothing.
    fn may_dial_ahead(&self) -> bool {
        let shown = |relay: &Behind| relay.lease.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        self.relay.as_ref().is_none_or(shown)
    }

    /// Starts the keeper, or wakes it.
    fn keep(self: &Arc<Self>) {
        self.keeper.call_once(|| {
            let runtime = self.runtime.clone().unwrap_or_else(Handle::current);
            runtime.spawn(keep_warm(Arc::downgrade(self), self.wake.clone()));
        });
        self.wake.notify_one();
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("end", &self.end()).field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

/// Sweeps the pool and refills it, until the entry is gone.
async fn keep_warm(entry: Weak<Entry>, wake: Arc<Notify>) {
    let mut pause = FIRST_PAUSE;
    let mut swept = Instant::now();
    loop {
        let Some(entry) = entry.upgrade() else { return };
        if swept.elapsed() >= SWEEP {
            swept = Instant::now();
            let over = entry.pool().sweep(now());
            farewell(over);
        }
        match entry.refill().await {
            Ok(true) => {
                pause = FIRST_PAUSE;
                continue;
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, door = %entry.door, "no spare connection");
                entry.failed_ahead.store(true, Ordering::Relaxed);
                drop(entry);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
        }
        drop(entry);
        let _ = tokio::time::timeout(SWEEP, wake.notified()).await;
    }
}

/// Says goodbye on connections that are not kept.
fn farewell(connections: impl IntoIterator<Item = Warm>) {
    for warm in connections {
        warm.link.close();
    }
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix: UnixMillis(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)) }
}
