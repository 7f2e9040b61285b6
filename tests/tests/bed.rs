//! The bed itself: servers start, answer direct connections, and leave nothing behind.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::Context as _;
use postern_tests::{
    command::{PATIENCE, run},
    content, need, need_program, peer,
    servers::{Nginx, Postgres, Redis, Sshd, folder},
    skip::is_root,
    target::{Behaviour, Target},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn postgres_answers_a_query() -> anyhow::Result<()> {
    for program in Postgres::PROGRAMS {
        need_program!(program);
    }
    let server = Postgres::start().await?;
    assert_eq!(Postgres::query(server.address(), "select 6 * 7").await?, "42");
    server.stop().await
}

#[tokio::test]
async fn redis_answers() -> anyhow::Result<()> {
    for program in Redis::PROGRAMS {
        need_program!(program);
    }
    let server = Redis::start().await?;
    let pong = run(Redis::client("redis-cli", server.address())?.arg("ping"), PATIENCE).await?.success()?;
    assert_eq!(pong.trim(), "PONG");
    server.stop().await
}

#[tokio::test]
async fn nginx_serves_a_file_whole() -> anyhow::Result<()> {
    for program in Nginx::PROGRAMS {
        need_program!(program);
    }
    let server = Nginx::start().await?;
    let file = server.root().join("file");
    content::write_sparse(&file, 3, 3_000_000)?;
    let copy = folder()?;
    let copy = copy.path().join("copy");
    let url = format!("http://{}/file", server.address());
    run(tokio::process::Command::new("curl").args(["-sSf", &url, "-o"]).arg(&copy), PATIENCE).await?.success()?;
    assert_eq!(content::hash_file(&copy)?, content::hash_file(&file)?);
    server.stop().await
}

#[tokio::test]
async fn sshd_runs_a_command_and_copies_a_file() -> anyhow::Result<()> {
    for program in Sshd::PROGRAMS {
        need_program!(program);
    }
    let server = Sshd::start().await?;
    let mut ssh = server.client("ssh", server.address())?;
    let answer = run(ssh.args(["resource", "echo over-ssh"]), PATIENCE).await?.success()?;
    assert_eq!(answer.trim(), "over-ssh");
    let (from, to) = (server.folder().join("from"), server.folder().join("to"));
    content::write_dense(&from, 5, 1_000_000)?;
    let mut scp = server.client("scp", server.address())?;
    run(scp.arg("-q").arg(&from).arg(format!("resource:{}", to.display())), PATIENCE).await?.success()?;
    assert_eq!(content::hash_file(&from)?, content::hash_file(&to)?);
    server.stop().await
}

#[tokio::test]
async fn a_target_counts_connections_and_bytes() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let mut client = tokio::net::TcpStream::connect(target.address()).await?;
    client.write_all(b"hello").await?;
    client.shutdown().await?;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await?;
    assert_eq!(answer, b"hello");
    target.wait_open(0, Duration::from_secs(5)).await?;
    assert_eq!((target.accepted(), target.bytes()), (1, 5));
    Ok(())
}

#[test]
fn a_client_under_another_user_belongs_to_that_user() -> anyhow::Result<()> {
    need!(is_root(), "needs root to act as another user");
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let to = listener.local_addr()?;
    let client = peer::as_user(20_001, move || peer::Connect::to(to).open())?;
    // Its port alone may also be that of another program's connection to elsewhere.
    let end = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let wanted = [end(client.local_addr()?), end(to)];
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let fields: Vec<&str> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.get(1..3).is_some_and(|ends| ends == wanted))
        .context("the connection is not in the table")?;
    assert_eq!(fields.get(7), Some(&"20001"));
    assert!(is_root(), "the test itself must stay root");
    Ok(())
}
