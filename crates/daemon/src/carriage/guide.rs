//! Says where a stream goes, and where else when that fails.

use std::{sync::Arc, time::Duration};

use postern_proto::{
    head::{Request, Wanted},
    id::NodeId,
    problem::Problem,
};
use postern_tunnel::client::{Attempt, DialError, Entry, Failure, StreamGuide};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Carriage, Destination, Lease, error_text};
use crate::{
    clock,
    engine::Input,
    gateways::Way,
    streams::{Route, Stream},
};

/// How long a stream waits for a lease, its first or a fresh one. Programs give up on a connection that does nothing
/// after a while; a sentence in the status is worth more than a longer wait.
const LEASE_WAIT: Duration = Duration::from_secs(10);
/// A cluster whose worker does not answer is tried again: the balancer may lead to another one, or know better meanwhile.
const CLUSTER_TRIES: u32 = 8;
/// The first tries go out at once, each later one after twice the pause of the one before: in all a second and a half.
const CLUSTER_TRIES_AT_ONCE: u32 = 3;
const CLUSTER_PAUSE: Duration = Duration::from_millis(50);
/// Tries at most, whatever gateways say.
const MAX_TRIES: u32 = 12;

pub(super) struct Guide {
    carriage: Arc<Carriage>,
    destination: Arc<Destination>,
    stream: Arc<Stream>,
    wanted: Wanted,
    /// Gateways that are not to be tried again.
    tried: Vec<Way>,
    /// A node would not take this lease.
    spoiled: Option<Arc<Lease>>,
    used: Option<Arc<Lease>>,
    /// Where the next try goes, when that is decided.
    next: Option<Arc<Entry>>,
    /// How often a worker of a cluster did not take the stream.
    unserved: u32,
    /// Before the next try.
    pause: Duration,
    /// A connection that broke before an answer is made again once.
    lost_once: bool,
    last: Option<Problem>,
}

impl Guide {
    pub(super) const fn new(
        carriage: Arc<Carriage>,
        destination: Arc<Destination>,
        stream: Arc<Stream>,
        wanted: Wanted,
    ) -> Self {
        Self {
            carriage,
            destination,
            stream,
            wanted,
            tried: Vec::new(),
            spoiled: None,
            used: None,
            next: None,
            unserved: 0,
            pause: Duration::ZERO,
            lost_once: false,
            last: None,
        }
    }

    /// Learns from a failure; an error is final.
    fn learn(&mut self, failure: &Failure) -> Result<(), Problem> {
        let now = clock::now().boot;
        match failure {
            Failure::Refused { entry, refused } => match refused.problem.status {
                401 if self.spoiled.is_none() => {
                    self.spoiled = self.used.take();
                    self.next = Some(Arc::clone(entry));
                    self.last = Some(refused.problem.clone());
                }
                421 => {
                    let route = refused.route.as_ref().ok_or_else(|| refused.problem.clone())?;
                    let right = self.carriage.gateways().choose(&[route.node().into()], &self.tried, now);
                    self.next = Some(right.ok_or_else(|| refused.problem.clone())?);
                }
                503 => {
                    if !self.may_ask_another_worker(entry, &refused.problem) {
                        self.carriage.gateways().note_draining(Way::of(entry), now);
                        self.give_up_on(entry, refused.problem.clone());
                    }
                }
                _ => return Err(refused.problem.clone()),
            },
            // The gateway would not take the lease for the passage.
            Failure::Dial { entry, error: DialError::Refused { problem, .. } }
                if problem.status == 401 && self.spoiled.is_none() =>
            {
                self.spoiled = self.used.take();
                self.next = Some(Arc::clone(entry));
                self.last = Some(problem.as_ref().clone());
            }
            Failure::Dial { entry, error: DialError::Unreachable { .. } | DialError::Handshake { .. } }
                if self.may_ask_another_worker(entry, &unreachable("its worker does not answer")) => {}
            Failure::Dial { entry, error: error @ DialError::Removed { .. } }
                if self.may_ask_another_worker(entry, &unreachable(&error_text(error))) => {}
            Failure::Dial { entry, error } => {
                let text = error_text(error);
                let way = Way::of(entry);
                // Whatever is behind it: the gateway itself does not answer.
                let whole = !matches!(error, DialError::Refused { .. } | DialError::Relay { .. });
                let mut gateways = self.carriage.gateways();
                gateways.note_failed(way, text.clone(), now);
                if whole && way.relay.is_some() {
                    gateways.note_failed(way.door, text.clone(), now);
                }
                drop(gateways);
                let problem = match error {
                    DialError::Refused { problem, .. } => problem.as_ref().clone(),
                    _ => unreachable(&text),
                };
                self.give_up_on(entry, problem);
            }
            Failure::Lost { entry } => {
                let problem = unreachable("it broke the connection off before it answered");
                if self.lost_once {
                    self.carriage.gateways().note_failed(Way::of(entry), "it breaks connections off".to_owned(), now);
                    self.give_up_on(entry, problem);
                } else {
                    self.lost_once = true;
                    self.last = Some(problem);
                }
            }
        }
        Ok(())
    }

    /// Whether the same entry is worth another try because somebody else may answer there.
    fn may_ask_another_worker(&mut self, entry: &Entry, problem: &Problem) -> bool {
        if entry.door().node().is_some() {
            return false;
        }
        self.unserved += 1;
        self.last = Some(problem.clone());
        let again = self.unserved < CLUSTER_TRIES;
        if let Some(doublings) = self.unserved.checked_sub(CLUSTER_TRIES_AT_ONCE).filter(|_| again) {
            self.pause = CLUSTER_PAUSE * (1 << doublings);
        }
        again
    }

    fn give_up_on(&mut self, entry: &Entry, problem: Problem) {
        self.tried.push(Way::of(entry));
        self.last = Some(problem);
    }

    fn choose(&mut self) -> Result<Arc<Entry>, Problem> {
        if let Some(entry) = self.next.take() {
            return Ok(entry);
        }
        let chosen = {
            let gateways = self.carriage.gateways();
            gateways.choose(&self.destination.via(), &self.tried, clock::now().boot)
        };
        chosen.ok_or_else(|| {
            self.last.take().unwrap_or_else(|| {
                Problem::new(502, "no_gateway", "No gateway can carry this connection")
                    .with_detail("The control plane has named none for this resource; ask an administrator.")
            })
        })
    }

    /// Of two ways of which nothing is known the one that answers first; its connection then lies ready.
    async fn first_to_answer(&mut self) -> Option<Arc<Entry>> {
        if self.next.is_some() {
            return None;
        }
        let now = clock::now().boot;
        let [one, other] = self.carriage.gateways().rivals(&self.destination.via(), &self.tried, now)?;
        if one.relay().is_some() || other.relay().is_some() {
            // A gateway asks for a lease before it leads on.
            let lease = self.lease().await.ok()?;
            for entry in [&one, &other] {
                entry.set_lease(&lease.token);
            }
        }
        let (entry, took) = tokio::select! {
            Ok(took) = one.probe() => (&one, took),
            Ok(took) = other.probe() => (&other, took),
            else => return None,
        };
        let way = Way::of(entry);
        self.carriage.gateways().note_reached(way, way.relay.is_none().then_some(took));
        Some(Arc::clone(entry))
    }

    /// The lease to use: the one that lies ready, or a fresh one when there is none or it was refused.
    async fn lease(&mut self) -> Result<Arc<Lease>, Problem> {
        if let Some(lease) = self.usable() {
            return Ok(lease);
        }
        let mut news = self.carriage.lease_news.subscribe();
        // A full queue means that the engine has enough to do; the wait below has its end.
        let _ = self.carriage.inputs.try_send(Input::LeaseNeeded(self.destination.id));
        let deadline = Instant::now() + LEASE_WAIT;
        loop {
            if let Some(lease) = self.usable() {
                return Ok(lease);
            }
            if self.carriage.is_denied(self.destination.id) {
                return Err(denied());
            }
            if !matches!(timeout_at(deadline, news.changed()).await, Ok(Ok(()))) {
                return Err(self.last.take().unwrap_or_else(no_lease));
            }
        }
    }

    fn usable(&self) -> Option<Arc<Lease>> {
        let lease = self.carriage.lease(self.destination.id)?;
        let spoiled = self.spoiled.as_ref().is_some_and(|spoiled| spoiled.token == lease.token);
        (!spoiled).then_some(lease)
    }

    /// Notes the grant of the lease at the stream and makes sure that the lease still counts after that: a revocation
    /// takes leases away before it looks at streams, so it either finds the grant here or the lease gone there.
    async fn lease_on_record(&mut self, entry: &Entry) -> Result<Arc<Lease>, Problem> {
        loop {
            let lease = self.lease().await?;
            let Way { door, relay } = Way::of(entry);
            self.stream.set_route(Route { door: Some(door), relay, worker: None, grant: lease.grant.clone() });
            if self.usable().is_some_and(|now| Arc::ptr_eq(&now, &lease)) {
                return Ok(lease);
            }
        }
    }
}

impl StreamGuide for Guide {
    async fn next_attempt(&mut self, number: u32, failure: Option<&Failure>) -> Result<Attempt, Problem> {
        if let Some(failure) = failure {
            self.learn(failure)?;
            sleep(std::mem::take(&mut self.pause)).await;
        }
        if number >= MAX_TRIES {
            return Err(self.last.take().unwrap_or_else(|| unreachable("too many tries")));
        }
        let entry = match self.first_to_answer().await {
            Some(entry) => entry,
            None => self.choose()?,
        };
        let lease = self.lease_on_record(&entry).await?;
        entry.set_lease(&lease.token);
        let request = Request::new(self.destination.id, entry.end().tls_name(), lease.token.as_str(), self.stream.id)
            .map_err(|error| {
            Problem::new(502, "bad_lease", "The lease cannot be sent").with_detail(error.to_string())
        })?;
        self.used = Some(lease);
        Ok(Attempt { entry, request: request.wanting(self.wanted.clone()) })
    }

    fn connected(&mut self, node: Option<NodeId>) {
        self.stream.set_worker(node);
    }
}

fn no_lease() -> Problem {
    Problem::new(502, "no_lease", "There is no lease for this resource")
        .with_detail("The control plane has not answered; postern status says whether it can be reached.")
}

fn denied() -> Problem {
    Problem::new(403, "no_lease", "The control plane gives no lease for this resource")
        .with_detail("The access may have been taken back, or may need something more; ask an administrator.")
}

fn unreachable(why: &str) -> Problem {
    Problem::new(502, "gateway_unreachable", "No gateway can be reached").with_detail(why)
}
