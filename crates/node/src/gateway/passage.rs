//! A passage to a relay: whether it may be opened, over which link, and over which other gateway when the relay has parked
//! none here.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError},
};

use postern_proto::{
    head::{Passage, Refused},
    id::{AccountId, DeviceId, NodeId},
    lease::Holder,
    problem::Problem,
    sync::Peer,
    time::UnixMillis,
};
use postern_tunnel::{
    node::{PassRequest, Passed},
    park::{self, OpenError, OpenPassage},
    stream::StreamControl,
};

use super::{Gateway, news::once_known};
use crate::{
    clock,
    egress::Denial,
    parking::{NoLink, Parking},
    passages::Client,
};

/// Parked links that are tried: one that has died meanwhile says so only when it is used.
const TRIES: usize = 3;
/// Other gateways that are tried.
const GATEWAYS: usize = 2;

/// Who asks for a passage.
enum Asker<'a> {
    /// Another gateway, which has seen to it that its client may.
    Gateway,
    /// It shows a lease with which it has something to reach there.
    Device { account: AccountId, device: DeviceId, holder: Holder, lease: &'a str },
}

impl Gateway {
    pub(super) async fn open_passage(&self, request: PassRequest<'_>) -> Result<Passed, Refused> {
        let passed = self.find_passage(request).await;
        if let Err(refused) = &passed {
            self.0.parts.metrics.note_refusal(&refused.problem.code);
        }
        passed
    }

    async fn find_passage(&self, request: PassRequest<'_>) -> Result<Passed, Refused> {
        let parts = &self.0.parts;
        let relay = request.passage.relay();
        let Some(parking) = &parts.parking else {
            return Err(Problem::new(404, "unknown_relay", "A relay leads to no other relay").into());
        };
        if let Some(problem) = parts.drain.refusal() {
            return Err(problem.into());
        }
        if parts.live.len() + parking.passages.len() >= parts.max_streams {
            let problem = Problem::new(429, "too_many_streams", "The node carries as many connections as it can");
            return Err(problem.with_detail(format!("It carries at most {}.", parts.max_streams)).into());
        }
        let asker = self.asker(&request).map_err(|refused| *refused)?;
        let client = once_known(parts, |now| self.may_pass(&asker, relay, now)).await;
        let client = client.map_err(|denial| *self.denied(&denial, relay))?;
        let onward = self.onward(parking, &request).await?;
        let control = StreamControl::new();
        let number = parking.passages.insert(relay, client, control.clone());
        // Once it can be found by revocations, whether none has come meanwhile; what is unknown now was known before.
        let still = self.asker(&request).and_then(|asker| {
            let still = self.may_pass(&asker, relay, clock::now());
            still.map_err(|denial| self.denied(&denial, relay))
        });
        if let Err(refused) = still {
            parking.passages.remove(number);
            return Err(*refused);
        }
        let parking = Arc::clone(parking);
        let done = Box::new(move |_| parking.passages.remove(number));
        Ok(Passed { onward, control, done })
    }

    /// At a bridge: passes a client on to whichever node behind has its turn. Who it is, that node finds out.
    pub(super) async fn pass_on(&self, client: SocketAddr) -> Result<Passed, Refused> {
        let parts = &self.0.parts;
        let Some(parking) = &parts.parking else {
            return Err(Problem::new(404, "no_bridge", "This node is no bridge").into());
        };
        if parking.passages.len() >= parts.max_streams {
            return Err(
                Problem::new(429, "too_many_streams", "The bridge carries as many connections as it can").into()
            );
        }
        let (inner, onward) = self.any_behind(parking, client).await?;
        let control = StreamControl::new();
        let number = parking.passages.insert(inner, None, control.clone());
        let parking = Arc::clone(parking);
        Ok(Passed { onward, control, done: Box::new(move |_| parking.passages.remove(number)) })
    }

    async fn any_behind(&self, parking: &Parking, client: SocketAddr) -> Result<(NodeId, OpenPassage), Refused> {
        for _ in 0..TRIES {
            let (inner, link) = parking.take_any().await.map_err(unavailable)?;
            let passage = Passage::new(inner, inner.tls_name(), None).map_err(|_| unavailable(NoLink::Away))?;
            match link.open(&passage.for_relay(client)).await {
                Ok(open) => return Ok((inner, open)),
                Err(OpenError::Refused(refused)) => return Err(refused),
                Err(OpenError::Dead(error)) => tracing::debug!(%inner, %error, "a parked link was dead"),
            }
        }
        Err(unavailable(NoLink::Away))
    }

    fn asker<'a>(&self, request: &PassRequest<'a>) -> Result<Asker<'a>, Box<Refused>> {
        let (account, device) = match request.peer.peer {
            Peer::Device { account, device } => (account, device),
            Peer::Node { node } => {
                let known = self.0.parts.neighbours.borrow().gateways.contains_key(&node);
                if known && request.passage.forwarded_by() == Some(node) {
                    return Ok(Asker::Gateway);
                }
                let problem = Problem::new(403, "not_a_gateway", "Only gateways pass on what clients ask for");
                return Err(Box::new(problem.into()));
            }
        };
        let (Some(holder), Some(lease)) = (request.peer.holder(), request.passage.lease()) else {
            let problem = Problem::new(401, "lease_missing", "A passage needs a lease");
            return Err(Box::new(problem.with_detail("Show one of a resource behind the relay.").into()));
        };
        Ok(Asker::Device { account, device, holder, lease })
    }

    fn may_pass(&self, asker: &Asker<'_>, relay: NodeId, now: UnixMillis) -> Result<Option<Client>, Denial> {
        let parts = &self.0.parts;
        match asker {
            Asker::Gateway => Ok(None),
            Asker::Device { account, device, holder, lease } => {
                let leased_at = parts.egress.may_pass(holder, lease, relay, parts.contact.at(now), now)?;
                Ok(Some(Client { account: *account, device: *device, leased_at }))
            }
        }
    }

    fn denied(&self, denial: &Denial, relay: NodeId) -> Box<Refused> {
        tracing::debug!(%denial, %relay, "passage refused");
        Box::new(self.refusal(denial))
    }

    async fn onward(&self, parking: &Parking, request: &PassRequest<'_>) -> Result<OpenPassage, Refused> {
        let (passage, relay) = (request.passage, request.passage.relay());
        let last = passage.for_relay(request.client);
        let mut why = NoLink::Away;
        for _ in 0..TRIES {
            match parking.take(relay).await {
                Ok(link) => match link.open(&last).await {
                    Ok(open) => return Ok(open),
                    Err(OpenError::Refused(refused)) => return Err(refused),
                    Err(OpenError::Dead(error)) => tracing::debug!(%relay, %error, "a parked link was dead"),
                },
                Err(no_link) => {
                    why = no_link;
                    break;
                }
            }
        }
        // Once, and never twice: what another gateway passed on ends here.
        if why == NoLink::Away && passage.forwarded_by().is_none() {
            return self.forward(request).await;
        }
        Err(unavailable(why))
    }

    /// Asks another gateway, at which the relay has parked links.
    async fn forward(&self, request: &PassRequest<'_>) -> Result<OpenPassage, Refused> {
        let parts = &self.0.parts;
        let neighbours = Arc::clone(&parts.neighbours.borrow());
        let tls = parts.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
        let passage = request.passage.for_gateway(parts.node, request.client);
        let others = neighbours.berths(request.passage.relay()).into_iter().filter(|gateway| gateway.id != parts.node);
        for gateway in others.take(GATEWAYS) {
            match park::forward(&gateway.address, gateway.id, &tls, &passage).await {
                Ok(open) => return Ok(open),
                Err(error) => tracing::debug!(gateway = gateway.name, %error, "another gateway opens no passage"),
            }
        }
        Err(unavailable(NoLink::Away))
    }
}

fn unavailable(why: NoLink) -> Refused {
    let code = match why {
        NoLink::Away => "relay_away",
        NoLink::Draining => "relay_draining",
        NoLink::UsedUp => "relay_busy",
    };
    Problem::new(503, code, "The relay cannot be reached")
        .with_detail(format!("{why}. Another way may lead to it."))
        .into()
}
