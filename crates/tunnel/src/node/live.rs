//! The streams that run, to be counted, waited for and cut when the node stops; and the links that carry none.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use postern_proto::frame::ResetCode;
use tokio::sync::Notify;

use super::Done;
use crate::stream::{EndCause, StreamControl};

#[derive(Default)]
pub(super) struct Live {
    streams: Mutex<Streams>,
    none_left: Notify,
}

#[derive(Default)]
struct Streams {
    next: u64,
    running: HashMap<u64, StreamControl>,
}

/// A running stream. However its task ends, `done` is called once.
pub(super) struct Running<'a> {
    live: &'a Live,
    number: u64,
    control: StreamControl,
    done: Option<Done>,
}

impl Live {
    pub(super) fn begin(&self, control: &StreamControl, done: Done) -> Running<'_> {
        let mut streams = self.streams();
        let number = streams.next;
        streams.next += 1;
        streams.running.insert(number, control.clone());
        Running { live: self, number, control: control.clone(), done: Some(done) }
    }

    pub(super) fn count(&self) -> usize {
        self.streams().running.len()
    }

    /// Completes when no stream runs.
    pub(super) async fn ended(&self) {
        loop {
            let notified = self.none_left.notified();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }

    pub(super) fn cut_all(&self, code: ResetCode) {
        for control in self.streams().running.values() {
            control.cut(code);
        }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running<'_> {
    pub(super) fn end(mut self, cause: EndCause) {
        self.finish(cause);
    }

    fn finish(&mut self, cause: EndCause) {
        let Some(done) = self.done.take() else { return };
        done(self.control.end(cause));
        let mut streams = self.live.streams();
        streams.running.remove(&self.number);
        if streams.running.is_empty() {
            self.live.none_left.notify_waiters();
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.finish(EndCause::Cut(self.control.cut_code().unwrap_or(ResetCode::Internal)));
    }
}

/// Counts links that wait for a head.
#[derive(Debug, Default)]
pub(super) struct Spares(AtomicUsize);

/// A link that waits for a head.
pub(super) struct Spare<'a>(&'a Spares);

impl Spares {
    pub(super) fn begin(&self) -> Spare<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Spare(self)
    }

    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Spare<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_spare_until_its_head_comes_or_it_ends() {
        let spares = Spares::default();
        let (one, other) = (spares.begin(), spares.begin());
        assert_eq!(spares.count(), 2);
        drop(one);
        assert_eq!(spares.count(), 1);
        drop(other);
        assert_eq!(spares.count(), 0);
    }
}
