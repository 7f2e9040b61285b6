//! The accept loop: it survives every error, and each handshake has a task and a deadline of its own.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use postern_proto::{frame::ResetCode, park, sync::Peer};
use tokio::{
    net::{TcpListener, TcpStream},
    pin,
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Outcome, Server, StreamHandler,
    admission::{Admission, Admitted},
    arrival::{Arrival, announced},
    bridge,
    entrance::Entrance,
    leave::Leave,
    session,
    session::Caller,
    stranger,
};
use crate::{
    identity::PeerIdentity,
    lanes::Lanes,
    link::{self, Established, LinkError},
    park::ParkedLink,
    socket,
    tls::{self, ServerTls},
};

/// From the accepted connection to the end of the handshake.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);
/// When accepting fails for want of file descriptors or memory, it is tried again after this.
const PAUSE: Duration = Duration::from_millis(50);
/// A node that stops answers for at least so long, with 503, while somebody is connected. A client that has sent something
/// on a connection just as that was closed asks here again, and must be told that it was not carried out; by then those
/// that were told that this node leaves have gone elsewhere.
pub(super) const GOODBYE: Duration = Duration::from_secs(2);
/// How long streams have to end after they were cut.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);

pub(super) async fn run<H: StreamHandler>(
    server: Arc<Server<H>>,
    listener: TcpListener,
    arrival: Arrival,
    stop: CancellationToken,
    drain: Duration,
) {
    let arrival = Arc::new(arrival);
    let admission = Admission::default();
    let lanes = Lanes::start("carrier").unwrap_or_else(|error| {
        tracing::warn!(%error, "no threads to carry streams on");
        Lanes::none()
    });
    let mut tasks = JoinSet::new();
    let leave = Leave::after(stop);
    let mut entrance = Entrance::new(listener, arrival.shut.clone());
    let serve = |tasks: &mut JoinSet<()>, (stream, client): (std::net::TcpStream, SocketAddr)| {
        let behind = arrival.balancers.contains(client);
        let admitted = if behind { admission.admit_balancer() } else { admission.admit(client.ip()) };
        if let Some(admitted) = admitted {
            let arrived = Arrived { client, behind, admitted, arrival: Arc::clone(&arrival) };
            tasks.spawn_on(connection(server.clone(), stream, arrived, leave.clone()), &lanes.next());
        }
    };
    let drained = drained(&server, &leave, drain);
    pin!(drained);
    let mut stopping = false;
    loop {
        tokio::select! {
            () = &mut drained => break,
            () = leave.stop.cancelled(), if !stopping => {
                stopping = true;
                if tasks.is_empty() {
                    // Nobody is connected, so nobody is about to ask for something.
                    break;
                }
            }
            Some(_) = tasks.join_next() => {}
            accepted = entrance.next() => match accepted {
                Ok(came) => serve(&mut tasks, came),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    if !concerns_one(&error) {
                        sleep(PAUSE).await;
                    }
                }
            },
        }
    }
    for came in entrance.close() {
        serve(&mut tasks, came);
    }
    part(&server, &leave, tasks).await;
}

/// Completes when a node that stops has nothing left to do, or no time.
pub(super) async fn drained<H>(server: &Server<H>, leave: &Leave, drain: Duration) {
    leave.stop.cancelled().await;
    let goodbye = tokio::time::Instant::now() + GOODBYE;
    // What was being opened when the node was stopped begins a little later, and has the same time to end.
    let quiet = async {
        sleep_until(goodbye).await;
        server.live.ended().await;
    };
    if timeout(drain, quiet).await.is_err() {
        server.live.cut_all(ResetCode::Draining);
    }
    sleep_until(goodbye).await;
}

/// Ends what is left, so that nobody has to wonder what became of what it has sent.
pub(super) async fn part<H>(server: &Server<H>, leave: &Leave, mut tasks: JoinSet<()>) {
    server.live.cut_all(ResetCode::Draining);
    leave.over.cancel();
    let _ = timeout(LAST_WORDS, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.shutdown().await;
}

/// Whether the error is about the connection that was to be accepted, and not about this process.
fn concerns_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// A connection that was accepted.
struct Arrived {
    /// At its other end: the client, or the balancer that it is behind.
    client: SocketAddr,
    behind: bool,
    admitted: Admitted,
    arrival: Arc<Arrival>,
}

async fn connection<H: StreamHandler>(
    server: Arc<Server<H>>,
    stream: std::net::TcpStream,
    arrived: Arrived,
    leave: Leave,
) {
    let begun = Instant::now();
    let seen = arrived.client;
    // In the runtime that carries it.
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let tls = server.tls();
    // Boxed, so that what a handshake takes up is freed when it is over.
    let accepted = Box::pin(timeout(HANDSHAKE, handshake(stream, &tls, arrived, &leave))).await;
    match accepted {
        Ok(Ok((Came::Link(link), client))) => serve_established(&server, link, &tls, (client, begun), &leave).await,
        // A bridge that stops passes nobody on any more.
        Ok(Ok((Came::Client(_), _))) if leave.stop.is_cancelled() => {}
        Ok(Ok((Came::Client(stream), client))) => {
            Box::pin(bridge::pass_on(&server, stream, client)).await;
        }
        Ok(Err(error)) => {
            server.handshakes.note(Outcome::Failed);
            tracing::debug!(client = %seen, %error, "no TLS connection");
        }
        Err(_) => {
            server.handshakes.note(Outcome::TimedOut);
            tracing::debug!(client = %seen, "no TLS connection in time");
        }
    }
}

/// Serves a connection after its handshake, each peer as what it is.
pub(super) async fn serve_established<H: StreamHandler>(
    server: &Server<H>,
    established: Established,
    tls: &ServerTls,
    (client, begun): (SocketAddr, Instant),
    leave: &Leave,
) {
    let Established { link, leaf, alpn } = established;
    let speaks = |protocol: &[u8]| alpn.as_deref() == Some(protocol);
    let peer = leaf.map(|leaf| PeerIdentity::from_leaf(&leaf, tls.org()));
    server.handshakes.note(match &peer {
        Some(Ok(_)) => Outcome::Accepted,
        Some(Err(_)) => Outcome::NoIdentity,
        None => Outcome::Stranger,
    });
    match peer {
        Some(Ok(peer)) if speaks(tls::ALPN) => {
            let caller = Caller { peer: &peer, address: client, begun };
            session::run(server, link, caller, leave).await;
        }
        Some(Ok(peer)) if speaks(park::ALPN) && matches!(peer.peer, Peer::Node { .. }) => {
            let parked = Box::pin(server.handler.park(&peer, ParkedLink::new(link)));
            let _ = leave.over.run_until_cancelled(parked).await;
        }
        Some(Err(error)) => tracing::debug!(%client, %error, "no identity"),
        _ => {
            let _ = leave.over.run_until_cancelled(Box::pin(stranger::refuse(link))).await;
        }
    }
}

/// What a connection turned out to be.
enum Came {
    Link(Established),
    /// At a bridge: a client that is to be passed on.
    Client(TcpStream),
}

/// The link, and where its client's connection comes from. What is admitted counts until then.
async fn handshake(
    mut stream: TcpStream,
    tls: &ServerTls,
    arrived: Arrived,
    leave: &Leave,
) -> Result<(Came, SocketAddr), LinkError> {
    let Arrived { mut client, behind, admitted, arrival } = arrived;
    // Nothing is set up for a connection that says nothing.
    tokio::select! {
        biased;
        readable = stream.readable() => readable?,
        () = leave.over.cancelled() => return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
    }
    socket::tune(&stream)?;
    if behind && let Some(announced) = announced(&mut stream).await? {
        client = announced;
    }
    let _admitted = if behind { admitted.known_as(client.ip()).ok_or_else(crowded)? } else { admitted };
    if !arrival.bridges {
        return Ok((Came::Link(arrival.handshake(stream, tls).await?), client));
    }
    if bridge::parks(&stream).await? {
        Ok((Came::Link(link::accept(stream, tls.config().clone()).await?), client))
    } else {
        Ok((Came::Client(stream), client))
    }
}

fn crowded() -> io::Error {
    io::Error::other("too many connections of this client are being made")
}
