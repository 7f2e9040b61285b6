//! The links that relays have parked at this gateway, or inner workers at this bridge, and the control links beside them
//! (DESIGN §4.3).
//!
//! A relay counts as here while its control link is heard: what a silent one has parked is dropped, and what runs through
//! it is cut, within [`SILENCE`]. Everything is bounded: links for each relay, and the time until one says what it is for.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use postern_proto::{
    id::NodeId,
    lease::{Revocation, RevokedSubject},
    park::{GatewayMessage, RelayMessage, RelayState},
};
use postern_tunnel::park::ParkedLink;
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};

use crate::{drain::Drain, neighbours::NeighboursNow, passages::Passages};

/// From the end of the handshake until a link has said what it is for.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// How often each end of a control link says something.
pub const BEAT: Duration = Duration::from_secs(2);
/// An end that hears nothing for so long takes the other for gone.
pub const SILENCE: Duration = Duration::from_secs(7);
/// Idle links of one relay; further ones are closed.
pub const MOST_IDLE: usize = 64;
/// Links that stand ready when it is quiet.
const LEAST_WANTED: u32 = 2;
/// Links that a relay is asked to keep ready after a burst.
const MOST_WANTED: u32 = 32;
/// After so long without a use half as many are wanted.
const CALM: Duration = Duration::from_secs(30);
/// How long a passage waits for a link when all are used up: the relay makes the next one at once.
const SHORTAGE: Duration = Duration::from_secs(3);

/// See the module.
pub struct Parking {
    guests: Guests,
    /// Whose certificates were revoked.
    expelled: Mutex<HashSet<NodeId>>,
    relays: Mutex<HashMap<NodeId, Berth>>,
    next: Mutex<u64>,
    parked: Notify,
    /// What runs through parked links.
    pub passages: Passages,
    drain: Drain,
}

/// Who may park links, of those who have shown a node's certificate.
enum Guests {
    /// The relays of a gateway's peering group.
    Group(NeighboursNow),
    /// At a bridge: the workers of its cluster, as whoever lets links in here has seen, but for those that were removed.
    Cluster(NeighboursNow),
}

/// One relay that is here.
struct Berth {
    /// Which of its control links this belongs to.
    number: u64,
    idle: Vec<ParkedLink>,
    state: RelayState,
    wanted: u32,
    used: Instant,
    /// Wakes the control link to ask for more.
    more: Arc<Notify>,
}

/// Why there is no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLink {
    #[error("the relay is not connected to this gateway")]
    Away,
    #[error("the relay is shutting down")]
    Draining,
    #[error("the relay has no link ready")]
    UsedUp,
}

impl Parking {
    #[must_use]
    pub fn new(neighbours: NeighboursNow, drain: Drain) -> Self {
        Self::of(Guests::Group(neighbours), drain)
    }

    /// At a bridge. Only workers of its cluster are to be admitted.
    #[must_use]
    pub fn at_bridge(neighbours: NeighboursNow, drain: Drain) -> Self {
        Self::of(Guests::Cluster(neighbours), drain)
    }

    fn of(guests: Guests, drain: Drain) -> Self {
        Self {
            guests,
            expelled: Mutex::default(),
            relays: Mutex::default(),
            next: Mutex::new(0),
            parked: Notify::new(),
            passages: Passages::default(),
            drain,
        }
    }

    /// Takes a link that a relay has made. Returns when the link is parked or, if it is a control link, when it ends.
    pub async fn admit(&self, relay: NodeId, mut link: ParkedLink) {
        if !self.may_park(relay) {
            tracing::warn!(%relay, "a relay that is not of this gateway's peering group was turned away");
            return link.close();
        }
        match timeout(FIRST_WORD, link.hear::<RelayMessage>()).await {
            Ok(Ok(RelayMessage::Park)) => self.keep(relay, link),
            Ok(Ok(RelayMessage::State(state))) => self.control(relay, link, state).await,
            Ok(Ok(RelayMessage::Pong { .. })) | Ok(Err(_)) | Err(_) => {
                tracing::debug!(%relay, "a link from a relay did not say what it is for");
                link.close();
            }
        }
    }

    /// Takes a parked link of a relay out, to be used.
    pub async fn take(&self, relay: NodeId) -> Result<ParkedLink, NoLink> {
        let deadline = Instant::now() + SHORTAGE;
        loop {
            let parked = self.parked.notified();
            tokio::pin!(parked);
            parked.as_mut().enable();
            match self.pop(relay)? {
                Some(link) => return Ok(link),
                None => timeout_at(deadline, parked).await.map_err(|_| NoLink::UsedUp)?,
            }
        }
    }

    /// At a bridge: takes a link out, to be used. Those behind have their turns.
    pub async fn take_any(&self) -> Result<(NodeId, ParkedLink), NoLink> {
        let deadline = Instant::now() + SHORTAGE;
        loop {
            let parked = self.parked.notified();
            tokio::pin!(parked);
            parked.as_mut().enable();
            let mut why = NoLink::Away;
            for relay in self.in_turn() {
                match self.pop(relay) {
                    Ok(Some(link)) => return Ok((relay, link)),
                    Ok(None) => why = NoLink::UsedUp,
                    Err(error) => why = error,
                }
            }
            if why != NoLink::UsedUp {
                return Err(why);
            }
            timeout_at(deadline, parked).await.map_err(|_| NoLink::UsedUp)?;
        }
    }

    /// Who is here and serves; who was used longest ago is first.
    fn in_turn(&self) -> Vec<NodeId> {
        let relays = self.relays();
        let mut serving: Vec<_> = relays.iter().filter(|(_, berth)| !berth.state.draining).collect();
        serving.sort_by_key(|(_, berth)| berth.used);
        serving.into_iter().map(|(relay, _)| *relay).collect()
    }

    /// Cuts what the revocations match, and lets nodes that they name park no more; says how many passages were cut.
    pub fn revoke(&self, revocations: &[Revocation]) -> usize {
        for revocation in revocations {
            if let RevokedSubject::Node { node } = revocation.subject {
                self.expelled.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
                self.relays().remove(&node);
            }
        }
        self.passages.revoke(revocations)
    }

    fn may_park(&self, relay: NodeId) -> bool {
        let expelled = self.expelled.lock().unwrap_or_else(PoisonError::into_inner).contains(&relay);
        !expelled
            && match &self.guests {
                Guests::Group(neighbours) => neighbours.borrow().own.contains(&relay),
                Guests::Cluster(neighbours) => !neighbours.borrow().removed.contains(&relay),
            }
    }

    /// Whether a relay is here.
    #[must_use]
    pub fn has(&self, relay: NodeId) -> bool {
        self.relays().contains_key(&relay)
    }

    /// The relays that are here, with what they say and how many links stand idle.
    #[must_use]
    pub fn state(&self) -> Vec<(NodeId, RelayState, usize)> {
        self.relays().iter().map(|(relay, berth)| (*relay, berth.state, berth.idle.len())).collect()
    }

    fn keep(&self, relay: NodeId, link: ParkedLink) {
        let mut relays = self.relays();
        let berth = relays.get_mut(&relay);
        if let Some(berth) = berth {
            // Those that ended take nobody's place.
            berth.idle.retain_mut(ParkedLink::is_alive);
            if berth.idle.len() < MOST_IDLE {
                berth.idle.push(link);
                drop(relays);
                return self.parked.notify_waiters();
            }
        }
        drop(relays);
        link.close();
    }

    fn pop(&self, relay: NodeId) -> Result<Option<ParkedLink>, NoLink> {
        // Its control link sees that only with its next beat.
        if !self.may_park(relay) {
            return Err(NoLink::Away);
        }
        let mut relays = self.relays();
        let berth = relays.get_mut(&relay).ok_or(NoLink::Away)?;
        if berth.state.draining {
            return Err(NoLink::Draining);
        }
        berth.used = Instant::now();
        while let Some(mut link) = berth.idle.pop() {
            if link.is_alive() {
                return Ok(Some(link));
            }
        }
        if berth.wanted < MOST_WANTED {
            berth.wanted = (berth.wanted * 2).min(MOST_WANTED);
            berth.more.notify_one();
        }
        Ok(None)
    }

    /// Serves a control link to its end.
    async fn control(&self, relay: NodeId, mut link: ParkedLink, state: RelayState) {
        let more = Arc::new(Notify::new());
        let number = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        let (idle, wanted, used) = (Vec::new(), LEAST_WANTED, Instant::now());
        let berth = Berth { number, idle, state, wanted, used, more: Arc::clone(&more) };
        // A relay that comes anew has lost what it had here.
        let before = self.relays().insert(relay, berth);
        drop(before);
        tracing::info!(%relay, "a relay is here");
        let ended = self.converse(relay, number, &mut link, &more).await;
        let gone = {
            let mut relays = self.relays();
            let own = relays.get(&relay).is_some_and(|berth| berth.number == number);
            own.then(|| relays.remove(&relay))
        };
        if gone.is_some() {
            let cut = self.passages.cut_relay(relay);
            let why = ended.err().map_or_else(|| "it left".to_owned(), |error| error.to_string());
            tracing::warn!(%relay, cut, why, "a relay is gone");
        }
        link.close();
    }

    async fn converse(&self, relay: NodeId, number: u64, link: &mut ParkedLink, more: &Notify) -> io::Result<()> {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut beat, mut told, mut leaving) = (0, 0, false);
        let mut leave = self.drain.watch();
        let mut silent_at = Instant::now() + SILENCE;
        loop {
            let Some(wanted) = self.wanted(relay, number) else { return Ok(()) };
            if wanted != told {
                speak(link, &GatewayMessage::Want { spares: wanted }).await?;
                told = wanted;
            }
            let leaves = leave.borrow_and_update().is_on();
            if leaves != std::mem::replace(&mut leaving, leaves) {
                speak(link, if leaves { &GatewayMessage::Draining } else { &GatewayMessage::Serving }).await?;
            }
            tokio::select! {
                heard = timeout_at(silent_at, link.hear::<RelayMessage>()) => match heard {
                    Err(_) => return Err(io::Error::other(format!("nothing was heard for {} s", SILENCE.as_secs()))),
                    Ok(message) => {
                        silent_at = Instant::now() + SILENCE;
                        if let RelayMessage::State(state) = message?
                            && let Some(berth) = self.relays().get_mut(&relay).filter(|berth| berth.number == number)
                        {
                            berth.state = state;
                        }
                    }
                },
                _ = beats.tick() => {
                    beat += 1;
                    speak(link, &GatewayMessage::Ping { n: beat }).await?;
                }
                () = more.notified() => {}
                _ = leave.changed() => {}
            }
        }
    }

    /// How many links the relay is to keep here; `None` when another control link has taken over, or it may not be here
    /// any more.
    fn wanted(&self, relay: NodeId, number: u64) -> Option<u32> {
        if !self.may_park(relay) {
            return None;
        }
        let mut relays = self.relays();
        let berth = relays.get_mut(&relay).filter(|berth| berth.number == number)?;
        if berth.wanted > LEAST_WANTED && berth.used.elapsed() >= CALM {
            berth.wanted = (berth.wanted / 2).max(LEAST_WANTED);
            berth.used = Instant::now();
        }
        Some(berth.wanted)
    }

    fn relays(&self) -> MutexGuard<'_, HashMap<NodeId, Berth>> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A relay that takes nothing is as good as gone.
async fn speak(link: &mut ParkedLink, message: &GatewayMessage) -> io::Result<()> {
    timeout(SILENCE, link.say_as_gateway(message)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
