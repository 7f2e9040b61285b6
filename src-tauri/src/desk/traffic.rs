//! Bytes of the last ten minutes, per resource.

use std::collections::VecDeque;

use postern_local_api::message::ResourceStatus;

use crate::view::Traffic;

const BUCKET_SECONDS: u32 = 10;
const BUCKETS: usize = 60;

/// Empty, and without memory of its own, until bytes are seen.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Number of the bucket since 1970, bytes up, bytes down; oldest first.
    buckets: VecDeque<(u64, u64, u64)>,
}

impl History {
    /// Counts what came between two states. A service that began anew counts from nothing.
    pub(super) fn count(&mut self, now: u64, before: &ResourceStatus, after: &ResourceStatus) {
        let grown = |before: u64, after: u64| if after < before { after } else { after - before };
        let (up, down) = (grown(before.bytes_up, after.bytes_up), grown(before.bytes_down, after.bytes_down));
        if (up, down) == (0, 0) {
            return;
        }
        let bucket = bucket(now);
        match self.buckets.back_mut() {
            Some(last) if last.0 == bucket => {
                last.1 += up;
                last.2 += down;
            }
            _ => self.buckets.push_back((bucket, up, down)),
        }
        while self.buckets.len() > BUCKETS {
            self.buckets.pop_front();
        }
    }

    pub(super) fn shown(&self, now: u64) -> Traffic {
        let newest = bucket(now);
        let begin = newest.saturating_sub(BUCKETS as u64 - 1);
        let mut traffic = Traffic { bucket_seconds: BUCKET_SECONDS, ..Traffic::default() };
        if self.buckets.iter().any(|(at, ..)| *at >= begin) {
            for at in begin..=newest {
                let (up, down) =
                    self.buckets.iter().find(|(bucket, ..)| *bucket == at).map_or((0, 0), |(_, up, down)| (*up, *down));
                traffic.up.push(up);
                traffic.down.push(down);
            }
        }
        traffic
    }
}

const fn bucket(now: u64) -> u64 {
    now / (BUCKET_SECONDS as u64 * 1000)
}
