//! Keeps links parked at the gateways of the choice, and tells the control plane where.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use postern_proto::{
    door::Door,
    id::NodeId,
    park::RelayState,
    sync::{GatewayInfo, ParkedAt},
};
use postern_tunnel::{control::Backoff, park::IncomingPassage, tls::ClientTls};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep_until,
};

use super::{
    berth::{self, BerthEnd, Place, Tls, rounded},
    choice::Choice,
};
use crate::{drain::Drain, live::LiveSessions, neighbours::NeighboursNow};

/// What berths work with.
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) tls: Tls,
    pub(crate) incoming: mpsc::Sender<IncomingPassage>,
    pub(crate) live: Arc<LiveSessions>,
    pub(crate) drain: Drain,
}

/// What a berth tells of itself.
pub(crate) enum Moored {
    Up {
        door: Door,
        latency: Duration,
    },
    /// Whether the gateway is about to stop: what runs goes on, and another one is to be taken beside it.
    Leaving {
        door: Door,
        leaving: bool,
    },
}

#[derive(Default)]
struct Held {
    latency: Option<Duration>,
    leaving: bool,
}

impl Shared {
    pub(crate) fn tls(&self) -> ClientTls {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_tls(&self, tls: ClientTls) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    pub(crate) fn state(&self) -> RelayState {
        RelayState { draining: self.drain.is_on(), streams: self.live.len() as u64 }
    }
}

/// Runs for ever. When it is dropped, every link ends and with it what runs through them.
pub(super) async fn run(shared: Arc<Shared>, mut neighbours: NeighboursNow, parked: watch::Sender<Vec<ParkedAt>>) {
    let mut choice = Choice::default();
    let mut held: BTreeMap<NodeId, Held> = BTreeMap::new();
    let mut backoffs: BTreeMap<NodeId, Backoff> = BTreeMap::new();
    let mut berths: JoinSet<(GatewayInfo, BerthEnd)> = JoinSet::new();
    let (told, mut moored) = mpsc::channel(16);
    neighbours.mark_changed();
    loop {
        let ids: Vec<NodeId> = held.keys().copied().collect();
        let leaving = held.values().filter(|held| held.leaving).count();
        for gateway in choice.next(&ids, leaving, Instant::now()) {
            held.insert(gateway.id, Held::default());
            let (shared, told) = (Arc::clone(&shared), told.clone());
            berths.spawn(async move {
                let end = berth::run(place_of(&gateway), shared, told).await;
                (gateway, end)
            });
        }
        tell(&held, &parked);
        let again = choice.next_at(Instant::now());
        tokio::select! {
            changed = neighbours.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = Arc::clone(&neighbours.borrow_and_update());
                choice.set(now.own.iter().filter_map(|id| now.gateways.get(id)));
            }
            Some(news) = moored.recv() => match news {
                Moored::Up { door: Door::Node(gateway), latency } => {
                    choice.note_latency(gateway, latency);
                    backoffs.remove(&gateway);
                    if let Some(held) = held.get_mut(&gateway) {
                        held.latency = Some(latency);
                    }
                    tracing::info!(%gateway, ?latency, "links are parked");
                }
                Moored::Leaving { door: Door::Node(gateway), leaving } => {
                    if let Some(held) = held.get_mut(&gateway) {
                        held.leaving = leaving;
                    }
                }
                // Only gateways are moored at here.
                Moored::Up { .. } | Moored::Leaving { .. } => {}
            },
            Some(ended) = berths.join_next() => if let Ok((gateway, end)) = ended {
                held.remove(&gateway.id);
                let pause = backoffs.entry(gateway.id).or_default().next(rand::random());
                if choice.knows(gateway.id) {
                    tracing::warn!(gateway = gateway.name, error = %end, retry_in = ?pause, "no links are parked there");
                }
                choice.note_failed(gateway.id, Instant::now() + pause);
            },
            () = sleep_until(again.unwrap_or_else(Instant::now).into()), if again.is_some() => {}
        }
    }
}

fn place_of(gateway: &GatewayInfo) -> Place {
    Place { door: gateway.id.into(), address: gateway.address.clone(), name: gateway.name.clone() }
}

fn tell(held: &BTreeMap<NodeId, Held>, parked: &watch::Sender<Vec<ParkedAt>>) {
    let at = held
        .iter()
        .filter(|(_, held)| !held.leaving)
        .filter_map(|(gateway, held)| Some(ParkedAt { gateway: *gateway, latency_micros: rounded(held.latency?) }));
    let at: Vec<ParkedAt> = at.collect();
    parked.send_if_modified(|before| {
        let differs = *before != at;
        *before = at;
        differs
    });
}
