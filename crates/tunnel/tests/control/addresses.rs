//! A control plane with several addresses and no balancer.

use std::{net::SocketAddr, sync::Arc};

use postern_tunnel::control::{CallError, ControlClient, SyncEvent, Trust};

use crate::{
    Follower,
    fake::{Ca, Fake},
    get, seven, timing, welcome,
};

/// Of these addresses, in this order.
fn client(addresses: &[SocketAddr], trust: Trust) -> Arc<ControlClient> {
    let urls: Vec<String> = addresses.iter().map(|at| format!("https://{at}")).collect();
    Arc::new(ControlClient::new(urls.join(",").parse().unwrap(), trust))
}

/// An address where nobody listens: bound until the test ends, so that nobody else gets the port.
fn nobody() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

#[tokio::test]
async fn a_call_tries_the_other_addresses_and_stays_with_the_one_that_works() {
    let ca = Ca::new();
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), true, seven).await;
    // Whichever of them it begins with.
    for _ in 0..8 {
        let before = fake.connections();
        let client = client(&[nobody(), fake.address, nobody()], Trust::Ca(ca.pem()));
        for _ in 0..3 {
            assert_eq!(get(&client, "/x").await, Ok(7));
            assert_eq!(client.url().port(), fake.address.port());
        }
        assert_eq!(fake.connections(), before + 1);
    }
}

#[tokio::test]
async fn the_ca_of_a_fingerprint_is_fetched_from_any_address() {
    let ca = Ca::new();
    let info = ca.info();
    let fake = Fake::start(&ca, &ca.leaf(&["127.0.0.1"]), true, move |_| crate::json(&info)).await;
    let trust = Trust::fingerprint(&ca.fingerprint()).unwrap();
    for addresses in [[nobody(), fake.address], [fake.address, nobody()]] {
        assert!(client(&addresses, trust.clone()).ca().await.is_ok());
    }
}

#[tokio::test]
async fn where_no_address_works_all_are_named_and_who_is_not_trusted_is_told_first() {
    let (ca, other) = (Ca::new(), Ca::new());
    let addresses = [nobody(), nobody()];
    let error = get(&client(&addresses, Trust::Ca(ca.pem())), "/x").await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    assert!(addresses.iter().all(|at| error.to_string().contains(&at.to_string())), "{error}");

    let foreign = Fake::start(&ca, &other.leaf(&["127.0.0.1"]), true, seven).await;
    let error = get(&client(&[nobody(), foreign.address], Trust::Ca(ca.pem())), "/x").await.unwrap_err();
    assert!(matches!(error, CallError::Untrusted { .. }), "{error}");
    assert_eq!(foreign.calls().len(), 0);
}

#[tokio::test]
async fn who_followed_a_replica_that_is_gone_follows_another() {
    let ca = Ca::new();
    let leaf = ca.leaf(&["127.0.0.1"]);
    let mut fakes = [Fake::start(&ca, &leaf, true, seven).await, Fake::start(&ca, &leaf, true, seven).await];
    let client = client(&fakes.each_ref().map(|fake| fake.address), Trust::Ca(ca.pem()));
    let mut follower = Follower::start(Arc::clone(&client), timing());
    let [one, other] = &mut fakes;
    let (first, mut held) = tokio::select! {
        socket = one.sockets.recv() => (0, socket.unwrap()),
        socket = other.sockets.recv() => (1, socket.unwrap()),
    };
    held.send(&welcome()).await;
    follower.until(|event| matches!(event, SyncEvent::Connected { .. })).await;
    // It goes with its connections, and nobody listens there any more.
    let [one, other] = fakes;
    let (gone, mut left) = if first == 0 { (one, other) } else { (other, one) };
    drop((gone, held));
    follower.until(|event| matches!(event, SyncEvent::Away { .. })).await;
    let mut socket = left.sockets.recv().await.unwrap();
    socket.send(&welcome()).await;
    follower.until(|event| matches!(event, SyncEvent::Connected { .. })).await;
    assert_eq!(client.url().port(), left.address.port());
}
