//! One scope: its items now, and a bounded log of how they came to be so.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use axum::extract::ws::Utf8Bytes;
use postern_proto::sync::{Item, ItemKey, MAX_FRAME, Scope, ServerFrame};
use serde::Serialize;

/// Deltas that a log holds at most.
const MAX_DELTAS: usize = 256;
/// Bytes that a log holds at most. A receiver further behind gets a snapshot.
const MAX_LOG: usize = 256 * 1024;
/// What a snapshot frame needs beside its items: names, numbers, brackets and the scope.
const ENVELOPE: usize = 512;

/// The items of one scope by their keys.
pub type View = BTreeMap<ItemKey, Item>;

/// Items as a view.
pub fn view(items: impl IntoIterator<Item = Item>) -> View {
    items.into_iter().map(|item| (item.key(), item)).collect()
}

/// A scope as its subscribers follow it.
pub struct Feed {
    scope: Scope,
    rev: u64,
    items: View,
    log: VecDeque<Delta>,
    log_bytes: usize,
    /// The items as frames, made when the first receiver asks and shared until they change.
    snapshot: Option<Arc<[Utf8Bytes]>>,
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
        Self { scope, rev, items, log: VecDeque::new(), log_bytes: 0, snapshot: None }
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
        let put: Vec<Item> = put.map(|(_, item)| item.clone()).collect();
        self.patch(put, del, rev)
    }

    /// Deletes and puts items. False, and nothing is logged, when that changes nothing.
    pub fn patch(&mut self, put: Vec<Item>, del: Vec<ItemKey>, rev: u64) -> bool {
        let del: Vec<ItemKey> = del.into_iter().filter(|key| self.items.remove(key).is_some()).collect();
        let put: Vec<Item> = put.into_iter().filter(|item| self.items.get(&item.key()) != Some(item)).collect();
        if put.is_empty() && del.is_empty() {
            return false;
        }
        self.items.extend(put.iter().map(|item| (item.key(), item.clone())));
        self.record(put, del, rev);
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
        let parts = match &self.snapshot {
            Some(parts) => Arc::clone(parts),
            None => Arc::clone(self.snapshot.insert(encode_snapshot(&self.scope, self.rev, &self.items))),
        };
        Step::Snapshot { parts, rev: self.rev }
    }

    fn record(&mut self, put: Vec<Item>, del: Vec<ItemKey>, rev: u64) {
        let from = std::mem::replace(&mut self.rev, rev);
        self.snapshot = None;
        let frame = encode(&ServerFrame::Delta { scope: self.scope.clone(), from, to: rev, put, del });
        if frame.len() > MAX_FRAME {
            // Too large for one frame: everybody gets a snapshot, which comes in parts and is taken as a whole.
            self.log.clear();
            self.log_bytes = 0;
            return;
        }
        self.log_bytes += frame.len();
        self.log.push_back(Delta { from, to: rev, frame });
        while self.log.len() > MAX_DELTAS || self.log_bytes > MAX_LOG {
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
        let length = to_json(item).len() + 1;
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
            part.push(item.clone());
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
