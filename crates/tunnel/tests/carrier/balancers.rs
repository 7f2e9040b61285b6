//! Real balancers, as the examples in `packaging/examples` set them up, before two workers of a cluster.

use std::{
    collections::BTreeSet,
    io::Write as _,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use postern_proto::{
    door::EntryCarrier,
    id::{ClusterId, NodeId},
    sync::ClusterInfo,
};
use postern_tunnel::{
    client::Entry,
    node::{Arrival, Balancers, Carrier},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use ulid::Ulid;

use crate::{
    transfer::noise,
    websocket::Outer,
    world::{Gateway, Local, Org, Plan, Route, Target, within},
};

/// Where balancers come from, so that their own address is told from that of their clients.
const OWN: &str = "127.0.0.77";

/// The program, unless it is missing, which is announced.
fn installed(test: &str, name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&folders).chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|program| program.is_file());
    if found.is_none() {
        let line =
            format!("SKIPPED: {test}: {name} is not installed (tests/debian-packages.txt lists what is needed)\n");
        eprint!("{line}");
        if let Some(report) = std::env::var_os("POSTERN_SKIP_REPORT") {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(report);
            file.unwrap().write_all(line.as_bytes()).unwrap();
        }
    }
    found
}

/// A balancer that runs until it is dropped.
struct Running {
    child: Child,
    address: SocketAddr,
    /// Keeps the port from other tests, as theirs do.
    _held: UdpSocket,
    _folder: tempfile::TempDir,
}

impl Running {
    /// Starts what `command` makes of a configuration: the example, with addresses of this test in place of its own.
    async fn start(
        example: &str,
        workers: [SocketAddr; 2],
        changes: &[(&str, &str)],
        command: impl Fn(&std::path::Path) -> Command,
    ) -> Self {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/examples");
        let text = std::fs::read_to_string(format!("{examples}/{example}")).unwrap();
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let (held, free) = free_port();
            let own = folder.path().to_str().unwrap();
            let mut text = text.clone();
            let (listen, [one, other]) = (free.to_string(), workers.map(|worker| worker.to_string()));
            let always = [("10.0.3.21:8443", one.as_str()), ("10.0.3.22:8443", &other), ("LISTEN", &listen)];
            for (from, to) in changes.iter().copied().chain(always) {
                assert!(text.contains(from), "{from} is not in {example}");
                text = text.replace(from, to);
            }
            let text = text.replace("FOLDER", own);
            let file = folder.path().join(example);
            std::fs::write(&file, text).unwrap();
            let mut child = command(&file).stdout(Stdio::null()).spawn().unwrap();
            while child.try_wait().unwrap().is_none() {
                if TcpStream::connect(free).await.is_ok() {
                    return Self { child, address: free, _held: held, _folder: folder };
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        panic!("the balancer does not start");
    }
}

/// A TCP port that the kernel draws for nobody, and the socket that stands for it: a balancer cannot be given port 0, and a
/// port that was let go again is another test's before the balancer has it.
fn free_port() -> (UdpSocket, SocketAddr) {
    loop {
        let address = SocketAddr::from(([127, 0, 0, 1], rand::random_range(10_000..30_000)));
        let Ok(held) = UdpSocket::bind(address) else { continue };
        if TcpListener::bind(address).is_ok() {
            return (held, address);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn haproxy(program: PathBuf) -> impl Fn(&std::path::Path) -> Command {
    move |file| {
        let mut command = Command::new(&program);
        command.arg("-db").arg("-f").arg(file);
        command
    }
}

type Seen = Arc<Mutex<Vec<(usize, SocketAddr)>>>;

/// Two workers, and which of them saw which clients.
async fn workers(org: &Org, cluster: ClusterId, arrival: &Arrival) -> ([Gateway; 2], Seen) {
    let (echo, seen) = (Target::echo().await, Seen::default());
    let worker = async |number| {
        let seen = Arc::clone(&seen);
        let decide = move |request: &postern_tunnel::node::OpenRequest<'_>| {
            seen.lock().unwrap().push((number, request.client));
            Plan::Dial(echo)
        };
        Gateway::start_worker_at(org, cluster, arrival.clone(), decide).await
    };
    ([worker(0).await, worker(1).await], seen)
}

fn cluster() -> ClusterId {
    ClusterId::from_ulid(Ulid(7))
}

/// The cluster's entry at a balancer; with an authority over the WebSocket carrier.
fn entry(org: &Org, at: SocketAddr, authority: Option<String>) -> Arc<Entry> {
    let carrier = if authority.is_some() { EntryCarrier::WebSocket } else { EntryCarrier::Direct };
    let (leaving, removed) = (Vec::new(), Vec::new());
    let (name, address) = ("eu".to_owned(), at.to_string());
    let info = ClusterInfo { id: cluster(), name, address, carrier, authority, leaving, removed };
    Entry::to_cluster(&info, org.client()).unwrap()
}

/// Streams at the same time until both workers have carried some, each over connections of its own and whole.
async fn carries_over_both(org: &Org, at: SocketAddr, authority: Option<&str>, seen: &Seen) {
    for round in 0..20_u64 {
        let streams: Vec<_> = (0..4)
            .map(|n| {
                let entry = entry(org, at, authority.map(ToOwned::to_owned));
                tokio::spawn(async move {
                    let sent = noise(round * 4 + n + 1, 300_000);
                    let mut local = Local::connect(Route::to(&[&entry])).await;
                    let (mut read, mut write) = local.app.split();
                    let mut received = Vec::new();
                    let writing = async {
                        write.write_all(&sent).await.unwrap();
                        write.shutdown().await.unwrap();
                    };
                    let reading = async { read.read_to_end(&mut received).await.unwrap() };
                    within(async { tokio::join!(writing, reading) }).await;
                    assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
                })
            })
            .collect();
        for stream in streams {
            stream.await.unwrap();
        }
        if seen.lock().unwrap().iter().map(|(worker, _)| *worker).collect::<BTreeSet<_>>().len() == 2 {
            return;
        }
    }
    panic!("one worker has carried nothing");
}

/// Every client is known by the address that it dialled the balancer from.
fn clients_are_told(seen: &Seen) {
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(_, client)| client.ip().to_string() == "127.0.0.1"), "{seen:?}");
    let ports: BTreeSet<u16> = seen.iter().map(|(_, client)| client.port()).collect();
    assert!(ports.len() > 1, "{seen:?}");
}

fn behind_own() -> Balancers {
    Balancers::new(vec![format!("{OWN}/32").parse().unwrap()])
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_passes_tls_on_and_tells_workers_whose_connections_they_are() {
    let Some(program) = installed("haproxy_passes_tls_on", "haproxy") else { return };
    let org = Org::new();
    let arrival = Arrival { balancers: behind_own(), ..Arrival::default() };
    let (workers, seen) = workers(&org, cluster(), &arrival).await;
    let source = format!("default-server source {OWN} check-send-proxy ");
    let changes = [
        ("maxconn 20000", "maxconn 200"),
        (":443", "LISTEN"),
        ("default-server ", source.as_str()),
        // These have no liveness port: their own answers.
        ("option httpchk GET /readiness", "option tcp-check"),
        ("http-check disable-on-404", ""),
        (" port 9090", ""),
    ];
    let addresses = workers.each_ref().map(|worker| worker.address);
    let balancer = Running::start("haproxy-tcp.cfg", addresses, &changes, haproxy(program)).await;
    carries_over_both(&org, balancer.address, None, &seen).await;
    clients_are_told(&seen);
    // Who comes past the balancer, and says nothing, is served as who he is; it is the balancer's network that may not.
    let past = Entry::new(cluster(), workers[0].address.to_string(), org.client()).unwrap();
    assert!(past.probe().await.is_ok());
    let stranger: NodeId = workers[1].node;
    assert!(Entry::new(stranger, balancer.address.to_string(), Org::new().client()).unwrap().probe().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_ends_tls_before_the_websocket_carrier() {
    let Some(program) = installed("haproxy_ends_tls", "haproxy") else { return };
    let (org, outer) = (Org::new(), Outer::new());
    let arrival = Arrival { carrier: Carrier::PlainWebSocket, balancers: behind_own(), ..Arrival::default() };
    let (workers, seen) = workers(&org, cluster(), &arrival).await;
    let source = format!("default-server source {OWN} check-send-proxy ");
    let certificate = tempfile::tempdir().unwrap();
    let pem = certificate.path().join("both.pem");
    std::fs::write(&pem, [outer.chain.as_str(), &outer.key.serialize_pem()].concat()).unwrap();
    let pem = pem.to_str().unwrap();
    let changes = [
        ("maxconn 20000", "maxconn 200"),
        (":443", "LISTEN"),
        ("default-server ", source.as_str()),
        ("/etc/haproxy/postern.pem", pem),
        // These have no liveness port: their own answers.
        ("option httpchk GET /readiness", "option httpchk GET /"),
        ("http-check disable-on-404", "http-check expect status 404"),
        (" port 9090", ""),
    ];
    let addresses = workers.each_ref().map(|worker| worker.address);
    let balancer = Running::start("haproxy-websocket.cfg", addresses, &changes, haproxy(program)).await;
    carries_over_both(&org, balancer.address, Some(&outer.chain), &seen).await;
    clients_are_told(&seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_ends_tls_before_the_websocket_carrier() {
    let Some(program) = installed("nginx_ends_tls", "nginx") else { return };
    let (org, outer) = (Org::new(), Outer::new());
    let arrival = Arrival { carrier: Carrier::PlainWebSocket, ..Arrival::default() };
    let (workers, seen) = workers(&org, cluster(), &arrival).await;
    let certificate = tempfile::tempdir().unwrap();
    let (pem, key) = (certificate.path().join("chain.pem"), certificate.path().join("key.pem"));
    std::fs::write(&pem, &outer.chain).unwrap();
    std::fs::write(&key, outer.key.serialize_pem()).unwrap();
    let folders = "pid FOLDER/pid; error_log stderr; daemon off; master_process off;\nworker_rlimit_nofile";
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|name| format!("{name}_temp_path FOLDER/{name};")).concat();
    let temporary = format!("http {{ {temporary}");
    let changes = [
        ("listen 443", "listen LISTEN"),
        ("/etc/nginx/postern.pem", pem.to_str().unwrap()),
        ("/etc/nginx/postern.key", key.to_str().unwrap()),
        ("worker_rlimit_nofile", folders),
        ("http {", temporary.as_str()),
        ("worker_rlimit_nofile 40000;", ""),
        ("worker_connections 20000;", "worker_connections 256;"),
    ];
    let addresses = workers.each_ref().map(|worker| worker.address);
    let nginx = |file: &std::path::Path| {
        let mut command = Command::new(&program);
        command.arg("-e").arg("/dev/stderr").arg("-p").arg(file.parent().unwrap()).arg("-c").arg(file);
        command
    };
    let balancer = Running::start("nginx-websocket.conf", addresses, &changes, nginx).await;
    carries_over_both(&org, balancer.address, Some(&outer.chain), &seen).await;
}
