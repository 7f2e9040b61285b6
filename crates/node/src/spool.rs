//! Session records on this node's disk, until the control plane has them.
//!
//! Before [`Spool::start`] returns, the start record is in the file, where it outlives this process, and either it is
//! durable itself or a preparation is: a record that says who may reach what from now on, written while nobody waited
//! ([`Spool::expect`], docs/decisions/0012-prepared-session-records.md). A stream carries nothing upstream before. One
//! thread makes records durable: everything that waits goes out as one write, so that a thousand streams a second share
//! a few hundred writes (group commit). Segments are filled with zeroes beforehand and written through `O_DSYNC`, which
//! costs no journal commit (docs/decisions/0006-session-records-on-disk.md holds what was measured).
//!
//! Records form a chain of hashes; what a crash tore off at the end is found by length and hash and cut. When the disk is
//! full or the spool has reached its limit, new streams are refused and the ends of running ones wait in memory; when
//! there is space again it goes on by itself. Nothing here ever deletes a record that is not acknowledged.

mod log;
mod preparations;
mod reader;
mod recover;
mod segment;
mod writer;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use postern_proto::{
    id::{NodeId, StreamId},
    problem::Problem,
    record::{Event, GENESIS, SessionStart},
    time::UnixMillis,
};
use postern_tunnel::private_file;
use tokio::sync::{oneshot, watch};

use crate::clock;

use self::{
    log::{Line, Log},
    preparations::preparation,
    recover::track,
    segment::Segment,
    writer::Writer,
};
pub use self::{reader::SpoolReader, recover::SpoolOpenError};

/// Streams that may wait for their start record; more are refused.
const MAX_WAITING: usize = 16_384;
/// How long a record that nobody waits for may wait for one that somebody does: the end of a stream then goes out with
/// the start of the next one, which would else wait for a write of its own.
const LINGER: Duration = Duration::from_millis(5);
/// Refusals that may wait to be written; more are counted and dropped.
const MAX_NOTES: usize = 4096;

const SMALLEST_SEGMENT: u64 = 64 << 10;
const LARGEST_SEGMENT: u64 = 8 << 20;

/// Where the spool lies and how large it may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    pub folder: PathBuf,
    /// Size of one file. Some 14,000 records of 600 bytes fit into 8 MiB.
    pub segment_bytes: u64,
    /// New streams are refused when the files together are larger.
    pub limit_bytes: u64,
}

impl SpoolConfig {
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), segment_bytes: LARGEST_SEGMENT, limit_bytes: 4 << 30 }
    }

    /// With files small enough that a small limit holds several: one that is written to is never given up.
    #[must_use]
    pub fn with_limit(self, limit_bytes: u64) -> Self {
        Self { segment_bytes: (limit_bytes / 16).clamp(SMALLEST_SEGMENT, LARGEST_SEGMENT), limit_bytes, ..self }
    }
}

/// The last record of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tip {
    /// 0: there is none yet.
    pub seq: u64,
    pub hash: String,
}

impl Default for Tip {
    fn default() -> Self {
        Self { seq: 0, hash: GENESIS.to_owned() }
    }
}

/// Why a record is not on disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    #[error("the session records cannot be written: {0}")]
    Disk(String),
    #[error("the session records that wait for the control plane have reached {limit} bytes")]
    Limit { limit: u64 },
    #[error("too many streams wait for their session record")]
    Busy,
    #[error("a session record is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the node is stopping")]
    Closed,
}

impl SpoolError {
    /// What the client is told.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (status, code, title) = match self {
            Self::Busy => (429, "too_many_streams", "The node is opening too many connections at once"),
            Self::Closed => (503, "draining", "The node is stopping"),
            Self::Disk(_) | Self::Limit { .. } | Self::TooLong { .. } => {
                (503, "audit_unavailable", "The node cannot record sessions, so it opens none")
            }
        };
        Problem::new(status, code, title).with_detail(format!("{self}."))
    }
}

/// The records of one node. Clones are the same spool.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
}

/// No two locks are held together but the log's and, within it, the ledger's.
struct Shared {
    config: SpoolConfig,
    /// Which start of the machine this is.
    boot: String,
    log: Mutex<Log>,
    queue: Mutex<Queue>,
    work: Condvar,
    ledger: Mutex<Ledger>,
    durable: watch::Sender<Tip>,
    /// Everything up to this record is stored elsewhere, as far as is known.
    stored: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What waits to be written.
#[derive(Default)]
struct Queue {
    entries: Vec<Entry>,
    /// Somebody waits for one of the entries, or for what is in the file.
    urgent: bool,
    /// Records are in the file and not on the disk yet.
    appended: bool,
    dropped_notes: u64,
    closing: bool,
    /// The writer has left.
    closed: bool,
}

struct Entry {
    at: UnixMillis,
    event: Event,
    /// `None`: nobody waits; it is tried until it is written.
    done: Option<oneshot::Sender<Result<(), SpoolError>>>,
}

/// What is on disk.
#[derive(Default)]
struct Ledger {
    /// Oldest first; the last one is being written.
    segments: VecDeque<Segment>,
    /// Sessions that have begun and not ended, with the number of their start record.
    open: BTreeMap<StreamId, u64>,
}

/// Sessions that were open when the segment with their start record was deleted.
const OPEN_FILE: &str = "open.json";

impl Spool {
    /// Opens the folder, cuts a torn end, and starts the writer. Sessions that the run before left open are handed back;
    /// their ends are for the caller to write.
    ///
    /// `base`: where the chain goes on when the folder holds none.
    pub fn open(config: SpoolConfig, node: NodeId, base: Tip) -> Result<(Self, Vec<StreamId>), SpoolOpenError> {
        let (boot, at) = (boot_id(), clock::now());
        let recovered = recover::recover(&config, base)?;
        let settled = recovered.settle(&boot).into_iter().map(Event::Settled);
        let entries = settled.map(|event| Entry { at, event, done: None }).collect();
        let lost = recovered.open.keys().copied().collect();
        let shared = Arc::new(Shared {
            durable: watch::Sender::new(recovered.tip.clone()),
            stored: AtomicU64::new(recovered.segments.front().map_or(0, |oldest| oldest.first.saturating_sub(1))),
            ledger: Mutex::new(Ledger { segments: recovered.segments, open: recovered.open }),
            log: Mutex::new(Log::new(node, recovered.tip.clone())),
            boot,
            queue: Mutex::new(Queue { entries, ..Queue::default() }),
            work: Condvar::new(),
            thread: Mutex::default(),
            config,
        });
        let writer = Writer::new(Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("session-records".into()).spawn(move || writer.run());
        let thread = thread.map_err(SpoolOpenError::Thread)?;
        *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok((Self { shared }, lost))
    }

    /// The last record that a folder holds; `None` when there is no chain in it. Nothing is changed.
    pub fn tip_of(config: &SpoolConfig) -> Result<Option<Tip>, SpoolOpenError> {
        recover::tip_of(config)
    }

    /// Writes a start record. When this returns it is in the file, and it or a preparation for it is durable.
    pub async fn start(&self, at: UnixMillis, start: SessionStart) -> Result<(), SpoolError> {
        match self.start_prepared(at, start) {
            Some(start) => self.start_durable(at, start).await,
            None => Ok(()),
        }
    }

    /// Writes a start record. When this returns the record itself is durable, whatever is prepared.
    pub async fn start_durable(&self, at: UnixMillis, start: SessionStart) -> Result<(), SpoolError> {
        let (done, written) = oneshot::channel();
        {
            let mut queue = self.shared.queue();
            if queue.closing {
                return Err(SpoolError::Closed);
            }
            if queue.entries.len() >= MAX_WAITING {
                return Err(SpoolError::Busy);
            }
            queue.entries.push(Entry { at, event: Event::Start(start), done: Some(done) });
            queue.urgent = true;
        }
        self.shared.work.notify_one();
        written.await.unwrap_or(Err(SpoolError::Closed))
    }

    /// Appends the start record when a preparation for it is durable; hands it back otherwise.
    fn start_prepared(&self, at: UnixMillis, start: SessionStart) -> Option<SessionStart> {
        if self.shared.over_limit().is_some() {
            return Some(start);
        }
        {
            let mut log = self.shared.log();
            let durable = self.shared.durable.borrow().seq;
            let usable = !log.failing && log.has_file();
            let prepared = log.preparations.take(&start, durable, Instant::now()).filter(|_| usable);
            if prepared.is_none() {
                return Some(start);
            }
            let event = Event::Start(SessionStart { prepared, ..start.clone() });
            let line = Line::new(at, &event);
            let Ok(seq) = log.append_now(&line) else { return Some(start) };
            track(&mut self.shared.ledger().open, line.effect, seq);
        }
        self.shared.on_appended(false);
        None
    }

    /// Prepares for further sessions of the same device with the same resource, in the background, so that they need not
    /// wait for the disk.
    pub fn expect(&self, at: UnixMillis, start: &SessionStart) {
        {
            let mut log = self.shared.log();
            let wish = log.preparations.wish(start, Instant::now());
            let Some(sessions) = wish.filter(|_| !log.failing) else { return };
            if log.prepare(at, preparation(start, sessions, &self.shared.boot)).is_err() {
                return;
            }
        }
        self.shared.on_appended(true);
    }

    /// Writes a record soon. Ends are kept until they are written, whatever the disk says; refusals are dropped when too
    /// many wait.
    pub fn note(&self, at: UnixMillis, event: Event) {
        let first = {
            let mut queue = self.shared.queue();
            if matches!(event, Event::Refused(_)) && queue.entries.len() >= MAX_NOTES {
                queue.dropped_notes += 1;
                return;
            }
            queue.entries.push(Entry { at, event, done: None });
            queue.entries.len() == 1 && !queue.appended
        };
        if first {
            self.shared.work.notify_one();
        }
    }

    /// The last durable record, as it changes.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<Tip> {
        self.shared.durable.subscribe()
    }

    /// Reads records from `seq` on.
    #[must_use]
    pub fn reader(&self, seq: u64) -> SpoolReader {
        SpoolReader::new(Arc::clone(&self.shared), seq)
    }

    /// Durable records that are stored nowhere else, as far as is known.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.shared.durable.borrow().seq.saturating_sub(self.shared.stored.load(Ordering::Relaxed))
    }

    /// The largest size that the files on disk can have now, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        (self.shared.ledger().segments.len() as u64).saturating_mul(self.shared.config.segment_bytes)
    }

    /// Deletes the files of which every record up to `stored` is stored elsewhere. Blocks on the disk.
    pub fn acknowledge(&self, stored: u64) -> io::Result<()> {
        self.shared.stored.fetch_max(stored, Ordering::Relaxed);
        let (old, carried) = {
            let ledger = self.shared.ledger();
            // The file that is being written stays: it carries the chain on.
            let old = ledger.segments.iter().zip(ledger.segments.iter().skip(1));
            let old: Vec<Segment> = old
                .take_while(|(_, next)| next.first <= stored.saturating_add(1))
                .map(|(old, _)| old.clone())
                .collect();
            let Some(last) = ledger.segments.get(old.len()).filter(|_| !old.is_empty()) else { return Ok(()) };
            let carried: Vec<StreamId> =
                ledger.open.iter().filter(|(_, start)| **start < last.first).map(|(stream, _)| *stream).collect();
            (old, carried)
        };
        // First the sessions that go on, then their start records: a crash in between loses none.
        let carried = serde_json::to_vec(&carried).map_err(io::Error::other)?;
        private_file::write(&self.shared.config.folder.join(OPEN_FILE), &carried)?;
        for segment in &old {
            std::fs::remove_file(&segment.path)?;
            self.shared.ledger().segments.retain(|kept| kept.first != segment.first);
        }
        segment::sync_folder(&self.shared.config.folder)
    }

    /// Writes what waits and stops the writer; what cannot be written by `deadline` is lost and said aloud. Blocks.
    pub fn close(&self, deadline: Instant) {
        self.shared.queue().closing = true;
        self.shared.work.notify_one();
        while !self.shared.queue().closed && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let left = self.shared.queue().entries.len();
        if left > 0 {
            tracing::error!(left, "session records could not be written before the node stopped");
        }
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread.filter(JoinHandle::is_finished) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what was appended made durable: at once, or a little later together with more.
    fn on_appended(&self, urgent: bool) {
        let wake = {
            let mut queue = self.queue();
            let idle = queue.entries.is_empty() && !queue.appended;
            let more_urgent = urgent && !queue.urgent;
            queue.appended = true;
            queue.urgent |= urgent;
            idle || more_urgent
        };
        if wake {
            self.work.notify_one();
        }
    }

    /// The limit, when it is exceeded.
    fn over_limit(&self) -> Option<u64> {
        let size = (self.ledger().segments.len() as u64).saturating_mul(self.config.segment_bytes);
        (size > self.config.limit_bytes).then_some(self.config.limit_bytes)
    }

    fn path_of(&self, first: u64) -> PathBuf {
        segment_path(&self.config.folder, first)
    }
}

/// A name for this start of the machine. Where the system has none, no two runs are taken to be of the same one.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id = id.trim();
    if id.is_empty() { format!("unknown-{:032x}", rand::random::<u128>()) } else { id.to_owned() }
}

/// Named so that the order of names is the order of records.
fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.records"))
}

#[cfg(test)]
mod tests;
