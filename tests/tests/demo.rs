//! `cargo xtask demo --headless`: ready means that it answers, and its end leaves nothing behind.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use postern_tests::{
    binaries::binaries,
    command::{PATIENCE, run},
    process::Process,
    servers::{Folder, folder},
};
use rustix::process::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

/// How long the demo's programs may take to die after it was killed.
const DEATH: Duration = Duration::from_secs(10);

/// A demo in a folder of its own, with a folder for temporary files that nobody else uses.
struct Demo {
    process: Process,
    folder: Folder,
}

impl Demo {
    fn start(folder: Folder, options: &[&str]) -> anyhow::Result<Self> {
        let process = Process::spawn("xtask", &mut command(&folder, options)?, folder.path())?;
        Ok(Self { process, folder })
    }

    /// All processes that it has started, and theirs.
    fn descendants(&self) -> BTreeSet<u32> {
        descendants(self.process.id())
    }

    /// SIGTERM; then nothing of it may be left.
    async fn stop(mut self) -> anyhow::Result<Folder> {
        let children = self.descendants();
        ensure!(children.len() >= 3, "only {children:?} run");
        let status = self.process.stop().await?;
        ensure!(status.success(), "the demo ended with {status}\n{}", self.process.log_end());
        let left: Vec<&u32> = children.iter().filter(|pid| is_alive(**pid)).collect();
        ensure!(left.is_empty(), "still running: {left:?}");
        let temporary: Vec<_> = std::fs::read_dir(temporary(&self.folder))?.collect();
        ensure!(temporary.is_empty(), "temporary files are left: {temporary:?}");
        let socket = home(&self.folder).join("run/posternd.sock");
        ensure!(!socket.exists(), "{} is left", socket.display());
        Ok(self.folder)
    }
}

fn command(folder: &Folder, options: &[&str]) -> anyhow::Result<Command> {
    let binaries = binaries()?;
    std::fs::create_dir_all(temporary(folder))?;
    let mut command = Command::new(binaries.xtask());
    command.args(["demo", "--headless", "--programs"]).arg(binaries.folder()).arg("--home").arg(home(folder));
    command.args(options).env("TMPDIR", temporary(folder));
    Ok(command)
}

fn home(folder: &Folder) -> std::path::PathBuf {
    folder.path().join("home")
}

fn temporary(folder: &Folder) -> std::path::PathBuf {
    folder.path().join("tmp")
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie waits for its parent, and holds nothing any more.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn descendants(root: u32) -> BTreeSet<u32> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit_once(") ")?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = BTreeSet::from([root]);
    loop {
        let before = found.len();
        found.extend(
            parents.iter().filter(|(_, parent)| found.contains(parent)).map(|(pid, _)| *pid).collect::<Vec<_>>(),
        );
        if found.len() == before {
            found.remove(&root);
            return found;
        }
    }
}

fn address(ready: &Value, name: &str) -> anyhow::Result<SocketAddr> {
    let resources = ready.get("resources").and_then(Value::as_array).context("no resources in the ready line")?;
    let found = resources.iter().find(|resource| resource.get("name").and_then(Value::as_str) == Some(name));
    let address = found.and_then(|resource| resource.get("address")?.as_str());
    Ok(address.with_context(|| format!("{name} is not in the ready line: {ready}"))?.parse()?)
}

fn text<'a>(ready: &'a Value, pointer: &str) -> anyhow::Result<&'a str> {
    ready.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer} in the ready line: {ready}"))
}

async fn exchange(address: SocketAddr, question: &[u8]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(question).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.context("no answer")??;
    Ok(answer)
}

async fn answers(ready: &Value) -> anyhow::Result<()> {
    let page = exchange(address(ready, "demo-page")?, b"GET / HTTP/1.1\r\nHost: demo\r\n\r\n").await?;
    ensure!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("</html>"), "another page: {page}");
    let echo = exchange(address(ready, "demo-echo")?, b"hello").await?;
    ensure!(echo == "hello", "another echo: {echo}");
    Ok(())
}

/// The command line that the ready line names, on the folder that it names.
async fn cli(ready: &Value, args: &[&str]) -> anyhow::Result<Value> {
    let mut command = tokio::process::Command::new(text(ready, "/cli")?);
    let output = run(command.args(args).env("POSTERN_HOME", text(ready, "/home")?), PATIENCE).await?.success()?;
    serde_json::from_str(&output).with_context(|| format!("no JSON: {output}"))
}

#[tokio::test]
async fn a_demo_answers_when_it_says_ready_and_its_end_leaves_nothing_behind() -> anyhow::Result<()> {
    let service = TcpListener::bind("127.0.0.1:0").await?;
    let own = format!("own-thing={}", service.local_addr()?);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = service.accept().await {
            let _ = stream.write_all(b"my own service").await;
        }
    });
    let mut demo = Demo::start(folder()?, &["--expose", &own])?;
    let ready = demo.process.ready().await?;

    answers(&ready).await?;
    ensure!(exchange(address(&ready, "own-thing")?, b"").await? == "my own service");
    let status = cli(&ready, &["status", "--json"]).await?;
    ensure!(status.pointer("/sign_in/account/email").and_then(Value::as_str) == Some(text(&ready, "/admin/email")?));
    let control: SocketAddr = text(&ready, "/control")?.trim_start_matches("https://").parse()?;
    TcpStream::connect(control).await.context("the control plane does not listen where the ready line says")?;

    let second = command(&demo.folder, &[])?;
    let refused = run(&mut second.into(), PATIENCE).await?.failure()?;
    ensure!(refused.contains("already"), "a second demo on the same folder was told: {refused}");

    let listeners = [control, address(&ready, "demo-page")?, address(&ready, "own-thing")?];
    let folder = demo.stop().await?;
    for listener in listeners {
        ensure!(TcpStream::connect(listener).await.is_err(), "{listener} still listens");
    }

    // What was there is there again: the password, the resources, the addresses.
    let mut again = Demo::start(folder, &[])?;
    let ready_again = again.process.ready().await?;
    answers(&ready_again).await?;
    ensure!(text(&ready_again, "/admin/password")? == text(&ready, "/admin/password")?);
    ensure!(address(&ready_again, "demo-page")? == address(&ready, "demo-page")?);
    let folder = again.stop().await?;

    let mut fresh = Demo::start(folder, &["--fresh"])?;
    let fresh_ready = fresh.process.ready().await?;
    answers(&fresh_ready).await?;
    ensure!(text(&fresh_ready, "/admin/password")? != text(&ready, "/admin/password")?);
    fresh.stop().await.map(drop)
}

#[tokio::test]
async fn a_demo_killed_at_any_moment_leaves_no_process_and_starts_again() -> anyhow::Result<()> {
    let mut folder = folder()?;
    for millis in [100, 300, 600, 1_000, 1_500, 2_200, 3_000] {
        let mut demo = Demo::start(folder, &[])?;
        sleep(Duration::from_millis(millis)).await;
        let children = demo.descendants();
        demo.process.kill().await?;
        wait_for_death(&children).await?;
        ensure_nobody_uses(&home(&demo.folder)).await?;
        folder = demo.folder;
    }
    let mut demo = Demo::start(folder, &[])?;
    let ready = demo.process.ready().await?;
    answers(&ready).await?;
    demo.stop().await.map(drop)
}

#[tokio::test]
async fn a_demo_told_to_end_while_it_starts_ends_and_leaves_nothing_behind() -> anyhow::Result<()> {
    let mut folder = folder()?;
    for millis in [200, 900, 1_800] {
        let mut demo = Demo::start(folder, &[])?;
        sleep(Duration::from_millis(millis)).await;
        demo.process.signal(Signal::TERM)?;
        demo.process.wait(PATIENCE).await?;
        demo.process.settle();
        ensure_nobody_uses(&home(&demo.folder)).await?;
        ensure!(std::fs::read_dir(temporary(&demo.folder))?.next().is_none(), "temporary files are left");
        folder = demo.folder;
    }
    Ok(())
}

async fn wait_for_death(pids: &BTreeSet<u32>) -> anyhow::Result<()> {
    let deadline = Instant::now() + DEATH;
    while let Some(pid) = pids.iter().find(|pid| is_alive(**pid)) {
        ensure!(Instant::now() < deadline, "process {pid} outlives the demo");
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Every program of a demo has its folder in its arguments or in its environment.
async fn ensure_nobody_uses(home: &Path) -> anyhow::Result<()> {
    let wanted = home.as_os_str().as_encoded_bytes();
    let names_it = |file: std::path::PathBuf| {
        std::fs::read(file).is_ok_and(|bytes| bytes.windows(wanted.len()).any(|window| window == wanted))
    };
    let deadline = Instant::now() + DEATH;
    loop {
        let users: Vec<_> = std::fs::read_dir("/proc")?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|process| names_it(process.join("cmdline")) || names_it(process.join("environ")))
            .collect();
        if users.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "still running: {users:?}");
        sleep(Duration::from_millis(50)).await;
    }
}
