//! The carrier within a WebSocket, whose outer TLS session the node or somebody before it ends.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use postern_tunnel::{
    node::{Arrival, Carrier},
    stream::EndCause,
    tls::{OuterClientTls, OuterServerTls},
    web::{PATH, PROTOCOL},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    transfer::noise,
    world::{Gateway, Local, Org, Plan, Route, Target, within},
};

/// A certificate of a web server that nobody of the organisation has signed, and its key.
pub(crate) struct Outer {
    pub(crate) chain: String,
    pub(crate) key: KeyPair,
}

impl Outer {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let chain = CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
        Self { chain, key }
    }

    pub(crate) fn server(&self) -> OuterServerTls {
        OuterServerTls::from_pem(&self.chain, &self.key.serialize_pem()).unwrap()
    }

    pub(crate) fn client(&self) -> OuterClientTls {
        OuterClientTls::with_authority(&self.chain).unwrap()
    }

    /// What a balancer that ends TLS does, as it comes from a library: it also hands out session tickets.
    pub(crate) async fn balancer(&self, node: SocketAddr) -> SocketAddr {
        use rustls::pki_types::pem::PemObject as _;
        let chain =
            rustls::pki_types::CertificateDer::pem_slice_iter(self.chain.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let (Ok(mut client), Ok(mut node)) =
                        (acceptor.accept(client).await, TcpStream::connect(node).await)
                    else {
                        return;
                    };
                    let _ = copy_bidirectional(&mut client, &mut node).await;
                });
            }
        });
        address
    }
}

fn arrival(carrier: Carrier) -> Arrival {
    Arrival { carrier, ..Arrival::default() }
}

async fn echoing(org: &Org, carrier: Carrier) -> Gateway {
    let echo = Target::echo().await;
    Gateway::start_at(org, Duration::ZERO, arrival(carrier), move |_| Plan::Dial(echo)).await
}

/// What is sent comes back, on one stream after the other.
async fn carries(entry: &Arc<postern_tunnel::client::Entry>, lengths: &[usize]) {
    for (seed, length) in lengths.iter().enumerate() {
        let sent = noise(seed as u64 + 1, *length);
        let mut local = Local::connect(Route::to(&[entry])).await;
        let received = local.echo(&sent).await;
        assert!(received == sent, "stream {seed} came back changed");
        assert_eq!(local.end().await.cause, EndCause::Done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_through_a_balancer_that_ends_tls_and_connections_are_used_again() {
    let (org, outer) = (Org::new(), Outer::new());
    let gateway = echoing(&org, Carrier::PlainWebSocket).await;
    let balancer = outer.balancer(gateway.address).await;
    let entry = gateway.entry_within(&format!("localhost:{}", balancer.port()), &outer.client(), org.client());
    carries(&entry, &[5, 0, 70_000, 1, 8 << 20, 300_001, 12]).await;
    assert!((1..=3).contains(&entry.idle()), "{} connections were kept", entry.idle());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_may_end_the_outer_session_itself_and_takes_a_new_certificate() {
    let (org, outer) = (Org::new(), Outer::new());
    let (certificates, current) = watch::channel(outer.server());
    let gateway = echoing(&org, Carrier::WebSocket(current)).await;
    let address = gateway.address.to_string();
    let entry = gateway.entry_within(&address, &outer.client(), org.client());
    carries(&entry, &[5, 4 << 20, 100_000]).await;

    let next = Outer::new();
    certificates.send(next.server()).unwrap();
    carries(&gateway.entry_within(&address, &next.client(), org.client()), &[7]).await;
    let error = gateway.entry_within(&address, &outer.client(), org.client()).probe().await.unwrap_err();
    assert!(error.to_string().contains("no certificate that this machine accepts"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_both_ways_at_once_are_identical() {
    let (org, outer) = (Org::new(), Outer::new());
    let (_certificates, current) = watch::channel(outer.server());
    let gateway = echoing(&org, Carrier::WebSocket(current)).await;
    let entry = gateway.entry_within(&gateway.address.to_string(), &outer.client(), org.client());
    let streams: Vec<_> = (0..8)
        .map(|n| {
            let entry = Arc::clone(&entry);
            tokio::spawn(async move { carries(&entry, &[(2 << 20) + n, 3, 1 << 20]).await })
        })
        .collect();
    for stream in streams {
        stream.await.unwrap();
    }
}

/// The status line of the answer to one request.
async fn status(node: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(node).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    within(stream.read_exact(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_but_the_carrier_is_not_found() {
    let org = Org::new();
    let gateway = echoing(&org, Carrier::PlainWebSocket).await;
    let headers = |path: &str, key: &str, protocol: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
             Sec-WebSocket-Version: 13\r\n{key}Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        )
    };
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let right = headers(PATH, key, &format!("other, {PROTOCOL}"));
    assert_eq!(status(gateway.address, &right).await, "HTTP/1.1 101");
    for wrong in [
        headers("/", key, PROTOCOL),
        headers(&format!("{PATH}/x"), key, PROTOCOL),
        headers(PATH, "", PROTOCOL),
        headers(PATH, key, "chat"),
        right.replace("13", "12"),
        right.replace("GET", "POST"),
        right.replace("HTTP/1.1", "HTTP/1.0"),
        right.replace("Upgrade: WebSocket\r\n", ""),
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ] {
        let answer = status(gateway.address, &wrong).await;
        assert!(answer == "HTTP/1.1 404" || answer == "HTTP/1.0 404", "{answer} to {wrong}");
    }
    // A head without an end is not read for ever.
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(64 * 1024));
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    assert!(answer.starts_with(b"HTTP/1.1 431") || answer.is_empty(), "{:?}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ends_the_outer_session_cannot_take_the_nodes_place() {
    let (org, other, outer) = (Org::new(), Org::new(), Outer::new());
    let gateway = echoing(&org, Carrier::PlainWebSocket).await;
    let impostor = echoing(&other, Carrier::PlainWebSocket).await;
    let balancer = outer.balancer(impostor.address).await;
    let entry = gateway.entry_within(&balancer.to_string(), &outer.client(), org.client());
    let error = entry.probe().await.unwrap_err();
    assert!(error.to_string().contains("is not the gateway that it should be"), "{error}");
    // Nor is a client believed that has no certificate of the organisation.
    let balancer = outer.balancer(gateway.address).await;
    let entry = gateway.entry_within(&balancer.to_string(), &outer.client(), other.client());
    assert!(entry.probe().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_that_is_no_balancer_of_ours_is_told_apart() {
    let (org, outer) = (Org::new(), Outer::new());
    let (_certificates, current) = watch::channel(outer.server());
    let gateway = echoing(&org, Carrier::WebSocket(current)).await;
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let balancer = outer.balancer(web.local_addr().unwrap()).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = web.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let entry = gateway.entry_within(&balancer.to_string(), &outer.client(), org.client());
    let error = entry.probe().await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("403") && source.contains(PATH), "{error}: {source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_was_pinged_is_used_again() {
    let (org, outer) = (Org::new(), Outer::new());
    let gateway = echoing(&org, Carrier::PlainWebSocket).await;
    let (balancer, pings) = pinging(&outer, gateway.address).await;
    let entry = gateway.entry_within(&balancer.to_string(), &outer.client(), org.client());
    carries(&entry, &[5]).await;
    // Some come while nobody reads them.
    let kept = entry.idle();
    while pings.load(Ordering::SeqCst) < 4 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let connections = gateway.server.handler().controls.lock().unwrap().len();
    carries(&entry, &[5, 70_000]).await;
    assert!(kept >= 1 && entry.idle() >= kept, "{kept} were idle, {} are", entry.idle());
    assert_eq!(gateway.server.handler().controls.lock().unwrap().len(), connections + 2, "nothing was tried twice");
}

/// A balancer that puts pings of its own between the frames of an idle node.
async fn pinging(outer: &Outer, node: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let pings = Arc::new(AtomicUsize::new(0));
    let sent = Arc::clone(&pings);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut node = TcpStream::connect(node).await.unwrap();
            let sent = Arc::clone(&sent);
            tokio::spawn(async move {
                let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
                let mut moved = 0;
                loop {
                    tokio::select! {
                        read = client.read(&mut up) => match read {
                            Ok(count @ 1..) => node.write_all(&up[..count]).await.unwrap(),
                            _ => return,
                        },
                        read = node.read(&mut down) => match read {
                            Ok(count @ 1..) => { moved += 1; client.write_all(&down[..count]).await.unwrap() }
                            _ => return,
                        },
                        // Behind the upgrade and the inner handshake, when nothing moves.
                        () = tokio::time::sleep(Duration::from_millis(100)), if moved > 2 => {
                            client.write_all(&[0x89, 0]).await.unwrap();
                            sent.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
            });
        }
    });
    (outer.balancer(address).await, pings)
}
