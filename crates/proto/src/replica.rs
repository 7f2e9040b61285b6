//! What a device or node holds of the control plane's state, and how the sync frames change it.
//!
//! A [`Replica`] never guesses: a frame that does not follow from what it holds is refused as [`OutOfStep`], nothing of
//! it is applied, and the caller connects again (the next [`Replica::hello`] then asks for fresh snapshots). Until a
//! fresh snapshot is complete, what was held stays as it was, so that a bad or interrupted transfer takes nothing away.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    id::OrgId,
    sync::{CLUSTERS, Hello, Item, ItemKey, Scope, ServerFrame, VERSION, Welcome},
};

/// Most parts that one snapshot may come in; with frames of [`crate::sync::MAX_FRAME`] bytes that is far above any
/// organisation, and it bounds what a broken sender can make a receiver hold.
pub const MAX_PARTS: u32 = 1024;
/// Most items of one scope.
pub const MAX_ITEMS: usize = 1_000_000;

/// A copy of the scopes that this peer is subscribed to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Replica {
    org: Option<OrgId>,
    epoch: String,
    scopes: BTreeMap<Scope, Held>,
    link: Link,
}

/// What a frame changed in one scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub scope: Scope,
    /// Whether it came from a fresh snapshot: nodes then ask the control plane about their live streams.
    pub snapshot: bool,
    /// Items that are new or differ from what was held.
    pub put: Vec<Item>,
    /// Keys of items that are gone.
    pub removed: Vec<ItemKey>,
}

/// Why a frame does not follow from what is held. The remedy is a fresh connection; see [`Replica::hello`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfStep {
    #[error("the control plane speaks version {theirs} of the sync frames, this program version {VERSION}")]
    OtherVersion { theirs: u32 },
    #[error("the control plane belongs to organisation {theirs}, what is held here to {ours}")]
    OtherOrg { ours: OrgId, theirs: OrgId },
    #[error("a frame of scope {scope:?} came before the welcome")]
    BeforeWelcome { scope: Scope },
    #[error("a frame names scope {scope:?}, which is not subscribed")]
    UnknownScope { scope: Scope },
    #[error("part {part} of {of} of a snapshot of {scope:?} is out of order")]
    PartOutOfOrder { scope: Scope, part: u32, of: u32 },
    #[error("a snapshot of {scope:?} is too large")]
    TooLarge { scope: Scope },
    #[error("a snapshot of {scope:?} holds {key:?} twice")]
    TwiceInSnapshot { scope: Scope, key: ItemKey },
    #[error("a delta of {scope:?} starts at revision {from}, here is {held:?}")]
    Gap { scope: Scope, from: u64, held: Option<u64> },
    #[error("a delta of {scope:?} goes from revision {from} back to {to}")]
    Backwards { scope: Scope, from: u64, to: u64 },
}

impl Replica {
    /// Begins a connection: forgets half-received snapshots and says what is held.
    pub fn hello(&mut self, agent: impl Into<String>) -> Hello {
        self.link = Link::Greeting;
        self.hello_again(agent)
    }

    /// Says once more what is held, within a connection that is made of many calls (long polling).
    #[must_use]
    pub fn hello_again(&self, agent: impl Into<String>) -> Hello {
        let held = self.scopes.iter().filter_map(|(scope, held)| Some((scope.clone(), held.rev?)));
        // Said first, so that what is held counts.
        let have = [(CLUSTERS.to_owned(), 0)].into_iter().chain(held).collect();
        Hello { version: VERSION, agent: agent.into(), epoch: self.epoch.clone(), have }
    }

    /// Applies one frame and says what it changed. Frames that change no state (`Revoke`, `Pong` …) change nothing.
    ///
    /// After an error nothing of the frame is applied, and the next [`Replica::hello`] asks for everything afresh.
    pub fn apply(&mut self, frame: &ServerFrame) -> Result<Vec<Change>, OutOfStep> {
        let changes = match frame {
            ServerFrame::Welcome(welcome) => self.welcome(welcome),
            ServerFrame::Snapshot { scope, rev, part, of, items } => {
                self.snapshot(scope, Part { rev: *rev, part: *part, of: *of }, items)
            }
            ServerFrame::Delta { scope, from, to, put, del } => self.delta(scope, *from, *to, put, del),
            ServerFrame::Revoke { .. }
            | ServerFrame::Checked
            | ServerFrame::CheckHealth { .. }
            | ServerFrame::Pong { .. }
            | ServerFrame::Bye { .. } => Ok(Vec::new()),
        };
        if changes.is_err() {
            self.forget_revisions();
        }
        changes
    }

    /// Whether this connection has been welcomed and no snapshot is awaited.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let Link::Welcomed { scopes, incoming } = &self.link else { return false };
        let held = |scope| self.scopes.get(scope).is_some_and(|held| held.rev.is_some());
        incoming.is_empty() && scopes.iter().all(held)
    }

    /// Makes the next [`Replica::hello`] ask for fresh snapshots; the items stay until those are complete.
    pub fn forget_revisions(&mut self) {
        for held in self.scopes.values_mut() {
            held.rev = None;
        }
        self.link = Link::Greeting;
    }

    /// The organisation, once a control plane has said it.
    #[must_use]
    pub const fn org(&self) -> Option<OrgId> {
        self.org
    }

    /// The epoch of what is held; empty before the first welcome.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The scopes that hold something, with their revisions; `None` while a fresh snapshot is awaited.
    pub fn scopes(&self) -> impl Iterator<Item = (&Scope, Option<u64>)> {
        self.scopes.iter().map(|(scope, held)| (scope, held.rev))
    }

    /// Every item of every scope, in the order of scopes and keys.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.scopes.values().flat_map(|held| held.items.values())
    }

    /// The items of one scope, in the order of their keys.
    pub fn items_of(&self, scope: &str) -> impl Iterator<Item = &Item> {
        self.scopes.get(scope).into_iter().flat_map(|held| held.items.values())
    }

    fn welcome(&mut self, welcome: &Welcome) -> Result<Vec<Change>, OutOfStep> {
        if welcome.version != VERSION {
            return Err(OutOfStep::OtherVersion { theirs: welcome.version });
        }
        if let Some(ours) = self.org
            && ours != welcome.org
        {
            return Err(OutOfStep::OtherOrg { ours, theirs: welcome.org });
        }
        if self.epoch != welcome.epoch {
            // Restored from a backup: revisions mean nothing any more. Items stay until their snapshots are complete.
            for held in self.scopes.values_mut() {
                held.rev = None;
            }
        }
        self.org = Some(welcome.org);
        self.epoch.clone_from(&welcome.epoch);
        let wanted: BTreeSet<_> = welcome.scopes.iter().cloned().collect();
        let gone: Vec<Scope> = self.scopes.keys().filter(|scope| !wanted.contains(*scope)).cloned().collect();
        self.link = Link::Welcomed { scopes: wanted, incoming: BTreeMap::new() };
        Ok(gone.into_iter().filter_map(|scope| self.drop_scope(scope)).collect())
    }

    fn drop_scope(&mut self, scope: Scope) -> Option<Change> {
        let removed: Vec<_> = self.scopes.remove(&scope)?.items.into_keys().collect();
        (!removed.is_empty()).then_some(Change { scope, snapshot: true, put: Vec::new(), removed })
    }

    fn snapshot(&mut self, scope: &Scope, at: Part, items: &[Item]) -> Result<Vec<Change>, OutOfStep> {
        let incoming = self.link.incoming(scope)?;
        let mut parts = match incoming.remove(scope) {
            Some(parts) if at.part != 0 => parts,
            _ => Incoming::default(),
        };
        parts.add(scope, at, items)?;
        if at.part + 1 < at.of {
            incoming.insert(scope.clone(), parts);
            return Ok(Vec::new());
        }
        let held = self.scopes.entry(scope.clone()).or_default();
        held.rev = Some(at.rev);
        let before = std::mem::replace(&mut held.items, parts.items);
        let removed = before.keys().filter(|key| !held.items.contains_key(*key)).cloned().collect();
        let put = held.items.iter().filter(|(key, item)| before.get(*key) != Some(*item));
        let put = put.map(|(_, item)| item.clone()).collect();
        Ok(vec![Change { scope: scope.clone(), snapshot: true, put, removed }])
    }

    fn delta(
        &mut self,
        scope: &Scope,
        from: u64,
        to: u64,
        put: &[Item],
        del: &[ItemKey],
    ) -> Result<Vec<Change>, OutOfStep> {
        let in_parts = self.link.incoming(scope)?.contains_key(scope);
        let rev = self.scopes.get(scope).and_then(|held| held.rev);
        let Some(held) = self.scopes.get_mut(scope).filter(|_| rev == Some(from) && !in_parts) else {
            return Err(OutOfStep::Gap { scope: scope.clone(), from, held: rev });
        };
        if to < from || (to == from && !(put.is_empty() && del.is_empty())) {
            return Err(OutOfStep::Backwards { scope: scope.clone(), from, to });
        }
        if held.items.len().saturating_add(put.len()) > MAX_ITEMS {
            return Err(OutOfStep::TooLarge { scope: scope.clone() });
        }
        held.rev = Some(to);
        let mut gone: BTreeMap<ItemKey, Item> =
            del.iter().filter_map(|key| Some((key.clone(), held.items.remove(key)?))).collect();
        let mut changed: BTreeMap<ItemKey, &Item> = BTreeMap::new();
        for item in put {
            let key = item.key();
            let before = held.items.insert(key.clone(), item.clone()).or_else(|| gone.remove(&key));
            if before.as_ref() != Some(item) || changed.contains_key(&key) {
                changed.insert(key, item);
            }
        }
        if gone.is_empty() && changed.is_empty() {
            return Ok(Vec::new());
        }
        let put = changed.into_values().cloned().collect();
        Ok(vec![Change { scope: scope.clone(), snapshot: false, put, removed: gone.into_keys().collect() }])
    }
}

/// How far the connection is.
#[derive(Clone, Debug, Default, PartialEq)]
enum Link {
    #[default]
    Greeting,
    Welcomed {
        scopes: BTreeSet<Scope>,
        /// Snapshots of which not all parts are there.
        incoming: BTreeMap<Scope, Incoming>,
    },
}

impl Link {
    /// The half-received snapshots, if frames of this scope may come now.
    fn incoming(&mut self, scope: &Scope) -> Result<&mut BTreeMap<Scope, Incoming>, OutOfStep> {
        match self {
            Self::Greeting => Err(OutOfStep::BeforeWelcome { scope: scope.clone() }),
            Self::Welcomed { scopes, .. } if !scopes.contains(scope) => {
                Err(OutOfStep::UnknownScope { scope: scope.clone() })
            }
            Self::Welcomed { incoming, .. } => Ok(incoming),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    /// `None`: a fresh snapshot is awaited.
    rev: Option<u64>,
    items: BTreeMap<ItemKey, Item>,
}

/// Where a part stands in its snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Part {
    rev: u64,
    part: u32,
    of: u32,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Incoming {
    last: Option<Part>,
    items: BTreeMap<ItemKey, Item>,
}

impl Incoming {
    fn add(&mut self, scope: &Scope, at: Part, items: &[Item]) -> Result<(), OutOfStep> {
        let in_order = match self.last {
            None => at.part == 0,
            Some(last) => at.part == last.part + 1 && at.of == last.of && at.rev == last.rev,
        };
        if !in_order || at.part >= at.of {
            return Err(OutOfStep::PartOutOfOrder { scope: scope.clone(), part: at.part, of: at.of });
        }
        if at.of > MAX_PARTS || self.items.len().saturating_add(items.len()) > MAX_ITEMS {
            return Err(OutOfStep::TooLarge { scope: scope.clone() });
        }
        for item in items {
            if self.items.insert(item.key(), item.clone()).is_some() {
                return Err(OutOfStep::TwiceInSnapshot { scope: scope.clone(), key: item.key() });
            }
        }
        self.last = Some(at);
        Ok(())
    }
}

/// The form on disk.
#[derive(Serialize, Deserialize)]
struct Stored {
    org: Option<OrgId>,
    epoch: String,
    scopes: Vec<StoredScope>,
}

#[derive(Serialize, Deserialize)]
struct StoredScope {
    scope: Scope,
    rev: Option<u64>,
    items: Vec<Item>,
}

impl From<Replica> for Stored {
    fn from(replica: Replica) -> Self {
        let scopes = replica.scopes.into_iter();
        let scopes =
            scopes.map(|(scope, Held { rev, items })| StoredScope { scope, rev, items: items.into_values().collect() });
        Self { org: replica.org, epoch: replica.epoch, scopes: scopes.collect() }
    }
}

impl From<Stored> for Replica {
    fn from(stored: Stored) -> Self {
        let scopes = stored.scopes.into_iter().map(|StoredScope { scope, rev, items }| {
            (scope, Held { rev, items: items.into_iter().map(|item| (item.key(), item)).collect() })
        });
        Self { org: stored.org, epoch: stored.epoch, scopes: scopes.collect(), link: Link::Greeting }
    }
}

#[cfg(test)]
mod tests;
