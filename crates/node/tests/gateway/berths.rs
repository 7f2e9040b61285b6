//! Parked links at a gateway and at a bridge: how many, for how long, whose, and what a passage over one leads to. The clock
//! stands still, and goes on when a test says so.

use std::{
    net::SocketAddr,
    sync::{Arc, RwLock, mpsc as blocking},
    time::Duration,
};

use postern_node::{
    catalogue::Catalogue,
    contact::ContactRecord,
    dial::Dialer,
    drain::Drain,
    egress::Egress,
    gateway::{Gateway, GatewayParts},
    health::Pulse,
    live::LiveSessions,
    metrics::Metrics,
    neighbours::Neighbours,
    parking::{BEAT, MOST_IDLE, NoLink, Parking, SILENCE},
    revocations::Revocations,
    spool::{Spool, SpoolConfig, Tip},
};
use postern_proto::{
    head::{Passage, Refused},
    id::{AccountId, DeviceId, NodeId},
    lease::{LIFETIME, Revocation, RevokedSubject},
    park::{GatewayMessage, RelayMessage, RelayState},
    problem::Problem,
    record::hex,
    replica::Change,
    sync::{Item, ItemKey, Peer},
};
use postern_tunnel::{
    identity::PeerIdentity,
    node::{OpenRequest, Opened, PassRequest, Server, StreamHandler},
    park::{self, ParkedLink},
    stream::StreamControl,
    tls::ServerTls,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::advance,
};
use tokio_util::sync::CancellationToken;

use crate::{
    bench::{claims, dialling, lease_key, node, node_identity, now, numbered, resource, resource_id, sign},
    fake::{Ca, org},
};

/// The clock of the test's runtime stands still until [`Frost::thaw`], or until somebody advances it.
struct Frost(blocking::Sender<()>);

impl Frost {
    fn set_in() -> Self {
        let (thaw, thawed) = blocking::channel();
        // While such a task runs the clock is not advanced to the next timer. It ends by itself lest a test hangs.
        tokio::task::spawn_blocking(move || thawed.recv_timeout(Duration::from_secs(60)));
        tokio::time::pause();
        Self(thaw)
    }

    fn thaw(self) {
        assert!(self.0.send(()).is_ok(), "something waited for the clock");
    }
}

/// So much time passes, and a little more: timers are as fine as a millisecond.
async fn pass(time: Duration) {
    advance(time + Duration::from_millis(2)).await;
}

/// Lets links in, and hands them to the test.
struct Doors(mpsc::Sender<ParkedLink>);

impl StreamHandler for Doors {
    async fn open(&self, _: OpenRequest<'_>) -> Result<Opened, Refused> {
        Err(Problem::new(404, "unknown_resource", "Nothing is here").into())
    }

    async fn park(&self, _: &PeerIdentity, link: ParkedLink) {
        let _ = self.0.send(link).await;
    }
}

/// A place where a relay, or an inner worker, parks links.
struct Quay {
    ca: Ca,
    address: SocketAddr,
    links: mpsc::Receiver<ParkedLink>,
    neighbours: watch::Sender<Arc<Neighbours>>,
    parking: Arc<Parking>,
    drain: Drain,
}

/// Who parks links: its ends of them.
struct Guest {
    control: ParkedLink,
    /// Serves the other end.
    served: JoinHandle<()>,
}

impl Guest {
    /// Hears what is said until a ping, and is heard; `asked` takes the links that are asked for.
    async fn answer(&mut self, parking: &Parking, asked: &mut Vec<u32>) {
        loop {
            match self.control.hear().await.unwrap() {
                GatewayMessage::Want { spares } => asked.push(spares),
                GatewayMessage::Ping { n } => return self.is_heard(parking, n).await,
                GatewayMessage::Draining | GatewayMessage::Serving => panic!("it does not drain"),
            }
        }
    }

    async fn is_heard(&mut self, parking: &Parking, streams: u64) {
        let state = RelayState { draining: false, streams };
        self.control.say_as_relay(&RelayMessage::State(state)).await.unwrap();
        while !parking.state().iter().any(|(_, said, _)| *said == state) {
            tokio::task::yield_now().await;
        }
    }
}

fn relay() -> NodeId {
    numbered(9)
}

impl Quay {
    async fn gateway() -> Self {
        let own = [relay()].into();
        Self::new(Neighbours { own, ..Neighbours::default() }, Parking::new).await
    }

    async fn bridge() -> Self {
        Self::new(Neighbours::default(), Parking::at_bridge).await
    }

    async fn new(
        neighbours: Neighbours,
        parking: impl FnOnce(watch::Receiver<Arc<Neighbours>>, Drain) -> Parking,
    ) -> Self {
        let ca = Ca::new();
        let (trust, identity) = node_identity(&ca, node());
        let (came, links) = mpsc::channel(1);
        let server = Server::new(Doors(came), ServerTls::new(&trust, &identity).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server.serve(listener, CancellationToken::new(), Duration::ZERO));
        let (neighbours, known) = watch::channel(Arc::new(neighbours));
        let drain = Drain::new(None);
        let parking = Arc::new(parking(known, drain.clone()));
        Self { ca, address, links, neighbours, parking, drain }
    }

    /// Makes a link and says what it is for; both ends.
    async fn link(&mut self, says: Option<RelayMessage>) -> (ParkedLink, ParkedLink) {
        let tls = dialling(&self.ca, relay()).for_parking();
        let mut link = park::dial(&self.address.to_string(), node(), &tls).await.unwrap();
        if let Some(says) = says {
            link.say_as_relay(&says).await.unwrap();
        }
        (link, self.links.recv().await.unwrap())
    }

    /// Makes a link that stands idle, unless it is closed at once.
    async fn idle(&mut self) -> ParkedLink {
        let (link, at_gateway) = self.link(Some(RelayMessage::Park)).await;
        self.parking.admit(relay(), at_gateway).await;
        link
    }

    /// Makes a control link.
    async fn guest(&mut self) -> Guest {
        let state = RelayMessage::State(RelayState::default());
        let (mut control, at_gateway) = self.link(Some(state)).await;
        let parking = Arc::clone(&self.parking);
        let served = tokio::spawn(async move { parking.admit(relay(), at_gateway).await });
        assert_eq!(control.hear::<GatewayMessage>().await.unwrap(), GatewayMessage::Want { spares: 2 });
        Guest { control, served }
    }

    fn idle_links(&self) -> usize {
        self.parking.state().iter().map(|(_, _, idle)| idle).sum()
    }
}

#[tokio::test]
async fn a_relay_parks_so_many_links_and_further_ones_are_closed() {
    let mut quay = Quay::gateway().await;
    let frost = Frost::set_in();
    let mut early = quay.idle().await;
    assert!(early.wait().await.is_err(), "a relay that has not said that it is here parked a link");
    let _guest = quay.guest().await;
    let mut parked = Vec::new();
    for _ in 0..MOST_IDLE {
        parked.push(quay.idle().await);
    }
    assert_eq!(quay.idle_links(), MOST_IDLE);
    for _ in 0..3 {
        assert!(quay.idle().await.wait().await.is_err(), "one too many was kept");
    }
    assert_eq!(quay.idle_links(), MOST_IDLE);
    assert!(parked.iter_mut().all(ParkedLink::is_alive), "one that stood was closed for a later one");
    frost.thaw();
}

#[tokio::test]
async fn a_link_that_does_not_say_what_it_is_for_is_closed() {
    let mut quay = Quay::gateway().await;
    let frost = Frost::set_in();
    let (mut silent, at_gateway) = quay.link(None).await;
    let parking = Arc::clone(&quay.parking);
    let admitted = tokio::spawn(async move { parking.admit(relay(), at_gateway).await });
    tokio::task::yield_now().await;
    pass(Duration::from_secs(10)).await;
    admitted.await.unwrap();
    assert!(silent.hear::<GatewayMessage>().await.is_err());
    frost.thaw();
}

#[tokio::test]
async fn when_all_links_are_used_up_more_are_asked_for_up_to_a_bound_and_fewer_when_it_is_calm() {
    let mut quay = Quay::gateway().await;
    let frost = Frost::set_in();
    let mut guest = quay.guest().await;
    let mut asked = Vec::new();
    for _ in 0..6 {
        // Nothing is parked: each stream waits for a while and asks for more.
        let parking = Arc::clone(&quay.parking);
        let taken = tokio::spawn(async move { parking.take(relay()).await.err() });
        tokio::task::yield_now().await;
        pass(Duration::from_secs(3)).await;
        assert_eq!(taken.await.unwrap(), Some(NoLink::UsedUp));
        guest.answer(&quay.parking, &mut asked).await;
    }
    assert_eq!(asked, [4, 8, 16, 32]);
    for _ in 0..4 * 31 / BEAT.as_secs() {
        pass(BEAT).await;
        guest.answer(&quay.parking, &mut asked).await;
    }
    assert_eq!(asked, [4, 8, 16, 32, 16, 8, 4, 2]);
    frost.thaw();
}

#[tokio::test]
async fn each_end_of_a_control_link_is_heard_every_few_seconds_and_a_silent_relay_is_gone_with_what_runs_over_it() {
    let mut quay = Quay::gateway().await;
    let frost = Frost::set_in();
    let mut guest = quay.guest().await;
    let mut idle = quay.idle().await;
    let control = StreamControl::new();
    let _ = quay.parking.passages.insert(relay(), None, control.clone());
    for _ in 0..10 {
        pass(BEAT).await;
        guest.answer(&quay.parking, &mut Vec::new()).await;
    }
    assert_eq!(control.cut_code(), None);
    pass(SILENCE).await;
    guest.served.await.unwrap();
    assert!(!quay.parking.has(relay()) && control.cut_code().is_some());
    assert!(idle.wait().await.is_err(), "its idle link was kept");
    frost.thaw();
}

#[tokio::test]
async fn a_worker_that_was_removed_parks_nothing_at_a_bridge_and_is_turned_out_if_it_is_there() {
    let mut quay = Quay::bridge().await;
    let frost = Frost::set_in();
    let guest = quay.guest().await;
    let mut idle = quay.idle().await;
    assert_eq!(quay.idle_links(), 1);
    let removed = [relay()].into();
    quay.neighbours.send_replace(Arc::new(Neighbours { removed, ..Neighbours::default() }));
    assert_eq!(quay.parking.take_any().await.err(), Some(NoLink::Away), "a client was passed on to a removed worker");
    pass(BEAT).await;
    guest.served.await.unwrap();
    assert!(idle.wait().await.is_err(), "its idle link was kept");
    for says in [RelayMessage::Park, RelayMessage::State(RelayState::default())] {
        let (mut link, at_bridge) = quay.link(Some(says)).await;
        quay.parking.admit(relay(), at_bridge).await;
        assert!(link.hear::<GatewayMessage>().await.is_err());
        assert!(!quay.parking.has(relay()));
    }
    frost.thaw();
}

#[tokio::test]
async fn a_worker_whose_removal_is_told_as_a_revocation_is_turned_out_at_once() {
    let mut quay = Quay::bridge().await;
    let frost = Frost::set_in();
    let _guest = quay.guest().await;
    let mut idle = quay.idle().await;
    let control = StreamControl::new();
    let _ = quay.parking.passages.insert(relay(), None, control.clone());
    let revocation =
        Revocation { subject: RevokedSubject::Node { node: relay() }, at: now(), reason: "it was removed".into() };
    assert_eq!(quay.parking.revoke(&[revocation]), 1);
    assert!(control.cut_code().is_some() && !quay.parking.has(relay()));
    assert!(idle.wait().await.is_err(), "its idle link was kept");
    assert!(quay.idle().await.wait().await.is_err(), "it parks again");
    frost.thaw();
}

/// A gateway that knows resource 1, and may lead to the relay.
struct Lobby {
    gateway: Gateway,
    egress: Arc<Egress>,
    _spool: tempfile::TempDir,
}

impl Lobby {
    fn of(quay: &Quay) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(SpoolConfig::new(folder.path()), node(), Tip::default()).unwrap();
        let contact = ContactRecord::new(now());
        contact.set_up(true);
        let catalogue = Catalogue::new(&[lease_key(), Item::Resource(resource(1, 1))]);
        let egress = Arc::new(Egress::new(catalogue, Revocations::default()).at(node()));
        let gateway = Gateway::new(GatewayParts {
            cluster: None,
            egress: Arc::clone(&egress),
            live: Arc::new(LiveSessions::default()),
            contact: Arc::new(contact),
            dialer: Dialer::default(),
            drain: quay.drain.clone(),
            metrics: Arc::new(Metrics::default()),
            pulse: Arc::new(Pulse::new(mpsc::channel(1).0)),
            spool,
            node: node(),
            neighbours: quay.neighbours.subscribe(),
            parking: Some(Arc::clone(&quay.parking)),
            tls: Arc::new(RwLock::new(dialling(&quay.ca, node()))),
            max_streams: 10,
        });
        Self { gateway, egress, _spool: folder }
    }
}

#[tokio::test]
async fn a_passage_whose_resource_vanishes_while_it_is_opened_is_refused_without_waiting() {
    let mut quay = Quay::gateway().await;
    let lobby = Lobby::of(&quay);
    let frost = Frost::set_in();
    let _guest = quay.guest().await;
    let mut idle = quay.idle().await;
    let (account, device) = (AccountId::from_ulid(ulid::Ulid(2)), DeviceId::from_ulid(ulid::Ulid(3)));
    let peer = PeerIdentity {
        org: org(),
        peer: Peer::Device { account, device },
        cluster: None,
        spki_sha256: [7; 32],
        not_after: now().plus(LIFETIME),
    };
    let lease = sign(&claims((account, device), &hex(&[7; 32]), 1));
    let passage = Passage::new(relay(), "gw", Some(lease)).unwrap();
    let client: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let opening = lobby.gateway.pass(PassRequest { peer: &peer, client, passage: &passage });
    let meanwhile = async {
        let passage = idle.wait().await.unwrap();
        let removed = vec![ItemKey::Resource { id: resource_id(1) }];
        lobby.egress.apply(&Change { scope: "gateways".into(), snapshot: false, put: vec![], removed });
        idle.take_up(passage.client().unwrap(), CancellationToken::new()).await.unwrap()
    };
    let (passed, _taken) = tokio::join!(opening, meanwhile);
    let problem = passed.err().unwrap().problem;
    assert_eq!((problem.status, problem.code.as_str()), (404, "unknown_resource"));
    assert!(quay.parking.passages.is_empty());
    frost.thaw();
}
