//! What the last run left behind.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _},
    path::{Path, PathBuf},
};

use postern_proto::{
    id::StreamId,
    record::{Event, Preparation, Record, Settlement},
};

use super::{
    OPEN_FILE, SpoolConfig, Tip, log::Effect, preparations::settlement, segment, segment::Segment, segment_path,
};

/// The state of a folder after a torn end was cut.
pub(super) struct Recovered {
    pub(super) segments: VecDeque<Segment>,
    pub(super) tip: Tip,
    pub(super) open: BTreeMap<StreamId, u64>,
    prepared: Unsettled,
}

/// Preparations that nothing was said about yet, by number, with the number of sessions that began with each.
///
/// Only those of the last file count: a file is durable to its end before the next one begins, so that of what began with
/// an earlier one nothing is missing, and nothing begins with it any more.
type Unsettled = BTreeMap<u64, (Preparation, u32)>;

impl Recovered {
    /// What is to be written about preparations that the last run left. `boot` says which start of the machine this is:
    /// in the same one, what that run wrote is all here, whatever became of it.
    pub(super) fn settle(&self, boot: &str) -> Vec<Settlement> {
        let left = self.prepared.iter().map(|(seq, (of, begun))| (seq, of, of.sessions.saturating_sub(*begun)));
        let left = left.filter(|(_, _, left)| *left > 0);
        left.map(|(seq, of, left)| settlement(*seq, of, if of.boot == boot { 0 } else { left })).collect()
    }
}

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolOpenError {
    #[error("the session records in {path} cannot be used: {source}")]
    Disk { path: PathBuf, source: io::Error },
    #[error(
        "the session records in {path} are damaged: {what}. Move the folder away to begin a new one; the control \
             plane then shows a gap in this node's records"
    )]
    Damaged { path: PathBuf, what: String },
    #[error("the thread that writes session records cannot be started: {0}")]
    Thread(io::Error),
}

/// Reads every record, follows the chain, and cuts what a crash tore off at the end.
pub(super) fn recover(config: &SpoolConfig, base: Tip) -> Result<Recovered, SpoolOpenError> {
    let folder = &config.folder;
    let disk = |path: &Path| {
        let path = path.to_owned();
        move |source| SpoolOpenError::Disk { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(disk(folder))?;
    remove_prepared(folder).map_err(disk(folder))?;
    let firsts = list(folder).map_err(disk(folder))?;
    let mut open = carried(folder).map_err(disk(folder))?;
    let mut segments = VecDeque::new();
    let mut tip = None;
    let mut prepared = Unsettled::new();
    for (index, first) in firsts.iter().enumerate() {
        let path = segment_path(folder, *first);
        let bytes = fs::read(&path).map_err(disk(&path))?;
        let scanned = scan(&path, &bytes, tip.as_ref(), *first, &mut open)?;
        if let Some(torn) = scanned.torn {
            if index + 1 < firsts.len() {
                let what = format!("record {} cannot be read, and more follow in the next file", scanned.tip.seq + 1);
                return Err(SpoolOpenError::Damaged { path, what });
            }
            cut(&path, torn, bytes.len()).map_err(disk(&path))?;
        }
        tip = Some(scanned.tip);
        prepared = scanned.prepared;
        segments.push_back(Segment { path, first: *first });
    }
    Ok(Recovered { segments, tip: tip.unwrap_or(base), open, prepared })
}

/// The last record of a folder, which need not exist.
pub(super) fn tip_of(config: &SpoolConfig) -> Result<Option<Tip>, SpoolOpenError> {
    let disk = |path: &Path, source| SpoolOpenError::Disk { path: path.to_owned(), source };
    let firsts = match list(&config.folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        listed => listed.map_err(|source| disk(&config.folder, source))?,
    };
    let Some(last) = firsts.last() else { return Ok(None) };
    let path = segment_path(&config.folder, *last);
    let bytes = fs::read(&path).map_err(|source| disk(&path, source))?;
    let scanned = scan(&path, &bytes, None, *last, &mut BTreeMap::new())?;
    Ok(Some(scanned.tip))
}

struct Scanned {
    tip: Tip,
    /// Where something begins that is neither a record nor the end.
    torn: Option<usize>,
    prepared: Unsettled,
}

fn scan(
    path: &Path,
    bytes: &[u8],
    before: Option<&Tip>,
    first: u64,
    open: &mut BTreeMap<StreamId, u64>,
) -> Result<Scanned, SpoolOpenError> {
    let damaged = |what: &str| SpoolOpenError::Damaged { path: path.to_owned(), what: what.to_owned() };
    let mut tip = segment::read_header(bytes).ok_or_else(|| damaged("the header cannot be read"))?;
    if before.is_some_and(|before| *before != tip) || tip.seq + 1 != first {
        return Err(damaged("it does not go on where the file before it ends"));
    }
    let mut at = usize::try_from(segment::HEADER).unwrap_or(256);
    let mut prepared = Unsettled::new();
    while let Some((record, length)) = bytes.get(at..).and_then(segment::decode) {
        if record.follows(tip.seq, &tip.hash).is_err() {
            break;
        }
        track(open, Effect::of(&record.event), record.seq);
        count(&mut prepared, &record);
        tip = Tip { seq: record.seq, hash: record.hash };
        at += length;
    }
    let torn = bytes.get(at..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)).then_some(at);
    Ok(Scanned { tip, torn, prepared })
}

/// Keeps the set of sessions that have begun and not ended.
pub(super) fn track(open: &mut BTreeMap<StreamId, u64>, effect: Effect, seq: u64) {
    match effect {
        Effect::Begins(stream) => {
            open.insert(stream, seq);
        }
        Effect::Ends(stream) => {
            open.remove(&stream);
        }
        Effect::None => {}
    }
}

fn count(prepared: &mut Unsettled, record: &Record) {
    match &record.event {
        Event::Prepared(preparation) => {
            prepared.insert(record.seq, (preparation.clone(), 0));
        }
        Event::Settled(settlement) => {
            prepared.remove(&settlement.prepared);
        }
        Event::Start(start) => {
            if let Some((_, begun)) = start.prepared.and_then(|seq| prepared.get_mut(&seq)) {
                *begun += 1;
            }
        }
        Event::End(_) | Event::Refused(_) => {}
    }
}

/// Overwrites a torn end with zeroes. Nothing of it was ever acknowledged to anybody.
fn cut(path: &Path, at: usize, end: usize) -> io::Result<()> {
    tracing::warn!(file = %path.display(), at, "cutting a session record that a crash left unfinished");
    segment::open_through(path)?.write_all_at(&vec![0; end.saturating_sub(at)], at as u64)
}

/// The first numbers of all segments, in order.
fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "records") {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            firsts.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Removes files that were being prepared.
fn remove_prepared(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() && path.extension().is_some_and(|extension| extension == "prepared") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Sessions whose start record was deleted while they went on.
fn carried(folder: &Path) -> io::Result<BTreeMap<StreamId, u64>> {
    match fs::read(folder.join(OPEN_FILE)) {
        Ok(bytes) => {
            let streams: Vec<StreamId> = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
            Ok(streams.into_iter().map(|stream| (stream, 0)).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}
