//! Parts that are killed and links that are cut, under load: `pgbench` writes and large transfers run over every way while it
//! happens. Nothing that was acknowledged is lost, nothing that was cut looks complete, and what does not pass the part
//! that failed goes on.
//!
//! ```text
//! client (1) ── DMZ (0: two control planes behind a balancer, their PostgreSQL, gateway-1, gateway-2, a database)
//!                 ├── private network (2: relay-1, a database)
//!                 ├── private network (3: relay-2, a database)
//!                 ├── network (4: worker-1, a database)
//!                 └── network (5: worker-2, a database)
//! ```
//!
//! Each worker is a cluster of its own, behind a haproxy of its own in the DMZ, so that it is known what passes it.
//!
//! `POSTERN_PROOF_MIB` says how large a transfer is: `cargo xtask prove` takes a gigabyte.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_proto::{
    id::{ClusterId, ResourceId},
    resource::Kind,
};
use postern_tests::{
    balancer::Balancer,
    command::{Output, PATIENCE, run},
    figure, need_namespace, need_program,
    servers::{ExampleBalancer, Postgres},
    site::{self, DMZ, Serving, Site, address},
    stack::{ControlPlane, How, Stack, Worker},
    vault::{self, Outcome},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};

const CLIENT: usize = 1;
/// Clients of each `pgbench`.
const CLIENTS: u32 = 4;
/// How long each `pgbench` runs, when nobody breaks it off. A cut takes up to ten seconds to be found.
const SECONDS: u32 = 6;
/// How long the load goes on before something fails.
const UNDER_LOAD: Duration = Duration::from_millis(1500);
/// How long everything may take to work again. Generous: the machine may be busy.
const BACK_WITHIN: Duration = Duration::from_secs(90);
/// How long a transfer may take to its end after the failure.
const LAST: Duration = Duration::from_secs(120);

/// The ways, each named after the node that dials, and the network that this is in.
const SIDES: [(&str, usize); 6] =
    [("gateway-1", 0), ("gateway-2", 0), ("relay-1", 2), ("relay-2", 3), ("worker-1", 4), ("worker-2", 5)];
/// Where workers say how they are, each in a network of its own.
const LIVENESS: u16 = 9090;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    GatewayKilled,
    RelayKilled,
    LinkCut,
    WorkerKilled,
    /// The cable between a balancer and its worker: the client's own connection ends at the balancer.
    WorkerCut,
    ControlPlaneKilled,
    DatabaseRestarted,
}

impl Failure {
    /// The node that streams may pass which this fails; `None` when none does.
    const fn node(self) -> Option<&'static str> {
        match self {
            Self::GatewayKilled => Some("gateway-1"),
            Self::RelayKilled | Self::LinkCut => Some("relay-1"),
            Self::WorkerKilled | Self::WorkerCut => Some("worker-1"),
            Self::ControlPlaneKilled | Self::DatabaseRestarted => None,
        }
    }
}

fn mib() -> u64 {
    std::env::var("POSTERN_PROOF_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(24)
}

/// Everything that runs.
struct Bed {
    site: Site,
    stack: Stack,
    second: ControlPlane,
    configuration: Postgres,
    _balancer: Balancer,
    workers: Vec<(Worker, ExampleBalancer)>,
    sides: Vec<Side>,
    rounds: watch::Sender<u64>,
    _vaults: Vec<Serving>,
    logs: tempfile::TempDir,
    runs: u32,
}

/// One way: a database and a vault that are reached over it alone, and where they appear to the client.
struct Side {
    name: &'static str,
    database: Postgres,
    database_at: SocketAddr,
    vault: ResourceId,
    vault_at: SocketAddr,
    /// Transfers that reached the vault.
    accepted: watch::Receiver<u64>,
}

/// How many of a side's streams pass what fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hit {
    Not,
    Partly,
    Wholly,
}

/// How `pgbench` ended, and the rows that it was told of, by client.
type Benched = (Output, BTreeMap<u32, u64>);

/// What happened on one side.
struct Account {
    acknowledged: BTreeMap<u32, u64>,
    pgbench: Output,
    down: Outcome,
    up: Outcome,
}

#[test]
fn nothing_acknowledged_is_lost_whatever_is_killed_or_cut() -> anyhow::Result<()> {
    need_namespace!();
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    need_program!(ExampleBalancer::HAPROXY);
    site::run(5, async |site| {
        let mut bed = Bed::start(site).await?;
        for failure in [
            Failure::GatewayKilled,
            Failure::RelayKilled,
            Failure::LinkCut,
            Failure::WorkerKilled,
            Failure::WorkerCut,
            Failure::ControlPlaneKilled,
            Failure::DatabaseRestarted,
        ] {
            bed.prove(failure).await.with_context(|| format!("{failure:?}"))?;
        }
        bed.everything_is_on_record().await?;
        bed.stop().await
    })
}

impl Bed {
    async fn start(site: Site) -> anyhow::Result<Self> {
        let configuration = Postgres::start().await.context("the control plane's database")?;
        let balancer = Balancer::start_at(DMZ).await?;
        let launcher = site.launcher(CLIENT);
        let words: Vec<&str> = launcher.iter().map(String::as_str).collect();
        let mut stack = Stack::builder()
            .gateways(2)
            .host(DMZ)
            .user_launcher(&words)
            .database(&format!("postgres://postgres@{}/postgres", configuration.address()))
            .behind(&balancer)
            .start()
            .await?;
        let second = stack.start_replica("control-2").await?;
        let (rounds, round) = watch::channel(0);
        let (mut vaults, mut sides, mut workers) = (Vec::new(), Vec::new(), Vec::new());
        for (name, network) in SIDES {
            let mut cluster = None;
            if name.starts_with("worker") {
                let (id, worker) = start_worker(&stack, &site, name, network).await?;
                workers.push(worker);
                cluster = Some(id);
            }
            if name.starts_with("relay") {
                let how = How { launcher: site.launcher(network), ..How::default() };
                stack.add_relay_with(name, 2, &how).await?;
            }
            let database = site.within(network, Postgres::start).await.context("a database")?;
            let table = "create table proof (run int, client int)";
            let at = database.address();
            site.within(network, move || async move { Postgres::query(at, table).await }).await?;
            let (accepted, count) = watch::channel(0);
            let (vault, serving) = open_vault(&site, network, round.clone(), accepted).await?;
            vaults.push(serving);
            let database_at = appear(&stack, &format!("db-{name}"), (name, cluster), Kind::Postgres, at).await?.1;
            let (vault, vault_at) = appear(&stack, &format!("vault-{name}"), (name, cluster), Kind::Tcp, vault).await?;
            sides.push(Side { name, database, database_at, vault, vault_at, accepted: count });
        }
        let logs = tempfile::tempdir()?;
        let mut bed = Self {
            site,
            stack,
            second,
            configuration,
            _balancer: balancer,
            workers,
            sides,
            rounds,
            _vaults: vaults,
            logs,
            runs: 0,
        };
        bed.everybody_works().await.context("before anything failed")?;
        Ok(bed)
    }

    /// Lets one thing fail under load, and looks at what became of it.
    async fn prove(&mut self, failure: Failure) -> anyhow::Result<()> {
        self.runs += 1;
        let (ready, mut halfway) = mpsc::channel(2 * SIDES.len());
        let transfers = self.transfer_all(ready);
        for _ in 0..2 * SIDES.len() {
            let half = tokio::time::timeout(PATIENCE, halfway.recv()).await;
            half.context("the transfers do not get half-way")?.context("a transfer failed at once")?;
        }
        let mut benches = Vec::new();
        for side in &self.sides {
            benches.push(self.bench(side)?);
        }
        tokio::time::sleep(UNDER_LOAD).await;
        let hit = self.hit(failure).await?;
        let struck = Instant::now();
        self.strike(failure).await?;
        // What cannot go on ends before the second half; what can has it now.
        self.rounds.send_modify(|round| *round += 1);
        let mut outcomes = tokio::time::timeout(LAST, transfers).await.context("a transfer hangs")???;
        let mut accounts = Vec::new();
        for bench in benches {
            let (pgbench, acknowledged) = tokio::time::timeout(LAST, bench).await.context("pgbench hangs")???;
            let (down, up) = outcomes.remove(&accounts.len()).context("no outcome")?;
            accounts.push(Account { acknowledged, pgbench, down, up });
        }
        let ended = struck.elapsed();
        self.heal(failure).await?;
        for (side, account) in self.sides.iter().zip(&accounts) {
            self.judge(failure, side, account, hit.get(side.name).copied().unwrap_or(Hit::Not))
                .await
                .with_context(|| side.name)?;
        }
        self.everybody_works().await.context("afterwards")?;
        figure::say(&format!(
            "{failure:?}: over for everybody after {ended:.1?}, all ways work again {:.1?} after the failure",
            struck.elapsed()
        ));
        Ok(())
    }

    /// How much of each side passes what will fail. Each stream has a way of its own, so it may be some of them.
    async fn hit(&self, failure: Failure) -> anyhow::Result<BTreeMap<&'static str, Hit>> {
        let Some(node) = failure.node() else { return Ok(BTreeMap::new()) };
        let sessions = self.stack.user().client().sessions().await?;
        let of = |side: &Side| {
            let own = sessions.iter().filter(|session| session.resource_name.ends_with(side.name));
            let routes = own.map(|session| session.route.as_ref());
            let passes: Vec<Option<bool>> =
                routes.map(|route| Some(route?.hops.iter().any(|hop| hop.name == node))).collect();
            let hit = match passes.as_slice() {
                [] => Hit::Partly,
                all if all.iter().all(|passes| *passes == Some(true)) => Hit::Wholly,
                all if all.iter().all(|passes| *passes == Some(false)) => Hit::Not,
                _ => Hit::Partly,
            };
            (side.name, hit)
        };
        let hit: BTreeMap<_, _> = self.sides.iter().map(of).collect();
        anyhow::ensure!(hit.get(node) == Some(&Hit::Wholly), "not everything over {node} passes it");
        Ok(hit)
    }

    async fn strike(&mut self, failure: Failure) -> anyhow::Result<()> {
        match failure {
            Failure::GatewayKilled => self.stack.gateways.first_mut().context("no gateway")?.kill().await,
            Failure::RelayKilled => self.stack.relays.first_mut().context("no relay")?.kill().await,
            Failure::LinkCut => self.site.cut(0, 2).await,
            Failure::WorkerKilled => self.workers.first_mut().context("no worker")?.0.kill().await,
            Failure::WorkerCut => self.site.cut(0, 4).await,
            Failure::ControlPlaneKilled => self.stack.control.kill().await,
            Failure::DatabaseRestarted => self.configuration.restart().await,
        }
    }

    async fn heal(&mut self, failure: Failure) -> anyhow::Result<()> {
        match failure {
            Failure::GatewayKilled => self.stack.gateways.first_mut().context("no gateway")?.restart().await,
            Failure::RelayKilled => self.stack.relays.first_mut().context("no relay")?.restart().await,
            Failure::LinkCut => self.site.mend(0, 2).await,
            Failure::WorkerKilled => self.workers.first_mut().context("no worker")?.0.restart().await,
            Failure::WorkerCut => self.site.mend(0, 4).await,
            Failure::ControlPlaneKilled => self.stack.control.restart().await,
            Failure::DatabaseRestarted => Ok(()),
        }
    }

    async fn judge(&self, failure: Failure, side: &Side, account: &Account, hit: Hit) -> anyhow::Result<()> {
        let written = self.written(side).await?;
        let (mut acknowledged, mut stored) = (0, 0);
        for client in 0..CLIENTS {
            let told = account.acknowledged.get(&client).copied().unwrap_or_default();
            let there = written.get(&client).copied().unwrap_or_default();
            anyhow::ensure!(told <= there, "client {client} was told of {told} rows, and {there} are there");
            // What was under way when it broke may have been done without anybody being told.
            anyhow::ensure!(there <= told + 1, "client {client} was told of {told} rows, and {there} are there");
            acknowledged += told;
            stored += there;
        }
        anyhow::ensure!(acknowledged > 0, "pgbench did nothing: {}", account.pgbench.stderr);
        let (down, up) = (account.down, account.up);
        figure::say(&format!(
            "{failure:?}, {}{}: {acknowledged} rows acknowledged, {stored} stored; clients of pgbench broken off: {}; \
             {} MiB down {down:?}, up {up:?}",
            side.name,
            match hit {
                Hit::Not => "",
                Hit::Partly => " (hit in part)",
                Hit::Wholly => " (hit)",
            },
            account.pgbench.stderr.matches("aborted in").count(),
            mib(),
        ));
        anyhow::ensure!(down != Outcome::Lie && up != Outcome::Lie, "a transfer looks complete and is not");
        match hit {
            Hit::Wholly => {
                anyhow::ensure!(!account.pgbench.status.success(), "pgbench has not noticed");
                let broken = (down, up) == (Outcome::Broken, Outcome::Broken);
                anyhow::ensure!(broken, "more than half came over what is dead");
            }
            Hit::Partly => {}
            Hit::Not => {
                anyhow::ensure!(account.pgbench.status.success(), "pgbench: {}", account.pgbench.stderr);
                anyhow::ensure!((down, up) == (Outcome::Whole, Outcome::Whole), "a stream elsewhere was cut");
            }
        }
        Ok(())
    }

    /// Rows of this run in the database, past Postern.
    async fn written(&self, side: &Side) -> anyhow::Result<BTreeMap<u32, u64>> {
        let (at, network) = (side.database.address(), network_of(side.name));
        let question = format!("select client, count(*) from proof where run = {} group by client", self.runs);
        let answer = self.site.within(network, move || async move { Postgres::query(at, &question).await }).await?;
        let row = |line: &str| {
            let (client, count) = line.split_once('|')?;
            Some((client.parse().ok()?, count.parse().ok()?))
        };
        Ok(answer.lines().filter_map(row).collect())
    }

    /// Both directions over every side, in the client's network; by the number of the side.
    fn transfer_all(&self, ready: mpsc::Sender<()>) -> JoinHandle<anyhow::Result<BTreeMap<usize, (Outcome, Outcome)>>> {
        let places: Vec<SocketAddr> = self.sides.iter().map(|side| side.vault_at).collect();
        let round = self.rounds.subscribe();
        let client = Arc::clone(self.site.network(CLIENT));
        tokio::spawn(async move {
            let running = client.inside(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async move {
                    let mut transfers = JoinSet::new();
                    for (number, place) in places.into_iter().enumerate() {
                        let (ready, round) = (ready.clone(), round.clone());
                        let tell = |ready: mpsc::Sender<()>| {
                            move || {
                                let _ = ready.try_send(());
                            }
                        };
                        transfers.spawn(async move {
                            let down = vault::download(place, mib(), tell(ready.clone()));
                            let up = vault::upload(place, mib(), round, tell(ready));
                            let (down, up) = tokio::try_join!(down, up)?;
                            anyhow::Ok((number, (down, up)))
                        });
                    }
                    transfers.join_all().await.into_iter().collect()
                })
            });
            running.await?
        })
    }

    /// `pgbench` in the client's network, and what it says was acknowledged, by client.
    fn bench(&self, side: &Side) -> anyhow::Result<JoinHandle<anyhow::Result<Benched>>> {
        let folder = self.logs.path().join(format!("{}-{}", side.name, self.runs));
        std::fs::create_dir(&folder)?;
        let script = folder.join("script.sql");
        std::fs::write(&script, "insert into proof (run, client) values (:run, :client_id);\n")?;
        let inner = Postgres::client("pgbench", side.database_at)?;
        let inner = inner.as_std();
        let mut pgbench = self.site.network(CLIENT).command(inner.get_program());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => pgbench.env(name, value),
                None => pgbench.env_remove(name),
            };
        }
        pgbench.args(["--no-vacuum", "--jobs", "1", "--client", &CLIENTS.to_string()]);
        pgbench.args(["--time", &SECONDS.to_string(), "--define", &format!("run={}", self.runs)]);
        pgbench.arg("--log").arg(format!("--log-prefix={}", folder.join("log").display()));
        pgbench.arg("--file").arg(&script);
        Ok(tokio::spawn(async move {
            let output = run(&mut pgbench.into(), PATIENCE).await?;
            Ok((output, acknowledged(&folder)?))
        }))
    }

    /// Waits until every way is served and the control plane has everybody.
    async fn everybody_works(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + BACK_WITHIN;
        for side in &self.sides {
            let at = side.database_at;
            loop {
                let question = async move || Postgres::query(at, "select 6 * 7").await;
                match self.site.within(CLIENT, question).await {
                    Ok(answer) => break anyhow::ensure!(answer == "42"),
                    Err(error) => anyhow::ensure!(Instant::now() < deadline, "{}: {error:#}", side.name),
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        self.stack.nodes_are_connected().await
    }

    /// Every transfer that reached a vault has a session record with an end, and the records are as they were written.
    async fn everything_is_on_record(&self) -> anyhow::Result<()> {
        let whole = |sessions: &[Value]| {
            let of = |side: &Side| {
                let own = |session: &&Value| {
                    session.get("resource").and_then(Value::as_str) == Some(side.vault.to_string().as_str())
                };
                sessions.iter().filter(own).count() as u64
            };
            let complete = self.sides.iter().all(|side| of(side) == *side.accepted.borrow());
            complete && sessions.iter().all(|session| session.get("ended_at").is_some_and(|at| !at.is_null()))
        };
        let sessions = self.stack.sessions_when(whole).await?;
        for side in &self.sides {
            let id = side.vault.to_string();
            let own = sessions.iter().filter(|session| session.get("resource").and_then(Value::as_str) == Some(&id));
            let (recorded, accepted) = (own.count() as u64, *side.accepted.borrow());
            figure::say(&format!("{}: {accepted} transfers reached the vault, {recorded} are on record", side.name));
            anyhow::ensure!(recorded >= accepted, "session records are lost");
        }
        let open = sessions.iter().filter(|session| session.get("ended_at").is_none_or(Value::is_null)).count();
        anyhow::ensure!(open == 0, "{open} of {} session records have no end", sessions.len());
        let verified = self.stack.api().get("/api/v1/audit/verify").await?;
        anyhow::ensure!(verified.get("ok") == Some(&json!(true)), "{verified}");
        Ok(())
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.second.stop().await?;
        for (worker, balancer) in &mut self.workers {
            worker.stop().await?;
            balancer.halt().await?;
        }
        self.stack.stop().await?;
        for side in self.sides {
            side.database.stop().await?;
        }
        self.configuration.stop().await
    }
}

fn network_of(side: &str) -> usize {
    SIDES.iter().find(|(name, _)| *name == side).map(|(_, network)| *network).unwrap_or_default()
}

/// A vault in a network, for as long as the value lives.
async fn open_vault(
    site: &Site,
    network: usize,
    round: vault::Round,
    accepted: watch::Sender<u64>,
) -> anyhow::Result<(SocketAddr, Serving)> {
    let (told, address) = tokio::sync::oneshot::channel();
    let serving = site.serve(network, async move || {
        let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await else { return };
        let _ = told.send(listener.local_addr());
        vault::serve(listener, mib(), round, accepted).await;
    });
    Ok((address.await.context("no vault")??, serving))
}

/// The only worker of a cluster of the same name, behind haproxy in the DMZ.
async fn start_worker(
    stack: &Stack,
    site: &Site,
    name: &str,
    network: usize,
) -> anyhow::Result<(ClusterId, (Worker, ExampleBalancer))> {
    let cluster = stack.create_cluster(name, SocketAddr::new(DMZ, 1)).await?;
    let key = stack.create_key(cluster).await?;
    let how = How { launcher: site.launcher(network), host: Some(address(network, 0)), ..How::default() };
    let liveness = format!(":{LIVENESS}");
    let from = address(0, network).to_string();
    let environment = [("POSTERN_LIVENESS", liveness.as_str()), ("POSTERN_PROXY_PROTOCOL_FROM", &from)];
    let worker = stack.start_worker_in(name, &key, &how, &environment).await?;
    // Both servers of the example are this one.
    let balancer = ExampleBalancer::haproxy_tcp_watching(DMZ, [worker.listens(); 2], LIVENESS).await?;
    let advertise = json!({"advertise": balancer.address().to_string()});
    stack.api().patch(&format!("/api/v1/clusters/{cluster}"), advertise).await?;
    Ok((cluster, (worker, balancer)))
}

/// Makes a resource that only this node dials, or this cluster's, and connects it; its id and where it appears.
async fn appear(
    stack: &Stack,
    name: &str,
    (node, cluster): (&str, Option<ClusterId>),
    kind: Kind,
    at: SocketAddr,
) -> anyhow::Result<(ResourceId, SocketAddr)> {
    let resource = stack.create_resource(name, kind, at).await?;
    match cluster {
        None => stack.set_egress(resource, &format!("name:{node}")).await?,
        Some(cluster) => {
            let bound = json!({"cluster": cluster});
            stack.api().patch(&format!("/api/v1/resources/{resource}"), bound).await?;
        }
    }
    stack.add_rule(stack.role, &[resource]).await?;
    stack.user().knows(name).await?;
    let address = stack.user().connect(name).await?;
    let led = |status: &postern_local_api::message::ResourceStatus| {
        status.route.as_ref().is_some_and(|route| route.hops.last().is_some_and(|hop| hop.name == node))
    };
    stack.user().resource_when(name, led).await?;
    Ok((resource, address))
}

/// The transactions that `pgbench` has logged as done, by client.
fn acknowledged(folder: &Path) -> anyhow::Result<BTreeMap<u32, u64>> {
    let mut counts = BTreeMap::new();
    let logs = std::fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path());
    let is_log = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("log."));
    for log in logs.filter(is_log) {
        for line in std::fs::read_to_string(log)?.lines() {
            let mut words = line.split_whitespace();
            let client = words.next().and_then(|word| word.parse().ok());
            // The third word is the time it took; it is a word when it failed.
            let done = words.nth(1).is_some_and(|word| word.parse::<u64>().is_ok());
            if let Some(client) = client.filter(|_| done) {
                *counts.entry(client).or_default() += 1;
            }
        }
    }
    Ok(counts)
}
