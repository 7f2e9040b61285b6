//! A Redis Cluster of six nodes on three hosts, which announces host names.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{Folder, accepts, folder};
use crate::{
    command::{PATIENCE, find_program, run},
    process::Process,
};

/// Two nodes on each host, at these ports.
const PORTS: [u16; 2] = [7001, 7002];
const HOSTS: u8 = 3;
/// How long the nodes may take to agree.
const DEADLINE: Duration = Duration::from_secs(60);

/// Three masters, each with a replica. It takes fixed ports of fixed loopback addresses, so it needs a network of the
/// test's own.
pub struct RedisCluster {
    nodes: Vec<Process>,
    #[expect(dead_code, reason = "holds the working folders until the servers are gone")]
    folder: Folder,
}

impl RedisCluster {
    /// The programs it needs; the test is skipped when one is missing.
    pub const PROGRAMS: [&str; 2] = ["redis-server", "redis-cli"];
    /// What all names of its hosts lie under.
    pub const DOMAIN: &str = "redis.internal";

    /// The hosts by the names that the nodes announce.
    pub fn hosts() -> impl Iterator<Item = (String, IpAddr)> {
        (1..=HOSTS).map(|n| (format!("n{n}.{}", Self::DOMAIN), Ipv4Addr::new(127, 0, 1, n).into()))
    }

    pub async fn start() -> anyhow::Result<Self> {
        let folder = folder()?;
        let server = find_program("redis-server").context("redis-server is not installed")?;
        let mut nodes = Vec::new();
        let mut addresses = Vec::new();
        // The first three become masters: one on each host.
        for port in PORTS {
            for (name, ip) in Self::hosts() {
                let home = folder.private(&format!("{name}-{port}"), None)?;
                let mut command = Command::new(&server);
                command.args([
                    "--port",
                    &port.to_string(),
                    "--bind",
                    &ip.to_string(),
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ]);
                command.args(["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]);
                command.args(["--cluster-announce-ip", &ip.to_string(), "--cluster-announce-hostname", &name]);
                command.args(["--cluster-preferred-endpoint-type", "hostname"]);
                command.args(["--logfile", "/dev/stderr", "--dir"]).arg(&home);
                let mut node = Process::spawn(&format!("redis-{name}-{port}"), &mut command, &home)?;
                accepts(&mut node, SocketAddr::new(ip, port)).await?;
                nodes.push(node);
                addresses.push(format!("{ip}:{port}"));
            }
        }
        let cluster = Self { nodes, folder };
        let mut create: Vec<&str> = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        create.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        Self::cli(&create).await.context("the cluster cannot be made")?;
        cluster.agrees(&addresses).await?;
        Ok(cluster)
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.stop().await?;
        }
        Ok(())
    }

    /// Every node says that all slots are served, and knows every host's name.
    async fn agrees(&self, addresses: &[String]) -> anyhow::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        for address in addresses {
            let (host, port) = address.split_once(':').context("an address has a port")?;
            loop {
                let info = Self::cli(&["-h", host, "-p", port, "cluster", "info"]).await?;
                let slots = Self::cli(&["-h", host, "-p", port, "cluster", "slots"]).await?;
                let named = Self::hosts().all(|(name, _)| slots.matches(&name).count() >= PORTS.len());
                if info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:6") && named {
                    break;
                }
                anyhow::ensure!(Instant::now() < deadline, "{address} does not agree:\n{info}\n{slots}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    async fn cli(arguments: &[&str]) -> anyhow::Result<String> {
        let program = find_program("redis-cli").context("redis-cli is not installed")?;
        run(tokio::process::Command::new(program).args(arguments), PATIENCE).await?.success()
    }
}
