//! The idle connections to one entry: last in, first out, checked when they are taken, aged out in minutes.
//!
//! Sans-IO but for the check: the caller says what time it is.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use postern_proto::{id::NodeId, time::UnixMillis};

use super::spares::Spares;
use crate::{link::Link, tls::ClientTls};

/// A connection that stood idle so long is closed: balancers cut idle flows after 350 s and more, and the kernel has
/// forgotten its congestion window.
const IDLE: Duration = Duration::from_secs(3 * 60);
/// No connection is used again after so long, so that streams spread over new nodes behind a balancer.
const AGE: Duration = Duration::from_secs(15 * 60);
/// A client certificate that ends so soon opens no stream any more; the node would refuse it.
const MARGIN: Duration = Duration::from_secs(30);
/// More are closed instead of kept: about 3 MiB.
const MOST: usize = 256;

/// A connection that may carry a stream.
pub(super) struct Warm {
    pub(super) link: Box<Link>,
    /// Who is at the other end, where that could be one of several.
    pub(super) node: Option<NodeId>,
    born: Instant,
    /// When the client certificate ends that it was made with.
    not_after: UnixMillis,
}

pub(super) struct Pool {
    idle: Vec<(Warm, Instant)>,
    pub(super) tls: ClientTls,
    pub(super) spares: Spares,
    /// Connections that are being made to stand idle.
    pub(super) dialling: usize,
    pub(super) closed: bool,
    /// Nodes that nobody is to speak to.
    removed: BTreeSet<NodeId>,
}

/// One reading of both clocks.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) unix: UnixMillis,
}

impl Warm {
    pub(super) const fn new(link: Box<Link>, node: Option<NodeId>, not_after: UnixMillis, now: Now) -> Self {
        Self { link, node, born: now.instant, not_after }
    }

    fn is_usable(&mut self, now: Now) -> bool {
        now.instant.duration_since(self.born) < AGE && now.unix.plus(MARGIN) < self.not_after && self.link.is_alive()
    }
}

impl Pool {
    pub(super) fn new(tls: ClientTls) -> Self {
        Self { idle: Vec::new(), tls, spares: Spares::default(), dialling: 0, closed: false, removed: BTreeSet::new() }
    }

    /// The connection that was used last and is still good; one that this runtime has used goes before others.
    pub(super) fn take(&mut self, now: Now) -> Option<Warm> {
        while let Some(last) = self.idle.len().checked_sub(1) {
            let at = self.idle.iter().rposition(|(warm, _)| warm.link.is_at_home()).unwrap_or(last);
            let (mut warm, _) = self.idle.remove(at);
            if warm.is_usable(now) && warm.link.bring_home().is_ok() {
                self.spares.on_use(now.instant);
                return Some(warm);
            }
        }
        self.spares.on_shortage(now.instant);
        None
    }

    /// Keeps a connection for the next stream; gives it back when it is not to be kept.
    pub(super) fn put(&mut self, mut warm: Warm, now: Now) -> Option<Warm> {
        if self.closed || self.idle.len() >= MOST || !warm.is_usable(now) || self.is_removed(warm.node) {
            return Some(warm);
        }
        self.idle.push((warm, now.instant));
        None
    }

    /// Takes out what is dead or too old.
    pub(super) fn sweep(&mut self, now: Now) -> Vec<Warm> {
        let closed = self.closed;
        self.idle
            .extract_if(.., |(warm, since)| {
                closed || now.instant.duration_since(*since) >= IDLE || !warm.is_usable(now)
            })
            .map(|(warm, _)| warm)
            .collect()
    }

    /// Whether the connection that stands idle and was used last has broken; then all that have are given up.
    pub(super) fn has_broken(&mut self) -> bool {
        let broken = self.idle.last_mut().is_some_and(|(warm, _)| !warm.link.is_alive());
        if broken {
            self.idle.retain_mut(|(warm, _)| warm.link.is_alive());
        }
        broken
    }

    /// How many connections are to be made now.
    pub(super) fn missing(&mut self, now: Now) -> usize {
        if self.closed || self.tls.not_after() <= now.unix.plus(MARGIN) {
            return 0;
        }
        self.spares.wanted(now.instant).saturating_sub(self.idle.len() + self.dialling)
    }

    /// Gives up every idle connection, because one of them turned out dead.
    pub(super) fn distrust(&mut self) -> Vec<Warm> {
        self.idle.drain(..).map(|(warm, _)| warm).collect()
    }

    /// The same for those to one of several nodes.
    pub(super) fn distrust_node(&mut self, node: Option<NodeId>) -> Vec<Warm> {
        self.idle.extract_if(.., |(warm, _)| warm.node == node).map(|(warm, _)| warm).collect()
    }

    /// Takes over which nodes are not to be spoken to; the connections to them.
    pub(super) fn set_removed(&mut self, nodes: BTreeSet<NodeId>) -> Vec<Warm> {
        self.removed = nodes;
        let removed = &self.removed;
        let gone = |warm: &Warm| warm.node.is_some_and(|node| removed.contains(&node));
        self.idle.extract_if(.., |(warm, _)| gone(warm)).map(|(warm, _)| warm).collect()
    }

    pub(super) fn is_removed(&self, node: Option<NodeId>) -> bool {
        node.is_some_and(|node| self.removed.contains(&node))
    }

    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }
}
