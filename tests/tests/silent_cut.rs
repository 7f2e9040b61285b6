//! Paths that are cut without a word: packets vanish, no interface goes down, nobody is told. Who waits at either end learns
//! of it within ten seconds, and the next stream takes another way.
//!
//! ```text
//! client (1) ── gateway-1 (2) ── DMZ (0: control plane, resources)
//!      └─────── gateway-2 (3) ────┘
//!
//! client (1) ── DMZ (0: haproxy, control plane, resources) ── worker-1 (2)
//!      │                                                 └─── worker-2 (3)
//!      └─────── either worker (2, 3), over WebSockets
//! ```

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_local_api::message::GatewayState;
use postern_proto::{id::ClusterId, resource::Kind};
use postern_tests::{
    authority::TestAuthority,
    client::{self, End},
    figure, need_namespace, need_program,
    servers::ExampleBalancer,
    site::{self, DMZ, Site, address},
    stack::{How, Stack, Worker},
    target::{Behaviour, Target},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::TcpStream,
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
};

/// A cut is to be found within ten seconds. What it took is printed; this leaves a slow machine room and is still far from
/// the minute that keepalive alone would take.
const FOUND_WITHIN: Duration = Duration::from_secs(25);
/// Longer than any silence that counts as a cut: who takes nothing for so long is not cut for it.
const PAUSE: Duration = Duration::from_secs(13);

/// What a program does on its stream when the path is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Nothing.
    Idle,
    /// It sends one byte after the cut and waits for the answer.
    Asks,
    Uploads,
    Downloads,
    /// It has sent all that the way takes to a resource that takes nothing.
    Stuck,
    /// It does not read what comes.
    Pauses,
}

/// Where each resource appears.
#[derive(Clone, Copy)]
struct Places {
    echo: SocketAddr,
    count: SocketAddr,
    flood: SocketAddr,
    deaf: SocketAddr,
}

impl Places {
    const fn of(self, habit: Habit) -> SocketAddr {
        match habit {
            Habit::Idle | Habit::Asks => self.echo,
            Habit::Uploads => self.count,
            Habit::Downloads | Habit::Pauses => self.flood,
            Habit::Stuck => self.deaf,
        }
    }

    /// How many streams of these habits there are at each.
    fn streams(self, habits: &[Habit]) -> [u64; 4] {
        [self.echo, self.count, self.flood, self.deaf]
            .map(|place| habits.iter().filter(|habit| self.of(**habit) == place).count() as u64)
    }
}

/// One stream of a habit, to its end. `cut` says when the path was cut.
async fn live(habit: Habit, places: Places, ready: Arc<tokio::sync::Barrier>, mut cut: watch::Receiver<bool>) -> End {
    let address = places.of(habit);
    let opened = TcpStream::connect(address).await;
    let Ok(mut stream) = opened else { return End::Reset };
    let piece = vec![7; 64 * 1024];
    match habit {
        Habit::Idle | Habit::Asks => client::ask(&mut stream, b"word").await.unwrap_or_default(),
        Habit::Pauses => drop(stream.read_u8().await),
        Habit::Uploads | Habit::Downloads | Habit::Stuck => {}
    }
    ready.wait().await;
    match habit {
        Habit::Asks => {
            let _ = cut.wait_for(|cut| *cut).await;
            let _ = stream.write_all(b"?").await;
        }
        Habit::Uploads | Habit::Stuck => {
            while stream.write_all(&piece).await.is_ok() {}
            return End::Reset;
        }
        Habit::Pauses => {
            // Until there is an error; what had come is of no interest.
            let _ = stream.ready(Interest::ERROR).await;
        }
        Habit::Idle | Habit::Downloads => {}
    }
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return End::Closed,
            Ok(_) => {}
            Err(_) => return End::Reset,
        }
    }
}

const HABITS: [Habit; 6] = [Habit::Idle, Habit::Asks, Habit::Uploads, Habit::Downloads, Habit::Stuck, Habit::Pauses];
/// Behind a balancer: who does not read is told when it reads on, because the balancer has something for it still.
const READING: [Habit; 5] = [Habit::Idle, Habit::Asks, Habit::Uploads, Habit::Downloads, Habit::Stuck];

/// All these habits at once, in the client's network: when each one's stream ended, and how.
async fn live_all(
    habits: &'static [Habit],
    places: Places,
    opened: oneshot::Sender<()>,
    cut: watch::Receiver<bool>,
) -> anyhow::Result<Vec<(Habit, End, Instant)>> {
    let ready = Arc::new(tokio::sync::Barrier::new(habits.len() + 1));
    let mut lives = JoinSet::new();
    for habit in habits.iter().copied() {
        let (ready, cut) = (Arc::clone(&ready), cut.clone());
        lives.spawn(async move { (habit, live(habit, places, ready, cut).await, Instant::now()) });
    }
    ready.wait().await;
    let _ = opened.send(());
    let mut ends = Vec::new();
    while let Some(ended) = lives.join_next().await {
        ends.push(ended?);
    }
    Ok(ends)
}

/// The streams of the client's network while they run.
struct Lives {
    /// How many there are of each resource.
    open: [u64; 4],
    cutting: watch::Sender<bool>,
    ends: JoinHandle<anyhow::Result<Vec<(Habit, End, Instant)>>>,
}

impl Lives {
    /// One stream of each habit, each open from end to end.
    async fn start(
        site: &Arc<Site>,
        habits: &'static [Habit],
        places: Places,
        targets: &[Target; 4],
    ) -> anyhow::Result<Self> {
        let (opened, are_open) = oneshot::channel();
        let (cutting, cut) = watch::channel(false);
        let site = Arc::clone(site);
        let ends = tokio::spawn(async move { site.within(1, move || live_all(habits, places, opened, cut)).await });
        are_open.await.context("the streams do not open")?;
        let open = places.streams(habits);
        for (target, count) in targets.iter().zip(open) {
            target.wait_open(count, FOUND_WITHIN).await?;
        }
        Ok(Self { open, cutting, ends })
    }

    /// Waits for longer than any silence that counts as a cut, and sees that nobody was cut for his habit.
    async fn outlive_a_pause(&self, targets: &[Target; 4]) {
        tokio::time::sleep(PAUSE).await;
        assert_eq!(targets.each_ref().map(Target::open), self.open, "a stream was cut while nothing was wrong");
    }

    /// The path was cut at `begun`: waits until each has learned it, by a reset.
    async fn are_reset(self, cut: &str, begun: Instant) -> anyhow::Result<()> {
        self.cutting.send_replace(true);
        let ends = tokio::time::timeout(FOUND_WITHIN, self.ends).await.context("a stream lives on at the client")?;
        for (habit, end, at) in ends?? {
            assert_eq!(end, End::Reset, "{habit:?}: a cut stream looked complete");
            figure::say(&format!("{cut}, {habit:?}: the client knew after {:.1?}", at - begun));
        }
        Ok(())
    }
}

/// A stack whose gateways are networks 2 and 3. The second gateway is not there yet.
async fn start(site: &Site) -> anyhow::Result<(Stack, [Target; 4], Places)> {
    site.join(1, 2).await?;
    site.join(1, 3).await?;
    let launcher = site.launcher(1);
    let words: Vec<&str> = launcher.iter().map(String::as_str).collect();
    let mut stack = Stack::builder().gateways(0).host(DMZ).user_launcher(&words).start().await?;
    add_gateway(&mut stack, site, 2).await?;
    let (targets, places) = resources(&stack, None).await?;
    stack.user().has_gateways(1).await?;
    Ok((stack, targets, places))
}

/// One server for each kind of stream in the DMZ, and where they appear; over this cluster, if there is one.
async fn resources(stack: &Stack, cluster: Option<ClusterId>) -> anyhow::Result<([Target; 4], Places)> {
    let target = async |behaviour| Target::start_at(DMZ, behaviour).await;
    let targets = [
        target(Behaviour::Echo).await?,
        target(Behaviour::Count).await?,
        target(Behaviour::Flood).await?,
        target(Behaviour::Deaf).await?,
    ];
    let mut places = Vec::new();
    for (name, target) in ["echo", "count", "flood", "deaf"].into_iter().zip(&targets) {
        let resource = stack.create_resource(name, Kind::Tcp, target.address()).await?;
        let bound = json!({"cluster": cluster});
        stack.api().patch(&format!("/api/v1/resources/{resource}"), bound).await?;
        stack.add_rule(stack.role, &[resource]).await?;
        stack.user().knows(name).await?;
        places.push(stack.user().connect(name).await?);
    }
    let [echo, count, flood, deaf] = places.try_into().ok().context("four places")?;
    Ok((targets, Places { echo, count, flood, deaf }))
}

async fn add_gateway(stack: &mut Stack, site: &Site, network: usize) -> anyhow::Result<()> {
    let host = Some(address(network, 1));
    let how = How { launcher: site.launcher(network), host, ..How::default() };
    let gateway = stack.add_gateway_with(&format!("gateway-{}", network - 1), &how).await?;
    stack.gateways.push(gateway);
    Ok(())
}

#[test]
fn a_silent_cut_before_a_gateway_is_found_at_both_ends_whatever_the_stream_does() -> anyhow::Result<()> {
    need_namespace!();
    site::run(3, async |site| {
        let (mut stack, targets, places) = start(&site).await?;
        let site = Arc::new(site);
        let lives = Lives::start(&site, &HABITS, places, &targets).await?;
        // Another way from now on.
        add_gateway(&mut stack, &site, 3).await?;
        let other = stack.gateways.get(1).context("no second gateway")?.id();
        let reachable = |status: &postern_local_api::message::Status| {
            let found = status.gateways.iter().find(|gateway| gateway.id.node() == Some(other));
            found.is_some_and(|gateway| gateway.state == GatewayState::Reachable)
        };
        stack.user().status_when(reachable).await?;
        lives.outlive_a_pause(&targets).await;

        site.cut(1, 2).await?;
        let begun = Instant::now();
        let again = served_again(&site, places.echo, begun);
        let (ends, again) = tokio::join!(lives.are_reset("cut before a gateway", begun), again);
        ends?;
        figure::say(&format!("cut before a gateway: served by another one after {:.1?}", again?));
        for target in &targets {
            target.wait_open(0, FOUND_WITHIN.saturating_sub(begun.elapsed())).await.context("at the resource")?;
        }
        figure::say(&format!("cut before a gateway: nothing was left at the resources after {:.1?}", begun.elapsed()));
        site.mend(1, 2).await?;
        stack.stop().await
    })
}

/// A program of the client's network connects again until it is served by another way; how long after the cut that was.
async fn served_again(site: &Site, echo: SocketAddr, begun: Instant) -> anyhow::Result<Duration> {
    loop {
        let answer = site.within(1, move || async move { client::exchange(echo, b"again").await }).await;
        if answer.is_ok_and(|answer| answer == b"again") {
            return Ok(begun.elapsed());
        }
        anyhow::ensure!(begun.elapsed() < FOUND_WITHIN, "no other way is taken");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How a balancer passes connections on.
#[derive(Clone, Copy, Debug)]
enum Between {
    Tcp,
    /// It ends TLS.
    WebSocket,
}

impl Between {
    /// What workers are started with.
    const fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Tcp => &[],
            Self::WebSocket => &[("POSTERN_TLS_CERT_SOURCE", "none"), ("POSTERN_TLS_CLIENT_AUTH", "none")],
        }
    }

    /// What the cluster is changed to.
    fn entry(self, at: SocketAddr, authority: &TestAuthority) -> Value {
        match self {
            Self::Tcp => json!({"advertise": at.to_string()}),
            Self::WebSocket => {
                json!({"advertise": at.to_string(), "carrier": "websocket", "authority": authority.certificate()})
            }
        }
    }
}

/// The client's own connection ends at the balancer, and that is alive: only the balancer can know.
fn cut_behind_haproxy(between: Between) -> anyhow::Result<()> {
    site::run(3, async move |site| {
        let launcher = site.launcher(1);
        let words: Vec<&str> = launcher.iter().map(String::as_str).collect();
        let stack = Stack::builder().gateways(0).host(DMZ).user_launcher(&words).start().await?;
        let cluster = stack.create_cluster("eu", SocketAddr::new(DMZ, 1)).await?;
        let key = stack.create_key(cluster).await?;
        let worker = async |network: usize| {
            let how = How { launcher: site.launcher(network), host: Some(address(network, 0)), ..How::default() };
            let from = address(0, network).to_string();
            let environment = [("POSTERN_LIVENESS", ":9090"), ("POSTERN_PROXY_PROTOCOL_FROM", from.as_str())];
            let environment = [between.environment(), &environment].concat();
            stack.start_worker_in(&format!("worker-{}", network - 1), &key, &how, &environment).await
        };
        let (mut first, mut other) = (worker(2).await?, worker(3).await?);
        let authority = TestAuthority::new()?;
        let behind = [first.listens(), other.listens()];
        let balancer = match between {
            Between::Tcp => ExampleBalancer::haproxy_tcp_watching(DMZ, behind, 9090).await?,
            Between::WebSocket => {
                ExampleBalancer::haproxy_websocket(DMZ, behind, &authority.issue(&DMZ.to_string())?).await?
            }
        };
        // All streams go over the first.
        other.kill().await?;
        let entry = between.entry(balancer.address(), &authority);
        stack.api().patch(&format!("/api/v1/clusters/{cluster}"), entry).await?;
        let (targets, places) = resources(&stack, Some(cluster)).await?;
        working(&site, places.echo).await?;
        let site = Arc::new(site);
        let lives = Lives::start(&site, &READING, places, &targets).await?;
        other.restart().await?;
        balancer.sends_to_both().await?;
        lives.outlive_a_pause(&targets).await;

        site.cut(0, 2).await?;
        let begun = Instant::now();
        let again = served_again(&site, places.echo, begun);
        let cut = format!("cut between haproxy and a worker ({between:?})");
        let (ends, again) = tokio::join!(lives.are_reset(&cut, begun), again);
        ends?;
        figure::say(&format!("{cut}: served by another one after {:.1?}", again?));
        site.mend(0, 2).await?;
        // What its target does not take lasts as long as the balancer's system keeps what was sent for it.
        first.kill().await?;
        other.stop().await?;
        stack.stop().await?;
        balancer.stop().await
    })
}

#[test]
fn a_silent_cut_between_haproxy_and_a_worker_is_found_whatever_the_stream_does() -> anyhow::Result<()> {
    need_namespace!();
    need_program!(ExampleBalancer::HAPROXY);
    cut_behind_haproxy(Between::Tcp)
}

#[test]
fn a_silent_cut_between_haproxy_that_ends_tls_and_a_worker_is_found_whatever_the_stream_does() -> anyhow::Result<()> {
    need_namespace!();
    need_program!(ExampleBalancer::HAPROXY);
    cut_behind_haproxy(Between::WebSocket)
}

#[test]
fn a_silent_cut_below_a_websocket_is_found_at_both_ends_whatever_the_stream_does() -> anyhow::Result<()> {
    need_namespace!();
    site::run(3, async |site| {
        site.join(1, 2).await?;
        site.join(1, 3).await?;
        let launcher = site.launcher(1);
        let words: Vec<&str> = launcher.iter().map(String::as_str).collect();
        let stack = Stack::builder().gateways(0).host(DMZ).user_launcher(&words).start().await?;
        let cluster = stack.create_cluster("eu", SocketAddr::new(DMZ, 1)).await?;
        let key = stack.create_key(cluster).await?;
        let authority = TestAuthority::new()?;
        let folder = tempfile::tempdir()?;
        // Each ends the outer TLS session itself.
        let worker = async |network: usize| {
            let host = address(network, 1);
            let identity = authority.issue(&host.to_string())?;
            let file = |kind: &str, content: &str| {
                let path = folder.path().join(format!("{network}.{kind}"));
                std::fs::write(&path, content)?;
                path.into_os_string().into_string().ok().context("a path in UTF-8")
            };
            let (certificate, private) = (file("pem", &identity.certificate)?, file("key", &identity.key)?);
            let environment = [
                ("POSTERN_TLS_CERT_SOURCE", "file"),
                ("POSTERN_TLS_CLIENT_AUTH", "none"),
                ("POSTERN_TLS_CERT_FILE", certificate.as_str()),
                ("POSTERN_TLS_KEY_FILE", private.as_str()),
            ];
            let how = How { launcher: site.launcher(network), host: Some(host), ..How::default() };
            stack.start_worker_in(&format!("worker-{}", network - 1), &key, &how, &environment).await
        };
        let (mut first, mut other) = (worker(2).await?, worker(3).await?);
        let goes_to = async |worker: &Worker| {
            let entry = Between::WebSocket.entry(worker.listens(), &authority);
            stack.api().patch(&format!("/api/v1/clusters/{cluster}"), entry).await.map(drop)
        };
        goes_to(&first).await?;
        let (targets, places) = resources(&stack, Some(cluster)).await?;
        working(&site, places.echo).await?;
        let site = Arc::new(site);
        let lives = Lives::start(&site, &HABITS, places, &targets).await?;
        lives.outlive_a_pause(&targets).await;

        site.cut(1, 2).await?;
        let begun = Instant::now();
        lives.are_reset("cut below a WebSocket", begun).await?;
        for target in &targets {
            target.wait_open(0, FOUND_WITHIN.saturating_sub(begun.elapsed())).await.context("at the resource")?;
        }
        figure::say(&format!("cut below a WebSocket: nothing was left at the resources after {:.1?}", begun.elapsed()));
        goes_to(&other).await?;
        served_again(&site, places.echo, Instant::now()).await?;
        site.mend(1, 2).await?;
        first.stop().await?;
        other.stop().await?;
        stack.stop().await
    })
}

/// Waits until a stream of the client's network goes through.
async fn working(site: &Site, echo: SocketAddr) -> anyhow::Result<()> {
    let working = site.within(1, move || async move {
        let deadline = Instant::now() + 2 * FOUND_WITHIN;
        while !client::exchange(echo, b"hello").await.is_ok_and(|answer| answer == b"hello") {
            anyhow::ensure!(Instant::now() < deadline, "no stream goes through");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    });
    working.await
}

#[test]
fn a_node_that_is_silently_cut_off_from_the_control_plane_counts_as_gone_and_comes_back() -> anyhow::Result<()> {
    need_namespace!();
    site::run(3, async |site| {
        let (stack, targets, places) = start(&site).await?;
        let state = async || {
            let gateways = stack.api().list("/api/v1/gateways").await?;
            let state = gateways.first().and_then(|gateway| gateway.get("state")).and_then(Value::as_str);
            anyhow::Ok(state.unwrap_or_default().to_owned())
        };
        let until = async |connected: bool| {
            let begun = Instant::now();
            while (state().await? == "connected") != connected {
                anyhow::ensure!(begun.elapsed() < 2 * FOUND_WITHIN, "the gateway stays {}", state().await?);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(begun.elapsed())
        };
        until(true).await?;
        let log = || stack.gateways.first().map(postern_tests::stack::Gateway::log).unwrap_or_default();
        // While something is on its way to it, the kernel asks nothing: then only its silence tells.
        for told in [false, true] {
            site.cut(0, 2).await?;
            if told {
                stack.create_resource("on its way", Kind::Tcp, places.echo).await?;
            }
            let gone = until(false).await?;
            let what = if told { ", told of something" } else { "" };
            figure::say(&format!("cut off from the control plane{what}: a gateway counted as gone after {gone:.1?}"));
            assert!(gone < FOUND_WITHIN, "{}", log());
            site.mend(0, 2).await?;
            let back = until(true).await?;
            figure::say(&format!("the path was mended: the gateway was back after {back:.1?}"));
        }
        let answer = site.within(1, move || async move { client::exchange(places.echo, b"again").await }).await?;
        assert_eq!(answer, b"again");
        drop(targets);
        stack.stop().await
    })
}
