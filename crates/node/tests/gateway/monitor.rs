//! Liveness and metrics, as orchestrators and Prometheus read them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use postern_proto::sync::DrainOrder;
use postern_tunnel::stream::EndCause;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    bench::{Control, Device, Running, Stream, echo, now, until, within},
    openmetrics,
    skip::skip,
};

/// What a strict parser of another maker says of a text: each sample as `name{labels}` with its value.
const JUDGE: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        print(sample.name + ''.join(sorted('|%s=%s' % pair for pair in sample.labels.items())), sample.value)
";

struct Watched {
    control: Control,
    gateway: Running,
    device: Device,
    _state: tempfile::TempDir,
}

impl Watched {
    async fn start() -> Self {
        let control = Control::start(vec![echo(1).await]).await;
        let state = tempfile::tempdir().unwrap();
        let options = ["--enrol-token", "token", "--liveness", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
        let gateway = Running::try_start(&control, &state, &options).await.unwrap();
        let device = Device::new(&control.ca, 1);
        Self { control, gateway, device, _state: state }
    }

    async fn open(&self, lease: &str) -> Stream {
        Stream::open(&self.device.entry(self.gateway.ready.listen), 1, lease).await
    }

    async fn liveness(&self) -> (u16, serde_json::Value) {
        let (status, body) = get(self.gateway.ready.monitor.liveness.unwrap(), "/liveness").await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn metrics(&self) -> String {
        let (status, body) = get(self.gateway.ready.monitor.metrics.unwrap(), "/metrics").await;
        assert_eq!(status, 200);
        body
    }
}

pub(crate) async fn get(at: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: n\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// The value of a sample, by its name and labels as Prometheus writes them.
pub(crate) fn sample(text: &str, name: &str) -> f64 {
    openmetrics::sample(text, name).unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

/// What the judge reads; `None`: it is not installed.
fn judged(text: &str) -> Option<BTreeMap<String, f64>> {
    let judge = |script: &str| {
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        python.spawn()
    };
    let installed = judge("import prometheus_client").ok()?.wait_with_output().ok()?;
    if !installed.status.success() {
        return None;
    }
    let mut python = judge(JUDGE).ok()?;
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let said = python.wait_with_output().unwrap();
    assert!(said.status.success(), "{}\n{text}", String::from_utf8_lossy(&said.stderr));
    let lines = String::from_utf8(said.stdout).unwrap();
    let pair = |line: &str| line.split_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
    Some(lines.lines().filter_map(pair).collect())
}

#[tokio::test]
async fn metrics_count_what_happens_and_another_makers_parser_reads_them() {
    let watched = Watched::start().await;
    let lease = watched.device.lease(1);
    let mut stream = watched.open(&lease).await;
    stream.ping(&[7; 1000]).await.unwrap();
    let text = watched.metrics().await;
    assert_eq!(sample(&text, "postern_streams"), 1.0);
    assert_eq!(sample(&text, "postern_stream_bytes_total{direction=\"up\"}"), 1000.0);
    assert_eq!(stream.close().await, EndCause::Done);
    let EndCause::Refused(problem) = watched.open("v4.public.none").await.ended().await else {
        panic!("it was opened")
    };
    until(|| !watched.control.ends().is_empty()).await;

    let text = watched.metrics().await;
    assert_eq!(sample(&text, "postern_streams"), 0.0);
    assert_eq!(sample(&text, "postern_stream_bytes_total{direction=\"down\"}"), 1000.0);
    assert_eq!(sample(&text, "postern_streams_ended_total{cause=\"closed\"}"), 1.0);
    assert_eq!(sample(&text, &format!("postern_streams_refused_total{{code=\"{}\"}}", problem.code)), 1.0);
    assert_eq!(sample(&text, "postern_dial_seconds_count"), 1.0);
    assert!(sample(&text, "postern_handshakes_total{outcome=\"accepted\"}") >= 1.0);
    assert_eq!(sample(&text, "postern_draining"), 0.0);
    assert_eq!(sample(&text, "postern_control_plane_connected"), 1.0);
    assert!(sample(&text, "postern_certificate_left_seconds") > 3000.0);
    for name in ["echo-1", "res_", "acc_", "dev_"] {
        assert!(!text.contains(name), "{name} is in\n{text}");
    }
    match judged(&text) {
        Some(samples) => {
            assert_eq!(samples["postern_streams_ended_total|cause=closed"], 1.0);
            assert!(samples.keys().any(|name| name.starts_with("postern_build_info|role=gateway")), "{samples:?}");
            assert_eq!(samples["postern_dial_seconds_bucket|le=+Inf"], 1.0);
        }
        None => skip("metrics by another maker's parser", "python3-prometheus-client is not installed"),
    }
    watched.gateway.finish().await;
}

#[tokio::test]
async fn liveness_says_whether_a_node_serves_and_why_not() {
    let watched = Watched::start().await;
    let (status, body) = watched.liveness().await;
    assert_eq!((status, &body["serving"], &body["control_plane"]), (200, &true.into(), &"connected".into()), "{body}");
    let ends = now().plus(Duration::from_secs(100));
    watched.control.order(Some(DrainOrder { ends_at: ends }));
    let (mut status, mut body) = watched.liveness().await;
    while status == 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        (status, body) = watched.liveness().await;
    }
    assert_eq!((status, &body["reasons"]), (503, &serde_json::json!(["draining"])), "{body}");
    assert_eq!(body["drain_ends_at"], ends.0);
    assert_eq!(sample(&watched.metrics().await, "postern_draining"), 1.0);
    let alive = get(watched.gateway.ready.monitor.liveness.unwrap(), "/alive").await;
    assert_eq!(alive, (200, "alive\n".to_owned()));
    watched.gateway.finish().await;
}

#[tokio::test]
async fn a_node_whose_certificate_has_ended_is_not_serving() {
    let control = Control::start(vec![echo(1).await]).await;
    *control.shared.life.lock().unwrap() = Duration::from_secs(3);
    let state = tempfile::tempdir().unwrap();
    let options = ["--enrol-token", "token", "--liveness", "127.0.0.1:0"];
    let gateway = Running::try_start(&control, &state, &options).await.unwrap();
    let mut control = control;
    // No renewal any more.
    control.stop().await;
    let at = gateway.ready.monitor.liveness.unwrap();
    loop {
        let (status, body) = get(at, "/liveness").await;
        if status == 503 {
            assert!(body.contains("certificate_ended"), "{body}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_node_whose_threads_are_all_busy_still_answers() {
    let watched = Watched::start().await;
    let (begun, go) = std::sync::mpsc::channel::<()>();
    let at = watched.gateway.ready.monitor.liveness.unwrap();
    // The only thread of this test's runtime, which runs the gateway too, is held up while another one asks.
    let asking = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        go.recv().unwrap();
        let mut stream = std::net::TcpStream::connect(at).unwrap();
        stream.write_all(b"GET /liveness HTTP/1.1\r\nHost: n\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    begun.send(()).unwrap();
    let answer = asking.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    watched.gateway.finish().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_at_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let control = Control::start(vec![]).await;
    let state = tempfile::tempdir().unwrap();
    let error = Running::try_start(&control, &state, &["--metrics", &at]).await.err().unwrap().to_string();
    assert!(error.contains(&at) && error.contains("metrics"), "{error}");
}
