//! Access that is taken away from 200 busy and idle connections to real programs: fifty to each of PostgreSQL, OpenSSH,
//! nginx and Redis.

use std::{
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    client::{self, End},
    content, figure, need_program,
    servers::{Nginx, Postgres, Redis, Sshd},
    stack::Stack,
    survivors,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

/// Of each program as many busy and as many idle ones.
const EACH: usize = 25;
/// No connection may live longer. What they take in fact is printed.
const LIMIT: Duration = Duration::from_secs(5);

type Ends = JoinSet<anyhow::Result<(End, Instant)>>;

/// A client that asks again and again until its connection breaks.
async fn ask_for_ever(mut stream: TcpStream, question: Vec<u8>, pause: Duration) -> anyhow::Result<(End, Instant)> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if stream.write_all(&question).await.is_err() {
            return Ok((End::Reset, Instant::now()));
        }
        match stream.read(&mut buffer).await {
            Ok(0) => return Ok((End::Closed, Instant::now())),
            Ok(_) => tokio::time::sleep(pause).await,
            Err(_) => return Ok((End::Reset, Instant::now())),
        }
    }
}

/// A client that reads slowly what never ends.
async fn read_slowly(mut stream: TcpStream) -> anyhow::Result<(End, Instant)> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return Ok((End::Closed, Instant::now())),
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(_) => return Ok((End::Reset, Instant::now())),
        }
    }
}

/// A client that says nothing more.
async fn stay(mut stream: TcpStream) -> anyhow::Result<(End, Instant)> {
    Ok((client::end_whenever(&mut stream).await?, Instant::now()))
}

async fn greet(address: SocketAddr, greeting: &[u8]) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    if !greeting.is_empty() {
        stream.write_all(greeting).await?;
    }
    let mut first = [0; 1];
    let answered = tokio::time::timeout(client::DEADLINE, stream.read_exact(&mut first)).await;
    answered.context("the program says nothing")?.context("the program closed")?;
    Ok(stream)
}

fn postgres_greeting() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(body.len() + 4).unwrap_or_default().to_be_bytes();
    [length.as_slice(), body].concat()
}

/// Takes the greeting, the idle and the busy ones of a program that is asked with `question`.
async fn open(ends: &mut Ends, address: SocketAddr, greeting: &[u8], question: &[u8]) -> anyhow::Result<()> {
    for _ in 0..EACH {
        ends.spawn(stay(greet(address, greeting).await?));
        ends.spawn(ask_for_ever(greet(address, greeting).await?, question.to_vec(), Duration::from_millis(2)));
    }
    Ok(())
}

/// Idle connections that may be used again, and downloads.
async fn open_http(ends: &mut Ends, address: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..EACH {
        ends.spawn(stay(greet(address, b"HEAD /large HTTP/1.1\r\nHost: web\r\n\r\n").await?));
        ends.spawn(read_slowly(greet(address, b"GET /large HTTP/1.1\r\nHost: web\r\n\r\n").await?));
    }
    Ok(())
}

/// Sessions that run a command which never ends.
async fn open_ssh(ends: &mut Ends, server: &Sshd, address: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..EACH {
        ends.spawn(stay(greet(address, b"SSH-2.0-idle\r\n").await?));
        let mut ssh = server.client("ssh", address)?;
        let mut session = ssh
            .args(["resource", "while echo busy; do sleep 0.05; done"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdout = session.stdout.take().context("no output")?;
        let mut word = [0; 4];
        tokio::time::timeout(client::DEADLINE, stdout.read_exact(&mut word)).await.context("ssh hangs")??;
        ends.spawn(async move {
            let mut rest = Vec::new();
            let reading = tokio::spawn(async move { stdout.read_to_end(&mut rest).await });
            let status = session.wait().await?;
            reading.abort();
            // ssh ends with 255 when its connection breaks; the command itself never ends.
            let end = if status.code() == Some(255) { End::Reset } else { End::Closed };
            Ok((end, Instant::now()))
        });
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_to_any_program_survives() -> anyhow::Result<()> {
    for program in Postgres::PROGRAMS.into_iter().chain(Sshd::PROGRAMS).chain(Nginx::PROGRAMS).chain(Redis::PROGRAMS) {
        need_program!(program);
    }
    let (postgres, sshd, nginx, redis) =
        tokio::try_join!(Postgres::start(), Sshd::start(), Nginx::start(), Redis::start())?;
    content::write_sparse(&nginx.root().join("large"), 31, 1_000_000_000)?;
    let servers = [postgres.address(), sshd.address(), nginx.address(), redis.address()];
    let stack = Stack::builder()
        .gateways(2)
        .resource("db", Kind::Postgres, postgres.address())
        .resource("shell", Kind::Ssh, sshd.address())
        .resource("web", Kind::Http, nginx.address())
        .resource("cache", Kind::Redis, redis.address())
        .start()
        .await?;
    let mut ends = JoinSet::new();
    let select = b"Q\0\0\0\x0dselect 1\0";
    open(&mut ends, stack.user().connect("db").await?, &postgres_greeting(), select).await?;
    open_http(&mut ends, stack.user().connect("web").await?).await?;
    open(&mut ends, stack.user().connect("cache").await?, b"PING\r\n", b"PING\r\n").await?;
    open_ssh(&mut ends, &sshd, stack.user().connect("shell").await?).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let total = ends.len();
    assert_eq!(total, 8 * EACH);
    let open: Vec<usize> = servers.iter().map(|server| survivors(*server)).collect::<std::io::Result<_>>()?;
    assert_eq!(open, [2 * EACH; 4], "connections that PostgreSQL, OpenSSH, nginx and Redis see before");

    let asked = stack.revoke_all().await?;
    let ends = tokio::time::timeout(Duration::from_secs(20), ends.join_all()).await.context("connections survived")?;
    let mut times = Vec::new();
    for end in ends {
        let (end, at) = end?;
        assert_eq!(end, End::Reset, "a cut connection looked complete");
        times.push(at.saturating_duration_since(asked));
    }
    let mut left = usize::MAX;
    while left > 0 {
        left = servers.iter().map(|server| survivors(*server)).sum::<std::io::Result<usize>>()?;
        assert!(left == 0 || asked.elapsed() < LIMIT, "{left} of {total} connections survive at the programs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    figure::times(&format!("revocation, {total} connections to PostgreSQL, OpenSSH, nginx and Redis"), &mut times);
    assert!(times.iter().all(|time| *time <= LIMIT));
    stack.stop().await?;
    tokio::try_join!(postgres.stop(), sshd.stop(), nginx.stop(), redis.stop())?;
    Ok(())
}
