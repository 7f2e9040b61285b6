//! The one thread that makes records durable, and writes those that nobody else has written.

use std::{
    collections::VecDeque,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use postern_proto::record::{EndReason, Event, Preparation, SessionEnd, Settlement};
use tokio::sync::oneshot;

use super::{
    Entry, LINGER, Queue, Shared, SpoolError, SpoolOpenError, Tip,
    log::{Current, Effect, Line, NotAppended},
    recover, segment,
    segment::Segment,
};
use crate::clock;

/// How long the writer waits before it tries a full disk again.
const RETRY: Duration = Duration::from_secs(1);
/// How often preparations that nobody uses are looked for.
const SWEEP: Duration = Duration::from_secs(20);
/// Records appended before streams that append their own have their turn.
const GROUP: usize = 16;

pub(super) struct Writer {
    shared: Arc<Shared>,
    spares: Spares,
}

/// Who waits for a record that is in the file already.
type Waiting = Vec<(oneshot::Sender<Result<(), SpoolError>>, Effect)>;

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, SpoolOpenError> {
        let spares = Spares::start(&shared)?;
        let last = shared.ledger().segments.back().cloned();
        let tip = shared.log().tip.clone();
        let writer = Self { shared, spares };
        if let Some(Segment { path, .. }) = last {
            let current = resume(&path, &tip, writer.shared.config.segment_bytes);
            writer.shared.log().go_on_in(current.map_err(|source| SpoolOpenError::Disk { path, source })?);
        } else {
            let path = writer.shared.path_of(tip.seq + 1);
            writer.rotate().map_err(|source| SpoolOpenError::Disk { path, source })?;
        }
        Ok(writer)
    }

    /// Writes until the spool is closed and nothing waits.
    pub(super) fn run(self) {
        while let Some(entries) = self.next_entries() {
            let kept = self.write_all(entries);
            let failing = self.shared.log().failing;
            if failing || !kept.is_empty() {
                self.put_back(kept);
            }
        }
        let settled = self.shared.log().preparations.clear();
        self.write_down(settled, Vec::new());
        if let Err(error) = self.sync() {
            tracing::error!(%error, "the last session records may not be on the disk");
        }
        self.shared.log().leave_file();
        let Self { shared, spares } = self;
        spares.stop();
        shared.queue().closed = true;
    }

    /// Waits for something to write, or to make durable; `None` when the spool is closed.
    fn next_entries(&self) -> Option<Vec<Entry>> {
        let mut queue = self.shared.queue();
        while queue.entries.is_empty() && !queue.appended {
            if queue.closing {
                return None;
            }
            let waited = self.shared.work.wait_timeout(queue, SWEEP).unwrap_or_else(PoisonError::into_inner);
            queue = waited.0;
            if waited.1.timed_out() {
                drop(queue);
                self.sweep();
                queue = self.shared.queue();
            }
        }
        let lone = |queue: &mut Queue| !queue.urgent && !queue.closing;
        let lingered = self.shared.work.wait_timeout_while(queue, LINGER, lone);
        let (mut queue, _) = lingered.unwrap_or_else(PoisonError::into_inner);
        queue.urgent = false;
        queue.appended = false;
        if queue.dropped_notes > 0 {
            tracing::warn!(dropped = queue.dropped_notes, "refusals came faster than they could be recorded");
            queue.dropped_notes = 0;
        }
        Some(std::mem::take(&mut queue.entries))
    }

    /// Writes entries in order, file by file, and hands back those that nobody waits for and that could not be written.
    fn write_all(&self, entries: Vec<Entry>) -> Vec<Entry> {
        let failing = self.shared.log().failing;
        if failing && let Err(error) = self.sync() {
            return refuse(entries, &disk(&error));
        }
        let over = self.shared.over_limit();
        let (starts, others) = match over {
            Some(_) => entries.into_iter().partition(|entry| matches!(entry.event, Event::Start(_))),
            None => (Vec::new(), entries),
        };
        starts.into_iter().for_each(|entry| fail(entry, SpoolError::Limit { limit: over.unwrap_or_default() }));
        let mut left: VecDeque<_> =
            others.into_iter().map(|entry| (Line::new(entry.at, &entry.event), entry)).collect();
        let mut waiting = Waiting::new();
        loop {
            let appended = self.append(&mut left, &mut waiting);
            if appended.is_ok() && !left.is_empty() {
                continue;
            }
            let synced = self.sync_for(std::mem::take(&mut waiting));
            let next = match (synced, appended) {
                (Ok(()), Ok(())) => return Vec::new(),
                (Ok(()), Err(NotAppended::NoRoom)) => self.rotate(),
                (Ok(()), Err(NotAppended::Disk(error))) | (Err(error), _) => Err(error),
                (Ok(()), Err(NotAppended::TooLong)) => Ok(()),
            };
            if let Err(error) = next {
                tracing::error!(%error, "session records cannot be written");
                return refuse(left.into_iter().map(|(_, entry)| entry), &disk(&error));
            }
        }
    }

    /// Appends some of what is left, from the front.
    fn append(&self, left: &mut VecDeque<(Line, Entry)>, waiting: &mut Waiting) -> Result<(), NotAppended> {
        let mut log = self.shared.log();
        for _ in 0..GROUP {
            let Some((line, entry)) = left.pop_front() else { break };
            match log.append(&line) {
                Ok(seq) => {
                    recover::track(&mut self.shared.ledger().open, line.effect, seq);
                    waiting.extend(entry.done.map(|done| (done, line.effect)));
                }
                Err(NotAppended::TooLong) => fail(entry, SpoolError::TooLong { limit: segment::MAX_RECORD }),
                Err(error) => {
                    left.push_front((line, entry));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Makes durable what is in the file, and tells those who wait for it. What they do not wait for any longer is in the
    /// chain all the same, and gets its end.
    fn sync_for(&self, waiting: Waiting) -> io::Result<()> {
        let synced = self.sync();
        for (done, effect) in waiting {
            let told = synced.as_ref().map(|_| ()).map_err(disk);
            if let (Err(_), Effect::Begins(stream)) = (&told, effect) {
                let (reason, detail) = (EndReason::Abandoned, Some("the start could not be recorded".to_owned()));
                let end = SessionEnd { stream, dialled: None, bytes_up: 0, bytes_down: 0, reason, detail };
                self.shared.queue().entries.push(Entry { at: clock::now(), event: Event::End(end), done: None });
            }
            let _ = done.send(told);
        }
        synced
    }

    /// Makes durable what is in the file.
    fn sync(&self) -> io::Result<()> {
        let Some((file, unsynced, tip)) = self.shared.log().take_unsynced()? else { return Ok(()) };
        // Written once more, through to the disk: after a failure the system would not write it again by itself.
        let written = file.write_all_at(&unsynced.bytes, unsynced.at);
        let mut log = self.shared.log();
        match written {
            Ok(()) => {
                log.failing = false;
                drop(log);
                self.shared.durable.send_replace(tip);
                Ok(())
            }
            Err(error) => {
                log.put_back(unsynced);
                Err(error)
            }
        }
    }

    /// Goes on in the next file, when everything in this one is durable.
    fn rotate(&self) -> io::Result<()> {
        let (tip, in_use) = loop {
            {
                let mut log = self.shared.log();
                if log.is_synced() {
                    let in_use = log.leave_file();
                    break (log.tip.clone(), in_use);
                }
            }
            self.sync()?;
        };
        let prepared = self.spares.take()?;
        let path = self.shared.path_of(tip.seq + 1);
        segment::adopt(&prepared, &path, &tip)?;
        let current = segment::open(&path, segment::HEADER, self.shared.config.segment_bytes)?;
        {
            let mut ledger = self.shared.ledger();
            // An empty file that is begun anew has the same first number.
            ledger.segments.retain(|segment| segment.path != path);
            ledger.segments.push_back(Segment { path, first: tip.seq + 1 });
        }
        self.shared.log().go_on_in(current);
        self.write_down(Vec::new(), in_use);
        Ok(())
    }

    /// Gives up preparations that nobody uses.
    fn sweep(&self) {
        let (settled, smaller) = self.shared.log().preparations.sweep(Instant::now());
        if !(settled.is_empty() && smaller.is_empty()) {
            self.write_down(settled, smaller);
            self.shared.on_appended(false);
        }
    }

    /// Writes down what preparations become. What cannot be written is left out: after a crash there may then seem to have
    /// been more sessions than there were, never fewer.
    fn write_down(&self, settled: Vec<Settlement>, prepared: Vec<Preparation>) {
        let at = clock::now();
        let mut log = self.shared.log();
        for settlement in settled {
            if log.append(&Line::new(at, &Event::Settled(settlement))).is_err() {
                return;
            }
        }
        for preparation in prepared {
            if log.prepare(at, preparation).is_err() {
                return;
            }
        }
    }

    /// Keeps what must be written until the disk takes it, before what has come meanwhile.
    fn put_back(&self, mut kept: Vec<Entry>) {
        let mut queue = self.shared.queue();
        kept.append(&mut queue.entries);
        queue.entries = kept;
        queue.appended = true;
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

/// Goes on after the last record of a file. What an earlier run wrote there is made durable first.
fn resume(path: &Path, tip: &Tip, size: u64) -> io::Result<Current> {
    let bytes = std::fs::read(path)?;
    std::fs::File::open(path)?.sync_all()?;
    let mut at = usize::try_from(segment::HEADER).unwrap_or(256);
    while let Some((record, length)) = bytes.get(at..).and_then(segment::decode) {
        at += length;
        if record.seq == tip.seq {
            break;
        }
    }
    segment::open(path, at as u64, size.max(bytes.len() as u64))
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
