//! One scope: its items now, and a bounded log of how they came to be so.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
};

use postern_proto::sync::{Item, ItemKey, MAX_FRAME, Scope, ServerFrame};
use serde::Serialize;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::hub::ORG;

/// Deltas that a log holds at most.
const MAX_DELTAS: usize = 256;
/// Bytes that a log holds at most. A receiver further behind gets a snapshot.
const MAX_LOG: usize = 256 * 1024;
/// Bytes that a log may hold however small its scope is.
const LEAST_LOG: usize = 4 * 1024;
/// About what an item is as JSON. A log longer than its scope's snapshot is of no use.
const ITEM: usize = 400;
/// What a snapshot frame needs beside its items: names, numbers, brackets and the scope.
const ENVELOPE: usize = 512;

/// The items of one scope by their keys. What many scopes hold, such as a resource that many accounts reach, they share.
pub type View = BTreeMap<ItemKey, Arc<Item>>;

/// Items as a view.
pub fn view(items: impl IntoIterator<Item: Into<Arc<Item>>>) -> View {
    items.into_iter().map(Into::into).map(|item: Arc<Item>| (item.key(), item)).collect()
}

/// A scope as its subscribers follow it.
pub struct Feed {
    scope: Scope,
    rev: u64,
    items: View,
    log: VecDeque<Delta>,
    log_bytes: usize,
    /// The items as frames, made when a receiver asks and shared with those that ask before it has got them.
    snapshot: Weak<[Utf8Bytes]>,
    /// The same, kept for the next receiver: only where everybody comes for it.
    kept: Option<Arc<[Utf8Bytes]>>,
}

struct Delta {
    from: u64,
    to: u64,
    frame: Utf8Bytes,
}

/// What a receiver is to be sent next.
pub enum Step {
    /// It holds what there is.
    UpToDate,
    Delta {
        frame: Utf8Bytes,
        to: u64,
    },
    Snapshot {
        parts: Arc<[Utf8Bytes]>,
        rev: u64,
    },
}

impl Feed {
    /// A scope that begins with `items` at revision `rev`.
    #[must_use]
    pub fn new(scope: Scope, rev: u64, items: View) -> Self {
        Self {
            scope,
            rev,
            items,
            log: VecDeque::new(),
            log_bytes: 0,
            snapshot: Weak::<[Utf8Bytes; 0]>::new(),
            kept: None,
        }
    }

    /// The items now.
    #[must_use]
    pub const fn items(&self) -> &View {
        &self.items
    }

    /// The revision of the items now.
    #[must_use]
    pub const fn rev(&self) -> u64 {
        self.rev
    }

    /// Makes `items` the items of the scope. False, and nothing is logged, when they are so already. `rev` must be
    /// higher than any before.
    pub fn replace(&mut self, items: View, rev: u64) -> bool {
        let del: Vec<ItemKey> = self.items.keys().filter(|key| !items.contains_key(*key)).cloned().collect();
        let put = items.iter().filter(|(key, item)| self.items.get(*key) != Some(*item));
        let put: Vec<Arc<Item>> = put.map(|(_, item)| Arc::clone(item)).collect();
        self.patch(put, del, rev)
    }

    /// Deletes and puts items. False, and nothing is logged, when that changes nothing.
    pub fn patch(&mut self, put: Vec<Arc<Item>>, del: Vec<ItemKey>, rev: u64) -> bool {
        let del: Vec<ItemKey> = del.into_iter().filter(|key| self.items.remove(key).is_some()).collect();
        let is_news = |item: &Arc<Item>| {
            self.items.get(&item.key()).is_none_or(|known| !Arc::ptr_eq(known, item) && known != item)
        };
        let put: Vec<Arc<Item>> = put.into_iter().filter(is_news).collect();
        if put.is_empty() && del.is_empty() {
            return false;
        }
        self.items.extend(put.iter().map(|item| (item.key(), Arc::clone(item))));
        self.record(&put, del, rev);
        true
    }

    /// What a receiver that holds revision `have` is to be sent next.
    pub fn next(&mut self, have: Option<u64>) -> Step {
        match have {
            Some(have) if have == self.rev => Step::UpToDate,
            Some(have) => match self.log.binary_search_by_key(&have, |delta| delta.from) {
                Ok(at) => match self.log.get(at) {
                    Some(delta) => Step::Delta { frame: delta.frame.clone(), to: delta.to },
                    None => self.whole(),
                },
                Err(_) => self.whole(),
            },
            None => self.whole(),
        }
    }

    fn whole(&mut self) -> Step {
        let parts = self.snapshot.upgrade().unwrap_or_else(|| encode_snapshot(&self.scope, self.rev, &self.items));
        self.snapshot = Arc::downgrade(&parts);
        self.kept = (self.scope == ORG).then(|| Arc::clone(&parts));
        Step::Snapshot { parts, rev: self.rev }
    }

    fn record(&mut self, put: &[Arc<Item>], del: Vec<ItemKey>, rev: u64) {
        let from = std::mem::replace(&mut self.rev, rev);
        (self.snapshot, self.kept) = (Weak::<[Utf8Bytes; 0]>::new(), None);
        let put = put.iter().map(|item| Item::clone(item)).collect();
        let frame = encode(&ServerFrame::Delta { scope: self.scope.clone(), from, to: rev, put, del });
        if frame.len() > MAX_FRAME {
            // Too large for one frame: everybody gets a snapshot, which comes in parts and is taken as a whole.
            self.log.clear();
            self.log_bytes = 0;
            return;
        }
        self.log_bytes += frame.len();
        self.log.push_back(Delta { from, to: rev, frame });
        let most = MAX_LOG.min(LEAST_LOG.max(self.items.len() * ITEM));
        while self.log.len() > MAX_DELTAS || self.log_bytes > most {
            let Some(dropped) = self.log.pop_front() else { return };
            self.log_bytes -= dropped.frame.len();
        }
    }
}

/// A frame as it travels.
#[must_use]
pub fn encode(frame: &ServerFrame) -> Utf8Bytes {
    to_json(frame).into()
}

/// Encodes a snapshot in as few parts as fit into [`MAX_FRAME`]. An item that fits into no frame is left out, so that
/// it alone is missed and not all beside it.
fn encode_snapshot(scope: &Scope, rev: u64, items: &View) -> Arc<[Utf8Bytes]> {
    let mut parts: Vec<Vec<Item>> = vec![Vec::new()];
    let mut size = ENVELOPE + scope.len();
    for item in items.values() {
        let length = to_json(&**item).len() + 1;
        if ENVELOPE + scope.len() + length > MAX_FRAME {
            tracing::error!(%scope, key = ?item.key(), length, "an item is too large for sync and is left out");
            continue;
        }
        if size + length > MAX_FRAME {
            parts.push(Vec::new());
            size = ENVELOPE + scope.len();
        }
        size += length;
        if let Some(part) = parts.last_mut() {
            part.push(Item::clone(item));
        }
    }
    let of = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let parts = parts
        .into_iter()
        .zip(0..)
        .map(|(items, part)| encode(&ServerFrame::Snapshot { scope: scope.clone(), rev, part, of, items }));
    parts.collect()
}

/// Frames hold only strings, numbers and maps with string keys: they always encode.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
