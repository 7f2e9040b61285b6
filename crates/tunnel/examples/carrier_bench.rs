//! Measures the carrier over loopback beside a plain copying proxy, interleaved in one run, and prints the figures.
//!
//! ```text
//! cargo run --release -p postern-tunnel --example carrier_bench [-- ROUNDS [CASE [websocket]]]
//! ```
//!
//! The carrier is two processes (client and node), the plain proxy one (tokio, 64 KiB buffers). Traffic comes from
//! blocking threads of this process. With `websocket` the carrier is measured beside itself within a WebSocket, whose
//! outer TLS session the node ends. Uploads count what the target acknowledges after the half-close.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement that cannot go on stops")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use postern_proto::{
    head::{Refused, Request},
    id::{AccountId, DeviceId, NodeId, OrgId, ResourceId, StreamId},
    problem::Problem,
    sync::Peer,
};
use postern_tunnel::{
    client::{Attempt, Entry, Failure, StreamGuide, carry},
    identity,
    node::{Arrival, Carrier, OpenRequest, Opened, Server, StreamHandler},
    stream::StreamControl,
    tls::{ClientTls, Identity, OuterClientTls, OuterServerTls, ServerTls, Trust, install_crypto_provider},
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

const BUFFER: usize = 256 * 1024;
const SPAN: Duration = Duration::from_millis(1000);
/// As long as a real one.
const LEASE: &str = const_lease();

const fn const_lease() -> &'static str {
    "v4.public.eyJvcmciOiJvcmdfMDFKQUJDREVGR0hKS01OUFFSU1RWV1hZWiIsImFjY291bnQiOiJhY2NfMDFKQUJDREVGR0hKS01OUFFSU1RWV1hZ\
     WiIsImRldmljZSI6ImRldl8wMUpBQkNERUZHSEpLTU5QUVJTVFZXWFlaIiwiY25mIjoiMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYwMTI\
     zNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZiIsInJlc291cmNlIjoicmVzXzAxSkFCQ0RFRkdISktNTlBRUlNUVldYWVoiLCJyZXYiOjEyMywiZ"
}

fn main() {
    install_crypto_provider();
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[1..] {
        ["plain", target] => run_on(plain(target.parse().unwrap())),
        ["node", folder, target] => run_on(node(Path::new(folder).to_owned(), target.parse().unwrap())),
        ["client", folder, node] => run_on(client(Path::new(folder).to_owned(), node.to_owned())),
        ["node-within", folder, target] => run_on(node_within(Path::new(folder).to_owned(), target.parse().unwrap())),
        ["client-within", folder, node] => run_on(client_within(Path::new(folder).to_owned(), node.to_owned())),
        [] => measure(3, "", false),
        [rounds] => measure(rounds.parse().unwrap(), "", false),
        [rounds, case] => measure(rounds.parse().unwrap(), case, false),
        [rounds, case, "websocket"] => measure(rounds.parse().unwrap(), case, true),
        _ => panic_usage(),
    }
}

fn panic_usage() {
    eprintln!("usage: carrier_bench [ROUNDS [CASE [websocket]]]");
    std::process::exit(2);
}

/// Runs on a worker, as accept loops do in the real programs.
fn run_on(work: impl Future<Output = ()> + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async { tokio::spawn(work).await.unwrap() });
}

// === subjects ===

fn listener() -> tokio::net::TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    println!("{}", listener.local_addr().unwrap());
    tokio::net::TcpListener::from_std(listener).unwrap()
}

async fn plain(target: SocketAddr) {
    let listener = listener();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            stream.set_nodelay(true).unwrap();
            let mut target = tokio::net::TcpStream::connect(target).await.unwrap();
            target.set_nodelay(true).unwrap();
            let _ = tokio::io::copy_bidirectional_with_sizes(&mut stream, &mut target, 65536, 65536).await;
        });
    }
}

struct Dial(SocketAddr);

impl StreamHandler for Dial {
    async fn open(&self, _: OpenRequest<'_>) -> Result<Opened, Refused> {
        let target = tokio::net::TcpStream::connect(self.0).await;
        let target = target.map_err(|_| Problem::new(502, "refused", "Refused"))?;
        Ok(Opened { target, control: StreamControl::new(), done: Box::new(|_| ()) })
    }
}

fn org() -> OrgId {
    OrgId::from_ulid(Ulid(1))
}

fn node_id() -> NodeId {
    NodeId::from_ulid(Ulid(2))
}

fn read_identity(folder: &Path, name: &str) -> (Trust, Identity) {
    let read = |file: String| std::fs::read_to_string(folder.join(file)).unwrap();
    let identity = Identity::from_pem(org(), &read(format!("{name}.pem")), &read(format!("{name}.key"))).unwrap();
    (Trust::from_pem(org(), &read("ca.pem".into())).unwrap(), identity)
}

async fn node(folder: PathBuf, target: SocketAddr) {
    let (trust, identity) = read_identity(&folder, "node");
    let server = Server::new(Dial(target), ServerTls::new(&trust, &identity).unwrap());
    server.serve(listener(), CancellationToken::new(), Duration::ZERO).await;
}

async fn node_within(folder: PathBuf, target: SocketAddr) {
    let (trust, identity) = read_identity(&folder, "node");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let outer = OuterServerTls::from_pem(&read("outer.pem"), &read("outer.key")).unwrap();
    let (_kept, outer) = tokio::sync::watch::channel(outer);
    let arrival = Arrival { carrier: Carrier::WebSocket(outer), ..Arrival::default() };
    let server = Server::new(Dial(target), ServerTls::new(&trust, &identity).unwrap());
    server.serve_arrivals(listener(), arrival, CancellationToken::new(), Duration::ZERO).await;
}

struct Straight(Arc<Entry>);

impl StreamGuide for Straight {
    async fn next_attempt(&mut self, _: u32, failure: Option<&Failure>) -> Result<Attempt, Problem> {
        if let Some(failure) = failure {
            return Err(failure.problem());
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let next = u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let (resource, stream) = (ResourceId::from_ulid(Ulid(3)), StreamId::from_ulid(Ulid(next)));
        let request = Request::new(resource, "gateway.example", LEASE, stream).unwrap();
        Ok(Attempt { entry: self.0.clone(), request })
    }
}

async fn client(folder: PathBuf, node: String) {
    let (trust, identity) = read_identity(&folder, "client");
    serve_entry(Entry::new(node_id(), node, ClientTls::new(&trust, &identity).unwrap()).unwrap()).await;
}

async fn client_within(folder: PathBuf, node: String) {
    let (trust, identity) = read_identity(&folder, "client");
    let outer = std::fs::read_to_string(folder.join("ca.pem")).unwrap();
    let outer = OuterClientTls::with_authority(&outer).unwrap();
    let tls = ClientTls::new(&trust, &identity).unwrap();
    serve_entry(Entry::over_websocket(node_id(), node, outer, tls).unwrap()).await;
}

async fn serve_entry(entry: Arc<Entry>) {
    entry.warm();
    let listener = listener();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(carry(stream, Straight(entry.clone()), StreamControl::new()));
    }
}

// === measurement ===

/// A subject's processes, to be stopped at the end.
struct Subject {
    name: &'static str,
    address: SocketAddr,
    processes: Vec<Child>,
}

impl Subject {
    fn start(name: &'static str, commands: &[&[&str]]) -> Self {
        let mut processes = Vec::new();
        let mut address = String::new();
        for command in commands {
            let arguments: Vec<&str> = command.iter().map(|word| if *word == "%" { &*address } else { word }).collect();
            // To compare two builds, the other one's program is named here.
            let program =
                std::env::var_os("CARRIER_BENCH").map_or_else(|| std::env::current_exe().unwrap(), Into::into);
            let mut child = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            processes.push(child);
            address = line.trim().to_owned();
        }
        Self { name, address: address.parse().unwrap(), processes }
    }

    /// CPU seconds of all its processes so far.
    fn cpu(&self) -> f64 {
        let ticks = |child: &Child| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
        };
        self.processes.iter().map(ticks).sum::<f64>() / 100.0
    }

    /// Resident KiB of each process.
    fn resident(&self) -> Vec<f64> {
        let resident = |child: &Child| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        self.processes.iter().map(resident).collect()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        for child in &mut self.processes {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What the streams end in: `u` counts what comes and says how much at its end, `d` sends until it is closed, `e` sends
/// everything back.
fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::Builder::new().stack_size(65536).spawn(move || serve(stream)).unwrap();
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut kind = [0];
    if stream.read_exact(&mut kind).is_err() {
        return;
    }
    let mut buffer = vec![0; if kind[0] == b'e' { 4096 } else { BUFFER }];
    let mut total = 0u64;
    loop {
        let count = match kind[0] {
            b'd' => stream.write(&buffer),
            _ => stream.read(&mut buffer),
        };
        match (kind[0], count) {
            (b'u', Ok(0)) => {
                let _ = stream.write_all(&total.to_be_bytes());
                return;
            }
            (_, Ok(0) | Err(_)) => return,
            (b'e', Ok(count)) => {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            (_, Ok(count)) => total += count as u64,
        }
    }
}

fn connect(address: SocketAddr, kind: u8) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&[kind]).unwrap();
    stream
}

/// Gbit/s with `streams` at once.
fn bulk(address: SocketAddr, kind: u8, streams: usize) -> (f64, f64) {
    let begin = Instant::now();
    let threads: Vec<_> = (0..streams)
        .map(|_| {
            thread::spawn(move || {
                let mut stream = connect(address, kind);
                let mut buffer = vec![7; BUFFER];
                let mut total = 0u64;
                while begin.elapsed() < SPAN {
                    if kind == b'u' {
                        stream.write_all(&buffer).unwrap();
                    } else {
                        total += stream.read(&mut buffer).unwrap() as u64;
                    }
                }
                if kind == b'u' {
                    stream.shutdown(Shutdown::Write).unwrap();
                    let mut count = [0; 8];
                    stream.read_exact(&mut count).unwrap();
                    total = u64::from_be_bytes(count);
                }
                total
            })
        })
        .collect();
    let total: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    (total as f64 * 8e-9 / begin.elapsed().as_secs_f64(), total as f64 / f64::from(1 << 30))
}

/// Connect, one byte there and back, close: streams a second, and the time of each in µs.
fn fresh(address: SocketAddr, clients: usize) -> (f64, Vec<f64>) {
    let begin = Instant::now();
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            thread::spawn(move || {
                let mut times = Vec::new();
                while begin.elapsed() < SPAN {
                    let start = Instant::now();
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.set_nodelay(true).unwrap();
                    stream.write_all(b"e!").unwrap();
                    stream.read_exact(&mut [0]).unwrap();
                    times.push(start.elapsed().as_secs_f64() * 1e6);
                }
                times
            })
        })
        .collect();
    let mut times: Vec<f64> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    times.sort_by(f64::total_cmp);
    (times.len() as f64 / begin.elapsed().as_secs_f64(), times)
}

/// One byte there and back on one stream, µs.
fn ping(address: SocketAddr) -> Vec<f64> {
    let mut stream = connect(address, b'e');
    let begin = Instant::now();
    let mut times = Vec::new();
    while begin.elapsed() < SPAN / 2 {
        let start = Instant::now();
        stream.write_all(b"!").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times
}

/// Resident KiB per idle stream in each process, fresh and after each carried 200 kB both ways.
fn idle(subject: &Subject, streams: usize) -> Vec<(String, f64)> {
    let before = subject.resident();
    let mut open: Vec<_> = (0..streams).map(|_| connect(subject.address, b'e')).collect();
    for stream in &mut open {
        stream.write_all(b"!").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    let fresh = subject.resident();
    let block = vec![1; 4096];
    let mut back = vec![0; 4096];
    for stream in &mut open {
        for _ in 0..50 {
            stream.write_all(&block).unwrap();
            stream.read_exact(&mut back).unwrap();
        }
    }
    let used = subject.resident();
    let per = |after: &[f64]| -> Vec<f64> {
        after.iter().zip(&before).map(|(after, before)| (after - before) / streams as f64).collect()
    };
    [("idle", per(&fresh)), ("idle-used", per(&used))]
        .into_iter()
        .flat_map(|(case, values)| {
            values.into_iter().enumerate().map(move |(process, value)| (format!("{case}/{process} KiB"), value))
        })
        .collect()
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

fn run(subject: &Subject, case: &str, kind: u8, count: usize) -> Vec<(String, f64)> {
    let before = subject.cpu();
    match kind {
        b'u' | b'd' => {
            let (rate, gib) = bulk(subject.address, kind, count);
            vec![(format!("{case} Gbit/s"), rate), (format!("{case} CPU s/GiB"), (subject.cpu() - before) / gib)]
        }
        b'c' => {
            let (rate, times) = fresh(subject.address, count);
            let cpu = (subject.cpu() - before) * 1e3 / times.len() as f64;
            vec![
                (format!("{case} /s"), rate),
                (format!("{case} p50 us"), percentile(&times, 0.5)),
                (format!("{case} p99 us"), percentile(&times, 0.99)),
                (format!("{case} CPU ms"), cpu),
            ]
        }
        b'i' => idle(subject, count),
        _ => {
            let times = ping(subject.address);
            vec![
                (format!("{case} p50 us"), percentile(&times, 0.5)),
                (format!("{case} p99 us"), percentile(&times, 0.99)),
            ]
        }
    }
}

fn measure(rounds: usize, only: &str, within: bool) {
    let folder = std::env::temp_dir().join(format!("carrier-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    write_identities(&folder);
    let (path, target) = (folder.to_str().unwrap().to_owned(), target().to_string());
    let start = || {
        let carrier = Subject::start("carrier", &[&["node", &path, &target], &["client", &path, "%"]]);
        if within {
            let commands: [&[&str]; 2] = [&["node-within", &path, &target], &["client-within", &path, "%"]];
            [carrier, Subject::start("websocket", &commands)]
        } else {
            [Subject::start("plain", &[&["plain", &target]]), carrier]
        }
    };
    let subjects = start();
    let cases: [(&str, u8, usize); 9] = [
        ("up/1", b'u', 1),
        ("down/1", b'd', 1),
        ("up/8", b'u', 8),
        ("down/8", b'd', 8),
        ("connect/1", b'c', 1),
        ("connect/8", b'c', 8),
        ("connect/64", b'c', 64),
        ("ping", b'p', 1),
        ("idle", b'i', 1000),
    ];
    let mut results: BTreeMap<(usize, String), Vec<[f64; 2]>> = BTreeMap::new();
    for round in 0..rounds {
        for (order, (case, kind, count)) in cases.into_iter().enumerate().filter(|(_, case)| case.0.starts_with(only)) {
            let mut both: BTreeMap<String, [f64; 2]> = BTreeMap::new();
            for turn in 0..2 {
                let which = (round + turn) % 2;
                // Memory is that of processes that have done nothing else.
                let fresh = (kind == b'i').then(&start);
                let subject = fresh.as_ref().map_or(&subjects[which], |fresh| &fresh[which]);
                for (name, value) in run(subject, case, kind, count) {
                    both.entry(name).or_insert([f64::NAN; 2])[which] = value;
                }
            }
            for (name, pair) in both {
                results.entry((order, name)).or_default().push(pair);
            }
        }
    }
    let [one, other] = subjects.each_ref().map(|subject| subject.name);
    println!("{:<22} {one:>12} {other:>12} {:>8}  (medians of {rounds}; x: median of the ratios)", "", "x");
    for ((_, name), pairs) in results {
        let median = |pick: &dyn Fn(&[f64; 2]) -> f64| {
            let mut values: Vec<f64> = pairs.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            percentile(&values, 0.5)
        };
        let (one, other, ratio) = (median(&|pair| pair[0]), median(&|pair| pair[1]), median(&|pair| pair[1] / pair[0]));
        println!("{name:<22} {one:>12.2} {other:>12.2} {ratio:>8.2}");
    }
    for subject in &subjects {
        println!("{}: {:.1} s CPU, {:?} KiB resident", subject.name, subject.cpu(), subject.resident());
    }
    let _ = std::fs::remove_dir_all(&folder);
}

fn write_identities(folder: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    std::fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let outer = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.join("outer.pem"), params.signed_by(&outer, &issuer).unwrap().pem()).unwrap();
    std::fs::write(folder.join("outer.key"), outer.serialize_pem()).unwrap();
    let device = Peer::Device { account: AccountId::from_ulid(Ulid(5)), device: DeviceId::from_ulid(Ulid(6)) };
    for (name, peer) in [("node", Peer::Node { node: node_id() }), ("client", device)] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(identity::uri(org(), peer).try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Peer::Node { node } = peer {
            params.subject_alt_names.push(SanType::DnsName(node.tls_name().try_into().unwrap()));
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        std::fs::write(folder.join(format!("{name}.pem")), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
