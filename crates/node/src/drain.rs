//! Whether this node takes new streams, and until when those that run may go on.
//!
//! A node leaves because its process is told to stop, which has no way back, or because the control plane says so, which
//! may be taken back. Routes go first: the control plane, neighbours and relays are told at once, new streams are refused
//! with 503, which sends clients elsewhere, and what runs has until the end that everybody was told.

use std::{sync::Arc, time::Duration};

use postern_proto::{
    frame::ResetCode,
    problem::Problem,
    sync::{DrainOrder, Item},
    time::UnixMillis,
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{clock, live::LiveSessions, parking::Parking};

/// The wall clock may jump: it is asked this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module. Clones are of the same node.
#[derive(Clone, Debug)]
pub struct Drain(Arc<watch::Sender<Leave>>);

/// Why a node takes no new streams; it does when there is no reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leave {
    /// The process stops: when what runs is cut.
    pub stopping: Option<UnixMillis>,
    /// The control plane has asked for it: when what runs is cut.
    pub ordered: Option<UnixMillis>,
}

impl Leave {
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.stopping.is_some() || self.ordered.is_some()
    }

    /// When what runs is cut.
    #[must_use]
    pub fn ends(&self) -> Option<UnixMillis> {
        self.stopping.into_iter().chain(self.ordered).min()
    }
}

impl Drain {
    /// Begins with what the control plane has asked for last.
    #[must_use]
    pub fn new(order: Option<DrainOrder>) -> Self {
        let ordered = order.map(|order| order.ends_at);
        Self(Arc::new(watch::Sender::new(Leave { stopping: None, ordered })))
    }

    /// What the control plane asks for, from the items of this node.
    pub fn order_of<'a>(items: impl IntoIterator<Item = &'a Item>) -> Option<DrainOrder> {
        items.into_iter().find_map(|item| if let Item::Node { drain, .. } = item { *drain } else { None })
    }

    /// Follows what the control plane asks for.
    pub fn obey(&self, order: Option<DrainOrder>) {
        let ordered = order.map(|order| order.ends_at);
        let changed = self.0.send_if_modified(|leave| std::mem::replace(&mut leave.ordered, ordered) != ordered);
        match ordered.filter(|_| changed) {
            Some(ends) => tracing::info!(%ends, "draining as an administrator asked: no new streams"),
            None if changed => tracing::info!("the drain is taken back: new streams are welcome"),
            None => {}
        }
    }

    /// The process stops.
    pub fn stop(&self, ends: UnixMillis) {
        self.0.send_if_modified(|leave| {
            let first = leave.stopping.is_none();
            leave.stopping.get_or_insert(ends);
            first
        });
    }

    #[must_use]
    pub fn now(&self) -> Leave {
        *self.0.borrow()
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.now().is_on()
    }

    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Leave> {
        self.0.subscribe()
    }

    /// Why nothing new may begin here.
    #[must_use]
    pub fn refusal(&self) -> Option<Problem> {
        let problem = || Problem::new(503, "draining", "The node takes no new connections");
        self.is_on().then(|| problem().with_detail("It is about to be stopped. Another way may lead there."))
    }

    /// Says that the process stops, once `stop` is cancelled; what runs then has `time`.
    pub(crate) async fn stop_with(self, stop: CancellationToken, time: Duration) {
        stop.cancelled().await;
        self.stop(clock::now().plus(time));
        tracing::info!("stopping: no new connections; running ones may end");
    }

    /// Cuts what still runs when a drain that was ordered is over, for ever. (When the process stops, the server does.)
    pub(crate) async fn enforce(self, live: Arc<LiveSessions>, parking: Option<Arc<Parking>>) {
        let mut leave = self.watch();
        loop {
            let ordered = leave.borrow_and_update().ordered;
            let over = ordered.is_some_and(|ends| ends <= clock::now());
            let left = ordered.map_or(LOOK_EVERY, |ends| ends.since(clock::now()).min(LOOK_EVERY));
            if over {
                let passages = parking.as_ref().map_or(0, |parking| parking.passages.cut_all(ResetCode::Draining));
                let cut = live.cut_all(ResetCode::Draining, "the node was drained") + passages;
                if cut > 0 {
                    tracing::warn!(cut, "the time of the drain is over: what still ran is cut");
                }
            }
            // `self` holds the sender, so there is always one.
            let pause = if over { LOOK_EVERY } else { left };
            let _ = timeout(pause, leave.changed()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use postern_proto::id::NodeId;

    use super::*;

    fn order(ends_at: u64) -> Option<DrainOrder> {
        Some(DrainOrder { ends_at: UnixMillis(ends_at) })
    }

    #[test]
    fn a_drain_that_was_ordered_may_be_taken_back_and_a_stop_may_not() {
        let drain = Drain::new(None);
        assert!(!drain.is_on() && drain.refusal().is_none());
        drain.obey(order(50));
        assert_eq!((drain.is_on(), drain.now().ends()), (true, Some(UnixMillis(50))));
        drain.obey(None);
        assert!(!drain.is_on());
        drain.stop(UnixMillis(90));
        drain.obey(None);
        drain.stop(UnixMillis(20));
        assert_eq!(drain.now().ends(), Some(UnixMillis(90)), "the first stop counts");
        assert_eq!(drain.refusal().map(|problem| problem.status), Some(503));
    }

    #[test]
    fn the_earlier_end_counts_when_a_node_is_stopped_while_it_drains() {
        let drain = Drain::new(order(50));
        drain.stop(UnixMillis(90));
        assert_eq!(drain.now().ends(), Some(UnixMillis(50)));
    }

    #[test]
    fn the_order_is_in_the_record_of_the_node() {
        let id = NodeId::from_ulid(1.into());
        let item = Item::Node { id, name: "n".into(), drain: order(7) };
        assert_eq!(Drain::order_of([&item]), order(7));
        assert_eq!(Drain::order_of([&Item::Neighbours { nodes: Vec::new() }]), None);
    }
}
