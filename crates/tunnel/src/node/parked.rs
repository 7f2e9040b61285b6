//! Serving what comes over parked links: the streams of clients that reached this node through a gateway.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{pin, sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Arrival, Outcome, Server, StreamHandler,
    accept::{HANDSHAKE, drained, part, serve_established},
    leave::Leave,
};
use crate::park::IncomingPassage;

/// Inner handshakes and sessions at once. The parked links are this node's own, so only that many can be used at once as
/// it had parked; this bounds what lives on.
const MOST: usize = 65_536;

pub(super) async fn run<H: StreamHandler>(
    server: Arc<Server<H>>,
    (mut incoming, arrival): (mpsc::Receiver<IncomingPassage>, Arrival),
    stop: CancellationToken,
    drain: Duration,
) {
    let mut tasks = JoinSet::new();
    let leave = Leave::after(stop);
    let drained = drained(&server, &leave, drain);
    pin!(drained);
    let mut stopping = false;
    loop {
        tokio::select! {
            () = &mut drained => break,
            () = leave.stop.cancelled(), if !stopping => {
                stopping = true;
                if tasks.is_empty() {
                    break;
                }
            }
            Some(_) = tasks.join_next() => {}
            passage = incoming.recv(), if tasks.len() < MOST => match passage {
                Some(passage) => {
                    tasks.spawn(connection(Arc::clone(&server), passage, arrival.clone(), leave.clone()));
                }
                // No more can come; those that run end by themselves or with the drain.
                None => {
                    (&mut drained).await;
                    break;
                }
            },
        }
    }
    part(&server, &leave, tasks).await;
}

async fn connection<H: StreamHandler>(
    server: Arc<Server<H>>,
    passage: IncomingPassage,
    arrival: Arrival,
    leave: Leave,
) {
    let IncomingPassage { through, client, gone } = passage;
    let begun = Instant::now();
    let serving = async {
        let tls = server.tls();
        let accepted = Box::pin(timeout(HANDSHAKE, arrival.handshake(through, &tls))).await;
        match accepted {
            Ok(Ok(established)) => serve_established(&server, established, &tls, (client, begun), &leave).await,
            Ok(Err(error)) => {
                server.handshakes.note(Outcome::Failed);
                tracing::debug!(%client, %error, "no TLS session over a relay's link");
            }
            Err(_) => {
                server.handshakes.note(Outcome::TimedOut);
                tracing::debug!(%client, "no TLS session over a relay's link in time");
            }
        }
    };
    // What runs when the gateway is gone is dropped, which resets its target.
    let _ = gone.run_until_cancelled(serving).await;
}
