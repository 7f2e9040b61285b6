//! One gateway or bridge at which links are parked: its control link, and the idle links beside it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use postern_proto::{
    door::Door,
    head::Refused,
    id::NodeId,
    park::{GatewayMessage, RelayMessage},
    problem::Problem,
};
use postern_tunnel::{
    client::DialError,
    control::Backoff,
    park::{self, ParkedLink},
    tls::ClientTls,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::moorings::{Moored, Shared};
use crate::parking::{BEAT, MOST_IDLE, SILENCE};

/// Where links are parked.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Who must answer there.
    pub(crate) door: Door,
    /// As `host:port`.
    pub(crate) address: String,
    /// For people.
    pub(crate) name: String,
}

/// Why links are parked there no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BerthEnd {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the control link ended: {0}")]
    Control(#[from] io::Error),
}

/// Parks links until the control link ends. What runs through the gateway then is broken off.
pub(crate) async fn run(place: Place, shared: Arc<Shared>, moored: mpsc::Sender<Moored>) -> BerthEnd {
    let gone = CancellationToken::new();
    let _guard = gone.clone().drop_guard();
    match moor(&place, &shared, &moored, gone).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

async fn moor(
    place: &Place,
    shared: &Arc<Shared>,
    moored: &mpsc::Sender<Moored>,
    gone: CancellationToken,
) -> Result<std::convert::Infallible, BerthEnd> {
    let begun = Instant::now();
    let mut control = park::dial(&place.address, place.door, &shared.tls()).await?;
    // TCP and TLS each take one way there and back.
    let latency = begun.elapsed() / 2;
    control.say_as_relay(&RelayMessage::State(shared.state())).await?;
    let mut up = Some(Moored::Up { door: place.door, latency });
    let (mut parked, mut wanted) = (JoinSet::new(), 0);
    let (mut backoff, mut park_at) = (Backoff::default(), Instant::now());
    let mut silent_at = Instant::now() + SILENCE;
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leave = shared.drain.watch();
    loop {
        let leaving = leave.borrow_and_update().is_on();
        while !leaving && parked.len() < wanted && park_at <= Instant::now() {
            parked.spawn(park_one(place.clone(), Arc::clone(shared), gone.clone()));
        }
        tokio::select! {
            heard = timeout_at(silent_at, control.hear::<GatewayMessage>()) => {
                let heard = heard.map_err(|_| io::Error::other("the gateway is silent"))??;
                silent_at = Instant::now() + SILENCE;
                match heard {
                    GatewayMessage::Want { spares } => {
                        wanted = usize::try_from(spares).unwrap_or(usize::MAX).min(MOST_IDLE);
                        if let Some(up) = up.take() {
                            let _ = moored.send(up).await;
                        }
                    }
                    GatewayMessage::Ping { n } => speak(&mut control, &RelayMessage::Pong { n }).await?,
                    GatewayMessage::Draining => {
                        let _ = moored.send(Moored::Leaving { door: place.door, leaving: true }).await;
                    }
                    GatewayMessage::Serving => {
                        let _ = moored.send(Moored::Leaving { door: place.door, leaving: false }).await;
                    }
                }
            }
            Some(ended) = parked.join_next() => match ended {
                Ok(Ok(())) => backoff = Backoff::default(),
                Ok(Err(error)) => {
                    tracing::debug!(at = place.name, %error, "a parked link ended unused");
                    park_at = Instant::now() + backoff.next(rand::random());
                }
                Err(_) => {}
            },
            () = sleep_until(park_at), if parked.len() < wanted && !leaving => {}
            _ = beats.tick() => speak(&mut control, &RelayMessage::State(shared.state())).await?,
            _ = leave.changed() => speak(&mut control, &RelayMessage::State(shared.state())).await?,
        }
    }
}

/// Parks one link and hands it on when it is used. Returns then, so that the next one can take its place.
async fn park_one(place: Place, shared: Arc<Shared>, gone: CancellationToken) -> Result<(), BerthEnd> {
    let mut link = park::dial(&place.address, place.door, &shared.tls()).await?;
    link.say_as_relay(&RelayMessage::Park).await?;
    let passage = link.wait().await?;
    if passage.relay() != shared.node {
        link.decline(no_passage(shared.node)).await;
        return Ok(());
    }
    let client = passage.client().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    let incoming = link.take_up(client, gone).await?;
    // Only a relay that has stopped takes none.
    let _ = shared.incoming.send(incoming).await;
    Ok(())
}

async fn speak(control: &mut ParkedLink, message: &RelayMessage) -> io::Result<()> {
    timeout(SILENCE, control.say_as_relay(message)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn no_passage(own: NodeId) -> Refused {
    let problem = Problem::new(404, "unknown_relay", "This is another relay");
    problem.with_detail(format!("It is {own}.")).into()
}

/// How long one side waits before it says the latency of a link anew is not worth a message: it is told in steps.
pub(super) fn rounded(latency: Duration) -> u64 {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
    // Two digits.
    let mut step = 1;
    while micros / step >= 100 {
        step *= 10;
    }
    micros / step * step
}

/// For [`Shared`].
pub(super) type Tls = std::sync::RwLock<ClientTls>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_told_in_two_digits() {
        for (micros, told) in [(0, 1), (7, 7), (99, 99), (123, 120), (1_999, 1_900), (23_456, 23_000)] {
            assert_eq!(rounded(Duration::from_micros(micros)), told);
        }
    }
}
