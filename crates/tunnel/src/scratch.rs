//! Large buffers that belong to a thread, not to a stream, so that an idle stream holds none.
//!
//! They are used within one poll and never across an await.

use std::cell::RefCell;

use postern_proto::frame::{HEADER, MAX_DATA, MAX_TEXT};

use crate::link::SEALED;

/// What the local socket is read into: room for the opening text, one frame and an `END`.
const LOCAL: usize = MAX_TEXT + MAX_DATA + 4 * HEADER;
/// What TLS records are read into: 16 full ones in a system call (four of them: 5–10 % less throughput).
const WIRE: usize = 16 * SEALED;
/// Opened bytes: what was kept, and what is gathered from up to four reads before it is passed on (one alone: 5 % more
/// CPU time per byte).
const PLAIN: usize = MAX_TEXT + 2 * HEADER + 4 * WIRE;

thread_local! {
    static LOCAL_BUFFER: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static WIRE_BUFFER: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static PLAIN_BUFFER: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn local<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    LOCAL_BUFFER.with(|cell| lend(cell, LOCAL, work))
}

pub(crate) fn wire<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    WIRE_BUFFER.with(|cell| lend(cell, WIRE, work))
}

pub(crate) fn plain<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    PLAIN_BUFFER.with(|cell| lend(cell, PLAIN, work))
}

/// A nested use, of a link that goes through another one, has a buffer of its own, which is kept as well.
fn lend<R>(kept: &RefCell<Vec<Box<[u8]>>>, size: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
    let lent = kept.borrow_mut().pop();
    let mut buffer = lent.unwrap_or_else(|| vec![0; size].into_boxed_slice());
    let result = work(&mut buffer);
    kept.borrow_mut().push(buffer);
    result
}
