//! Nodes that are restarted one after the other while new connections come all the time: none of those is lost.
//!
//! `POSTERN_ROLLING_ROUNDS` says how often each is restarted.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Context as _;
use postern_local_api::message::{GatewayState, Status};
use postern_proto::{id::NodeId, resource::Kind};
use postern_tests::{
    command::{PATIENCE, run},
    figure, need_program,
    ports::{free_port, own_loopback},
    servers::{ExampleBalancer, Postgres},
    stack::{How, Stack, Worker},
};
use rustix::process::Signal;
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

/// How long a node may take to end.
const ENDED_WITHIN: Duration = Duration::from_secs(30);

fn rounds() -> usize {
    std::env::var("POSTERN_ROLLING_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// A database with what `pgbench` needs.
async fn database() -> anyhow::Result<Postgres> {
    let server = Postgres::start().await?;
    let mut prepare = Postgres::client("pgbench", server.address())?;
    run(prepare.args(["--initialize", "--quiet", "--scale", "1"]), PATIENCE).await?.success()?;
    Ok(server)
}

/// `pgbench` that makes a new connection for each transaction, one after the other until it is told to stop.
struct Load {
    running: JoinHandle<anyhow::Result<u64>>,
    enough: watch::Sender<bool>,
}

impl Load {
    async fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let (enough, is_enough) = watch::channel(false);
        let running = tokio::spawn(async move {
            let mut made = 0;
            while !*is_enough.borrow() {
                made += Self::once(address).await?;
            }
            Ok(made)
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(Self { running, enough })
    }

    /// How many connections were made, each of which had its answer.
    async fn once(address: SocketAddr) -> anyhow::Result<u64> {
        let mut pgbench = Postgres::client("pgbench", address)?;
        pgbench.args(["--connect", "--client", "4", "--jobs", "2", "--no-vacuum", "--select-only", "--time", "4"]);
        let output = run(&mut pgbench, PATIENCE).await?;
        let said = format!("{}{}", output.stdout, output.stderr);
        anyhow::ensure!(output.status.success(), "a connection was lost: {said}");
        anyhow::ensure!(said.contains("number of failed transactions: 0"), "{said}");
        let made = said.lines().find_map(|line| line.strip_prefix("number of transactions actually processed: "));
        Ok(made.context("pgbench does not say how much it did")?.parse()?)
    }

    fn goes_on(&self) -> bool {
        !self.running.is_finished()
    }

    async fn lost_nothing(self, what: &str) -> anyhow::Result<()> {
        self.enough.send_replace(true);
        let made = self.running.await??;
        let restarts = 2 * rounds();
        figure::say(&format!("rolling restart of {what}: {restarts} restarts, {made} new connections, 0 lost"));
        Ok(())
    }
}

async fn known_as_reachable(stack: &Stack, node: NodeId) -> anyhow::Result<()> {
    let reachable = |status: &Status| {
        let found = status.gateways.iter().find(|gateway| gateway.id.node() == Some(node));
        found.is_some_and(|gateway| gateway.state == GatewayState::Reachable)
    };
    stack.user().status_when(reachable).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_are_restarted_under_pgbench_and_no_new_connection_is_lost() -> anyhow::Result<()> {
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    let server = database().await?;
    let mut stack = Stack::builder().gateways(2).resource("db", Kind::Postgres, server.address()).start().await?;
    let address = stack.user().connect("db").await?;
    assert_eq!(Postgres::query(address, "select 6 * 7").await?, "42");
    let load = Load::start(address).await?;
    for number in (0..2 * rounds()).map(|turn| turn % 2).take_while(|_| load.goes_on()) {
        let gateway = stack.gateways.get_mut(number).context("no gateway")?;
        gateway.signal(Signal::TERM)?;
        let status = gateway.wait(ENDED_WITHIN).await.context("a gateway does not end")?;
        assert!(status.success(), "{status}");
        gateway.restart().await?;
        let node = gateway.id();
        stack.node_is(node, "up").await?;
        known_as_reachable(&stack, node).await?;
    }
    load.lost_nothing("two gateways").await?;
    stack.stop().await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_behind_haproxy_are_restarted_under_pgbench_and_no_new_connection_is_lost() -> anyhow::Result<()> {
    need_program!(ExampleBalancer::HAPROXY);
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    let server = database().await?;
    let stack = Stack::builder().gateways(0).resource("db", Kind::Postgres, server.address()).start().await?;
    let cluster = stack.create_cluster("eu", SocketAddr::from(([127, 0, 0, 1], 1))).await?;
    let key = stack.create_key(cluster).await?;
    // Each has a machine to itself, as far as addresses go, and says on the same port how it is.
    let liveness = free_port()?;
    let mut workers = Vec::new();
    for name in ["one", "other"] {
        let host: IpAddr = own_loopback().into();
        let how = How { host: Some(host), ..How::default() };
        let at = SocketAddr::new(host, liveness).to_string();
        let environment = [("POSTERN_LIVENESS", at.as_str()), ("POSTERN_PROXY_PROTOCOL_FROM", "127.0.0.0/8")];
        workers.push(stack.start_worker_in(name, &key, &how, &environment).await?);
    }
    let behind: Vec<SocketAddr> = workers.iter().map(Worker::listens).collect();
    let behind = behind.try_into().ok().context("two workers")?;
    let balancer = ExampleBalancer::haproxy_tcp_watching([127, 0, 0, 1].into(), behind, liveness).await?;
    let advertise = json!({"advertise": balancer.address().to_string()});
    stack.api().patch(&format!("/api/v1/clusters/{cluster}"), advertise).await?;
    let resource = stack.resource("db").await?;
    stack.api().patch(&format!("/api/v1/resources/{resource}"), json!({"cluster": cluster})).await?;
    let leads = |status: &postern_local_api::message::ResourceStatus| {
        status.route.as_ref().is_some_and(|route| route.hops.first().is_some_and(|hop| hop.name == "eu"))
    };
    stack.user().resource_when("db", leads).await?;
    let address = stack.user().connect("db").await?;
    assert_eq!(Postgres::query(address, "select 6 * 7").await?, "42");
    let load = Load::start(address).await?;
    for number in (0..2 * rounds()).map(|turn| turn % 2).take_while(|_| load.goes_on()) {
        let worker = workers.get_mut(number).context("no worker")?;
        worker.signal(Signal::TERM)?;
        let status = worker.wait(ENDED_WITHIN).await.context("a worker does not end")?;
        assert!(status.success(), "{status}");
        worker.restart().await?;
        stack.node_is(worker.id(), "up").await?;
        balancer.sends_to_both().await?;
    }
    load.lost_nothing("two workers behind haproxy").await?;
    for worker in &mut workers {
        worker.stop().await?;
    }
    stack.stop().await?;
    balancer.stop().await?;
    server.stop().await
}
