//! PostgreSQL through a loopback address: queries, load, a gateway that dies, access that is taken away.

use std::time::Duration;

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    client,
    command::{Output, PATIENCE, run},
    figure, need_program,
    servers::Postgres,
    stack::Stack,
};

/// `pgbench` with 20 clients for so many seconds, in the background.
fn load(
    address: std::net::SocketAddr,
    seconds: u32,
) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<Output>>> {
    let mut pgbench = Postgres::client("pgbench", address)?;
    pgbench.args(["--client", "20", "--jobs", "2", "--no-vacuum", "--select-only", "--time", &seconds.to_string()]);
    Ok(tokio::spawn(async move { run(&mut pgbench, PATIENCE).await }))
}

async fn prepare(server: &Postgres) -> anyhow::Result<()> {
    let mut pgbench = Postgres::client("pgbench", server.address())?;
    run(pgbench.args(["--initialize", "--quiet", "--scale", "1"]), PATIENCE).await?.success()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_and_twenty_pgbench_clients_work() -> anyhow::Result<()> {
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    let server = Postgres::start().await?;
    prepare(&server).await?;
    let stack = Stack::builder().resource("db", Kind::Postgres, server.address()).start().await?;
    let address = stack.user().connect("db").await?;
    assert_eq!(Postgres::query(address, "select 6 * 7").await?, "42");
    let large =
        Postgres::query(address, "select md5(string_agg(i::text, '')) from generate_series(1, 200000) i").await?;
    assert_eq!(
        large,
        Postgres::query(server.address(), "select md5(string_agg(i::text, '')) from generate_series(1, 200000) i")
            .await?
    );
    let whole = Postgres::query(address, "select repeat('x', 20000000)").await?;
    assert_eq!(whole.len(), 20_000_000);
    let output = load(address, 5)?.await??.success()?;
    assert!(output.contains("number of failed transactions: 0"), "{output}");
    for line in output.lines().filter(|line| line.contains("tps") || line.contains("latency")) {
        figure::say(line);
    }
    stack.stop().await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_an_error_when_the_gateway_dies_and_the_next_ones_work() -> anyhow::Result<()> {
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    let server = Postgres::start().await?;
    prepare(&server).await?;
    let mut stack = Stack::builder().gateways(2).resource("db", Kind::Postgres, server.address()).start().await?;
    let address = stack.user().connect("db").await?;
    // It ends by itself: clients that came over the other gateway go on.
    let running = load(address, 15)?;
    let carrier = stack.carrier_of("db").await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    carrier.kill().await?;
    let killed = std::time::Instant::now();
    let again = Postgres::query(address, "select 6 * 7").await.context("a new connection after the gateway died")?;
    assert_eq!(again, "42");
    figure::say(&format!("a new connection worked {:?} after the gateway died", killed.elapsed()));
    let output = tokio::time::timeout(client::DEADLINE, running).await.context("pgbench hangs")???;
    let error = output.failure()?;
    assert!(error.contains("closed") || error.contains("reset") || error.contains("abort"), "{error}");
    stack.stop().await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_cut_when_access_is_taken_away() -> anyhow::Result<()> {
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    let server = Postgres::start().await?;
    prepare(&server).await?;
    let mut stack = Stack::builder().resource("db", Kind::Postgres, server.address()).start().await?;
    let address = stack.user().connect("db").await?;
    let running = load(address, 60)?;
    stack.carrier_of("db").await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stack.revoke_all().await?;
    let output = tokio::time::timeout(Duration::from_secs(10), running).await.context("pgbench goes on")???;
    output.failure()?;
    // PostgreSQL notices it in its own time.
    let busy =
        "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
    let end = std::time::Instant::now() + client::DEADLINE;
    while Postgres::query(server.address(), busy).await? != "0" {
        assert!(std::time::Instant::now() < end, "connections to the database survived");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(Postgres::query(address, "select 1").await.is_err(), "a new connection was let through");
    stack.stop().await?;
    server.stop().await
}
