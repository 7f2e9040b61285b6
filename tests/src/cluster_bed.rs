//! A proxy cluster in networks of its own: two workers in private networks that the client has no way to, whatever is to
//! stand before them in the DMZ, and a resource that both workers reach.
//!
//! ```text
//! client (1) ── DMZ (0: control plane, …) ──┬── private 1 (2: worker-1, resource)
//!                                           │       │
//!                                           └── private 2 (3: worker-2)
//! ```
//!
//! Nothing is forwarded between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_proto::{
    id::{ClusterId, ResourceId},
    resource::Kind,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    client,
    site::{DMZ, LocalTarget, Site, address},
    stack::{Builder, ClusterKey, How, Stack, Worker},
    target::Behaviour,
};

/// The networks by number. A test may have more.
pub const CLIENT: usize = 1;
pub const PRIVATE: [usize; 2] = [2, 3];
pub const NETWORKS: usize = 3;

/// See the module. The resource is called `db`, and the user has not connected it yet.
pub struct ClusterBed {
    pub site: Site,
    pub stack: Stack,
    pub cluster: ClusterId,
    pub key: ClusterKey,
    pub resource: ResourceId,
    pub workers: Vec<Worker>,
    _target: LocalTarget,
}

impl ClusterBed {
    /// All but the workers. The cluster has no address yet where somebody listens.
    pub async fn start(site: Site, builder: Builder) -> anyhow::Result<Self> {
        site.join(PRIVATE[0], PRIVATE[1]).await?;
        let words = site.launcher(CLIENT);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let stack = builder.host(DMZ).gateways(0).user_launcher(&words).start().await?;
        // Where both workers reach it.
        let target = site.target_at(PRIVATE[0], address(PRIVATE[0], PRIVATE[1]), Behaviour::Echo).await?;
        let resource = stack.create_resource("db", Kind::Tcp, target.address()).await?;
        stack.add_rule(stack.role, &[resource]).await?;
        let cluster = stack.create_cluster("eu", SocketAddr::new(DMZ, 1)).await?;
        let key = stack.create_key(cluster).await?;
        stack.api().patch(&format!("/api/v1/resources/{resource}"), json!({"cluster": cluster})).await?;
        stack.user().knows("db").await?;
        Ok(Self { site, stack, cluster, key, resource, workers: Vec::new(), _target: target })
    }

    /// One worker in each private network, with these variables; with `named` they take the balancer's word for whose
    /// connections come from it.
    pub async fn start_workers(&mut self, environment: &[(&str, &str)], named: bool) -> anyhow::Result<()> {
        for (name, network) in ["worker-1", "worker-2"].into_iter().zip(PRIVATE) {
            let balancer = address(0, network).to_string();
            let from = named.then_some(("POSTERN_PROXY_PROTOCOL_FROM", balancer.as_str()));
            // Where balancers look how they are; each has a network of its own.
            let common = [("POSTERN_LIVENESS", "0.0.0.0:9090")];
            let environment: Vec<_> = environment.iter().copied().chain(common).chain(from).collect();
            let worker = self.start_worker(name, network, &environment).await?;
            self.workers.push(worker);
        }
        Ok(())
    }

    /// A worker in this network, with these variables.
    pub async fn start_worker(
        &self,
        name: &str,
        network: usize,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Worker> {
        let launcher = if network == 0 { Vec::new() } else { self.site.launcher(network) };
        let how = How { launcher, host: Some(Ipv4Addr::UNSPECIFIED.into()), ..How::default() };
        // Where the balancer looks, which is nobody else's port in a network of its own.
        let liveness = (network != 0).then_some(("POSTERN_LIVENESS", ":9090"));
        let environment: Vec<_> = environment.iter().copied().chain(liveness).collect();
        self.stack.start_worker_in(name, &self.key, &how, &environment).await
    }

    /// Where a balancer in the DMZ finds the workers.
    pub fn behind(&self) -> anyhow::Result<[SocketAddr; 2]> {
        let found = self.workers.iter().zip(PRIVATE);
        let found: Vec<_> =
            found.map(|(worker, network)| SocketAddr::new(address(network, 0), worker.listens().port())).collect();
        found.try_into().ok().context("two workers")
    }

    /// Changes the cluster.
    pub async fn change(&self, change: Value) -> anyhow::Result<()> {
        self.stack.api().patch(&format!("/api/v1/clusters/{}", self.cluster), change).await.map(drop)
    }

    /// Streams of the user at the same time, each with something to say, once one goes through.
    pub async fn carries(&self, local: SocketAddr) -> anyhow::Result<()> {
        let working = self.site.within(CLIENT, move || async move {
            let deadline = Instant::now() + Duration::from_secs(30);
            while !client::exchange(local, b"hello").await.is_ok_and(|answer| answer == b"hello") {
                anyhow::ensure!(Instant::now() < deadline, "no stream goes through");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let mut streams = Vec::new();
            for n in 0..8_u8 {
                let mut stream = client::open(local).await?;
                client::ask(&mut stream, &vec![n; 200_000]).await?;
                streams.push(stream);
            }
            for stream in &mut streams {
                client::ask(stream, b"all of them live").await?;
            }
            Ok(())
        });
        working.await
    }

    /// From where each worker says that its clients came, once both have carried.
    pub async fn recorded(&self) -> anyhow::Result<BTreeMap<String, BTreeSet<IpAddr>>> {
        let sessions = self.stack.sessions_when(|sessions| clients_by_node(sessions).len() == 2).await?;
        let found = clients_by_node(&sessions);
        let ids: BTreeSet<String> = self.workers.iter().map(|worker| worker.id().to_string()).collect();
        anyhow::ensure!(found.keys().cloned().collect::<BTreeSet<_>>() == ids, "not both have carried: {found:?}");
        Ok(found)
    }

    /// The client reaches nobody but whoever is at this address, and no worker.
    pub async fn client_reaches_only(&self, there: SocketAddr) -> anyhow::Result<()> {
        let [one, other] = self.behind()?;
        for (to, reached) in [(there, true), (one, false), (other, false)] {
            let connected = self.site.within(CLIENT, move || async move {
                let connecting = TcpStream::connect(to);
                Ok(matches!(tokio::time::timeout(Duration::from_millis(1500), connecting).await, Ok(Ok(_))))
            });
            anyhow::ensure!(connected.await? == reached, "the client and {to}");
        }
        Ok(())
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            worker.stop().await?;
        }
        self.stack.stop().await
    }
}

fn clients_by_node(sessions: &[Value]) -> BTreeMap<String, BTreeSet<IpAddr>> {
    let mut found: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    for session in sessions {
        let text = |field| session.get(field).and_then(Value::as_str);
        if let (Some(node), Some(client)) = (text("node"), text("client"))
            && let Ok(client) = client.parse::<SocketAddr>()
        {
            found.entry(node.to_owned()).or_default().insert(client.ip());
        }
    }
    found
}
