//! Clients that a bridge passes on below TLS to a node that has parked links with it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use postern_proto::{
    head::{Passage, Refused},
    id::NodeId,
    park::RelayMessage,
    problem::Problem,
    sync::Peer,
};
use postern_tunnel::{
    client::Entry,
    identity::PeerIdentity,
    node::{Arrival, Carrier, OpenRequest, Opened, Passed, Server, StreamHandler},
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

use crate::{
    transfer::noise,
    websocket::Outer,
    world::{Local, Org, Route, Target, node, within},
};

/// Passes everybody on to whoever has parked a link.
struct Hall {
    inner: NodeId,
    parked: mpsc::Sender<ParkedLink>,
    waiting: Mutex<mpsc::Receiver<ParkedLink>>,
}

impl StreamHandler for Hall {
    async fn open(&self, _: OpenRequest<'_>) -> Result<Opened, Refused> {
        Err(Problem::new(421, "other_node", "A client came in instead of being passed on").into())
    }

    async fn bridge(&self, client: SocketAddr) -> Result<Passed, Refused> {
        let link = within(async { self.waiting.lock().await.recv().await }).await.unwrap();
        let passage = Passage::new(self.inner, self.inner.tls_name(), None).unwrap().for_relay(client);
        let onward = link.open(&passage).await.unwrap();
        Ok(Passed { onward, control: StreamControl::new(), done: Box::new(drop) })
    }

    async fn park(&self, peer: &PeerIdentity, mut link: ParkedLink) {
        assert!(matches!(peer.peer, Peer::Node { .. }));
        assert_eq!(link.hear::<RelayMessage>().await.unwrap(), RelayMessage::Park);
        self.parked.send(link).await.unwrap();
    }
}

/// Dials one target for clients of loopback addresses.
struct Dials(SocketAddr);

impl StreamHandler for Dials {
    async fn open(&self, request: OpenRequest<'_>) -> Result<Opened, Refused> {
        assert!(matches!(request.peer.peer, Peer::Device { .. }), "the inner node sees the client's own certificate");
        assert!(request.client.ip().is_loopback() && request.client.port() != 0, "and its address");
        let target = TcpStream::connect(self.0).await.unwrap();
        Ok(Opened { target, control: StreamControl::new(), done: Box::new(drop) })
    }
}

/// A bridge, and a node behind it to which connections come in `carrier`: where the bridge is, and the node.
async fn bridged(org: &Org, carrier: Carrier) -> (SocketAddr, NodeId) {
    let (bridge, inner, stop) = (node(), node(), CancellationToken::new());
    let tls = |node| ServerTls::new(&org.trust(), &org.identity(Peer::Node { node })).unwrap();
    let (parked, waiting) = mpsc::channel(4);
    let hall = Hall { inner, parked, waiting: Mutex::new(waiting) };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let arrival = Arrival { bridges: true, ..Arrival::default() };
    tokio::spawn(Server::new(hall, tls(bridge)).serve_arrivals(listener, arrival, stop.clone(), Duration::ZERO));
    let (incoming, came) = mpsc::channel(4);
    let arrival = Arrival { carrier, ..Arrival::default() };
    let server = Server::new(Dials(Target::echo().await), tls(inner));
    tokio::spawn(server.serve_parked_arrivals(came, arrival, stop, Duration::ZERO));
    let dialling = ClientTls::new(&org.trust(), &org.identity(Peer::Node { node: inner })).unwrap().for_parking();
    tokio::spawn(async move {
        loop {
            let mut link = park::dial(&address.to_string(), bridge, &dialling).await.unwrap();
            link.say_as_relay(&RelayMessage::Park).await.unwrap();
            let passage = link.wait().await.unwrap();
            let passage = link.take_up(passage.client().unwrap(), CancellationToken::new()).await.unwrap();
            incoming.send(passage).await.unwrap();
        }
    });
    (address, inner)
}

async fn carries(entry: &Arc<Entry>) {
    for length in [5, 8 << 20, 0, 100_000] {
        let sent = noise(length as u64 + 1, length);
        let mut local = Local::connect(Route::to(&[entry])).await;
        let received = local.echo(&sent).await;
        assert!(received == sent, "{length} bytes came back changed");
        assert_eq!(local.end().await.cause, EndCause::Done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_its_session_with_the_node_behind_the_bridge() {
    let org = Org::new();
    let (bridge, inner) = bridged(&org, Carrier::Direct).await;
    carries(&Entry::new(inner, bridge.to_string(), org.client()).unwrap()).await;
    let other = Entry::new(node(), bridge.to_string(), org.client()).unwrap();
    assert!(other.probe().await.is_err(), "another node was taken for the one that was meant");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_goes_over_a_bridge_as_well() {
    let (org, outer) = (Org::new(), Outer::new());
    let (bridge, inner) = bridged(&org, Carrier::PlainWebSocket).await;
    let balancer = outer.balancer(bridge).await;
    let entry = Entry::over_websocket(inner, balancer.to_string(), outer.client(), org.client()).unwrap();
    carries(&entry).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_answers_nothing_itself() {
    let org = Org::new();
    let (bridge, _) = bridged(&org, Carrier::PlainWebSocket).await;
    let mut stream = TcpStream::connect(bridge).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404", "the node behind answers");
    // A hello that comes in pieces is waited for.
    let (bridge, inner) = bridged(&org, Carrier::Direct).await;
    let slow = slow(bridge).await;
    assert!(Entry::new(inner, slow.to_string(), org.client()).unwrap().probe().await.is_ok());
}

/// Passes the first bytes on one by one.
async fn slow(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut node = TcpStream::connect(to).await.unwrap();
        node.set_nodelay(true).unwrap();
        for _ in 0..20 {
            node.write_all(&[client.read_u8().await.unwrap()]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
    });
    address
}
