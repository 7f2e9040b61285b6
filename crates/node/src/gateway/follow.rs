//! Follows the control plane: what it says is applied at once, what must outlive a restart is written down.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use postern_proto::{
    frame::ResetCode,
    id::{NodeId, ResourceId},
    lease::{Revocation, RevokedSubject, StreamSubject},
    replica::{Change, Replica},
    sync::{ClientFrame, ParkedAt},
};
use postern_tunnel::control::{ControlClient, SyncEvent, SyncHandle};
use tokio::{
    net::lookup_host,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock, contact::ContactRecord, dial::Dialer, drain::Drain, egress::Egress, health::HealthWish, live::LiveSessions,
    load::LoadMeter, neighbours::Neighbours, parking::Parking, state::StateFolder,
};

/// The replica, the revocations, and when the control plane was last heard from, as files of the state folder.
pub(super) const REPLICA_FILE: &str = "replica.json";
pub(super) const REVOCATIONS_FILE: &str = "revocations.json";
pub(super) const HEARD_FILE: &str = "heard.json";

/// Subjects in one `Live` frame: about 200 bytes each.
const SUBJECTS_PER_FRAME: usize = 2000;
/// How often what has changed is written down and ended grants are cut.
const TICK: Duration = Duration::from_millis(500);
/// How often the control plane is asked about all streams, beside after each snapshot: a net below the net.
const ASK_EVERY: u32 = 120;
/// How often it is told how much there is to do.
const LOAD_EVERY: u32 = 20;
/// How often it is written down when the control plane was last heard from.
const HEARD_EVERY: u32 = 60;

/// The parts of a gateway that follow the control plane.
pub(super) struct Follower {
    pub(super) node: NodeId,
    pub(super) control: Arc<ControlClient>,
    pub(super) state: Arc<StateFolder>,
    pub(super) egress: Arc<Egress>,
    pub(super) live: Arc<LiveSessions>,
    pub(super) contact: Arc<ContactRecord>,
    pub(super) dialer: Dialer,
    pub(super) health: mpsc::Sender<HealthWish>,
    /// Resources that came, changed or went, of which the checker has not been told yet.
    pub(super) untold: BTreeSet<ResourceId>,
    /// Where clients dial this node, when it says so itself.
    pub(super) advertise: Option<String>,
    pub(super) drain: Drain,
    pub(super) meter: LoadMeter,
    pub(super) neighbours: watch::Sender<Arc<Neighbours>>,
    pub(super) parking: Option<Arc<Parking>>,
    /// At a relay: where it has parked links.
    pub(super) parked: watch::Receiver<Vec<ParkedAt>>,
    pub(super) handle: SyncHandle,
    /// Whether everything is there that the control plane has to say.
    pub(super) complete: watch::Sender<bool>,
}

/// What has to be written down.
#[derive(Default)]
struct Unsaved {
    replica: bool,
    revocations: bool,
}

impl Follower {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut unsaved = Unsaved::default();
        let mut heard = self.handle.heard();
        let mut leave = self.drain.watch();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = 0_u32;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                event = self.handle.events.recv() => match event {
                    Some(event) => self.handle_event(event, &mut unsaved).await,
                    None => break,
                },
                Ok(()) = heard.changed() => self.contact.hear(clock::now()),
                Ok(()) = leave.changed() => self.tell_presence(),
                Ok(()) = self.parked.changed() => self.tell_parked(),
                _ = ticks.tick() => {
                    count = count.wrapping_add(1);
                    self.tick(count, &mut unsaved).await;
                }
            }
        }
        self.save(&mut unsaved).await;
        self.save_heard().await;
    }

    async fn handle_event(&mut self, event: SyncEvent, unsaved: &mut Unsaved) {
        match event {
            SyncEvent::Connected { polling, .. } => {
                tracing::info!(url = %self.control.url(), polling, "connected to the control plane");
                self.contact.hear(clock::now());
                self.contact.set_up(true);
                self.tell_presence();
                self.tell_load();
                self.tell_parked();
                self.wish(HealthWish::ReportAll);
                self.ask_about_streams();
                self.find_control().await;
            }
            SyncEvent::Changed(changes) => {
                changes.iter().for_each(|change| self.apply(change));
                self.tell_checker();
                self.learn_neighbours();
                self.drain.obey(Drain::order_of(self.handle.replica().items()));
                unsaved.replica = true;
            }
            SyncEvent::Complete => {
                self.complete.send_if_modified(|complete| !std::mem::replace(complete, true));
            }
            SyncEvent::Revoked(revocations) => self.revoke(&revocations, unsaved),
            SyncEvent::Checked => tracing::debug!("the control plane has checked the running streams"),
            SyncEvent::CheckHealth(resource) if self.egress.dials(resource) => self.wish(HealthWish::Now(resource)),
            SyncEvent::CheckHealth(_) => {}
            SyncEvent::Away { error, retry_in } => {
                if matches!(self.contact.at(clock::now()), postern_proto::lease::Contact::Connected) {
                    tracing::warn!(%error, "lost the control plane; running streams and known leases go on");
                } else {
                    tracing::debug!(%error, ?retry_in, "the control plane is away");
                }
                self.contact.set_up(false);
            }
        }
    }

    fn apply(&mut self, change: &Change) {
        let effects = self.egress.apply(change);
        for resource in &effects.removed {
            let cut = self.live.drop_resource(*resource);
            tracing::info!(%resource, cut, "a resource is gone");
        }
        for resource in effects.put.iter().filter_map(|id| self.egress.resource(*id)) {
            let cut = self.live.cut_out_of_reach(&resource);
            if cut > 0 {
                tracing::info!(resource = %resource.id, cut, "streams cut because the resource is narrower now");
            }
        }
        self.untold.extend(effects.removed.into_iter().chain(effects.put));
        if change.snapshot {
            self.ask_about_streams();
        }
    }

    /// Has the health of what came or changed checked, and of what went no more. When too many wishes wait, that is done
    /// with the next tick: a resource that the checker never hears of stays unknown.
    fn tell_checker(&mut self) {
        let (watch, forget): (Vec<_>, Vec<_>) = self.untold.iter().partition(|id| self.egress.dials(**id));
        let (watch, forget) = (HealthWish::Watch(watch), HealthWish::Forget(forget));
        let is_empty =
            |wish: &HealthWish| matches!(wish, HealthWish::Watch(ids) | HealthWish::Forget(ids) if ids.is_empty());
        let told = |wish: HealthWish| is_empty(&wish) || self.health.try_send(wish).is_ok();
        // Watching anew is harmless, so both are said again.
        if told(watch) && told(forget) {
            self.untold.clear();
        }
    }

    /// First no new stream, then none of the running ones.
    fn revoke(&self, revocations: &[Revocation], unsaved: &mut Unsaved) {
        self.egress.revoke(revocations, clock::now());
        let cut =
            self.live.revoke(revocations) + self.parking.as_ref().map_or(0, |parking| parking.revoke(revocations));
        if cut > 0 {
            tracing::info!(cut, "streams cut because access was revoked");
        }
        unsaved.revocations = true;
        let own = RevokedSubject::Node { node: self.node };
        if revocations.iter().any(|revocation| revocation.subject == own) {
            let cut = self.live.cut_all(ResetCode::Revoked, "the node was removed");
            self.egress.forget_resources();
            tracing::error!(cut, "this node was removed from the control plane; it carries nothing any more");
        }
    }

    /// Asks whether the running streams may live on.
    fn ask_about_streams(&self) {
        let subjects: Vec<StreamSubject> = self.live.subjects().into_iter().collect();
        for part in subjects.chunks(SUBJECTS_PER_FRAME) {
            self.send(ClientFrame::Live { subjects: part.to_vec() });
        }
    }

    fn tell_presence(&self) {
        let (leave, advertise) = (self.drain.now(), self.advertise.clone());
        self.send(ClientFrame::Presence { advertise, draining: leave.is_on(), drain_ends: leave.ends() });
    }

    fn tell_load(&mut self) {
        let load = self.meter.read(self.streams());
        self.send(ClientFrame::Load { load });
    }

    fn streams(&self) -> u64 {
        let passages = self.parking.as_ref().map_or(0, |parking| parking.passages.len());
        (self.live.len() + passages) as u64
    }

    /// Only a relay has something to tell; what it said before is void with the connection.
    fn tell_parked(&mut self) {
        let at = self.parked.borrow_and_update().clone();
        if self.parking.is_none() {
            self.send(ClientFrame::Parked { at });
        }
    }

    fn learn_neighbours(&self) {
        let now = Neighbours::of(self.handle.replica().items());
        self.neighbours.send_if_modified(|before| {
            let differs = **before != now;
            if differs {
                *before = Arc::new(now);
            }
            differs
        });
    }

    /// Never waits: a full queue means that the connection is stuck, and after the next one everything is said again.
    fn send(&self, frame: ClientFrame) {
        if self.handle.outbox.try_send(frame).is_err() {
            tracing::debug!("a frame for the control plane is dropped");
        }
    }

    fn wish(&self, wish: HealthWish) {
        if self.health.try_send(wish).is_err() {
            tracing::warn!("too many wishes for health checks; some resources are checked later");
        }
    }

    /// Where the control plane is now, so that no resource leads there.
    async fn find_control(&self) {
        let mut found = Vec::new();
        for url in self.control.urls().iter() {
            if let Ok(addresses) = lookup_host((url.host(), url.port())).await {
                found.extend(addresses);
            }
        }
        if !found.is_empty() {
            self.dialer.set_control(found);
        }
    }

    async fn tick(&mut self, count: u32, unsaved: &mut Unsaved) {
        let emptied = self.drain.is_on() && self.meter.last().streams > 0 && self.streams() == 0;
        if emptied || count.is_multiple_of(LOAD_EVERY) {
            self.tell_load();
        }
        let (cut, _) = self.live.end_grants(clock::now());
        if cut > 0 {
            tracing::info!(cut, "streams cut because their grants have ended");
        }
        self.tell_checker();
        if count.is_multiple_of(ASK_EVERY) {
            self.ask_about_streams();
        }
        if count.is_multiple_of(HEARD_EVERY) {
            self.save_heard().await;
        }
        self.save(unsaved).await;
    }

    async fn save(&self, unsaved: &mut Unsaved) {
        if std::mem::take(&mut unsaved.revocations) {
            let revocations = self.egress.stored_revocations();
            self.write(REVOCATIONS_FILE, revocations).await;
        }
        if std::mem::take(&mut unsaved.replica) {
            let replica: Replica = self.handle.replica().clone();
            self.write(REPLICA_FILE, replica).await;
        }
    }

    async fn save_heard(&self) {
        self.write(HEARD_FILE, self.contact.heard()).await;
    }

    async fn write(&self, name: &'static str, value: impl serde::Serialize + Send + 'static) {
        let state = Arc::clone(&self.state);
        let written = tokio::task::spawn_blocking(move || state.write(name, &value)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "what the control plane said cannot be kept on disk");
        }
    }
}
