//! What everybody may point at a gateway's port: slow clients (slowhttptest) and a scanner of TLS (testssl.sh). A slow client
//! takes nobody's place, and the scanner finds nothing but what is meant so.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    client,
    command::{PATIENCE, run},
    figure, need_program,
    stack::Stack,
    target::{Behaviour, Target},
};
use serde_json::Value;

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

async fn started() -> anyhow::Result<(Target, Stack, SocketAddr)> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    assert_eq!(client::exchange(address, b"before").await?, b"before");
    Ok((target, stack, address))
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_take_nobodys_place_at_a_gateway() -> anyhow::Result<()> {
    need_program!("slowhttptest");
    let (target, stack, address) = started().await?;
    let door = stack.gateways.first().context("no gateway")?.address();
    for way in SLOW {
        let url = format!("https://{door}/");
        let mut slow = tokio::process::Command::new("slowhttptest");
        slow.args([way, "-c", "800", "-r", "400", "-i", "2", "-l", "5", "-p", "5", "-u", &url]);
        let attack = tokio::spawn(async move { run(&mut slow, PATIENCE).await });
        let (mut times, mut streams) = (Vec::new(), Vec::new());
        while !attack.is_finished() {
            let begun = Instant::now();
            // Kept open, so that the next one needs a connection of its own.
            streams.push(client::open(address).await.with_context(|| format!("{way}: a good client"))?);
            times.push(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let output = attack.await??;
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(said.contains("service available:"), "slowhttptest says nothing: {said}");
        assert!(!plain(&said).contains("service available:   NO"), "{way}: {said}");
        figure::times(&format!("slowhttptest {way}: a good client's new connection"), &mut times);
    }
    assert_eq!(client::exchange(address, b"after").await?, b"after");
    drop(target);
    stack.stop().await
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
    let (target, stack, _) = started().await?;
    let door = stack.gateways.first().context("no gateway")?.address();
    scan(door, stack.folder()).await?;
    drop(target);
    stack.stop().await
}

/// Scans one port, and fails with what was found.
async fn scan(door: SocketAddr, folder: &Path) -> anyhow::Result<()> {
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
        match MEANT.iter().find(|(name, _)| id.starts_with(name)) {
            Some((_, why)) => figure::say(&format!("testssl.sh: {id} ({severity}): {finding}; meant so: {why}")),
            None => wrong.push(format!("{id} ({severity}): {finding}")),
        }
    }
    assert!(wrong.is_empty(), "testssl.sh found:\n{}", wrong.join("\n"));
    figure::say(&format!("testssl.sh: {} findings, nothing that is not meant so", found.len()));
    Ok(())
}
