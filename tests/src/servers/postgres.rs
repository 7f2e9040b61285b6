//! PostgreSQL.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use rustix::process::Signal;

use super::{Folder, folder, start_on_free_port};
use crate::{
    authority::ServerIdentity,
    command::{PATIENCE, find_program, run},
    process::{Process, STOP_DEADLINE},
    skip::is_root,
};

/// The name of the superuser and of the database.
const USER: &str = "postgres";

/// A running cluster that asks nobody for a password.
pub struct Postgres {
    process: Process,
    port: u16,
    launch: Launch,
    folder: Folder,
}

/// How the server is started.
struct Launch {
    server: PathBuf,
    data: PathBuf,
    owner: Option<u32>,
    tls: bool,
}

impl Launch {
    fn spawn(&self, port: u16, folder: &Path) -> anyhow::Result<Process> {
        let mut command = command(&self.server, self.owner);
        command.arg("-D").arg(&self.data).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        command.args(["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=300"]);
        command.args(["-c", "shared_buffers=32MB", "-c", if self.tls { "ssl=on" } else { "ssl=off" }]);
        Process::spawn("postgres", &mut command, folder)
    }
}

impl Postgres {
    /// The programs it needs; the test is skipped when one is missing.
    pub const PROGRAMS: [&str; 4] = ["initdb", "postgres", "psql", "pgbench"];

    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(None).await
    }

    /// The same, and offers TLS.
    pub async fn start_tls(identity: &ServerIdentity) -> anyhow::Result<Self> {
        Self::start_with(Some(identity)).await
    }

    async fn start_with(identity: Option<&ServerIdentity>) -> anyhow::Result<Self> {
        let folder = folder()?;
        let owner = unprivileged_user()?;
        let data = folder.private("data", owner)?;
        let program = |name| find_program(name).with_context(|| format!("{name} is not installed"));
        let mut initdb = tokio::process::Command::from(command(&program("initdb")?, owner));
        initdb.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", USER, "--pgdata"]);
        run(initdb.arg(&data), PATIENCE).await?.success().context("initdb failed")?;
        if let Some(identity) = identity {
            write_identity(&data, owner, identity)?;
        }
        let launch = Launch { server: program("postgres")?, data, owner, tls: identity.is_some() };
        let (process, port) = start_on_free_port(async |port| launch.spawn(port, folder.path())).await?;
        let server = Self { process, port, launch, folder };
        server.answers().await?;
        Ok(server)
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// A client program (`psql`, `pgbench`) that connects to `address` as the superuser.
    pub fn client(program: &str, address: SocketAddr) -> anyhow::Result<tokio::process::Command> {
        let program = find_program(program).with_context(|| format!("{program} is not installed"))?;
        let mut command = tokio::process::Command::new(program);
        command.env_remove("PGSERVICE").env("PGUSER", USER).env("PGDATABASE", USER).env("PGCONNECT_TIMEOUT", "20");
        command.env("PGHOST", address.ip().to_string()).env("PGPORT", address.port().to_string());
        command.env("PGSSLMODE", "disable").env("PSQLRC", "/dev/null");
        Ok(command)
    }

    /// The answer of `psql` at `address` to one statement, unaligned and without headings.
    pub async fn query(address: SocketAddr, statement: &str) -> anyhow::Result<String> {
        let mut psql = Self::client("psql", address)?;
        psql.args(["--no-align", "--tuples-only", "--quiet", "-v", "ON_ERROR_STOP=1", "--command", statement]);
        Ok(run(&mut psql, PATIENCE).await?.success()?.trim().to_owned())
    }

    /// Fast shutdown, and up again on the same port.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::INT)?;
        self.process.wait(STOP_DEADLINE).await?;
        self.process.settle();
        self.process = self.launch.spawn(self.port, self.folder.path())?;
        self.answers().await
    }

    /// Fast shutdown (SIGINT): open connections are closed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::INT)?;
        self.process.wait(STOP_DEADLINE).await?;
        self.process.settle();
        Ok(())
    }

    /// It listens before it serves: "the database system is starting up".
    async fn answers(&self) -> anyhow::Result<()> {
        let mut tries = 0;
        loop {
            match Self::query(self.address(), "select 1").await {
                Ok(_) => return Ok(()),
                Err(error) if tries == 100 => return Err(error),
                Err(_) => tries += 1,
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Postgres {
    /// A killed postmaster leaves its children; an immediate shutdown takes them along.
    fn drop(&mut self) {
        if self.process.signal(Signal::QUIT).is_ok() {
            let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while self.process.is_running() && std::time::Instant::now() < end {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

/// Where PostgreSQL looks for it; the key must be its owner's alone.
fn write_identity(data: &Path, owner: Option<u32>, identity: &ServerIdentity) -> anyhow::Result<()> {
    for (name, text) in [("server.crt", &identity.certificate), ("server.key", &identity.key)] {
        let file = data.join(name);
        std::fs::write(&file, text)?;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600))?;
        if let Some(uid) = owner {
            chown(&file, Some(uid), Some(uid)).context("cannot give the key away")?;
        }
    }
    Ok(())
}

fn command(program: &Path, owner: Option<u32>) -> Command {
    match owner {
        None => Command::new(program),
        Some(uid) => crate::command::as_user(uid, program).into_std(),
    }
}

/// PostgreSQL refuses to run as root, and its user must have a name: that of the package, else `nobody`.
pub(super) fn unprivileged_user() -> anyhow::Result<Option<u32>> {
    if !is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string(PathBuf::from("/etc/passwd")).context("cannot read /etc/passwd")?;
    let uid_of = |name: &str| {
        users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| match fields.as_slice() {
            [user, _, uid, ..] if *user == name => uid.parse().ok(),
            _ => None,
        })
    };
    uid_of("postgres").or_else(|| uid_of("nobody")).map(Some).context("no user to run PostgreSQL as")
}
