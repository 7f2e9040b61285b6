//! The one thread that writes.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use postern_proto::{
    id::NodeId,
    record::{Event, Record},
};

use super::{Entry, LINGER, Queue, Shared, SpoolError, SpoolOpenError, Tip, recover, segment, segment::Segment};

/// How long the writer waits before it tries a full disk again.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    shared: Arc<Shared>,
    node: NodeId,
    tip: Tip,
    current: Option<Current>,
    spares: Spares,
}

struct Current {
    file: File,
    at: u64,
}

/// Records that are ready to be written, and who waits for them.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    records: Vec<Record>,
    entries: Vec<Entry>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, node: NodeId, tip: Tip) -> Result<Self, SpoolOpenError> {
        let spares = Spares::start(&shared)?;
        let last = shared.ledger().segments.back().cloned();
        let mut writer = Self { shared, node, tip, current: None, spares };
        if let Some(Segment { path, .. }) = last {
            let current = Current::resume(&path, &writer.tip);
            writer.current = Some(current.map_err(|source| SpoolOpenError::Disk { path, source })?);
        } else {
            let path = writer.shared.path_of(writer.tip.seq + 1);
            writer.rotate().map_err(|source| SpoolOpenError::Disk { path, source })?;
        }
        Ok(writer)
    }

    /// Writes until the spool is closed and nothing waits.
    pub(super) fn run(mut self) {
        while let Some(entries) = self.next_entries() {
            let kept = self.write_all(entries);
            if !kept.is_empty() {
                self.put_back(kept);
            }
        }
        let Self { shared, spares, .. } = self;
        spares.stop();
        shared.queue().closed = true;
    }

    /// Waits for something to write; `None` when the spool is closed.
    fn next_entries(&self) -> Option<Vec<Entry>> {
        let mut queue = self.shared.queue();
        while queue.entries.is_empty() {
            if queue.closing {
                return None;
            }
            queue = self.shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let lone = |queue: &mut Queue| !queue.urgent && !queue.closing;
        let lingered = self.shared.work.wait_timeout_while(queue, LINGER, lone);
        let (mut queue, _) = lingered.unwrap_or_else(PoisonError::into_inner);
        queue.urgent = false;
        if queue.dropped_notes > 0 {
            tracing::warn!(dropped = queue.dropped_notes, "refusals came faster than they could be recorded");
            queue.dropped_notes = 0;
        }
        Some(std::mem::take(&mut queue.entries))
    }

    /// Writes entries in order, file by file, and hands back those that nobody waits for and that could not be written.
    fn write_all(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let over = self.over_limit();
        let (starts, others) = match over {
            Some(_) => entries.into_iter().partition(|entry| matches!(entry.event, Event::Start(_))),
            None => (Vec::new(), entries),
        };
        starts.into_iter().for_each(|entry| fail(entry, SpoolError::Limit { limit: over.unwrap_or_default() }));
        let mut waiting = VecDeque::from(others);
        let mut kept = Vec::new();
        while !waiting.is_empty() {
            let (batch, full) = self.fill(&mut waiting);
            kept.extend(self.flush(batch));
            if full && let Err(error) = self.rotate() {
                tracing::error!(%error, "no new file for session records");
                kept.extend(refuse(waiting, &disk(&error)));
                return kept;
            }
        }
        kept
    }

    /// Takes entries for one write; true when the file has no room for the next one.
    fn fill(&self, waiting: &mut VecDeque<Entry>) -> (Batch, bool) {
        let segment_bytes = self.shared.config.segment_bytes;
        let room = self.current.as_ref().map_or(0, |current| segment_bytes.saturating_sub(current.at));
        let longest = segment::MAX_RECORD.min(usize::try_from(segment_bytes - segment::HEADER).unwrap_or(usize::MAX));
        let mut batch = Batch::default();
        let mut tip = self.tip.clone();
        while batch.bytes.len() < MAX_BATCH {
            let Some(entry) = waiting.pop_front() else { break };
            let record = Record::link(tip.seq + 1, self.node, entry.at, entry.event.clone(), &tip.hash);
            let before = batch.bytes.len();
            let encoded = segment::encode(&record, &mut batch.bytes);
            if encoded.is_err() || batch.bytes.len() - before > longest {
                batch.bytes.truncate(before);
                fail(entry, SpoolError::TooLong { limit: longest });
                continue;
            }
            if batch.bytes.len() as u64 > room {
                batch.bytes.truncate(before);
                waiting.push_front(entry);
                return (batch, true);
            }
            tip = Tip { seq: record.seq, hash: record.hash.clone() };
            batch.records.push(record);
            batch.entries.push(entry);
        }
        (batch, false)
    }

    /// One write for the whole batch. Its records count only when it has succeeded: a failed one is overwritten.
    fn flush(&mut self, batch: Batch) -> Vec<Entry> {
        let Some(last) = batch.records.last() else { return Vec::new() };
        let Some(current) = &mut self.current else {
            return refuse(batch.entries, &SpoolError::Disk("there is no file to write to".into()));
        };
        if let Err(error) = current.file.write_all_at(&batch.bytes, current.at) {
            tracing::error!(%error, "session records cannot be written");
            return refuse(batch.entries, &disk(&error));
        }
        current.at += batch.bytes.len() as u64;
        self.tip = Tip { seq: last.seq, hash: last.hash.clone() };
        {
            let mut ledger = self.shared.ledger();
            batch.records.iter().for_each(|record| recover::track(&mut ledger.open, record));
        }
        self.shared.durable.send_replace(self.tip.clone());
        for entry in batch.entries {
            if let Some(done) = entry.done {
                let _ = done.send(Ok(()));
            }
        }
        Vec::new()
    }

    /// Goes on in the next file.
    fn rotate(&mut self) -> io::Result<()> {
        let prepared = self.spares.take()?;
        let path = self.shared.path_of(self.tip.seq + 1);
        let file = segment::adopt(&prepared, &path, &self.tip)?;
        self.current = Some(Current { file, at: segment::HEADER });
        let mut ledger = self.shared.ledger();
        // An empty file that is begun anew has the same first number.
        ledger.segments.retain(|segment| segment.path != path);
        ledger.segments.push_back(Segment { path, first: self.tip.seq + 1 });
        Ok(())
    }

    fn over_limit(&self) -> Option<u64> {
        let config = &self.shared.config;
        let size = (self.shared.ledger().segments.len() as u64).saturating_mul(config.segment_bytes);
        (size > config.limit_bytes).then_some(config.limit_bytes)
    }

    /// Keeps what must be written until the disk takes it, before what has come meanwhile.
    fn put_back(&self, mut kept: Vec<Entry>) {
        let mut queue = self.shared.queue();
        kept.append(&mut queue.entries);
        queue.entries = kept;
        if queue.closing {
            // Nobody waits for the disk while stopping: what is left is counted by the closer.
            drop(queue);
            std::thread::sleep(RETRY / 20);
            return;
        }
        // New streams are refused at once meanwhile, not kept waiting.
        let (queue, _) = self.shared.work.wait_timeout(queue, RETRY).unwrap_or_else(PoisonError::into_inner);
        drop(queue);
    }
}

/// Bytes of one write at most.
const MAX_BATCH: usize = 1 << 20;

impl Current {
    /// Finds the place after the last record.
    fn resume(path: &std::path::Path, tip: &Tip) -> io::Result<Self> {
        let bytes = std::fs::read(path)?;
        let mut at = usize::try_from(segment::HEADER).unwrap_or(256);
        while let Some((record, length)) = bytes.get(at..).and_then(segment::decode) {
            at += length;
            if record.seq == tip.seq {
                break;
            }
        }
        Ok(Self { file: segment::open(path)?, at: at as u64 })
    }
}

fn disk(error: &io::Error) -> SpoolError {
    SpoolError::Disk(error.to_string())
}

fn fail(entry: Entry, error: SpoolError) {
    match entry.done {
        Some(done) => {
            let _ = done.send(Err(error));
        }
        None => tracing::error!(%error, "a session record is lost"),
    }
}

/// Tells those who wait, and hands back what nobody waits for.
fn refuse(entries: impl IntoIterator<Item = Entry>, error: &SpoolError) -> Vec<Entry> {
    let (waited, kept): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.done.is_some());
    waited.into_iter().for_each(|entry| fail(entry, error.clone()));
    kept
}

/// Prepares the next file ahead of time, so that no stream waits for eight megabytes of zeroes.
struct Spares {
    wanted: SyncSender<()>,
    prepared: Receiver<io::Result<PathBuf>>,
    thread: JoinHandle<()>,
}

impl Spares {
    fn start(shared: &Shared) -> Result<Self, SpoolOpenError> {
        let (wanted, wishes) = sync_channel::<()>(1);
        let (results, prepared) = sync_channel(1);
        let (path, size) = (shared.config.folder.join("next.prepared"), shared.config.segment_bytes);
        let prepare = move || {
            while wishes.recv().is_ok() {
                let made = segment::prepare(&path, size).map(|()| path.clone());
                if results.send(made).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("session-record-files".into()).spawn(prepare);
        let thread = thread.map_err(SpoolOpenError::Thread)?;
        let _ = wanted.send(());
        Ok(Self { wanted, prepared, thread })
    }

    /// Waits until nothing is being prepared any more.
    fn stop(self) {
        let Self { wanted, prepared, thread } = self;
        drop((wanted, prepared));
        let _ = thread.join();
    }

    /// The next file, and the wish for the one after it. A failure is tried again at the next call.
    fn take(&self) -> io::Result<PathBuf> {
        let gone = || io::Error::other("the thread that prepares files has stopped");
        let path = self.prepared.recv().map_err(|_| gone())?;
        // The name is freed for the file after this one; when anything fails, that is prepared instead.
        let taken = path.and_then(|path| {
            let taken = path.with_extension("taken.prepared");
            std::fs::rename(&path, &taken)?;
            Ok(taken)
        });
        let _ = self.wanted.send(());
        taken
    }
}
