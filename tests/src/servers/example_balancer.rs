//! haproxy and nginx before workers, as the examples in `packaging/examples` set them up.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use super::{Folder, folder, start_at};
use crate::{
    authority::ServerIdentity,
    command::{PATIENCE, find_program},
    process::Process,
};

/// Where haproxy says how it is.
const ADMIN: &str = "admin";

/// Where the examples have their two workers.
const WORKERS: [&str; 2] = ["10.0.3.21:8443", "10.0.3.22:8443"];

/// A running balancer.
pub struct ExampleBalancer {
    process: Process,
    address: SocketAddr,
    folder: Folder,
}

impl ExampleBalancer {
    pub const HAPROXY: &str = "haproxy";
    pub const NGINX: &str = "nginx";

    /// haproxy that passes TCP on and says whose connections they are.
    pub async fn haproxy_tcp(host: IpAddr, workers: [SocketAddr; 2]) -> anyhow::Result<Self> {
        let changes = [("maxconn 20000", "maxconn 500")];
        Self::start("haproxy-tcp.cfg", ":443", (host, workers), &changes, folder()?, haproxy).await
    }

    /// The same before workers that say at this port of their addresses how they are, and nobody else does there.
    pub async fn haproxy_tcp_watching(host: IpAddr, workers: [SocketAddr; 2], liveness: u16) -> anyhow::Result<Self> {
        let folder = folder()?;
        let port = format!(" port {liveness}");
        let global = watched(&folder);
        let changes = [("maxconn 20000", global.as_str()), (" port 9090", port.as_str())];
        Self::start("haproxy-tcp.cfg", ":443", (host, workers), &changes, folder, haproxy).await
    }

    /// Waits until haproxy sends connections to both workers.
    pub async fn sends_to_both(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut admin = UnixStream::connect(self.folder.path().join(ADMIN)).await?;
            admin.write_all(b"show stat\n").await?;
            let mut table = String::new();
            admin.read_to_string(&mut table).await?;
            // The 18th column is the state.
            let states = table.lines().filter(|line| line.starts_with("workers,worker-"));
            let up = states.filter(|line| line.split(',').nth(17).is_some_and(|state| state.starts_with("UP"))).count();
            if up == WORKERS.len() {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "haproxy does not take them back: {table}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// haproxy that ends TLS and says whose connections they are.
    pub async fn haproxy_websocket(
        host: IpAddr,
        workers: [SocketAddr; 2],
        identity: &ServerIdentity,
    ) -> anyhow::Result<Self> {
        let folder = folder()?;
        let pem = folder.path().join("both.pem");
        std::fs::write(&pem, [identity.certificate.as_str(), &identity.key].concat())?;
        let global = watched(&folder);
        let changes = [("maxconn 20000", global.as_str()), ("/etc/haproxy/postern.pem", text(&pem)?)];
        Self::start("haproxy-websocket.cfg", ":443", (host, workers), &changes, folder, haproxy).await
    }

    /// nginx that ends TLS.
    pub async fn nginx_websocket(
        host: IpAddr,
        workers: [SocketAddr; 2],
        identity: &ServerIdentity,
    ) -> anyhow::Result<Self> {
        let folder = folder()?;
        let (certificate, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        std::fs::write(&certificate, &identity.certificate)?;
        std::fs::write(&key, &identity.key)?;
        // One process (a killed master would leave its workers), and nothing outside the folder.
        let own = folder.path().display();
        let main = format!("pid {own}/pid; error_log stderr; daemon off; master_process off; user root;");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|name| format!("{name}_temp_path {own}/{name};")).concat();
        let http = format!("http {{ {temporary}");
        let changes = [
            ("/etc/nginx/postern.pem", text(&certificate)?),
            ("/etc/nginx/postern.key", text(&key)?),
            ("worker_rlimit_nofile 40000;", main.as_str()),
            ("worker_connections 20000;", "worker_connections 256;"),
            ("http {", http.as_str()),
        ];
        let nginx = |file: &Path| {
            let mut command = Command::new(find_program(Self::NGINX).unwrap_or_default());
            command.arg("-e").arg("/dev/stderr").arg("-p").arg(file.with_file_name("")).arg("-c").arg(file);
            command
        };
        Self::start("nginx-websocket.conf", "listen 443", (host, workers), &changes, folder, nginx).await
    }

    /// Starts what `command` makes of an example, in which these words are others; `listens`: those with its own port.
    async fn start(
        example: &str,
        listens: &str,
        (host, workers): (IpAddr, [SocketAddr; 2]),
        changes: &[(&str, &str)],
        folder: Folder,
        command: impl Fn(&Path) -> Command,
    ) -> anyhow::Result<Self> {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/examples");
        let original = std::fs::read_to_string(format!("{examples}/{example}")).context("no example")?;
        let workers = workers.map(|worker| worker.to_string());
        let (process, address) = start_at(host, async |address| {
            let own = listens.replace("443", &address.to_string()).trim_start_matches(':').to_owned();
            let behind = WORKERS.into_iter().zip(workers.iter().map(String::as_str));
            let mut text = original.clone();
            // Its own port first: what comes in may look like it.
            for (from, to) in [(listens, own.as_str())].into_iter().chain(changes.iter().copied()).chain(behind) {
                anyhow::ensure!(text.contains(from), "{from} is not in {example}");
                text = text.replace(from, to);
            }
            let file = folder.path().join(example);
            std::fs::write(&file, text)?;
            Process::spawn(example, &mut command(&file), folder.path())
        })
        .await?;
        Ok(Self { process, address, folder })
    }

    /// Where clients connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.halt().await
    }

    /// The same, and it stays where it is.
    pub async fn halt(&mut self) -> anyhow::Result<()> {
        self.process.stop().await.map(drop)
    }
}

/// Says how it is; see [`ExampleBalancer::sends_to_both`].
fn watched(folder: &Folder) -> String {
    format!("maxconn 2000\n    stats socket {}", folder.path().join(ADMIN).display())
}

fn haproxy(file: &Path) -> Command {
    let mut command = Command::new(find_program(ExampleBalancer::HAPROXY).unwrap_or_default());
    command.arg("-db").arg("-f").arg(file);
    command
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path in UTF-8")
}
