//! The listener: whoever comes, it goes on serving.

use std::time::Duration;

use postern_control::{
    clock::Clock,
    config::{Data, Serve},
    run::Running,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_or_nonsense_do_not_keep_others_out() {
    let world = World::start().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(world.address()).await.unwrap());
    }
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 100], &[0x16, 3, 1, 0xff, 0xff]] {
        let mut stream = TcpStream::connect(world.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        silent.push(stream);
    }
    for _ in 0..50 {
        let stream = TcpStream::connect(world.address()).await.unwrap();
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
    world.admin.get("/accounts").await;
    assert_eq!(silent.len(), 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_of_another_authority_ends_the_handshake() {
    postern_tunnel::tls::install_crypto_provider();
    let world = World::start().await;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let foreign = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::default().signed_by(&key, &foreign).unwrap();
    let anchors = world.running().state.authority.anchors().unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(anchors)
        .with_client_auth_cert(vec![leaf.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    let stream = TcpStream::connect(world.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let refused = async {
        let mut stream = TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await?;
        stream.write_all(b"GET /api/v1/ca HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        stream.read_u8().await
    };
    assert!(refused.await.is_err());
    world.admin.get("/accounts").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_from_files_is_served_and_a_bad_one_is_told() {
    postern_tunnel::tls::install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["control.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (cert_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert_file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let serve = |key_file: &std::path::Path| Serve {
        data: Data::folder(folder.path().join("data")),
        listen: "127.0.0.1:0".parse().unwrap(),
        names: vec!["control.example".to_owned()],
        tls_cert: Some(cert_file.clone()),
        tls_key: Some(key_file.to_owned()),
        admin_email: "admin@example.org".to_owned(),
        org: "Example".to_owned(),
        absence: Default::default(),
        monitor: Default::default(),
    };
    let bad = Running::start(serve(&cert_file), Clock::system(), CancellationToken::new()).await;
    assert!(format!("{:#}", bad.err().unwrap()).contains("cannot serve with"));

    let stop = CancellationToken::new();
    let running = Running::start(serve(&key_file), Clock::system(), stop.clone()).await.unwrap();
    assert_eq!(running.ready.url, format!("https://control.example:{}", running.address.port()));
    let mut anchors = RootCertStore::empty();
    anchors.add(certificate.der().clone()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(anchors).with_no_client_auth();
    let stream = TcpStream::connect(running.address).await.unwrap();
    let name = ServerName::try_from("control.example").unwrap();
    TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.unwrap();
    stop.cancel();
    running.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_waits_for_requests_under_way_and_not_for_idle_connections() {
    let mut world = World::start().await;
    let _idle = TcpStream::connect(world.address()).await.unwrap();
    let mut racers = tokio::task::JoinSet::new();
    for n in 0..20 {
        let admin = world.admin.clone();
        racers.spawn(async move { admin.post("/resources", json!({"name": format!("r{n}"), "host": "h"})).await });
    }
    let created = racers.join_all().await.len();
    tokio::time::timeout(Duration::from_secs(60), world.restart()).await.unwrap();
    assert_eq!(world.admin.get("/resources").await["items"].as_array().unwrap().len(), created);
}
