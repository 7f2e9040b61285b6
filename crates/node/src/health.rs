//! Whether the resources answer: a TCP connect to each, every 30 s and when asked, over the same checks as a stream.
//!
//! [`HealthBoard`] decides what to check and what to report; [`run`] connects.

mod board;

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use postern_proto::{
    id::ResourceId,
    resource::Health,
    sync::{ClientFrame, HealthReport},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

pub use self::board::{HealthBoard, MAX_RUNNING};
use crate::{
    clock,
    dial::{Dialer, Target},
    egress::Egress,
};

/// A resource that does not answer a check within this time is unhealthy.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// Reports that are ready within this time travel together.
const GATHER: Duration = Duration::from_millis(100);
/// Reports in one frame: about 200 bytes each.
const REPORTS_PER_FRAME: usize = 1000;
/// Wishes that may wait; when there are more, the caller's is dropped, and is for the caller to say again.
pub const WISHES: usize = 256;

/// What the checker is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthWish {
    /// Check these from now on, soon.
    Watch(Vec<ResourceId>),
    /// They are gone.
    Forget(Vec<ResourceId>),
    /// Check this one now and report whatever comes out.
    Now(ResourceId),
    /// A connection of somebody went otherwise than the last check: check this one soon, and report what is news.
    Soon(ResourceId),
    /// Report everything that is known: the control plane may have forgotten it.
    ReportAll,
}

/// What streams meet at resources, beside the checks. A stream alone proves little (a resource may have many ports and
/// hosts, of which one is down), so what differs from the last check prompts the next one.
pub struct Pulse {
    wishes: mpsc::Sender<HealthWish>,
    /// Those whose last check failed.
    failing: RwLock<HashSet<ResourceId>>,
}

impl Pulse {
    #[must_use]
    pub fn new(wishes: mpsc::Sender<HealthWish>) -> Self {
        Self { wishes, failing: RwLock::default() }
    }

    /// A resource was dialled for a stream. Never waits; when too many wishes wait, the next round of checks finds out.
    pub fn dialled(&self, resource: ResourceId, connected: bool) {
        let failing = self.failing.read().unwrap_or_else(PoisonError::into_inner).contains(&resource);
        // The other half is for what nobody says twice.
        if connected == failing && self.wishes.capacity() > WISHES / 2 {
            let _ = self.wishes.try_send(HealthWish::Soon(resource));
        }
    }

    fn learn(&self, report: &HealthReport) {
        let mut failing = self.failing.write().unwrap_or_else(PoisonError::into_inner);
        match report.health {
            Health::Unhealthy { .. } => failing.insert(report.resource),
            Health::Healthy | Health::Unknown => failing.remove(&report.resource),
        };
    }
}

/// Checks until it is cancelled.
pub async fn run(
    egress: Arc<Egress>,
    dialer: Dialer,
    mut wishes: mpsc::Receiver<HealthWish>,
    outbox: mpsc::Sender<ClientFrame>,
    pulse: Arc<Pulse>,
    stop: CancellationToken,
) {
    let mut board = HealthBoard::default();
    let mut checks = JoinSet::new();
    let mut ready: Vec<HealthReport> = Vec::new();
    let mut send_at = Instant::now();
    loop {
        for resource in board.due(Instant::now()) {
            match egress.resource(resource) {
                Some(found) => {
                    checks.spawn(check(dialer.clone(), resource, Target::from(found.as_ref())));
                }
                None => board.forget(resource),
            }
        }
        let next = board.next_due();
        tokio::select! {
            () = stop.cancelled() => return,
            wish = wishes.recv() => match wish {
                Some(wish) => ready.extend(grant(&mut board, wish)),
                None => return,
            },
            Some(Ok(report)) = checks.join_next() => {
                pulse.learn(&report);
                ready.extend(board.done(report, Instant::now(), rand::random()));
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => continue,
            () = sleep_until(send_at), if !ready.is_empty() => {
                for part in std::mem::take(&mut ready).chunks(REPORTS_PER_FRAME) {
                    send(&outbox, &mut board, part);
                }
                continue;
            }
        }
        if ready.len() <= 1 {
            send_at = Instant::now() + GATHER;
        }
    }
}

fn grant(board: &mut HealthBoard, wish: HealthWish) -> Vec<HealthReport> {
    let now = Instant::now();
    match wish {
        HealthWish::Watch(resources) => {
            resources.into_iter().for_each(|resource| board.watch(resource, now, rand::random()));
        }
        HealthWish::Forget(resources) => resources.into_iter().for_each(|resource| board.forget(resource)),
        HealthWish::Now(resource) => board.check_now(resource, now),
        HealthWish::Soon(resource) => board.check_soon(resource, now),
        HealthWish::ReportAll => return board.report_all(),
    }
    Vec::new()
}

async fn check(dialer: Dialer, resource: ResourceId, target: Target) -> HealthReport {
    let begun = Instant::now();
    let (health, connect_micros) = match timeout(CHECK_LIMIT, dialer.dial(&target)).await {
        Ok(Ok(_)) => (Health::Healthy, u64::try_from(begun.elapsed().as_micros()).ok()),
        Ok(Err(error)) => {
            let code = Some(error.problem().code);
            (Health::Unhealthy { error: error.to_string(), code }, None)
        }
        Err(_) => {
            let error = format!("{} did not answer within {} s", target.address(), CHECK_LIMIT.as_secs());
            (Health::Unhealthy { error, code: Some("target_timed_out".to_owned()) }, None)
        }
    };
    HealthReport { resource, health, checked_at: clock::now(), connect_micros }
}

/// Hands reports to the sync connection. When that has no room, they come again with the next checks.
fn send(outbox: &mpsc::Sender<ClientFrame>, board: &mut HealthBoard, reports: &[HealthReport]) {
    if outbox.try_send(ClientFrame::Health { reports: reports.to_vec() }).is_err() {
        tracing::debug!("health reports wait for the next checks");
        board.not_sent(reports);
    }
}
