//! Streams of the virtual network under what happens to it: IPv6, revocation in the middle of a burst of connections, a
//! subnet that moves, and hosts under a wildcard alias through the whole service.
#![cfg(target_os = "linux")]

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use postern_local_api::{
    message::{Connection, NetworkStatus, Status},
    names::{Asked, NameQuestion},
};
use postern_proto::resource::Kind;
use postern_tests::{
    client,
    namespace::Namespace,
    need_namespace, need_vnm_bed,
    network_bed::{self, NetworkBed, add_virtual, enable},
    stack::{Stack, id},
    target::{Behaviour, Target},
    vnm::bed::PYTHON,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// The addresses of a name, as the network's resolver tells them.
async fn addresses(stack: &Stack, name: &str, kind: &str) -> anyhow::Result<(String, Vec<IpAddr>)> {
    let question = NameQuestion { name: name.to_owned(), kind: kind.to_owned() };
    let answer = stack.user().client().names(&question).await?.resolver.context("there is no resolver")?;
    match answer.outcome {
        Asked::Answered { code, records, .. } => {
            let addresses = records.iter().map(|record| record.data.parse()).collect::<Result<_, _>>();
            Ok((code, addresses?))
        }
        other => anyhow::bail!("{name} {kind}: {other:?}"),
    }
}

async fn change_network(stack: &Stack, name: &str, value: serde_json::Value) -> anyhow::Result<()> {
    let mut network = stack.api().get("/api/v1/network").await?;
    network.as_object_mut().context("network settings are an object")?.insert(name.to_owned(), value);
    stack.api().put("/api/v1/network", network).await.map(drop)
}

#[test]
fn a_resource_is_reached_by_both_families_and_only_while_it_is_granted() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |bed| {
        let target = Target::start(Behaviour::Echo).await?;
        let stack = bed.stack().start().await?;
        change_network(&stack, "vnm_ipv6", json!(true)).await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        enable(stack.user()).await?;
        let with_ipv6 = |status: &Status| matches!(&status.network, NetworkStatus::Up(up) if up.ipv6.is_some());
        let NetworkStatus::Up(network) = stack.user().status_when(with_ipv6).await?.network else {
            anyhow::bail!("not up")
        };
        let name = format!("echo.{}", network.zones.first().context("no zone")?);
        let four = stack.user().listens("echo").await?;
        assert_eq!(addresses(&stack, &name, "A").await?.1, [four.ip()]);
        let (_, six) = addresses(&stack, &name, "AAAA").await?;
        let [IpAddr::V6(six)] = six[..] else { anyhow::bail!("{six:?}") };
        let IpAddr::V4(v4) = four.ip() else { anyhow::bail!("{four}") };
        assert_eq!(six.octets()[14..], v4.octets()[2..], "the host part is the same");
        let six = SocketAddr::new(six.into(), 7);
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[2]).collect();
        ensure!(client::exchange(six, &bytes).await? == bytes, "what was sent came back, then both ends ended");
        let refused = TcpStream::connect(SocketAddr::new(six.ip(), 8)).await;
        assert_eq!(refused.err().map(|error| error.kind()), Some(ErrorKind::ConnectionRefused));
        let mut streams = [client::open(four).await?, client::open(six).await?];
        stack.revoke_all().await?;
        for stream in &mut streams {
            assert_eq!(client::end(stream).await?, client::End::Reset);
        }
        assert!(TcpStream::connect(six).await.is_err() && TcpStream::connect(four).await.is_err());
        // The gateway may have been told before the service.
        let begun = Instant::now();
        loop {
            let answer = addresses(&stack, &name, "AAAA").await?;
            if answer == ("NXDOMAIN".to_owned(), vec![]) {
                break;
            }
            ensure!(begun.elapsed() < client::DEADLINE, "the name lives on: {answer:?}");
            sleep(Duration::from_millis(20)).await;
        }
        stack.stop().await
    })
}

#[test]
fn a_program_that_only_reads_hears_of_a_lost_device_and_of_a_killed_service() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |bed| {
        let target = Target::start(Behaviour::Echo).await?;
        let mut stack = bed.stack().start().await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        let interface = enable(stack.user()).await?.interface;
        let address = stack.user().listens("echo").await?;
        let mut reader = client::open(address).await?;
        bed.namespace.ip(&format!("link del {interface}")).await?;
        assert_eq!(broken(&mut reader).await?, ErrorKind::ConnectionAborted, "it was not told of the lost device");
        network_bed::up(stack.user()).await?;
        stack.user().resource_when("echo", |status| status.streams == 0).await.context("the lost stream is listed")?;
        let mut reader = client::open(stack.user().listens("echo").await?).await?;
        stack.user().resource_when("echo", |status| status.streams == 1).await?;
        stack.user().postern(&["network", "disable"]).await?;
        assert_eq!(broken(&mut reader).await?, ErrorKind::ConnectionReset, "it was not told that the network is off");
        stack.user().resource_when("echo", |status| status.streams == 0).await.context("the cut stream is listed")?;
        enable(stack.user()).await?;
        let mut reader = client::open(stack.user().listens("echo").await?).await?;
        stack.user_mut().kill().await?;
        assert_eq!(broken(&mut reader).await?, ErrorKind::ConnectionAborted, "it was not told of the killed service");
        stack.user_mut().restart().await?;
        network_bed::up(stack.user()).await?;
        client::open(stack.user().listens("echo").await?).await?;
        stack.stop().await
    })
}

/// Reads until the stream breaks, and says how.
async fn broken(stream: &mut TcpStream) -> anyhow::Result<ErrorKind> {
    let read = timeout(Duration::from_secs(20), stream.read_u8()).await.context("the program waits for ever")?;
    Ok(read.err().context("bytes came")?.kind())
}

/// Programs that connect, send and read without a pause.
struct Burst {
    received: Arc<AtomicU64>,
    connected: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    programs: JoinSet<()>,
}

impl Burst {
    fn start(programs: usize, to: SocketAddr) -> Self {
        let (received, connected, over) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let mut all = JoinSet::new();
        for number in 0..programs {
            let (received, connected, over) = (Arc::clone(&received), Arc::clone(&connected), Arc::clone(&over));
            all.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    if let Ok(mut stream) = TcpStream::connect(to).await {
                        connected.fetch_add(1, Ordering::Relaxed);
                        // Half of them keep a stream for as long as it lives, half make many.
                        let times = if number % 2 == 0 { usize::MAX } else { 1 };
                        let _ = talk(&mut stream, times, &received).await;
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
        Self { received, connected, over, programs: all }
    }

    fn counts(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.connected.load(Ordering::Relaxed))
    }

    async fn stop(mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.programs.shutdown().await;
    }
}

async fn talk(stream: &mut TcpStream, times: usize, received: &AtomicU64) -> std::io::Result<()> {
    let (word, mut answer) = ([7; 512], [0; 512]);
    for _ in 0..times {
        stream.write_all(&word).await?;
        let length = stream.read(&mut answer).await?;
        received.fetch_add(u64::try_from(length).unwrap_or_default(), Ordering::Relaxed);
        if length == 0 {
            break;
        }
    }
    Ok(())
}

/// How long something may pass after the service has heard that it must not.
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn no_byte_passes_after_a_revocation_that_races_new_connections() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |bed| {
        let (target, other) = (Target::start(Behaviour::Echo).await?, Target::start(Behaviour::Echo).await?);
        let stack = bed.stack().start().await?;
        let resource = add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        add_virtual(&stack, "other", Kind::Tcp, other.address(), json!({"port": 8})).await?;
        enable(stack.user()).await?;
        let address = stack.user().listens("echo").await?;
        let mut bystander = client::open(stack.user().listens("other").await?).await?;
        // The rule of `add_virtual` is made anew for each round.
        let rules = format!("/api/v1/roles/{}/rules", stack.role);
        let all = stack.api().list(&rules).await?;
        let mut rule = all
            .iter()
            .find(|rule| rule.to_string().contains(&resource.to_string()))
            .and_then(|rule| rule.get("id")?.as_str())
            .context("no rule")?
            .to_owned();
        for round in 0..4_u64 {
            let burst = Burst::start(12, address);
            let begun = Instant::now();
            while burst.counts().1 < 200 {
                ensure!(begun.elapsed() < client::DEADLINE, "round {round}: {:?}", burst.counts());
                sleep(Duration::from_millis(5)).await;
            }
            // At another moment of the burst each time.
            sleep(Duration::from_millis(round * 7)).await;
            stack.api().delete(&format!("{rules}/{rule}")).await?;
            let gone = |status: &Status| status.resources.iter().all(|found| found.resource.name != "echo");
            stack.user().status_when(gone).await?;
            // What had come for a program by then is read, which a busy machine takes its time for.
            target.wait_open(0, LIMIT).await.with_context(|| format!("round {round}: at the target"))?;
            let gone = Instant::now();
            let (mut seen, mut quiet) = ((burst.counts(), target.bytes()), Instant::now());
            while quiet.elapsed() < Duration::from_millis(700) {
                ensure!(gone.elapsed() < LIMIT, "round {round}: something passes: {seen:?}");
                sleep(Duration::from_millis(10)).await;
                let now = (burst.counts(), target.bytes());
                if now != seen {
                    (seen, quiet) = (now, Instant::now());
                }
            }
            burst.stop().await;
            client::ask(&mut bystander, b"a stream of another resource is untouched").await?;
            rule = stack.add_rule(stack.role, &[resource]).await?;
            stack.user().resource_address("echo").await?;
            client::open(address).await?;
        }
        stack.stop().await
    })
}

/// Sends an echo request through the device that is named, and says whether it was answered.
const PING: &str = r#"
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, sys.argv[1].encode())
s.settimeout(float(sys.argv[3]))
s.sendto(struct.pack('!BBHHH', 8, 0, 0, 0, 1) + b'ping', (sys.argv[2], 0))
try:
    print('answered' if s.recv(100)[8:] == b'ping' else 'something else')
except (TimeoutError, OSError) as error:
    print('nothing')
"#;

#[test]
fn an_echo_request_is_answered_to_its_owner_only_also_without_the_packet_filter() -> anyhow::Result<()> {
    need_vnm_bed!();
    network_bed::run(async |mut bed| {
        bed.stop_netd().await?;
        bed.start_netd(&["--no-filter"]).await?;
        bed.namespace.set("net/ipv4/ping_group_range", "0 2147483647").await?;
        let target = Target::start(Behaviour::Echo).await?;
        let stack = bed.stack().start().await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        let network = enable(stack.user()).await?;
        let address = stack.user().listens("echo").await?.ip().to_string();
        let ping = async |uid: u32, patience: &str| {
            let words = ["-c", PING, network.interface.as_str(), address.as_str(), patience];
            anyhow::Ok(bed.command_as(uid, PYTHON, &words).await?.success()?.trim().to_owned())
        };
        assert_eq!(ping(0, "20").await?, "answered");
        assert_eq!(ping(20_002, "2").await?, "nothing");
        assert_eq!(ping(0, "20").await?, "answered");
        stack.stop().await
    })
}

/// A listener of whom every further SYN is dropped, because nobody takes what he has.
async fn full_listener() -> anyhow::Result<(TcpListener, Vec<TcpStream>)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let listener = socket.listen(1)?;
    let mut taken = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(500), TcpStream::connect(listener.local_addr()?)).await {
        taken.push(stream?);
        ensure!(taken.len() < 50, "it takes whoever comes");
    }
    Ok((listener, taken))
}

/// Programs that are not answered say their first packet again after one, three and seven seconds, as before Linux 6.5.
async fn send_first_packets_seldom(namespace: &Namespace) -> anyhow::Result<()> {
    const LINEAR: &str = "net/ipv4/tcp_syn_linear_timeouts";
    if std::path::Path::new("/proc/sys").join(LINEAR).exists() {
        namespace.set(LINEAR, "0").await?;
    }
    Ok(())
}

/// How many packets an interface of this thread's network has sent: those are what the reader of its device gets.
fn packets(interface: &str) -> anyhow::Result<u64> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'));
    let sent = line.and_then(|counts| counts.split_whitespace().nth(9)).context("the interface is not listed")?;
    Ok(sent.parse()?)
}

/// How many connections to this port wait for an answer in this thread's network.
fn waiting_for(port: u16) -> anyhow::Result<usize> {
    const SYN_SENT: &str = "02";
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp")?;
    let there = format!(":{port:04X}");
    let is_waiting = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [_, _, to, SYN_SENT, ..] if to.ends_with(&there))
    };
    Ok(table.lines().filter(is_waiting).count())
}

/// What the threads of a process whose names begin like this have done: processor time in hundredths of a second, and how
/// often they went to sleep.
fn effort(process: u32, threads: &str) -> anyhow::Result<(u64, u64)> {
    let (mut ticks, mut sleeps) = (0, 0);
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let read =
            |name: &str| std::fs::read_to_string(task.as_ref().map(|task| task.path().join(name)).unwrap_or_default());
        if !read("comm")?.starts_with(threads) {
            continue;
        }
        let stat = read("stat")?;
        let fields = stat.rsplit_once(") ").context("no name")?.1.split(' ');
        ticks += fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        let status = read("status")?;
        let slept = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sleeps += slept.context("no count")?.trim().parse::<u64>()?;
    }
    Ok((ticks, sleeps))
}

#[test]
fn five_hundred_held_connections_leave_the_threads_of_the_network_asleep() -> anyhow::Result<()> {
    const HELD: usize = 500;
    need_namespace!();
    network_bed::run(async |bed| {
        send_first_packets_seldom(&bed.namespace).await?;
        let (listener, _taken) = full_listener().await?;
        let target = listener.local_addr()?;
        let stack = bed.stack().start().await?;
        add_virtual(&stack, "busy", Kind::Tcp, target, json!({"port": 7})).await?;
        let interface = enable(stack.user()).await?.interface;
        let address = stack.user().listens("busy").await?;
        let mut programs: JoinSet<_> = (0..HELD).map(|_| TcpStream::connect(address)).collect();
        let begun = Instant::now();
        // Each is held by posternd while the gateway asks the target.
        while waiting_for(target.port())? < HELD {
            ensure!(begun.elapsed() < client::DEADLINE, "{} are asked for", waiting_for(target.port())?);
            ensure!(
                programs.try_join_next().is_none(),
                "somebody was answered; {} are asked for",
                waiting_for(target.port())?
            );
            sleep(Duration::from_millis(20)).await;
        }
        // Until nobody sends his first packet again: that is after one and after three seconds.
        sleep(Duration::from_millis(3_300)).await;
        let (before, packets_before) = (effort(stack.user().process_id(), "vnm-")?, packets(&interface)?);
        sleep(Duration::from_secs(2)).await;
        let (after, packets_after) = (effort(stack.user().process_id(), "vnm-")?, packets(&interface)?);
        let (ticks, sleeps, packets) = (after.0 - before.0, after.1 - before.1, packets_after - packets_before);
        eprintln!(
            "{HELD} held connections, two seconds: {ticks} hundredths of a second, {sleeps} wake-ups, {packets} packets"
        );
        ensure!(ticks < 20, "busy for {ticks} hundredths of a second");
        // On a busy machine some were late with their first packet, and send it again now: nobody can sleep through that.
        ensure!(sleeps < 20 + packets.min(180), "woken {sleeps} times by {packets} packets");
        assert!(programs.try_join_next().is_none(), "nobody was let in to a target that has not answered");
        // The target's time is up: each is refused, none was ever connected.
        while let Some(connected) = programs.join_next().await {
            let refused = connected?.err().map(|error| error.kind());
            assert_eq!(refused, Some(ErrorKind::ConnectionRefused));
        }
        stack.stop().await
    })
}

/// Longer than the kernel remembers through which queue it last heard of a connection (3 s).
const FORGOTTEN: Duration = Duration::from_millis(3_500);

/// How often each thread of the network went to sleep: the first, and the others together.
fn sleeps(process: u32) -> anyhow::Result<(u64, u64)> {
    let (first, all) = (effort(process, "vnm-0")?.1, effort(process, "vnm-")?.1);
    Ok((first, all - first))
}

#[test]
fn short_streams_gather_in_one_thread_and_none_is_lost_when_others_spread() -> anyhow::Result<()> {
    const SHORT: u64 = 200;
    need_namespace!();
    if std::thread::available_parallelism()?.get() < 2 {
        eprintln!("one core, one thread: there is nothing to gather");
        return Ok(());
    }
    network_bed::run(async |bed| {
        let target = Target::start(Behaviour::Echo).await?;
        let stack = bed.stack().start().await?;
        add_virtual(&stack, "short", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        add_virtual(&stack, "bulk", Kind::Tcp, target.address(), json!({"port": 8})).await?;
        enable(stack.user()).await?;
        let (short, bulk) = (stack.user().listens("short").await?, stack.user().listens("bulk").await?);
        let mut quiet = Vec::new();
        for _ in 0..16 {
            quiet.push(client::open(short).await?);
        }
        // Longer than any thread keeps its queue without a stream.
        sleep(Duration::from_secs(1)).await;
        let before = sleeps(stack.user().process_id())?;
        for _ in 0..SHORT {
            ensure!(client::exchange(short, b"a word").await? == b"a word");
        }
        let after = sleeps(stack.user().process_id())?;
        let (first, others) = (after.0 - before.0, after.1 - before.1);
        ensure!(first >= SHORT && others < SHORT / 10, "the first thread slept {first} times, the others {others}");

        // Through whichever queue their packets come now.
        sleep(FORGOTTEN).await;
        for stream in &mut quiet {
            client::ask(stream, b"still there?").await.context("while the first thread has all queues")?;
        }
        let much = vec![7; 4 << 20];
        ensure!(client::exchange(bulk, &much).await? == much);
        let mut spread = Vec::new();
        for _ in 0..24 {
            let mut stream = client::open(bulk).await?;
            client::ask(&mut stream, &much[..100_000]).await?;
            spread.push(stream);
        }
        let spreading = sleeps(stack.user().process_id())?;
        ensure!(spreading.1 > after.1, "what carries much has other threads, too");
        sleep(FORGOTTEN).await;
        for stream in quiet.iter_mut().chain(&mut spread) {
            client::ask(stream, b"and now?").await.context("while every thread has its queue")?;
        }
        stack.stop().await
    })
}

async fn add_conflict(bed: &NetworkBed) -> anyhow::Result<()> {
    bed.namespace.ip("link add rival0 type veth peer name rival1").await?;
    bed.namespace.ip("addr add 100.72.9.9/24 dev rival0").await?;
    bed.namespace.ip("link set rival0 up").await.map(drop)
}

#[test]
fn streams_go_on_while_the_network_moves() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |bed| {
        let target = Target::start(Behaviour::Echo).await?;
        let stack = bed.stack().start().await?;
        add_virtual(&stack, "echo", Kind::Tcp, target.address(), json!({"port": 7})).await?;
        enable(stack.user()).await?;
        let before = stack.user().listens("echo").await?;
        let mut old = client::open(before).await?;
        add_conflict(&bed).await?;
        let elsewhere = |status: &postern_local_api::message::ResourceStatus| matches!(status.connection, Connection::Listening { address } if address != before);
        stack.user().resource_when("echo", elsewhere).await?;
        let after = stack.user().listens("echo").await?;
        let mut new = client::open(after).await?;
        client::ask(&mut old, &vec![5; 300_000]).await.context("the stream from before the move")?;
        client::ask(&mut new, b"and the one from after it").await?;
        stack.stop().await
    })
}

#[test]
fn hosts_under_a_wildcard_alias_have_their_own_addresses_for_ever() -> anyhow::Result<()> {
    need_namespace!();
    network_bed::run(async |bed| {
        let (one, two) = (Target::start(Behaviour::Echo).await?, Target::start(Behaviour::Count).await?);
        let (one_at, two_at) = (one.address(), two.address());
        let mut stack = bed
            .stack()
            .gateway_host("n1.fleet.internal", one_at.ip())
            .gateway_host("n2.fleet.internal", two_at.ip())
            .start()
            .await?;
        let ports = two_at.port().to_string();
        let body = json!({
            "name": "fleet", "kind": "tcp", "host": "n1.fleet.internal", "port": one_at.port(), "ports": [ports],
            "hosts": ["n1.fleet.internal", "n2.fleet.internal"], "allow_local": true,
            "bind": {"mode": "vnm", "dns_name": "*.fleet.internal", "port": 7},
        });
        let resource = id(&stack.api().post("/api/v1/resources", body).await?)?;
        stack.add_rule(stack.role, &[resource]).await?;
        stack.user().knows("fleet").await?;
        let network = enable(stack.user()).await?;
        stack.user().listens("fleet").await?;
        assert!(network.zones.iter().any(|zone| zone == "fleet.internal") || network.zones.len() == 1, "{network:?}");
        let address = async |stack: &Stack, host: &str| {
            let begun = Instant::now();
            loop {
                // The network may have come up before the resource was known.
                let (code, found) = addresses(stack, host, "A").await?;
                match found[..] {
                    [address] => return anyhow::Ok(address),
                    _ => ensure!(begun.elapsed() < client::DEADLINE, "{host}: {code}"),
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let (first, second) =
            (address(&stack, "n1.fleet.internal").await?, address(&stack, "n2.fleet.internal").await?);
        assert_ne!(first, second);
        // Each is the host that was asked for: one echoes, the other counts.
        assert_eq!(client::exchange(SocketAddr::new(first, 7), b"to the first").await?, b"to the first");
        assert_eq!(client::exchange(SocketAddr::new(second, two_at.port()), b"four").await?, b"4");
        // Allowed by the alias, and by the allow-list not: it has an address, and nothing behind it.
        let third = address(&stack, "n3.fleet.internal").await?;
        let refused = TcpStream::connect(SocketAddr::new(third, 7)).await;
        assert!(refused.is_err(), "a host outside of the list");
        // Neither an end in order nor a kill changes whose address is whose.
        stack.user_mut().kill().await?;
        stack.user_mut().restart().await?;
        network_bed::up(stack.user()).await?;
        stack.user().listens("fleet").await?;
        assert_eq!(address(&stack, "n2.fleet.internal").await?, second);
        assert_eq!(address(&stack, "n1.fleet.internal").await?, first);
        assert_eq!(client::exchange(SocketAddr::new(first, 7), b"again").await?, b"again");
        stack.stop().await
    })
}
