//! One entry into the data path, and the task that keeps connections to it warm.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant, SystemTime},
};

use postern_proto::{id::NodeId, time::UnixMillis};
use rustls::pki_types::ServerName;
use tokio::{runtime::Handle, sync::Notify};

use super::{
    DialError,
    dial::dial,
    pool::{Now, Pool, Warm},
};
use crate::tls::{self, ClientTls, TlsError};

/// How often idle connections are looked after.
const SWEEP: Duration = Duration::from_secs(15);
/// After a failed dial in the background the next one waits, twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// An entry into the data path: one node at one address, with the idle connections to it.
///
/// It keeps a few established, authenticated connections ready: one when quiet, more after a burst, none when long idle.
/// They are replaced in the background, aged out in minutes, and never outlive the client certificate.
pub struct Entry {
    node: NodeId,
    address: String,
    name: ServerName<'static>,
    pool: Mutex<Pool>,
    /// Wakes the keeper; it outlives the entry, so that the keeper need not.
    wake: Arc<Notify>,
    /// Where the keeper runs: streams may be carried in other runtimes, which end sooner.
    runtime: Option<Handle>,
    keeper: std::sync::Once,
}

impl Entry {
    /// `address` is `host:port`; the name is resolved with every dial. Connections are kept warm by the runtime that this
    /// is called in, else by the first that asks for one.
    pub fn new(node: NodeId, address: impl Into<String>, tls: ClientTls) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self {
            node,
            address: address.into(),
            name: tls::server_name(node)?,
            pool: Mutex::new(Pool::new(tls)),
            wake: Arc::new(Notify::new()),
            runtime: Handle::try_current().ok(),
            keeper: std::sync::Once::new(),
        }))
    }

    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
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
        match self.take() {
            Some(warm) => Ok(warm),
            None => self.fresh().await,
        }
    }

    /// Dials.
    pub(super) async fn fresh(&self) -> Result<Warm, DialError> {
        let tls = self.pool().tls.clone();
        let link = dial(&self.address, &self.name, &tls).await?;
        Ok(Warm::new(link, tls.not_after(), now()))
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

    /// Gives up the idle connections, because one of them turned out dead.
    pub(super) fn distrust(&self) {
        drop(self.pool().distrust());
    }

    /// Makes one spare connection, when one is missing.
    async fn refill(&self) -> Result<bool, DialError> {
        {
            let mut pool = self.pool();
            if pool.missing(now()) == 0 {
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
        f.debug_struct("Entry").field("node", &self.node).field("address", &self.address).finish_non_exhaustive()
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
                tracing::debug!(%error, node = %entry.node, "no spare connection");
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
