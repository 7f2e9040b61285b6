//! nginx and curl through a loopback address: a gigabyte, many small requests, a gateway that dies, access that is taken
//! away.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use postern_proto::resource::Kind;
use postern_tests::{
    command::{Output, PATIENCE, run},
    content, figure, need_program,
    servers::{Folder, Nginx, folder},
    stack::Stack,
};

const GIGABYTE: u64 = 1_000_000_000;
const SMALL_REQUESTS: u32 = 1_000;

/// curl's words for a transfer that broke off: too short, or an error while receiving.
const BROKEN_OFF: [i32; 2] = [18, 56];

async fn curl(arguments: &[&str], to: &Path) -> anyhow::Result<Output> {
    let mut command = tokio::process::Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*"]).args(arguments).arg("--output").arg(to);
    run(&mut command, PATIENCE).await
}

struct Served {
    server: Nginx,
    file: PathBuf,
    copies: Folder,
}

async fn serve_gigabyte() -> anyhow::Result<Served> {
    let server = Nginx::start().await?;
    let file = server.root().join("large");
    content::write_sparse(&file, 21, GIGABYTE)?;
    Ok(Served { server, file, copies: folder()? })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_arrives_whole() -> anyhow::Result<()> {
    for program in Nginx::PROGRAMS {
        need_program!(program);
    }
    let served = serve_gigabyte().await?;
    let stack = Stack::builder().resource("web", Kind::Http, served.server.address()).start().await?;
    let address = stack.user().connect("web").await?;
    let copy = served.copies.path().join("copy");
    let started = std::time::Instant::now();
    curl(&[&format!("http://{address}/large")], &copy).await?.success()?;
    figure::say(&format!("a gigabyte in {:?}", started.elapsed()));
    assert_eq!(std::fs::metadata(&copy)?.len(), GIGABYTE);
    assert_eq!(content::hash_file(&copy)?, content::hash_file(&served.file)?);
    stack.stop().await?;
    served.server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_small_requests_are_answered() -> anyhow::Result<()> {
    for program in Nginx::PROGRAMS {
        need_program!(program);
    }
    let server = Nginx::start().await?;
    std::fs::write(server.root().join("small"), "small and whole\n")?;
    let stack = Stack::builder().resource("web", Kind::Http, server.address()).start().await?;
    let address = stack.user().connect("web").await?;
    // A connection for each request: that is what small requests cost.
    let mut command = tokio::process::Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--parallel", "--parallel-max", "20"]);
    command.args(["--header", "Connection: close", "--write-out", "%{http_code}\n", "--output", "/dev/null"]);
    command.arg(format!("http://{address}/small?[1-{SMALL_REQUESTS}]"));
    let output = run(&mut command, PATIENCE).await?.success()?;
    let whole = output.lines().filter(|line| *line == "200").count();
    assert_eq!(whole, SMALL_REQUESTS as usize, "{output}");
    let sessions = stack.sessions_when(|sessions| sessions.len() >= SMALL_REQUESTS as usize).await?;
    assert_eq!(sessions.len(), SMALL_REQUESTS as usize, "each request was a session");
    stack.stop().await?;
    server.stop().await
}

/// Starts a slow download, waits until a part of it is there, does `action`, and gives curl's end.
async fn interrupted(
    address: SocketAddr,
    copy: &Path,
    action: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Output> {
    let url = format!("http://{address}/large");
    let arguments = ["--limit-rate", "150M", &url];
    let download = curl(&arguments, copy);
    let interrupt = async {
        while std::fs::metadata(copy).map_or(0, |data| data.len()) < GIGABYTE / 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        action.await
    };
    let (downloaded, interrupted) = tokio::join!(download, interrupt);
    interrupted?;
    downloaded
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_fails_when_the_gateway_dies_and_the_next_one_works() -> anyhow::Result<()> {
    for program in Nginx::PROGRAMS {
        need_program!(program);
    }
    let served = serve_gigabyte().await?;
    std::fs::write(served.server.root().join("small"), "small and whole\n")?;
    let mut stack = Stack::builder().gateways(2).resource("web", Kind::Http, served.server.address()).start().await?;
    let address = stack.user().connect("web").await?;
    let copy = served.copies.path().join("copy");
    let output = interrupted(address, &copy, async { stack.carrier_of("web").await?.kill().await }).await?;
    let code = output.status.code();
    assert!(code.is_some_and(|code| BROKEN_OFF.contains(&code)), "curl ended with {code:?}: {}", output.stderr);
    assert!(std::fs::metadata(&copy)?.len() < GIGABYTE);
    let killed = std::time::Instant::now();
    let small = served.copies.path().join("small");
    curl(&[&format!("http://{address}/small")], &small).await?.success()?;
    figure::say(&format!("a new request worked {:?} after the gateway died", killed.elapsed()));
    stack.stop().await?;
    served.server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_cut_when_access_is_taken_away() -> anyhow::Result<()> {
    for program in Nginx::PROGRAMS {
        need_program!(program);
    }
    let served = serve_gigabyte().await?;
    let stack = Stack::builder().resource("web", Kind::Http, served.server.address()).start().await?;
    let address = stack.user().connect("web").await?;
    let copy = served.copies.path().join("copy");
    let output = interrupted(address, &copy, async { stack.revoke_all().await.map(drop) }).await?;
    let code = output.status.code();
    assert!(code.is_some_and(|code| BROKEN_OFF.contains(&code)), "curl ended with {code:?}: {}", output.stderr);
    assert!(std::fs::metadata(&copy)?.len() < GIGABYTE);
    let again = curl(&[&format!("http://{address}/large")], &copy).await?;
    again.failure()?;
    stack.stop().await?;
    served.server.stop().await
}
