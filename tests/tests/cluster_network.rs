//! Proxy clusters in networks of their own, with a real balancer in the DMZ before two workers: see
//! [`postern_tests::cluster_bed`].

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_proto::proxy_header::SIGNATURE;
use postern_tests::{
    authority::{ServerIdentity, TestAuthority},
    client,
    cluster_bed::{CLIENT, ClusterBed, NETWORKS, PRIVATE},
    command::{PATIENCE, run},
    need_namespace, need_program,
    servers::ExampleBalancer,
    site::{self, DMZ, Site, address},
    stack::Stack,
};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};

/// The status that curl gets at a worker from network `from`, with this before the TLS session; `None`: no answer.
async fn asked(site: &Site, from: usize, worker: SocketAddr, before: Vec<u8>) -> anyhow::Result<Option<String>> {
    let asking = site.within(from, move || async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let here = listener.local_addr()?;
        let passing = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await?;
            let mut server = TcpStream::connect(worker).await?;
            server.write_all(&before).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["-sk", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", &format!("https://{here}/")]);
        let answered = run(&mut curl, PATIENCE).await?;
        passing.abort();
        Ok(answered.status.success().then_some(answered.stdout))
    });
    asking.await
}

/// A header that says: this connection is that of 192.0.2.7.
fn pretence() -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 10, 77, 2, 2, 0x30, 0x39, 0x20, 0xfb];
    [&SIGNATURE[..], &[0x21, 0x11, 0, 12], &addresses].concat()
}

#[test]
fn haproxy_passes_tcp_on_to_two_workers_which_record_the_clients_own_address() -> anyhow::Result<()> {
    need_namespace!();
    need_program!(ExampleBalancer::HAPROXY);
    need_program!("curl");
    site::run(NETWORKS, async |site| {
        let mut bed = ClusterBed::start(site, Stack::builder()).await?;
        bed.start_workers(&[], true).await?;
        let [worker, _] = bed.behind()?;
        let balancer = ExampleBalancer::haproxy_tcp(DMZ, bed.behind()?).await?;
        bed.change(json!({"advertise": balancer.address().to_string()})).await?;
        let local = bed.stack.user().connect("db").await?;
        bed.carries(local).await?;
        bed.client_reaches_only(balancer.address()).await?;
        // A stranger is told nothing, through the balancer as well.
        let page = format!("https://{}/", balancer.address());
        let asking = ["-sk", "-o", "/dev/null", "-w", "%{http_code}", &page];
        assert_eq!(bed.site.network(CLIENT).run("curl", &asking).await?, "404");
        // Only the balancer's word counts, and it has to give one. Who comes from elsewhere is who he is.
        let beside = SocketAddr::new(address(PRIVATE[0], PRIVATE[1]), worker.port());
        let found = Some("404".to_owned());
        assert_eq!(asked(&bed.site, 0, worker, pretence()).await?, found, "the balancer's address");
        assert_eq!(asked(&bed.site, 0, worker, Vec::new()).await?, None, "the balancer's address without a header");
        assert_eq!(asked(&bed.site, PRIVATE[1], beside, pretence()).await?, None, "another address with a header");
        assert_eq!(asked(&bed.site, PRIVATE[1], beside, Vec::new()).await?, found, "another address");
        let client = BTreeSet::from([address(CLIENT, 0)]);
        for (worker, clients) in bed.recorded().await? {
            assert_eq!(clients, client, "as {worker} tells");
        }
        balancer.stop().await?;
        bed.stop().await
    })
}

/// What workers are started with behind a balancer that ends TLS.
const PLAIN: [(&str, &str); 2] = [("POSTERN_TLS_CERT_SOURCE", "none"), ("POSTERN_TLS_CLIENT_AUTH", "none")];

/// An authority, and a server's certificate from it for the DMZ.
fn authority() -> anyhow::Result<(TestAuthority, ServerIdentity)> {
    let authority = TestAuthority::new()?;
    let identity = authority.issue(&DMZ.to_string())?;
    Ok((authority, identity))
}

#[test]
fn haproxy_ends_tls_before_two_workers_and_the_authority_of_the_cluster_vouches_for_it() -> anyhow::Result<()> {
    need_namespace!();
    need_program!(ExampleBalancer::HAPROXY);
    site::run(NETWORKS, async |site| {
        let mut bed = ClusterBed::start(site, Stack::builder()).await?;
        bed.start_workers(&PLAIN, true).await?;
        let (authority, identity) = authority()?;
        let balancer = ExampleBalancer::haproxy_websocket(DMZ, bed.behind()?, &identity).await?;
        let entry = json!({"advertise": balancer.address().to_string(), "carrier": "websocket"});
        bed.change(entry).await?;
        let local = bed.stack.user().connect("db").await?;
        // Nobody on this machine knows the balancer's authority.
        let unknown = |status: &postern_local_api::message::Status| {
            let text = serde_json::to_string(&status.gateways).unwrap_or_default();
            text.contains("no certificate that this machine accepts")
        };
        let refused = bed.site.within(CLIENT, move || async move { client::exchange(local, b"hello").await });
        assert!(refused.await.is_err(), "a certificate of an unknown authority is taken");
        bed.stack.user().status_when(unknown).await?;
        bed.change(json!({"authority": authority.certificate()})).await?;
        bed.carries(local).await?;
        bed.client_reaches_only(balancer.address()).await?;
        let client = BTreeSet::from([address(CLIENT, 0)]);
        for (worker, clients) in bed.recorded().await? {
            assert_eq!(clients, client, "as {worker} tells");
        }
        balancer.stop().await?;
        bed.stop().await
    })
}

#[test]
fn nginx_ends_tls_before_two_workers_and_the_clients_own_roots_vouch_for_it() -> anyhow::Result<()> {
    need_namespace!();
    need_program!(ExampleBalancer::NGINX);
    site::run(NETWORKS, async |site| {
        let (authority, identity) = authority()?;
        let roots = tempfile::NamedTempFile::new()?;
        std::fs::write(roots.path(), authority.certificate())?;
        let path = roots.path().to_str().context("a path in UTF-8")?;
        let builder = Stack::builder().user_environment("SSL_CERT_FILE", path);
        let mut bed = ClusterBed::start(site, builder).await?;
        bed.start_workers(&PLAIN, false).await?;
        let balancer = ExampleBalancer::nginx_websocket(DMZ, bed.behind()?, &identity).await?;
        bed.change(json!({"advertise": balancer.address().to_string(), "carrier": "websocket"})).await?;
        let local = bed.stack.user().connect("db").await?;
        bed.carries(local).await?;
        bed.client_reaches_only(balancer.address()).await?;
        // nginx does not say whose connections it passes on.
        let recorded = bed.recorded().await?;
        for (worker, network) in bed.workers.iter().zip(PRIVATE) {
            let clients = recorded.get(&worker.id().to_string()).context("it has carried")?;
            assert_eq!(*clients, BTreeSet::from([address(0, network)]));
        }
        balancer.stop().await?;
        bed.stop().await
    })
}

/// The certificate that whoever answers at this address shows to the client's network, in PEM.
async fn shown(site: &Site, at: SocketAddr) -> anyhow::Result<String> {
    let page = format!("https://{at}/");
    let asked = ["-sk", "-o", "/dev/null", "-w", "%{http_code}\n%{certs}", &page];
    let shown = site.network(CLIENT).run("curl", &asked).await?;
    anyhow::ensure!(shown.starts_with("404\n"), "{shown}");
    let begin = shown.find("-----BEGIN").context("no certificate")?;
    Ok(shown.get(begin..).unwrap_or_default().trim().to_owned())
}

#[test]
fn workers_take_a_new_certificate_from_their_files_within_a_minute_and_never_a_bad_one() -> anyhow::Result<()> {
    need_namespace!();
    need_program!(ExampleBalancer::HAPROXY);
    need_program!("curl");
    site::run(NETWORKS, async |site| {
        let (authority, first) = authority()?;
        let folder = tempfile::tempdir()?;
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let place = |identity: &ServerIdentity| {
            std::fs::write(&certificate, &identity.certificate)?;
            std::fs::write(&key, &identity.key)
        };
        place(&first)?;
        let path = |path: &std::path::Path| path.to_str().map(str::to_owned).context("a path in UTF-8");
        let files = [
            ("POSTERN_TLS_CERT_SOURCE", "file"),
            ("POSTERN_TLS_CLIENT_AUTH", "none"),
            ("POSTERN_TLS_CERT_FILE", &path(&certificate)?),
            ("POSTERN_TLS_KEY_FILE", &path(&key)?),
        ];
        let mut bed = ClusterBed::start(site, Stack::builder()).await?;
        bed.start_workers(&files, true).await?;
        let balancer = ExampleBalancer::haproxy_tcp(DMZ, bed.behind()?).await?;
        let at = balancer.address();
        let entry = json!({"advertise": at.to_string(), "carrier": "websocket", "authority": authority.certificate()});
        bed.change(entry).await?;
        let local = bed.stack.user().connect("db").await?;
        bed.carries(local).await?;
        assert_eq!(shown(&bed.site, at).await?, first.certificate.trim());
        let said = async |words: &str| {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !bed.workers.iter().all(|worker| worker.log().contains(words)) {
                anyhow::ensure!(Instant::now() < deadline, "not all workers say: {words}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            anyhow::Ok(())
        };

        let second = authority.issue(&DMZ.to_string())?;
        place(&second)?;
        said("the certificate is another one now").await?;
        for _ in 0..4 {
            assert_eq!(shown(&bed.site, at).await?, second.certificate.trim());
        }
        bed.carries(local).await?;

        // A certificate without its key: half of a change, or a mistake.
        std::fs::write(&certificate, authority.issue(&DMZ.to_string())?.certificate)?;
        said("the certificate before stays in use").await?;
        for _ in 0..4 {
            assert_eq!(shown(&bed.site, at).await?, second.certificate.trim());
        }
        bed.carries(local).await?;
        bed.recorded().await?;
        balancer.stop().await?;
        bed.stop().await
    })
}
