//! Reads durable records back, in order.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use postern_proto::record::Record;

use super::{Shared, segment, segment::Segment};

/// Bytes that are read at once.
const CHUNK: usize = 512 * 1024;

/// A place in the spool. Reads block on the disk.
pub struct SpoolReader {
    shared: Arc<Shared>,
    next: u64,
    place: Option<Place>,
}

struct Place {
    file: File,
    /// The number of the file's first record.
    first: u64,
    /// The number of the record that lies at `at`.
    seq: u64,
    at: u64,
}

impl SpoolReader {
    pub(super) const fn new(shared: Arc<Shared>, seq: u64) -> Self {
        Self { shared, next: seq, place: None }
    }

    /// The number of the next record that is read.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.next
    }

    /// Goes on at another record.
    pub fn seek(&mut self, seq: u64) {
        if seq != self.next {
            self.next = seq;
            self.place = None;
        }
    }

    /// Up to `most` durable records; none when there are no more yet.
    pub fn read(&mut self, most: usize) -> io::Result<Vec<Record>> {
        let durable = self.shared.durable.borrow().seq;
        let mut records = Vec::new();
        let mut bytes = 0;
        while self.next <= durable && records.len() < most && bytes < CHUNK {
            let mut place = match self.place.take() {
                Some(place) => place,
                None => self.find()?,
            };
            let chunk = place.chunk()?;
            let mut at = 0;
            while place.seq <= durable
                && records.len() < most
                && let Some((record, length)) = chunk.get(at..).and_then(segment::decode)
            {
                at += length;
                place.seq = record.seq + 1;
                if record.seq == self.next {
                    bytes += length;
                    self.next += 1;
                    records.push(record);
                }
            }
            place.at += at as u64;
            // Nothing was read: the rest of this file is empty, and what is wanted begins the next one.
            if at == 0 {
                place = self.following(&place)?;
            }
            self.place = Some(place);
        }
        Ok(records)
    }

    /// The file that holds the wanted record.
    fn find(&self) -> io::Result<Place> {
        let segment = self.shared.ledger().segments.iter().rev().find(|found| found.first <= self.next).cloned();
        segment.map_or_else(|| Err(self.missing()), |segment| Place::begin(&segment))
    }

    /// The file after this one.
    fn following(&self, place: &Place) -> io::Result<Place> {
        let segment = self.shared.ledger().segments.iter().find(|found| found.first > place.first).cloned();
        segment.map_or_else(|| Err(self.missing()), |segment| Place::begin(&segment))
    }

    fn missing(&self) -> io::Error {
        io::Error::other(format!("session record {} is not on disk any more", self.next))
    }
}

impl Place {
    fn begin(segment: &Segment) -> io::Result<Self> {
        let file = File::open(&segment.path)?;
        Ok(Self { file, first: segment.first, seq: segment.first, at: segment::HEADER })
    }

    fn chunk(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; CHUNK];
        let length = self.file.read_at(&mut bytes, self.at)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}
