//! The end of the chain: records go to the file and count as durable when they were written through to the disk.
//!
//! What is in the file outlives this process, however it dies. It outlives the machine when it is durable. A record that
//! nobody waits for is kept back until one comes that somebody waits for, or until it is made durable: then they go into the
//! file together, so that the end of a stream costs no call of its own.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc, time::Instant};

use postern_proto::{
    id::{NodeId, StreamId},
    record::{Event, Preparation, Written},
    time::UnixMillis,
};

use super::{Tip, preparations::Preparations, segment};

pub(super) struct Log {
    node: NodeId,
    /// The last record in the file.
    pub(super) tip: Tip,
    /// `None`: the next file cannot be had yet.
    file: Option<Current>,
    unsynced: Unsynced,
    /// The disk did not take what is unsynced.
    pub(super) failing: bool,
    /// Of this file: every record in an earlier one is durable.
    pub(super) preparations: Preparations,
}

/// The file that is being written.
pub(super) struct Current {
    file: File,
    /// The same, written through to the disk.
    through: Arc<File>,
    at: u64,
    size: u64,
}

/// What is not known to be on the disk.
#[derive(Default)]
pub(super) struct Unsynced {
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
    /// So much of it is in the file; the rest is kept back.
    written: usize,
}

/// A record before it has its place in the chain.
pub(super) struct Line {
    at: UnixMillis,
    json: Vec<u8>,
    pub(super) effect: Effect,
}

/// What a record does to the set of open sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Begins(StreamId),
    Ends(StreamId),
    None,
}

/// Why a record was not appended.
#[derive(Debug)]
pub(super) enum NotAppended {
    /// It goes into the next file.
    NoRoom,
    TooLong,
    Disk(io::Error),
}

impl Line {
    pub(super) fn new(at: UnixMillis, event: &Event) -> Self {
        Self { at, json: serde_json::to_vec(event).unwrap_or_default(), effect: Effect::of(event) }
    }
}

impl Effect {
    pub(super) const fn of(event: &Event) -> Self {
        match event {
            Event::Start(start) => Self::Begins(start.stream),
            Event::End(end) => Self::Ends(end.stream),
            Event::Refused(_) | Event::Prepared(_) | Event::Settled(_) => Self::None,
        }
    }
}

impl Current {
    pub(super) fn new(file: File, through: File, at: u64, size: u64) -> Self {
        Self { file, through: Arc::new(through), at, size }
    }
}

impl Log {
    pub(super) fn new(node: NodeId, tip: Tip) -> Self {
        let unsynced = Unsynced::default();
        Self { node, tip, file: None, unsynced, failing: false, preparations: Preparations::default() }
    }

    pub(super) const fn has_file(&self) -> bool {
        self.file.is_some()
    }

    pub(super) fn is_synced(&self) -> bool {
        self.unsynced.bytes.is_empty()
    }

    pub(super) fn go_on_in(&mut self, file: Current) {
        self.unsynced = Unsynced { at: file.at, ..Unsynced::default() };
        self.file = Some(file);
    }

    /// Takes the file away, so that nothing is appended meanwhile. All of it must be durable. Hands back what is to be
    /// prepared for in the next one.
    pub(super) fn leave_file(&mut self) -> Vec<Preparation> {
        self.file = None;
        self.preparations.move_on(Instant::now())
    }

    /// Appends a preparation; it counts once it is durable.
    pub(super) fn prepare(&mut self, at: UnixMillis, content: Preparation) -> Result<(), NotAppended> {
        let seq = self.append(&Line::new(at, &Event::Prepared(content.clone())))?;
        let replaced = self.preparations.put(seq, content, Instant::now());
        if let Some(settlement) = replaced {
            self.append(&Line::new(at, &Event::Settled(settlement)))?;
        }
        Ok(())
    }

    /// Puts a record at the end of the chain, and says its number; it goes into the file with what comes next. When that
    /// fails nothing has changed.
    pub(super) fn append(&mut self, line: &Line) -> Result<u64, NotAppended> {
        let current = self.file.as_mut().ok_or(NotAppended::NoRoom)?;
        let seq = self.tip.seq + 1;
        let Written { hash, json } = Written::link(seq, self.node, line.at, &line.json, &self.tip.hash);
        let bytes = segment::frame(&json);
        let room = current.size.saturating_sub(current.at);
        if json.len() > segment::MAX_RECORD || bytes.len() as u64 > current.size - segment::HEADER {
            return Err(NotAppended::TooLong);
        }
        if bytes.len() as u64 > room {
            return Err(NotAppended::NoRoom);
        }
        current.at += bytes.len() as u64;
        self.unsynced.bytes.extend_from_slice(&bytes);
        self.tip = Tip { seq, hash };
        Ok(seq)
    }

    /// The same for a record that is to be in the file when this returns.
    pub(super) fn append_now(&mut self, line: &Line) -> Result<u64, NotAppended> {
        let (tip, length) = (self.tip.clone(), self.unsynced.bytes.len());
        let seq = self.append(line)?;
        if let Err(error) = self.flush() {
            self.tip = tip;
            let added = self.unsynced.bytes.len() - length;
            self.unsynced.bytes.truncate(length);
            if let Some(current) = &mut self.file {
                current.at -= added as u64;
            }
            return Err(NotAppended::Disk(error));
        }
        Ok(seq)
    }

    /// Puts what was kept back into the file.
    fn flush(&mut self) -> io::Result<()> {
        let Unsynced { at, bytes, written } = &mut self.unsynced;
        if let Some(kept) = bytes.get(*written..).filter(|kept| !kept.is_empty())
            && let Some(current) = &self.file
        {
            current.file.write_all_at(kept, *at + *written as u64)?;
            *written = bytes.len();
        }
        Ok(())
    }

    /// What is to be written through now: where, what, and how far the chain is durable after that. It is in the file then,
    /// so that what comes after it in the file is never read without it.
    pub(super) fn take_unsynced(&mut self) -> io::Result<Option<(Arc<File>, Unsynced, Tip)>> {
        if let Err(error) = self.flush() {
            self.failing = true;
            return Err(error);
        }
        let Some(current) = self.file.as_ref().filter(|_| !self.unsynced.bytes.is_empty()) else { return Ok(None) };
        let after = Unsynced { at: current.at, ..Unsynced::default() };
        Ok(Some((Arc::clone(&current.through), std::mem::replace(&mut self.unsynced, after), self.tip.clone())))
    }

    /// The disk did not take this: it is written again, together with what has come after it.
    pub(super) fn put_back(&mut self, mut unsynced: Unsynced) {
        unsynced.bytes.append(&mut self.unsynced.bytes);
        // It is written anew as a whole.
        self.unsynced = Unsynced { written: 0, ..unsynced };
        self.failing = true;
    }
}
