//! What everybody may point at a gateway's port, and at a worker's: slow clients (slowhttptest) and a scanner of TLS (testssl.sh). A slow client
//! takes nobody's place, and the scanner finds nothing but what is meant so.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_local_api::message::ResourceStatus;
use postern_proto::resource::Kind;
use postern_tests::{
    authority::TestAuthority,
    client,
    command::{PATIENCE, run},
    figure, need_program,
    stack::{Stack, Worker},
    target::{Behaviour, Target},
};
use serde_json::{Value, json};

/// The ways of slowhttptest to be slow: headers, body, reading.
const SLOW: [&str; 3] = ["-H", "-B", "-X"];
/// What testssl.sh finds and we mean so: the beginning of a finding's name, and why.
const MEANT: [(&str, &str); 7] = [
    ("cert_chain_of_trust", "nodes have certificates of the organisation's own authority, which clients are given"),
    ("cert_trust", "certificates name the node and not the address that it was reached at"),
    (
        "cert_revocation",
        "a node certificate lives for seven days; one that is revoked is told to everybody by the control plane",
    ),
    ("cert_expirationStatus", "it lives for seven days and is renewed by itself"),
    ("cert_notAfter", "the same"),
    ("DNS_CAArecord", "no public authority gives certificates for it"),
    ("engine_problem", "it is about the machine that scans"),
];

/// Whose port is looked at: of a gateway (5000), or of a worker (8443) by where its outer certificate is from.
#[derive(Clone, Copy, Debug)]
enum Place {
    Gateway,
    WorkerOfPostern,
    WorkerOfFile,
}

/// Everything that runs.
struct Bed {
    _target: Target,
    stack: Stack,
    worker: Option<Worker>,
    door: SocketAddr,
    /// Where the resource behind it appears.
    address: SocketAddr,
}

impl Bed {
    async fn start(place: Place) -> anyhow::Result<Self> {
        let target = Target::start(Behaviour::Echo).await?;
        let builder = Stack::builder().resource("echo", Kind::Tcp, target.address());
        if matches!(place, Place::Gateway) {
            let stack = builder.start().await?;
            let door = stack.gateways.first().context("no gateway")?.address();
            let address = stack.user().connect("echo").await?;
            return Self { _target: target, stack, worker: None, door, address }.works().await;
        }
        let stack = builder.gateways(0).start().await?;
        let cluster = stack.create_cluster("eu", SocketAddr::from(([127, 0, 0, 1], 1))).await?;
        let key = stack.create_key(cluster).await?;
        let (worker, authority) = match place {
            Place::WorkerOfFile => {
                let authority = TestAuthority::new()?;
                let identity = authority.issue("127.0.0.1")?;
                let [certificate, file] = ["certificate.pem", "key.pem"].map(|name| stack.folder().join(name));
                std::fs::write(&certificate, identity.certificate)?;
                std::fs::write(&file, identity.key)?;
                let text = |path: &Path| path.to_str().map(str::to_owned).context("a path in UTF-8");
                let (certificate, file) = (text(&certificate)?, text(&file)?);
                let environment = [
                    ("POSTERN_TLS_CERT_SOURCE", "file"),
                    ("POSTERN_TLS_CERT_FILE", certificate.as_str()),
                    ("POSTERN_TLS_KEY_FILE", file.as_str()),
                ];
                let worker = stack.start_worker_with("worker", &key, &environment).await?;
                (worker, Some(authority.certificate()))
            }
            Place::Gateway | Place::WorkerOfPostern => (stack.start_worker("worker", &key).await?, None),
        };
        let door = worker.listens();
        let carrier = if authority.is_some() { "websocket" } else { "direct" };
        let entry = json!({"advertise": door.to_string(), "carrier": carrier, "authority": authority});
        stack.api().patch(&format!("/api/v1/clusters/{cluster}"), entry).await?;
        let resource = stack.resource("echo").await?;
        stack.api().patch(&format!("/api/v1/resources/{resource}"), json!({"cluster": cluster})).await?;
        let leads = |status: &ResourceStatus| status.route.as_ref().is_some_and(|route| !route.hops.is_empty());
        stack.user().resource_when("echo", leads).await?;
        let address = stack.user().connect("echo").await?;
        Self { _target: target, stack, worker: Some(worker), door, address }.works().await
    }

    async fn works(self) -> anyhow::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        while !client::exchange(self.address, b"hello").await.is_ok_and(|answer| answer == b"hello") {
            anyhow::ensure!(Instant::now() < deadline, "no stream goes through");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(self)
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(worker) = &mut self.worker {
            worker.stop().await?;
        }
        self.stack.stop().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_take_nobodys_place_at_a_gateway() -> anyhow::Result<()> {
    need_program!("slowhttptest");
    is_slow_proof(Place::Gateway, &SLOW).await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_take_nobodys_place_at_a_worker() -> anyhow::Result<()> {
    need_program!("slowhttptest");
    is_slow_proof(Place::WorkerOfPostern, &SLOW).await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_take_nobodys_place_at_a_worker_with_a_certificate_from_a_file() -> anyhow::Result<()> {
    need_program!("slowhttptest");
    is_slow_proof(Place::WorkerOfFile, &SLOW).await
}

async fn is_slow_proof(place: Place, ways: &[&'static str]) -> anyhow::Result<()> {
    let bed = Bed::start(place).await?;
    for way in ways {
        let url = format!("https://{}/", bed.door);
        let mut slow = tokio::process::Command::new("slowhttptest");
        slow.args([way, "-c", "800", "-r", "400", "-i", "2", "-l", "5", "-p", "5", "-u", &url]);
        let attack = tokio::spawn(async move { run(&mut slow, PATIENCE).await });
        let (mut times, mut streams) = (Vec::new(), Vec::new());
        while !attack.is_finished() {
            let begun = Instant::now();
            // Kept open, so that the next one needs a connection of its own.
            streams.push(client::open(bed.address).await.with_context(|| format!("{way}: a good client"))?);
            times.push(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let output = attack.await??;
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(said.contains("service available:"), "slowhttptest says nothing: {said}");
        assert!(!plain(&said).contains("service available:   NO"), "{way}: {said}");
        figure::times(&format!("slowhttptest {way}, {place:?}: a good client's new connection"), &mut times);
    }
    assert_eq!(client::exchange(bed.address, b"after").await?, b"after");
    bed.stop().await
}

/// Without the colours of a terminal.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scanner_of_tls_finds_nothing_at_a_gateway_but_what_is_meant_so() -> anyhow::Result<()> {
    need_program!("testssl");
    let bed = Bed::start(Place::Gateway).await?;
    scan(bed.door, bed.stack.folder(), Place::Gateway).await?;
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scanner_of_tls_finds_nothing_at_a_worker_but_what_is_meant_so() -> anyhow::Result<()> {
    need_program!("testssl");
    let bed = Bed::start(Place::WorkerOfPostern).await?;
    scan(bed.door, bed.stack.folder(), Place::WorkerOfPostern).await?;
    bed.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scanner_of_tls_finds_nothing_at_a_worker_with_a_certificate_from_a_file_but_what_is_meant_so()
-> anyhow::Result<()> {
    need_program!("testssl");
    let bed = Bed::start(Place::WorkerOfFile).await?;
    scan(bed.door, bed.stack.folder(), Place::WorkerOfFile).await?;
    bed.stop().await
}

/// Scans one port, and fails with what was found.
async fn scan(door: SocketAddr, folder: &Path, place: Place) -> anyhow::Result<()> {
    let file = folder.join("testssl.json");
    let mut testssl = tokio::process::Command::new("testssl");
    // Protocols, ciphers, forward secrecy, the server's preferences and defaults, and all known weaknesses.
    testssl.args([
        "--quiet",
        "--color",
        "0",
        "--warnings",
        "off",
        "--nodns",
        "none",
        "-p",
        "-s",
        "-f",
        "-P",
        "-S",
        "-U",
    ]);
    testssl.arg("--jsonfile").arg(&file).arg(door.to_string());
    let output = run(&mut testssl, Duration::from_secs(240)).await?;
    let text = std::fs::read_to_string(&file).with_context(|| format!("{}{}", output.stdout, output.stderr))?;
    let findings: Vec<Value> = serde_json::from_str(&text)?;
    let field = |finding: &Value, name: &str| finding.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let found: Vec<[String; 3]> =
        findings.iter().map(|finding| ["id", "severity", "finding"].map(|name| field(finding, name))).collect();
    // The scan was one.
    let said = |id: &str| found.iter().find(|[name, ..]| name == id).map(|[.., text]| text.clone());
    assert!(said("TLS1_3").is_some_and(|text| text.starts_with("offered")), "{found:?}");
    for old in ["SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2"] {
        assert!(said(old).is_some_and(|text| text.contains("not offered")), "{old}: {:?}", said(old));
    }
    let mut wrong = Vec::new();
    for [id, severity, finding] in &found {
        if matches!(severity.as_str(), "OK" | "INFO" | "DEBUG") {
            continue;
        }
        let of_file = matches!(place, Place::WorkerOfFile) && id.starts_with("cert_");
        let of_file = of_file.then_some(("", "whoever gives the file answers for what is in it"));
        match MEANT.iter().copied().find(|(name, _)| id.starts_with(name)).or(of_file) {
            Some((_, why)) => {
                figure::say(&format!("testssl.sh, {place:?}: {id} ({severity}): {finding}; meant so: {why}"))
            }
            None => wrong.push(format!("{id} ({severity}): {finding}")),
        }
    }
    assert!(wrong.is_empty(), "testssl.sh found:\n{}", wrong.join("\n"));
    figure::say(&format!("testssl.sh, {place:?}: {} findings, nothing that is not meant so", found.len()));
    Ok(())
}
