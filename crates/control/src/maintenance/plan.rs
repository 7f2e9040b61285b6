//! What a window means for a node at an instant. Sans-IO: the instant, and whether a node is idle, are arguments.

use std::time::Duration;

use postern_proto::{filter::Filter, id::NodeId, time::UnixMillis};

use super::Schedule;
use crate::catalogue::{Catalogue, MaintenanceWindow, Node};

/// A time during which a window is open: from `opens_at`, and no longer at `closes_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    pub opens_at: UnixMillis,
    pub closes_at: UnixMillis,
}

impl Opening {
    #[must_use]
    pub fn is_on(&self, now: UnixMillis) -> bool {
        (self.opens_at..self.closes_at).contains(&now)
    }
}

/// When something that waits for a window begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin<'w> {
    Now(&'w MaintenanceWindow),
    /// The window is open; it begins once the node carries no stream, if the window is open then.
    WhenIdle(&'w MaintenanceWindow, Opening),
    /// When the window opens, and, if that asks for it, the node carries no stream.
    At(&'w MaintenanceWindow, Opening),
    /// No window is for the node, or none ever opens.
    Never,
}

impl MaintenanceWindow {
    /// What a window may ask of nodes.
    pub const NODE_FIELDS: &[&str] = &["name", "id", "role", "kind", "group", "tags"];

    /// Whether it is for a node. One with a filter that cannot be read is for none.
    #[must_use]
    pub fn is_for(&self, node: &Node) -> bool {
        let filter = self.nodes.as_deref().map(|filter| Filter::parse(filter, Self::NODE_FIELDS));
        filter.is_none_or(|filter| filter.is_ok_and(|filter| filter.matches(node)))
    }

    /// The opening that is on, else the next one. Where openings overlap, the one that is on began last.
    #[must_use]
    pub fn opening(&self, now: UnixMillis) -> Option<Opening> {
        let schedule = Schedule::read(&self.schedule).ok()?;
        let span = Duration::from_secs(self.duration).min(super::LONGEST);
        let since = UnixMillis(now.0.saturating_sub(u64::try_from(span.as_millis()).ok()?));
        let opens_at = schedule.last(since, now).or_else(|| schedule.next(now))?;
        Some(Opening { opens_at, closes_at: opens_at.plus(span) })
    }
}

/// When what waits at a node begins, if the catalogue stays as it is.
#[must_use]
pub fn plan<'c>(catalogue: &'c Catalogue, node: &Node, now: UnixMillis, idle: bool) -> Begin<'c> {
    let windows = catalogue.windows.values().map(AsRef::as_ref).filter(|window| window.is_for(node));
    let openings = windows.filter_map(|window: &MaintenanceWindow| Some((window, window.opening(now)?)));
    let begin = |(window, opening): (&'c MaintenanceWindow, Opening)| match opening.is_on(now) {
        true if idle || !window.require_idleness => Begin::Now(window),
        true => Begin::WhenIdle(window, opening),
        false => Begin::At(window, opening),
    };
    openings.map(begin).min_by_key(Begin::order).unwrap_or(Begin::Never)
}

impl Begin<'_> {
    /// The sooner, the smaller; of two that open together, the one that asks for less.
    fn order(&self) -> (u8, UnixMillis, bool) {
        match self {
            Self::Now(_) => (0, UnixMillis(0), false),
            Self::WhenIdle(_, opening) => (1, opening.opens_at, true),
            Self::At(window, opening) => (2, opening.opens_at, window.require_idleness),
            Self::Never => (3, UnixMillis(0), false),
        }
    }
}

/// The nodes at which a drain is to begin now, and how long what runs there has.
#[must_use]
pub fn due(catalogue: &Catalogue, now: UnixMillis, idle: impl Fn(NodeId) -> bool) -> Vec<(NodeId, Duration)> {
    let waiting = catalogue.nodes.values().filter_map(|node| Some((node, node.planned_drain?)));
    let begins = waiting.filter(|(node, _)| matches!(plan(catalogue, node, now, idle(node.id)), Begin::Now(_)));
    begins.map(|(node, deadline)| (node.id, Duration::from_secs(deadline))).collect()
}

#[cfg(test)]
mod tests;
