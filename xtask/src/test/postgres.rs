//! The tests of the control plane's API on PostgreSQL: a cluster of its own for them, and a database for each test.

use std::{
    ffi::OsStr,
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use super::{Outcome, Setting, tally, tally::Tally};
use crate::workspace::find_program;

/// Where the tests are told the cluster.
const CLUSTER: &str = "POSTERN_TEST_DATABASE";
/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(setting: &Setting) -> anyhow::Result<(Outcome, Option<Tally>)> {
    let (Some(initdb), Some(postgres)) = (program("initdb"), program("postgres")) else {
        return Ok((Outcome::Skipped("PostgreSQL is not installed".to_owned()), None));
    };
    let cluster = Cluster::start(&initdb, &postgres)?;
    let targets = ["--test", "admin", "--test", "machines", "--test", "replicas"];
    tally::run_all_tests(setting, &targets, (CLUSTER, &cluster.url()))
}

/// Debian keeps the server's programs out of the search path.
fn program(name: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut packaged: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin").join(name)).collect();
    packaged.sort();
    packaged.into_iter().rev().find(|path| path.is_file()).or_else(|| find_program(name))
}

/// A server that runs until it is dropped, with its data.
struct Cluster {
    server: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Cluster {
    fn start(initdb: &Path, postgres: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        let user = unprivileged_user()?;
        if let Some(uid) = user {
            chown(&data, Some(uid), Some(uid)).context("cannot give the data folder away")?;
        }
        let mut command = as_user(initdb, user);
        command.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres", "-D"]);
        let status = command.arg(&data).stdout(Stdio::null()).status().context("cannot start initdb")?;
        ensure!(status.success(), "initdb failed ({status})");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = as_user(postgres, user);
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "max_connections=500",
            "log_min_messages=fatal",
        ] {
            command.args(["-c", setting]);
        }
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot start postgres")?;
        let mut cluster = Self { server, port, _folder: folder };
        cluster.answers()?;
        Ok(cluster)
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn answers(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        let ready = program("pg_isready").context("pg_isready is not installed")?;
        loop {
            let mut command = Command::new(&ready);
            command.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            if command.status().context("cannot start pg_isready")?.success() {
                return Ok(());
            }
            if let Some(status) = self.server.try_wait()? {
                anyhow::bail!("postgres ended ({status})");
            }
            ensure!(Instant::now() < end, "postgres does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Cluster {
    /// An immediate shutdown takes the server's children along.
    fn drop(&mut self) {
        let stopped = Command::new("kill").args(["-QUIT", &self.server.id().to_string()]).status();
        if stopped.is_ok_and(|status| status.success()) {
            let _gone = self.server.wait();
        }
    }
}

fn as_user(program: impl AsRef<OsStr>, user: Option<u32>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).current_dir("/");
    if let Some(uid) = user {
        command.uid(uid).gid(uid);
    }
    command
}

/// PostgreSQL refuses to run as root, and its user must have a name.
fn unprivileged_user() -> anyhow::Result<Option<u32>> {
    let id = Command::new("id").arg("-u").output().context("cannot start id")?;
    if id.stdout.trim_ascii() != b"0" {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        let id = Command::new("id").args(["-u", name]).stderr(Stdio::null()).output().context("cannot start id")?;
        if let Ok(uid) = String::from_utf8_lossy(&id.stdout).trim().parse() {
            return Ok(Some(uid));
        }
    }
    anyhow::bail!("there is no user to run PostgreSQL as")
}
