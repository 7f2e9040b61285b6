//! Real servers from Debian packages. None is started by its package: each test starts its own, on a free port, with
//! a data folder of its own.

mod example_balancer;
mod folder;
mod https_proxy;
mod nginx;
mod pgbouncer;
mod postgres;
mod redis;
mod redis_cluster;
mod sshd;

pub use example_balancer::ExampleBalancer;
pub use folder::{Folder, folder};
pub use https_proxy::{HttpsProxy, PROXY_PASSWORD, PROXY_USER};
pub use nginx::Nginx;
pub use pgbouncer::PgBouncer;
pub use postgres::Postgres;
pub use redis::Redis;
pub use redis_cluster::RedisCluster;
pub use sshd::Sshd;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    ports::free_port_of,
    process::{Process, READY_DEADLINE},
};

/// How often a server is started anew because somebody took its port first.
const ATTEMPTS: u32 = 5;

/// Starts a server that cannot be given port 0: `start` gets a port that was free a moment ago. A server that ends
/// before it accepts connections is started again with another port.
async fn start_on_free_port(start: impl AsyncFn(u16) -> anyhow::Result<Process>) -> anyhow::Result<(Process, u16)> {
    let here = Ipv4Addr::LOCALHOST.into();
    let (process, address) = start_at(here, async |address: SocketAddr| start(address.port()).await).await?;
    Ok((process, address.port()))
}

/// The same at another address of this machine.
async fn start_at(
    host: IpAddr,
    start: impl AsyncFn(SocketAddr) -> anyhow::Result<Process>,
) -> anyhow::Result<(Process, SocketAddr)> {
    let mut attempt = 1;
    loop {
        let address = SocketAddr::new(host, free_port_of(host)?);
        let mut process = start(address).await?;
        match accepts(&mut process, address).await {
            Ok(()) => return Ok((process, address)),
            Err(_) if attempt < ATTEMPTS && !process.is_running() => process.settle(),
            Err(error) => return Err(error),
        }
        attempt += 1;
    }
}

async fn accepts(process: &mut Process, address: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_DEADLINE;
    loop {
        anyhow::ensure!(process.is_running(), "{} ended at its start\n{}", process.name(), process.log_end());
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{} accepts no connection", process.name());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
