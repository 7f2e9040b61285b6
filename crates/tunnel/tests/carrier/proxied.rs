//! Behind balancers that say whose connection they pass on.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use postern_proto::proxy_header::SIGNATURE;
use postern_tunnel::node::{Arrival, Balancers};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::world::{Gateway, Local, Org, Plan, Route, Target, within};

fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE.as_slice(), &[command, family], &length, rest].concat()
}

/// `192.0.2.7:12345`, as a balancer writes it, with an extension.
fn client_header() -> Vec<u8> {
    header(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0x13, 0x88, 0x04, 0, 1, 0])
}

/// Begins every connection with `header`.
async fn balancer(node: SocketAddr, header: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut node = TcpStream::connect(node).await.unwrap();
            let header = header.clone();
            tokio::spawn(async move {
                for piece in header.chunks(5) {
                    if node.write_all(piece).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                let _ = copy_bidirectional(&mut client, &mut node).await;
            });
        }
    });
    address
}

type Seen = Arc<Mutex<Vec<SocketAddr>>>;

/// A gateway behind balancers of these networks, and where it says that clients come from.
async fn behind(org: &Org, balancers: &str) -> (Gateway, Seen) {
    let echo = Target::echo().await;
    let balancers = Balancers::new(vec![balancers.parse().unwrap()]);
    let arrival = Arrival { balancers, ..Arrival::default() };
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let gateway = Gateway::start_at(org, Duration::ZERO, arrival, move |request| {
        noted.lock().unwrap().push(request.client);
        Plan::Dial(echo)
    });
    (gateway.await, seen)
}

async fn hello(gateway: &Gateway, address: SocketAddr, org: &Org) -> bool {
    let entry = postern_tunnel::client::Entry::new(gateway.node, address.to_string(), org.client()).unwrap();
    let mut local = Local::connect(Route::to(&[&entry])).await;
    let mut answer = [0; 5];
    local.app.write_all(b"hello").await.is_ok() && within(local.app.read_exact(&mut answer)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancers_client_is_known_by_its_own_address() {
    let org = Org::new();
    let (gateway, seen) = behind(&org, "127.0.0.0/8").await;
    let from = balancer(gateway.address, client_header()).await;
    assert!(hello(&gateway, from, &org).await);
    assert_eq!(*seen.lock().unwrap(), ["192.0.2.7:12345".parse().unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_speaks_for_itself_is_its_own_client() {
    let org = Org::new();
    let (gateway, seen) = behind(&org, "127.0.0.1/32").await;
    let from = balancer(gateway.address, header(0x20, 0, &[])).await;
    assert!(hello(&gateway, from, &org).await);
    assert!(seen.lock().unwrap()[0].ip().is_loopback());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_must_say_whose_connection_it_is_and_nobody_else_may() {
    let org = Org::new();
    let (gateway, seen) = behind(&org, "127.0.0.0/8").await;
    assert!(!hello(&gateway, gateway.address, &org).await, "it came from a balancer's network without a header");
    for bad in
        [b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(), header(0x21, 0x11, &[0; 4]), header(0x21, 0x7f, &[0; 12])]
    {
        let from = balancer(gateway.address, bad).await;
        assert!(!hello(&gateway, from, &org).await);
    }
    let (gateway, others) = behind(&org, "192.0.2.0/24").await;
    let from = balancer(gateway.address, client_header()).await;
    assert!(!hello(&gateway, from, &org).await, "it is no balancer of this gateway");
    assert!(hello(&gateway, gateway.address, &org).await);
    assert!(seen.lock().unwrap().is_empty() && others.lock().unwrap().len() == 1);
}
