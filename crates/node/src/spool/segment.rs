//! One file of records: a header, then records one after the other, then zeroes up to a fixed size.
//!
//! A record is its length (4 bytes, little-endian) and its JSON. Length 0 is the end.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use postern_proto::record::Record;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{Tip, log::Current};

/// Bytes before the first record.
pub(super) const HEADER: u64 = 256;
/// Bytes before each record.
pub(super) const LENGTH: usize = 4;
/// No record is longer.
pub(super) const MAX_RECORD: usize = 256 * 1024;

const MAGIC: &str = "postern-records/1";

/// A file of the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// The number of its first record, whether that is there yet or not.
    pub(super) first: u64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    magic: String,
    first: u64,
    previous: String,
}

/// Fills a new file with zeroes, so that writing into it later changes no metadata.
pub(super) fn prepare(path: &Path, size: u64) -> io::Result<()> {
    let zeroes = vec![0; 1 << 20];
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(zeroes.len());
        file.write_all(zeroes.get(..part).unwrap_or_default())?;
        left -= part as u64;
    }
    file.sync_all()
}

/// Makes a prepared file the segment that goes on after `tip`: header first, then the name, then the folder.
pub(super) fn adopt(prepared: &Path, path: &Path, tip: &Tip) -> io::Result<()> {
    let header = Header { magic: MAGIC.into(), first: tip.seq + 1, previous: tip.hash.clone() };
    let mut bytes = serde_json::to_vec(&header).map_err(io::Error::other)?;
    bytes.resize(usize::try_from(HEADER).unwrap_or(256), 0);
    open_through(prepared)?.write_all_at(&bytes, 0)?;
    std::fs::rename(prepared, path)?;
    sync_folder(path.parent().unwrap_or(path))
}

/// Opens a segment for writing; each write is durable when it returns.
pub(super) fn open_through(path: &Path) -> io::Result<File> {
    let dsync = i32::try_from(OFlags::DSYNC.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).write(true).custom_flags(dsync).open(path)
}

/// Opens a segment to be written at `at`.
pub(super) fn open(path: &Path, at: u64, size: u64) -> io::Result<Current> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    Ok(Current::new(file, open_through(path)?, at, size))
}

pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A record in the form in which it lies in a segment.
pub(super) fn frame(json: &[u8]) -> Vec<u8> {
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&length, json].concat()
}

/// The chain's end before the first record of a segment; `None` when the header is not readable.
pub(super) fn read_header(bytes: &[u8]) -> Option<Tip> {
    let header = bytes.get(..usize::try_from(HEADER).ok()?)?;
    let end = header.iter().position(|byte| *byte == 0)?;
    let header: Header = serde_json::from_slice(header.get(..end)?).ok()?;
    (header.magic == MAGIC).then(|| Some(Tip { seq: header.first.checked_sub(1)?, hash: header.previous }))?
}

/// The record at the front of `bytes` and how many bytes it takes; `None` where the records end, or where what follows
/// is none.
pub(super) fn decode(bytes: &[u8]) -> Option<(Record, usize)> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length == 0 || length > MAX_RECORD {
        return None;
    }
    let record = serde_json::from_slice(rest.get(..length)?).ok()?;
    Some((record, LENGTH + length))
}
