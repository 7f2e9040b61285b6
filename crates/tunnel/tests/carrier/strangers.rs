//! What peers get that are not who they should be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use postern_proto::frame::{Header, Kind};
use postern_tunnel::{
    client::Entry,
    stream::EndCause,
    tls::{ClientTls, Identity, TlsError},
};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, pki_types::ServerName};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::world::{Gateway, Local, Org, Plan, Route, Target, device, node, request, tls, within};

/// A gateway that counts how often it is asked for a stream.
async fn counting(org: &Org) -> (Gateway, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let echo = Target::echo().await;
    let gateway = Gateway::start(org, Duration::ZERO, move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Plan::Dial(echo)
    })
    .await;
    (gateway, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_http_1_request_without_a_certificate_is_not_found() {
    let org = Org::new();
    let (gateway, asked) = counting(&org).await;
    let alpns: [&[&[u8]]; 4] = [&[], &[b"http/1.1"], &[b"postern/1"], &[b"h2", b"http/1.1", b"postern/1"]];
    for alpn in &alpns[..3] {
        let mut stream = tls(&org.trust(), None, alpn, gateway.node, gateway.address).await.unwrap();
        for path in ["/", "/api/v1/login", "/../../etc/passwd"] {
            let ask = format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n");
            stream.write_all(ask.as_bytes()).await.unwrap();
            let mut answer = vec![0; 1000];
            let mut length = 0;
            while !answer[..length].ends_with(b"Not Found\n") {
                length += within(stream.read(&mut answer[length..])).await.unwrap();
            }
            assert!(answer.starts_with(b"HTTP/1.1 404 Not Found\r\n"), "{:?}", String::from_utf8_lossy(&answer));
        }
        let connect = format!("CONNECT {} HTTP/1.1\r\nHost: gateway\r\n\r\n", "res_01JABCDEFGHJKMNPQRSTVWXYZ0:0");
        stream.write_all(connect.as_bytes()).await.unwrap();
        let mut answer = vec![0; 12];
        within(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 404");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_does_not_help_who_does_not_speak_the_carriers_protocol() {
    let org = Org::new();
    let (gateway, asked) = counting(&org).await;
    let identity = org.identity(device());
    let mut stream = tls(&org.trust(), Some(&identity), &[b"http/1.1"], gateway.node, gateway.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

/// Reads HTTP/2 frames until one of `kind` comes; its payload.
async fn http2_frame(stream: &mut (impl AsyncReadExt + Unpin), kind: u8) -> Vec<u8> {
    loop {
        let mut header = [0; 9];
        within(stream.read_exact(&mut header)).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
        within(stream.read_exact(&mut payload)).await.unwrap();
        if header[3] == kind {
            return payload;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_http_2_request_without_a_certificate_is_not_found() {
    let org = Org::new();
    let (gateway, asked) = counting(&org).await;
    for alpn in [&[b"h2".as_slice()][..], &[]] {
        let mut stream = tls(&org.trust(), None, alpn, gateway.node, gateway.address).await.unwrap();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        // HEADERS on stream 1, the end of it: ":method: GET", ":scheme: https", ":path: /", ":authority: x".
        bytes.extend([0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x87, 0x84, 0x41, 0x01, b'x']);
        stream.write_all(&bytes).await.unwrap();
        // ":status: 404" is entry 13 of the static table.
        assert_eq!(http2_frame(&mut stream, 1).await[0], 0x80 | 13);
        assert_eq!(http2_frame(&mut stream, 0).await, b"Not Found\n");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_a_certificate_opens_nothing() {
    let org = Org::new();
    let (gateway, asked) = counting(&org).await;
    let mut stream = tls(&org.trust(), None, &[b"postern/1"], gateway.node, gateway.address).await.unwrap();
    let head = request("v4.public.x").write();
    let frame = [Header::new(Kind::Head, head.len()).unwrap().write().as_slice(), &head].concat();
    stream.write_all(&frame).await.unwrap();
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

/// Whether `identity` gets as far as an answer over its connection. In TLS 1.3 a client learns after its handshake
/// whether its certificate was taken.
async fn is_taken(org: &Org, identity: &Identity, gateway: &Gateway) -> bool {
    let Ok(mut stream) = tls(&org.trust(), Some(identity), &[b"postern/1"], gateway.node, gateway.address).await else {
        return false;
    };
    let head = request("v4.public.x").write();
    let frame = [Header::new(Kind::Head, head.len()).unwrap().write().as_slice(), &head].concat();
    let _ = stream.write_all(&frame).await;
    within(stream.read(&mut [0; 100])).await.is_ok_and(|count| count > 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_are_not_the_organisations_own_are_refused_in_the_handshake() {
    let (org, other) = (Org::new(), Org::new());
    let (gateway, asked) = counting(&org).await;
    let identity = |org: &Org, leaf| {
        let (certificate, key) = org.sign(leaf);
        Identity::from_pem(org.id, &certificate, &key).unwrap()
    };
    assert!(is_taken(&org, &org.identity(device()), &gateway).await);
    let before = asked.load(Ordering::SeqCst);

    assert!(!is_taken(&org, &other.identity(device()), &gateway).await, "another CA");
    let mut over = org.leaf(device());
    over.ends = OffsetDateTime::now_utc() - Duration::from_secs(60);
    assert!(!is_taken(&org, &identity(&org, over), &gateway).await, "expired");
    let mut early = org.leaf(device());
    early.begins = OffsetDateTime::now_utc() + Duration::from_secs(600);
    assert!(!is_taken(&org, &identity(&org, early), &gateway).await, "not yet valid");
    // Signed by the right CA, but for the name of another organisation.
    assert!(!is_taken(&org, &identity_of(&org, &other), &gateway).await, "foreign name");
    assert_eq!(asked.load(Ordering::SeqCst), before);
}

/// A certificate of `org`'s CA that names a device of `other`.
fn identity_of(org: &Org, other: &Org) -> Identity {
    let (certificate, key) = org.sign(other.leaf(device()));
    Identity::from_pem(other.id, &certificate, &key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_not_accepted_is_told_so() {
    let (org, other) = (Org::new(), Org::new());
    let (gateway, _) = counting(&org).await;
    let tls = ClientTls::new(&org.trust(), &other.identity(device())).unwrap();
    let entry = gateway.entry(tls);
    let end = Local::connect(Route::to(&[&entry])).await.end().await;
    let EndCause::Refused(problem) = end.cause else { panic!("{end:?}") };
    assert_eq!(problem.code, "gateway_unreachable");
    assert!(problem.detail.unwrap().contains("does not accept this device"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_speaks_to_no_other_node_than_the_one_it_means() {
    let (org, other) = (Org::new(), Org::new());
    let (gateway, asked) = counting(&org).await;
    let another_node = Entry::new(node(), gateway.address.to_string(), org.client()).unwrap();
    let another_ca = gateway.entry(other.client());
    for entry in [another_node, another_ca] {
        let end = Local::connect(Route::to(&[&entry])).await.end().await;
        assert!(matches!(end.cause, EndCause::Refused(problem) if problem.code == "gateway_unreachable"));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_cannot_pose_as_a_node() {
    let org = Org::new();
    let posing = postern_tunnel::tls::ServerTls::new(&org.trust(), &org.identity(device()));
    assert!(matches!(posing, Err(TlsError::Identity(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_session_is_ever_resumed() {
    let org = Org::new();
    let (gateway, _) = counting(&org).await;
    let identity = org.identity(device());
    let mut config = ClientConfig::builder()
        .with_root_certificates(org.trust().roots().clone())
        .with_client_auth_cert(identity.chain().to_vec(), identity.key().clone_key())
        .unwrap();
    config.alpn_protocols = vec![b"postern/1".to_vec()];
    let config = Arc::new(config);
    for _ in 0..3 {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let name = ServerName::try_from(gateway.node.tls_name()).unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(config.clone()).connect(name, stream).await.unwrap();
        let head = request("v4.public.x").write();
        let frame = [Header::new(Kind::Head, head.len()).unwrap().write().as_slice(), &head].concat();
        stream.write_all(&frame).await.unwrap();
        within(stream.read(&mut [0; 100])).await.unwrap();
        let connection: &ClientConnection = stream.get_ref().1;
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(connection.tls13_tickets_received(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_say_nothing_or_nonsense_disturb_nobody() {
    let org = Org::new();
    let (gateway, _) = counting(&org).await;
    let mut silent = Vec::new();
    for index in 0..300 {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        match index % 3 {
            0 => {}
            1 => stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap(),
            _ => stream.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap(),
        }
        silent.push(stream);
    }
    let entry = gateway.entry(org.client());
    let mut local = Local::connect(Route::to(&[&entry])).await;
    local.app.write_all(b"!").await.unwrap();
    assert_eq!(within(local.app.read_u8()).await.unwrap(), b'!');
    drop(silent);
}
