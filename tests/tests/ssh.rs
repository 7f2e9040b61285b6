//! OpenSSH through a loopback address: commands, files both ways, forwarding inside, a gateway that dies, access that is
//! taken away.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    command::{Output, PATIENCE, run},
    content, need_program,
    ports::free_port,
    servers::Sshd,
    stack::Stack,
    target::{Behaviour, Target},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LARGE: u64 = 100_000_000;

/// Copies with `scp`; `slowly` keeps it to about 25 MB/s so that something can happen half-way.
async fn copy(server: &Sshd, through: SocketAddr, slowly: bool, from: &str, to: &str) -> anyhow::Result<Output> {
    let mut scp = server.client("scp", through)?;
    if slowly {
        scp.args(["-l", "200000"]);
    }
    run(scp.args(["-q", from, to]), PATIENCE).await
}

async fn wait_for_bytes(file: &Path, bytes: u64) -> anyhow::Result<()> {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(file).map_or(0, |data| data.len()) < bytes {
        anyhow::ensure!(std::time::Instant::now() < end, "the copy does not get on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_and_a_hundred_megabytes_arrive_whole_both_ways() -> anyhow::Result<()> {
    for program in Sshd::PROGRAMS {
        need_program!(program);
    }
    let server = Sshd::start().await?;
    let stack = Stack::builder().resource("shell", Kind::Ssh, server.address()).start().await?;
    let address = stack.user().connect("shell").await?;
    let mut ssh = server.client("ssh", address)?;
    assert_eq!(run(ssh.args(["resource", "echo $((6 * 7))"]), PATIENCE).await?.success()?.trim(), "42");
    let mut ssh = server.client("ssh", address)?;
    assert_eq!(run(ssh.args(["resource", "exit 17"]), PATIENCE).await?.status.code(), Some(17));

    let folder = server.folder();
    let [from, there, back] = ["from", "there", "back"].map(|name| folder.join(name).display().to_string());
    content::write_dense(Path::new(&from), 11, LARGE)?;
    copy(&server, address, false, &from, &format!("resource:{there}")).await?.success()?;
    copy(&server, address, false, &format!("resource:{there}"), &back).await?.success()?;
    let hashes = [&from, &there, &back].map(|file| content::hash_file(Path::new(file)));
    let [from, there, back] = hashes;
    let from = from?;
    assert_eq!(there?, from, "up");
    assert_eq!(back?, from, "down");
    stack.stop().await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_can_be_forwarded_inside() -> anyhow::Result<()> {
    for program in Sshd::PROGRAMS {
        need_program!(program);
    }
    let server = Sshd::start().await?;
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().resource("shell", Kind::Ssh, server.address()).start().await?;
    let address = stack.user().connect("shell").await?;
    let local = free_port()?;
    let mut ssh = server.client("ssh", address)?;
    let mut forwarding = ssh
        .args(["-N", "-o", "ExitOnForwardFailure=yes", "-L", &format!("127.0.0.1:{local}:{}", target.address())])
        .arg("resource")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut streams = tokio::task::JoinSet::new();
    for number in 0..8_u64 {
        let mut stream = connect_when_there(SocketAddr::from(([127, 0, 0, 1], local))).await?;
        streams.spawn(async move {
            let sent = content::bytes(number, 2_000_000);
            let (mut read, mut write) = stream.split();
            let mut answer = Vec::new();
            let upload = async {
                write.write_all(&sent).await?;
                write.shutdown().await
            };
            tokio::try_join!(upload, read.read_to_end(&mut answer))?;
            anyhow::ensure!(answer == sent, "stream {number} came back changed");
            Ok(())
        });
    }
    while let Some(done) = streams.join_next().await {
        done??;
    }
    forwarding.kill().await?;
    stack.stop().await?;
    server.stop().await
}

async fn connect_when_there(address: SocketAddr) -> anyhow::Result<tokio::net::TcpStream> {
    let end = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        match tokio::net::TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) if std::time::Instant::now() > end => return Err(error).context("nothing forwards"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_fails_when_the_gateway_dies_and_the_next_one_works() -> anyhow::Result<()> {
    for program in Sshd::PROGRAMS {
        need_program!(program);
    }
    let server = Sshd::start().await?;
    let mut stack = Stack::builder().gateways(2).resource("shell", Kind::Ssh, server.address()).start().await?;
    let address = stack.user().connect("shell").await?;
    let folder = server.folder();
    let [from, there] = ["from", "there"].map(|name| folder.join(name));
    content::write_dense(&from, 12, LARGE)?;
    let (source, sink) = (from.display().to_string(), format!("resource:{}", there.display()));
    let copying = copy(&server, address, true, &source, &sink);
    let killing = async {
        wait_for_bytes(&there, LARGE / 10).await?;
        stack.carrier_of("shell").await?.kill().await
    };
    let (copied, killed) = tokio::join!(copying, killing);
    killed?;
    copied?.failure()?;
    assert!(std::fs::metadata(&there)?.len() < LARGE, "the copy was whole before the gateway died");
    let mut ssh = server.client("ssh", address)?;
    assert_eq!(run(ssh.args(["resource", "echo again"]), PATIENCE).await?.success()?.trim(), "again");
    stack.stop().await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_cut_when_access_is_taken_away() -> anyhow::Result<()> {
    for program in Sshd::PROGRAMS {
        need_program!(program);
    }
    let server = Sshd::start().await?;
    let stack = Stack::builder().resource("shell", Kind::Ssh, server.address()).start().await?;
    let address = stack.user().connect("shell").await?;
    let folder = server.folder();
    let [from, there] = ["from", "there"].map(|name| folder.join(name));
    content::write_dense(&from, 13, LARGE)?;
    let (source, sink) = (from.display().to_string(), format!("resource:{}", there.display()));
    let copying = copy(&server, address, true, &source, &sink);
    let revoking = async {
        wait_for_bytes(&there, LARGE / 10).await?;
        stack.revoke_all().await
    };
    let (copied, revoked) = tokio::join!(copying, revoking);
    revoked?;
    copied?.failure()?;
    assert!(std::fs::metadata(&there)?.len() < LARGE, "the copy went on");
    let mut ssh = server.client("ssh", address)?;
    run(ssh.args(["resource", "echo again"]), PATIENCE).await?.failure()?;
    stack.stop().await?;
    server.stop().await
}
