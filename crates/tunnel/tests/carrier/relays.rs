//! Streams within a passage to a relay: what is carried, what is used again, and who is not taken for the relay.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use postern_proto::{head::Refused, id::NodeId, park::RelayMessage, problem::Problem, sync::Peer};
use postern_tunnel::{
    client::Entry,
    identity::PeerIdentity,
    node::{OpenRequest, Opened, PassRequest, Passed, Server, StreamHandler},
    park::{self, ParkedLink},
    stream::{EndCause, StreamControl},
    tls::{ClientTls, ServerTls},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Mutex, mpsc},
};
use tokio_util::sync::CancellationToken;

use crate::world::{Local, Org, Route, Target, node, within};

/// A gateway that leads to whoever has parked a link, and dials nothing itself.
struct Lobby {
    parked: mpsc::Sender<ParkedLink>,
    waiting: Mutex<mpsc::Receiver<ParkedLink>>,
    passed: Arc<AtomicU32>,
}

impl StreamHandler for Lobby {
    async fn open(&self, _: OpenRequest<'_>) -> Result<Opened, Refused> {
        Err(Problem::new(421, "other_node", "Elsewhere").into())
    }

    async fn pass(&self, request: PassRequest<'_>) -> Result<Passed, Refused> {
        if request.passage.lease() == Some("v4.public.bad") {
            return Err(Problem::new(401, "lease_expired", "Over").into());
        }
        let link = within(async { self.waiting.lock().await.recv().await }).await.unwrap();
        let onward = link.open(&request.passage.for_relay(request.client)).await.unwrap();
        self.passed.fetch_add(1, Ordering::Relaxed);
        Ok(Passed { onward, control: StreamControl::new(), done: Box::new(drop) })
    }

    async fn park(&self, peer: &PeerIdentity, mut link: ParkedLink) {
        assert!(matches!(peer.peer, Peer::Node { .. }));
        assert_eq!(link.hear::<RelayMessage>().await.unwrap(), RelayMessage::Park);
        self.parked.send(link).await.unwrap();
    }
}

/// A relay that dials one target.
struct Dials {
    target: SocketAddr,
    opened: Arc<AtomicU32>,
}

impl StreamHandler for Dials {
    async fn open(&self, request: OpenRequest<'_>) -> Result<Opened, Refused> {
        assert!(matches!(request.peer.peer, Peer::Device { .. }), "the relay sees the client's own certificate");
        self.opened.fetch_add(1, Ordering::Relaxed);
        let target = TcpStream::connect(self.target).await.unwrap();
        Ok(Opened { target, control: StreamControl::new(), done: Box::new(drop) })
    }
}

struct World {
    org: Org,
    gateway: NodeId,
    address: SocketAddr,
    relay: NodeId,
    passed: Arc<AtomicU32>,
    opened: Arc<AtomicU32>,
}

impl World {
    async fn start() -> Self {
        let (org, gateway, relay) = (Org::new(), node(), node());
        let (passed, opened) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let stop = CancellationToken::new();
        let tls = |node| ServerTls::new(&org.trust(), &org.identity(Peer::Node { node })).unwrap();
        let (parked, waiting) = mpsc::channel(4);
        let lobby = Lobby { parked, waiting: Mutex::new(waiting), passed: Arc::clone(&passed) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(Server::new(lobby, tls(gateway)).serve(listener, stop.clone(), Duration::ZERO));
        let dials = Dials { target: Target::echo().await, opened: Arc::clone(&opened) };
        let (incoming, came) = mpsc::channel(4);
        tokio::spawn(Server::new(dials, tls(relay)).serve_parked(came, stop, Duration::ZERO));
        let dialling = ClientTls::new(&org.trust(), &org.identity(Peer::Node { node: relay })).unwrap().for_parking();
        tokio::spawn(async move {
            loop {
                let mut link = park::dial(&address.to_string(), gateway, &dialling).await.unwrap();
                link.say_as_relay(&RelayMessage::Park).await.unwrap();
                let passage = link.wait().await.unwrap();
                let client = passage.client().unwrap();
                assert!(passage.lease().is_none(), "the lease for the gateway stays there");
                let passage = link.take_up(client, CancellationToken::new()).await.unwrap();
                incoming.send(passage).await.unwrap();
            }
        });
        Self { org, gateway, address, relay, passed, opened }
    }

    fn entry(&self, relay: NodeId) -> Arc<Entry> {
        Entry::to_relay(self.gateway, self.address.to_string(), relay, self.org.client()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_through_a_passage_whole_and_one_after_the_other_through_the_same() {
    let world = World::start().await;
    let entry = world.entry(world.relay);
    let sent: Vec<u8> = (0..8_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for _ in 0..3 {
        let Local { app, task, .. } = Local::connect(Route::to(&[&entry])).await;
        let (mut read, mut write) = app.into_split();
        let bytes = sent.clone();
        let upload = tokio::spawn(async move {
            write.write_all(&bytes).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        within(read.read_to_end(&mut received)).await.unwrap();
        upload.await.unwrap();
        assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
        assert_eq!(within(task).await.unwrap().cause, EndCause::Done);
    }
    assert_eq!(world.passed.load(Ordering::Relaxed), 1, "the inner connection is used again");
    assert_eq!(world.opened.load(Ordering::Relaxed), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_relay_behind_the_gateway_is_not_taken_for_the_one_that_was_meant() {
    let world = World::start().await;
    let entry = world.entry(node());
    let route = Route::to(&[&entry]);
    let failures = Arc::clone(&route.failures);
    let end = Local::connect(route).await.end().await;
    assert!(matches!(end.cause, EndCause::Refused(_)), "{:?}", end.cause);
    assert_eq!(*failures.lock().unwrap(), ["gateway_unreachable"]);
    assert_eq!(world.opened.load(Ordering::Relaxed), 0, "0 streams accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_another_organisation_gets_no_stream_at_the_relay() {
    let world = World::start().await;
    let entry = Entry::to_relay(world.gateway, world.address.to_string(), world.relay, Org::new().client()).unwrap();
    let end = Local::connect(Route::to(&[&entry])).await.end().await;
    assert!(matches!(end.cause, EndCause::Refused(_)), "{:?}", end.cause);
    assert_eq!(world.opened.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_says_against_a_passage_reaches_the_client() {
    let world = World::start().await;
    let entry = world.entry(world.relay);
    entry.set_lease("v4.public.bad");
    let route = Route::to(&[&entry]);
    let failures = Arc::clone(&route.failures);
    let _ = Local::connect(route).await.end().await;
    assert_eq!(*failures.lock().unwrap(), ["lease_expired"]);
}
