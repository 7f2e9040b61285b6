//! What a gateway must not fall for: peers without a right certificate, heads and frames that are wrong, leases that are
//! not theirs. "Nothing gets through" means that the resource saw not one byte and that no session was begun.

use std::time::Duration;

use anyhow::Context as _;
use postern_proto::{
    id::{ResourceId, StreamId},
    resource::Kind,
};
use postern_tests::{
    api::Identity,
    carrier::{Carrier, DATA, END, HEAD, REPLY, RESET, Received, frame, head, new_stream},
    command::{PATIENCE, run},
    device::Device,
    figure, need_program,
    stack::{EMAIL, PASSWORD, Stack},
    target::{Behaviour, Target},
};

const SETTLE: Duration = Duration::from_millis(300);

/// A gateway, a resource behind it, and a device that may reach it.
struct Scene {
    stack: Stack,
    target: Target,
    device: Device,
    resource: ResourceId,
    lease: String,
}

impl Scene {
    async fn start() -> anyhow::Result<Self> {
        let target = Target::start(Behaviour::Echo).await?;
        let stack = Stack::builder().without_user().resource("echo", Kind::Tcp, target.address()).start().await?;
        let device = Device::with_password(stack.control.address(), EMAIL, PASSWORD).await?;
        let resource = stack.resource("echo").await?;
        let lease = device.lease(resource).await?.token;
        Ok(Self { stack, target, device, resource, lease })
    }

    async fn dial(&self) -> anyhow::Result<Carrier> {
        let gateway = self.stack.gateways.first().context("no gateway")?;
        Carrier::dial(gateway.address(), gateway.id(), &self.device.ca.certificate, &self.device.identity).await
    }

    fn head(&self) -> String {
        head(self.resource, &self.lease, new_stream())
    }

    /// The honest way works: without this, "nothing gets through" would prove nothing.
    async fn works(&self) -> anyhow::Result<()> {
        let mut carrier = self.dial().await?;
        let reply = carrier.open(&self.head()).await?.context("the gateway closed")?;
        anyhow::ensure!(reply.status == 200, "{}", reply.text);
        carrier.send(DATA, b"good").await?;
        let (bytes, complete) = carrier.finish().await?;
        anyhow::ensure!(bytes == b"good" && complete, "{bytes:?} {complete}");
        Ok(())
    }

    /// Checks that nothing but the checks of the gateway's own has reached the resource: no further byte, and no session
    /// but those that worked. (A health check is a connection without a byte.)
    async fn untouched(&self, bytes: u64, sessions: usize) -> anyhow::Result<()> {
        tokio::time::sleep(SETTLE).await;
        assert_eq!(self.target.bytes(), bytes, "bytes reached the resource: {}", self.target.received());
        let records = self.stack.sessions_when(|records| records.len() >= sessions).await?;
        assert_eq!(records.len(), sessions, "{records:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_heads_open_nothing() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    scene.works().await?;
    let bytes = scene.target.bytes();
    let good = scene.head();
    let (resource, lease) = (scene.resource, &scene.lease);
    let stream = new_stream().ulid();
    let other = ResourceId::from_ulid(StreamId::ulid(new_stream()));
    let wrong: Vec<(&str, String)> = vec![
        ("another method", good.replacen("CONNECT", "GET", 1)),
        ("another version", good.replacen("HTTP/1.1", "HTTP/1.0", 1)),
        ("another port", good.replacen(":0 ", ":22 ", 1)),
        ("a host for a resource", good.replacen(&format!("{resource}:0"), "127.0.0.1:22", 1)),
        ("an unknown resource", good.replacen(&resource.to_string(), &other.to_string(), 1)),
        ("a resource in lower case", good.replacen(&resource.to_string(), &resource.to_string().to_lowercase(), 1)),
        ("no lease", good.replacen(&format!("Postern-Lease: {lease}\r\n"), "", 1)),
        ("an empty lease", good.replacen(lease.as_str(), "", 1)),
        ("two leases", good.replacen("Postern-Stream", &format!("Postern-Lease: {lease}\r\nPostern-Stream"), 1)),
        ("no stream", good.replacen("Postern-Stream", "Stream", 1)),
        (
            "a stream that is no ULID",
            format!("CONNECT {resource}:0 HTTP/1.1\r\nHost: g\r\nPostern-Lease: {lease}\r\nPostern-Stream: 1\r\n\r\n"),
        ),
        (
            "no host",
            format!("CONNECT {resource}:0 HTTP/1.1\r\nPostern-Lease: {lease}\r\nPostern-Stream: {stream}\r\n\r\n"),
        ),
        ("bare line ends", good.replace("\r\n", "\n")),
        ("no end", good.trim_end().to_owned()),
        ("something after the end", format!("{good}{good}")),
        ("a body", good.replacen("Host:", "Content-Length: 4\r\nHost:", 1) + "EVIL"),
        ("a chunked body", good.replacen("Host:", "Transfer-Encoding: chunked\r\nHost:", 1) + "4\r\nEVIL\r\n0\r\n\r\n"),
        ("a continued line", good.replacen("Host: gateway", "Host: gateway\r\n folded", 1)),
        ("a zero byte", good.replacen("gateway", "gate\0way", 1)),
        ("too many headers", good.replacen("Host:", &("X: y\r\n".repeat(200) + "Host:"), 1)),
        ("garbage", "\u{1}\u{2}\u{3}".repeat(100)),
        ("a long line", "A".repeat(16_000)),
    ];
    for (what, text) in wrong {
        let mut carrier = scene.dial().await?;
        if let Some(reply) = carrier.open(&text).await.with_context(|| format!("head with {what}"))? {
            assert!(reply.status >= 400, "a head with {what} got {}", reply.text);
        }
        // Whatever follows goes nowhere either.
        let _ = carrier.send(DATA, b"EVIL").await;
    }
    scene.untouched(bytes, 1).await?;
    scene.works().await?;
    scene.stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_frames_open_nothing_and_never_look_complete() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    scene.works().await?;
    let bytes = scene.target.bytes();
    let head = frame(HEAD, scene.head().as_bytes());
    let wrong: Vec<(&str, Vec<u8>)> = vec![
        ("data before any head", frame(DATA, b"EVIL")),
        ("an end before any head", frame(END, b"")),
        ("a reply from the client", frame(REPLY, b"HTTP/1.1 200 OK\r\n\r\n")),
        ("type 0", frame(0, b"EVIL")),
        ("type 255", frame(255, b"EVIL")),
        ("an empty head", frame(HEAD, b"")),
        ("a head as long as 24 bits can say", vec![HEAD, 0xff, 0xff, 0xff]),
        ("a head longer than allowed", frame(HEAD, &vec![b'A'; 17 * 1024])),
        ("plain HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("plain HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("random bytes", postern_tests::content::bytes(99, 4096)),
    ];
    for (what, bytes) in wrong {
        let mut carrier = scene.dial().await?;
        carrier.send_raw(&bytes).await.with_context(|| what.to_owned())?;
        // A well-formed head after the fault must not help; where it does, there was no fault.
        let _ = carrier.send_raw(&head).await;
        let _ = carrier.send(DATA, b"EVIL").await;
        if let Received::Frame(kind, payload) = carrier.receive().await.with_context(|| what.to_owned())? {
            let text = String::from_utf8_lossy(&payload);
            assert!(kind == RESET || (kind == REPLY && !text.starts_with("HTTP/1.1 200")), "{what}: {kind} {text}");
        }
    }
    scene.untouched(bytes, 1).await?;

    // After an accepted head: the stream breaks off, and the gateway never says that it was complete.
    let wrong: Vec<(&str, Vec<u8>)> = vec![
        ("empty data", frame(DATA, b"")),
        ("data longer than allowed", vec![DATA, 0x10, 0, 0]),
        ("an end with a payload", frame(END, b"EVIL")),
        ("a second head", head.clone()),
        ("type 9", frame(9, b"EVIL")),
        ("data after the end", [frame(END, b""), frame(DATA, b"EVIL")].concat()),
    ];
    for (what, bytes) in wrong {
        let mut carrier = scene.dial().await?;
        let reply = carrier.open(&scene.head()).await?.context("the gateway closed")?;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let _ = carrier.send_raw(&bytes).await;
        let mut received = carrier.receive().await.with_context(|| what.to_owned())?;
        // "data after the end" may see the proper end of the echo server's direction first.
        if what.starts_with("data after") && received == Received::Frame(END, Vec::new()) {
            received = carrier.receive().await?;
        }
        let broken = matches!(&received, Received::Closed | Received::Frame(RESET, _));
        assert!(broken, "{what}: {received:?}");
    }
    tokio::time::sleep(SETTLE).await;
    assert!(!scene.target.received().contains("EVIL"), "{}", scene.target.received());
    scene.works().await?;
    scene.stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_at_any_frame_reaches_the_resource_as_a_reset() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Count).await?;
    let stack = Stack::builder().without_user().resource("count", Kind::Tcp, target.address()).start().await?;
    let device = Device::with_password(stack.control.address(), EMAIL, PASSWORD).await?;
    let resource = stack.resource("count").await?;
    let lease = device.lease(resource).await?.token;
    let gateway = &stack.gateways[0];
    for cut in [0, 1, 3, 4, 5, 500, 1003] {
        let mut carrier =
            Carrier::dial(gateway.address(), gateway.id(), &device.ca.certificate, &device.identity).await?;
        let reply = carrier.open(&head(resource, &lease, new_stream())).await?.context("the gateway closed")?;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let whole = frame(DATA, &[b'x'; 1000]);
        carrier.send_raw(&whole[..cut]).await?;
        drop(carrier);
    }
    // The server answers only to a complete message; after a reset it has nobody to answer to and reads no end.
    target.wait_open(0, Duration::from_secs(10)).await?;
    let ended_well = |sessions: &[serde_json::Value]| sessions.iter().filter(|s| !s["ended_at"].is_null()).count() == 7;
    let sessions = stack.sessions_when(ended_well).await?;
    assert_eq!(sessions.len(), 7);
    for session in sessions {
        assert_ne!(session["reason"], "closed", "a cut stream was recorded as complete: {session}");
    }
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_others_open_nothing() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    scene.works().await?;
    let bytes = scene.target.bytes();

    // The same account on another device, and another organisation altogether.
    let second = Device::with_password(scene.stack.control.address(), EMAIL, PASSWORD).await?;
    let elsewhere = Stack::builder().without_user().resource("echo", Kind::Tcp, scene.target.address()).start().await?;
    let stranger = Device::with_password(elsewhere.control.address(), EMAIL, PASSWORD).await?;
    let stranger_lease = stranger.lease(elsewhere.resource("echo").await?).await?.token;
    let not_granted = scene.stack.create_resource("other", Kind::Tcp, scene.target.address()).await?;
    let denied = scene.device.leases(&[not_granted]).await?;
    assert!(denied.leases.is_empty() && denied.denied == [not_granted], "a lease for what was not granted");

    let (body, signature) = scene.lease.split_at(scene.lease.len() - 40);
    let tampered = format!("{body}{}", flip(signature));
    let mut changed_claims = scene.lease.clone();
    changed_claims.replace_range(60..61, if &changed_claims[60..61] == "A" { "B" } else { "A" });
    let own_key = forged(&scene)?;
    let leases = [
        ("of another device of the same account", second.lease(scene.resource).await?.token),
        ("of another organisation", stranger_lease),
        ("with another signature", tampered),
        ("with other claims", changed_claims),
        ("signed by the client itself", own_key),
        ("that is cut short", body.to_owned()),
        ("that is empty but for its version", "v4.public.".to_owned()),
        ("of another version", scene.lease.replacen("v4.public", "v3.public", 1)),
        ("of another purpose", scene.lease.replacen("v4.public", "v4.local", 1)),
    ];
    for (what, lease) in leases {
        let mut carrier = scene.dial().await?;
        let reply = carrier.open(&head(scene.resource, &lease, new_stream())).await?;
        if let Some(reply) = reply {
            assert!([400, 401, 403].contains(&reply.status), "a lease {what}: {}", reply.text);
            figure::say(&format!("a lease {what}: {} {}", reply.status, reply.code));
        }
        let _ = carrier.send(DATA, b"EVIL").await;
    }
    // A lease for one resource does not open another.
    let mut carrier = scene.dial().await?;
    let reply = carrier.open(&head(not_granted, &scene.lease, new_stream())).await?.context("closed")?;
    assert!([403, 404].contains(&reply.status), "{}", reply.text);

    scene.untouched(bytes, 1).await?;
    scene.works().await?;
    elsewhere.stop().await?;
    scene.stack.stop().await
}

/// Another last digit of each byte: a signature that is well-formed and wrong.
fn flip(text: &str) -> String {
    text.chars().map(|letter| if letter == 'A' { 'B' } else { 'A' }).collect()
}

/// A lease with the right claims, signed by a key of the client's own under the name of the control plane's.
fn forged(scene: &Scene) -> anyhow::Result<String> {
    use postern_proto::lease::Verifier;
    let (_, payload) = scene.lease.split_once("v4.public.").context("not a v4.public token")?;
    let (_, footer) = payload.split_once('.').context("no footer that names the key")?;
    let key_id = String::from_utf8(decode(footer)?)?;
    let pair = aws_lc_rs::signature::Ed25519KeyPair::generate()?;
    let seed =
        aws_lc_rs::encoding::AsBigEndian::<aws_lc_rs::encoding::Curve25519SeedBin<'_>>::as_be_bytes(&pair.seed()?)?;
    let public = aws_lc_rs::signature::KeyPair::public_key(&pair).as_ref().to_vec();
    let secret = [seed.as_ref(), public.as_slice()].concat();
    let signer = postern_proto::lease::Signer::new(key_id.as_str(), &secret)?;
    let claims: postern_proto::lease::Claims = serde_json::from_slice(&claims_of(&scene.lease)?)?;
    let forged = signer.sign(&claims)?;
    // The forgery is good in itself: a node that took our key for the control plane's would let it in.
    Verifier::new([(key_id.as_str(), public.as_slice())]).open(&forged)?;
    Ok(forged)
}

/// The claims of a token, without a look at its signature (the last 64 bytes).
fn claims_of(token: &str) -> anyhow::Result<Vec<u8>> {
    let payload = token.split('.').nth(2).context("no payload")?;
    let mut bytes = decode(payload)?;
    bytes.truncate(bytes.len().saturating_sub(64));
    Ok(bytes)
}

fn decode(text: &str) -> anyhow::Result<Vec<u8>> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    Ok(URL_SAFE_NO_PAD.decode(text)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_worth_nothing_after_its_grant_was_taken_away() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    scene.works().await?;
    scene.stack.revoke_all().await?;
    let mut warm = scene.dial().await?;
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    let mut opened = 1;
    let status = loop {
        // Refused on every connection, old or new, as soon as the gateway was told.
        let reply = scene.dial().await?.open(&scene.head()).await?.map_or(0, |reply| reply.status);
        if reply != 200 || std::time::Instant::now() > deadline {
            break reply;
        }
        // The gateway was not told yet: a session like any other, cut when it is.
        opened += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!([401, 403].contains(&status), "the lease still opens: {status}");
    let bytes = scene.target.bytes();
    let reply = warm.open(&scene.head()).await?.context("closed")?;
    assert!([401, 403].contains(&reply.status), "{}", reply.text);
    for _ in 0..20 {
        let reply = scene.dial().await?.open(&scene.head()).await?.context("closed")?;
        assert!([401, 403].contains(&reply.status), "{}", reply.text);
    }
    assert!(scene.device.leases(&[scene.resource]).await?.leases.is_empty(), "a new lease was given");
    scene.untouched(bytes, opened).await?;
    scene.stack.stop().await
}

/// The gateway's clock is moved on, so that a lease of today is one of the past: 401, which a client may cure by a new one.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_lease_or_certificate_opens_nothing() -> anyhow::Result<()> {
    need_program!("faketime");
    let mut scene = Scene::start().await?;
    scene.works().await?;
    let bytes = scene.target.bytes();
    let library =
        run(tokio::process::Command::new("faketime").args(["-f", "+0s", "printenv", "LD_PRELOAD"]), PATIENCE).await?;
    let library = library.success()?.trim().to_owned();
    let gateway = &mut scene.stack.gateways[0];
    gateway.stop().await?;
    for (name, value) in [("LD_PRELOAD", library.as_str()), ("FAKETIME", "+20m"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]
    {
        gateway.set_environment(name, value);
    }
    gateway.restart().await?;
    for _ in 0..10 {
        let reply = scene.dial().await?.open(&scene.head()).await?.context("closed")?;
        assert_eq!(reply.status, 401, "{}", reply.text);
    }

    // A day later the device's certificate has ended too, and the handshake fails.
    let gateway = &mut scene.stack.gateways[0];
    gateway.stop().await?;
    gateway.set_environment("FAKETIME", "+13h");
    gateway.restart().await?;
    if let Ok(mut carrier) = scene.dial().await {
        let opened = carrier.open(&scene.head()).await;
        assert!(matches!(opened, Err(_) | Ok(None)), "an expired certificate: {opened:?}");
    }
    scene.untouched(bytes, 1).await?;
    scene.stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_others_open_nothing() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    scene.works().await?;
    let bytes = scene.target.bytes();
    let elsewhere = Stack::builder().without_user().resource("echo", Kind::Tcp, scene.target.address()).start().await?;
    let stranger = Device::with_password(elsewhere.control.address(), EMAIL, PASSWORD).await?;
    let identities = [
        ("of another organisation", Some(stranger.identity.clone())),
        ("made by the client itself", Some(self_signed(&scene)?)),
        ("signed by a CA of the same name", Some(signed_by_impostor(&scene)?)),
        ("that is none", None),
    ];
    for (what, identity) in identities {
        let gateway = scene.stack.gateways[0].address();
        // TLS 1.3: the server's refusal may arrive only with the first read.
        let Ok(mut carrier) = Carrier::dial_blindly(gateway, identity.as_ref()).await else { continue };
        let opened = carrier.open(&scene.head()).await;
        let refused = opened.as_ref().is_ok_and(Option::is_none) || opened.is_err();
        assert!(refused, "a certificate {what}: {opened:?}");
        let _ = carrier.send(DATA, b"EVIL").await;
    }
    scene.untouched(bytes, 1).await?;
    scene.works().await?;
    elsewhere.stop().await?;
    scene.stack.stop().await
}

/// The names of the device's own certificate.
fn device_params(scene: &Scene) -> anyhow::Result<rcgen::CertificateParams> {
    let mut params = rcgen::CertificateParams::default();
    let uri = format!("postern://{}/account/{}/device/{}", scene.device.org, scene.device.account, scene.device.id);
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into()?)];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn self_signed(scene: &Scene) -> anyhow::Result<Identity> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = device_params(scene)?.self_signed(&key)?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A CA with the subject of the real one and a key of its own.
fn signed_by_impostor(scene: &Scene) -> anyhow::Result<Identity> {
    let authority_key = rcgen::KeyPair::generate()?;
    let impostor = rcgen::Issuer::from_ca_cert_pem(&scene.device.ca.certificate, authority_key)?;
    let key = rcgen::KeyPair::generate()?;
    let certificate = device_params(scene)?.signed_by(&key, &impostor)?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A node's certificate is no device's: it cannot open streams, and a device's cannot pose as a node.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_cannot_pose_as_a_gateway() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    // A server that shows the device's certificate where the gateway is expected.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let identity = scene.device.identity.clone();
    let server = tokio::spawn(async move {
        let acceptor = postern_tests::carrier::acceptor(&identity)?;
        let (stream, _) = listener.accept().await?;
        anyhow::Ok(acceptor.accept(stream).await.is_ok())
    });
    let node = scene.stack.gateways[0].id();
    let dialled = Carrier::dial(address, node, &scene.device.ca.certificate, &scene.device.identity).await;
    assert!(dialled.is_err(), "a client took a device for a gateway");
    assert!(!server.await??, "the handshake with a false gateway was finished");
    scene.stack.stop().await
}

/// Who has no certificate is told nothing: 404 to everything, over HTTP/1.1 and HTTP/2.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_not_found() -> anyhow::Result<()> {
    need_program!("curl");
    let stack = Stack::builder().without_user().start().await?;
    let gateway = stack.gateways[0].address();
    for version in ["--http1.1", "--http2"] {
        for path in ["/", "/api/v1/login", "/metrics", "/.well-known/acme-challenge/x", "/%2e%2e/"] {
            for method in ["GET", "POST", "CONNECT", "OPTIONS"] {
                let mut curl = tokio::process::Command::new("curl");
                curl.args(["-sk", "--noproxy", "*", "--path-as-is", version, "--request", method, "--max-time", "20"]);
                curl.args(["--write-out", "%{http_code} %{http_version} %{size_download}", "--output", "/dev/null"]);
                curl.arg(format!("https://{gateway}{path}"));
                let output = run(&mut curl, PATIENCE).await?;
                let text = output.stdout.trim().to_owned();
                let wanted = if version == "--http2" { "404 2" } else { "404 1.1" };
                // CONNECT is no request that every client can send over HTTP/2; it must just not be answered with 2xx.
                let fine = text.starts_with(wanted) || (method == "CONNECT" && !text.starts_with('2'));
                assert!(fine, "{method} {path} {version}: {text} {}", output.stderr);
            }
        }
    }
    stack.stop().await
}

/// TLS 1.3 or nothing.
#[tokio::test(flavor = "multi_thread")]
async fn old_tls_is_refused() -> anyhow::Result<()> {
    need_program!("curl");
    let stack = Stack::builder().without_user().start().await?;
    let gateway = stack.gateways[0].address();
    for version in ["1.0", "1.1", "1.2"] {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["-sk", "--noproxy", "*", "--max-time", "20", "--tls-max", version, "--output", "/dev/null"]);
        let output = run(curl.arg(format!("https://{gateway}/")), PATIENCE).await?;
        // 35: the handshake failed.
        assert_eq!(output.status.code(), Some(35), "TLS {version}: {} {}", output.stdout, output.stderr);
    }
    stack.stop().await
}
