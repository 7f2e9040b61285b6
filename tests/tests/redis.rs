//! Redis through a loopback address: the benchmark, a gateway that dies, access that is taken away.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use postern_proto::resource::Kind;
use postern_tests::{
    client,
    command::{Output, PATIENCE, run},
    figure, need_program,
    servers::Redis,
    stack::Stack,
};

/// So many requests of each kind, over 50 connections.
async fn benchmark(address: SocketAddr, requests: u32) -> anyhow::Result<Output> {
    let mut command = Redis::client("redis-benchmark", address)?;
    command.args(["-t", "set,get", "-c", "50", "-d", "64", "-q", "-n", &requests.to_string()]);
    run(&mut command, PATIENCE).await
}

/// Waits until the benchmark has all its connections.
async fn all_are_connected(address: SocketAddr) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while connections_to(address)? < 50 {
        anyhow::ensure!(Instant::now() < end, "{} connections", connections_to(address)?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Waits until the benchmark has lost all its connections, and sees that it does not take that for success.
///
/// Whether it ends is its own affair: redis-benchmark 7.0 at times runs in circles, without a connection and without a
/// system call, when a write has failed.
async fn all_are_lost(
    address: SocketAddr,
    running: tokio::task::JoinHandle<anyhow::Result<Output>>,
    deadline: Duration,
) -> anyhow::Result<()> {
    let end = Instant::now() + deadline;
    while connections_to(address)? > 0 {
        anyhow::ensure!(Instant::now() < end, "redis-benchmark goes on over {} connections", connections_to(address)?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    match tokio::time::timeout(Duration::from_secs(2), running).await {
        Ok(output) => output??.failure().map(drop),
        Err(_) => {
            anyhow::ensure!(connections_to(address)? == 0, "redis-benchmark goes on");
            Ok(())
        }
    }
}

/// Connections of programs of this machine to an IPv4 address, those included that only the other side has ended.
fn connections_to(address: SocketAddr) -> anyhow::Result<usize> {
    let SocketAddr::V4(address) = address else { anyhow::bail!("{address} is not IPv4") };
    let remote = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let held = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        // 06 is TIME_WAIT: no program has it any more.
        fields.next() == Some(&*remote) && fields.next() != Some("06")
    };
    Ok(table.lines().filter(held).count())
}

async fn redis_cli(address: SocketAddr, arguments: &[&str]) -> anyhow::Result<Output> {
    run(Redis::client("redis-cli", address)?.args(arguments), PATIENCE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_benchmark_runs() -> anyhow::Result<()> {
    for program in Redis::PROGRAMS {
        need_program!(program);
    }
    let server = Redis::start().await?;
    let stack = Stack::builder().resource("cache", Kind::Redis, server.address()).start().await?;
    let address = stack.user().connect("cache").await?;
    assert_eq!(redis_cli(address, &["set", "word", "kept"]).await?.success()?.trim(), "OK");
    assert_eq!(redis_cli(server.address(), &["get", "word"]).await?.success()?.trim(), "kept");
    let output = benchmark(address, 20_000).await?.success()?;
    for kind in ["SET", "GET"] {
        assert!(output.contains(&format!("{kind}: ")), "{output}");
    }
    for line in output.replace('\r', "\n").lines().filter(|line| line.contains("p50=")) {
        figure::say(line);
    }
    stack.stop().await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_an_error_when_the_gateway_dies_and_the_next_ones_work() -> anyhow::Result<()> {
    for program in Redis::PROGRAMS {
        need_program!(program);
    }
    let server = Redis::start().await?;
    let mut stack = Stack::builder().gateways(2).resource("cache", Kind::Redis, server.address()).start().await?;
    let address = stack.user().connect("cache").await?;
    let running = tokio::spawn(benchmark(address, 100_000_000));
    let carrier = stack.carrier_of("cache").await?;
    all_are_connected(address).await?;
    carrier.kill().await?;
    all_are_lost(address, running, Duration::from_secs(20)).await?;
    assert_eq!(redis_cli(address, &["ping"]).await?.success()?.trim(), "PONG");
    stack.stop().await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_cut_when_access_is_taken_away() -> anyhow::Result<()> {
    for program in Redis::PROGRAMS {
        need_program!(program);
    }
    let server = Redis::start().await?;
    let mut stack = Stack::builder().resource("cache", Kind::Redis, server.address()).start().await?;
    let address = stack.user().connect("cache").await?;
    let running = tokio::spawn(benchmark(address, 100_000_000));
    stack.carrier_of("cache").await?;
    all_are_connected(address).await?;
    stack.revoke_all().await?;
    all_are_lost(address, running, Duration::from_secs(10)).await?;
    // Redis notices it in its own time; the one that is left asks.
    let end = Instant::now() + client::DEADLINE;
    loop {
        let clients = redis_cli(server.address(), &["client", "list"]).await?.success()?;
        if clients.lines().filter(|line| !line.is_empty()).count() == 1 {
            break;
        }
        assert!(Instant::now() < end, "connections survived: {clients}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stack.stop().await?;
    server.stop().await
}
