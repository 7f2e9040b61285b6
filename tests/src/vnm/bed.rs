//! netd, guests of several users and probes, in a namespace of the test's own.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::{
    binaries::binaries,
    command::{self, PATIENCE},
    namespace::Namespace,
    process::Process,
};

/// The system's own Python, which every user can run.
pub const PYTHON: &str = "/usr/bin/python3";
/// Two users of Postern, and one who is none.
pub const ANNA: u32 = 20_001;
pub const BERT: u32 = 20_002;
pub const CLAUS: u32 = 20_003;

/// Where netd listens inside the namespace.
const SOCKET: &str = "/run/postern/netd.sock";

/// Leaves the test where it cannot have namespaces or Python.
#[macro_export]
macro_rules! need_vnm_bed {
    () => {
        $crate::need_namespace!();
        $crate::need!(
            std::path::Path::new($crate::vnm::bed::PYTHON).exists(),
            "python3 is not installed (tests/debian-packages.txt lists what is needed)"
        );
    };
}

/// netd in a namespace, with a way out of the machine that shows leaks.
pub struct Bed {
    // Before the namespace: programs end first.
    pub netd: Process,
    arguments: Vec<String>,
    guest: PathBuf,
    guests: usize,
    pub namespace: Namespace,
}

/// A guest that has its network.
pub struct Guest {
    pub process: Process,
    /// netd's answer.
    pub interface: Value,
}

impl Bed {
    /// Starts netd, which knows Anna and Bert, with more arguments.
    pub async fn start(guest: impl AsRef<Path>, arguments: &[&str]) -> anyhow::Result<Self> {
        let namespace = Namespace::new().await?;
        namespace.add_uplink().await?;
        Self::start_in(namespace, guest, arguments).await
    }

    /// The same in a namespace that is prepared already.
    pub async fn start_in(namespace: Namespace, guest: impl AsRef<Path>, arguments: &[&str]) -> anyhow::Result<Self> {
        let policy = format!("allow_uids = [{ANNA}, {BERT}]\npolkit = false\n");
        Self::start_with(namespace, guest, &policy, arguments).await
    }

    /// The same with another policy of the administrator.
    pub async fn start_with(
        namespace: Namespace,
        guest: impl AsRef<Path>,
        policy: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let config = namespace.folder().join("netd.toml");
        std::fs::write(&config, policy)?;
        let own = namespace.folder().join("vnm-guest");
        std::fs::copy(guest, &own)?;
        let state = namespace.folder().join("state");
        let mut all: Vec<String> = ["--config", path(&config)?, "--state", path(&state)?].map(str::to_owned).into();
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let netd = start_netd(&namespace, &all).await?;
        Ok(Self { netd, arguments: all, guest: own, guests: 0, namespace })
    }

    /// Starts another netd in place of one that was killed.
    pub async fn restart_netd(&mut self) -> anyhow::Result<()> {
        self.netd = start_netd(&self.namespace, &self.arguments).await?;
        Ok(())
    }

    /// The same once more beside the running one. Not waited for.
    pub fn second_netd(&self) -> anyhow::Result<Process> {
        spawn_netd(&self.namespace, &self.arguments)
    }

    /// Where this process reaches netd.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.namespace.path(SOCKET)
    }

    /// A guest that has its network and answers.
    pub async fn guest(&mut self, uid: u32, label: &str, arguments: &[&str]) -> anyhow::Result<Guest> {
        let mut process = self.spawn_guest(uid, label, arguments)?;
        let ready = process.ready().await?;
        let interface = ready.get("interface").cloned().context("no interface in the ready line")?;
        Ok(Guest { process, interface })
    }

    /// A guest that is not waited for.
    pub fn spawn_guest(&mut self, uid: u32, label: &str, arguments: &[&str]) -> anyhow::Result<Process> {
        self.guests += 1;
        let mut command = self.namespace.command_as(uid, &self.guest);
        command.args(["--socket", SOCKET, "--label", label]).args(arguments);
        Process::spawn(&format!("guest-{label}-{}", self.guests), &mut command, self.namespace.folder())
    }

    /// What a probe of this user gets: see `probe.py`.
    pub async fn probe(&self, uid: u32, words: &str) -> anyhow::Result<String> {
        let mut command = self.namespace.command_as(uid, PYTHON);
        command.args(["-c", include_str!("probe.py")]).args(words.split_whitespace());
        let output = command::run(&mut command.into(), PATIENCE).await?.success()?;
        Ok(output.trim_end().to_owned())
    }
}

impl Guest {
    /// A field of netd's answer.
    pub fn field(&self, name: &str) -> anyhow::Result<&str> {
        self.interface.get(name).and_then(Value::as_str).with_context(|| format!("no {name} in {}", self.interface))
    }

    /// The flows that it saw so far: see `guest.rs`.
    #[must_use]
    pub fn seen(&self) -> Vec<Value> {
        self.process.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// SIGKILL.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill().await
    }
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a folder whose name is no text")
}

async fn start_netd(namespace: &Namespace, arguments: &[String]) -> anyhow::Result<Process> {
    let mut netd = spawn_netd(namespace, arguments)?;
    netd.ready().await?;
    Ok(netd)
}

fn spawn_netd(namespace: &Namespace, arguments: &[String]) -> anyhow::Result<Process> {
    let mut command = namespace.command(binaries()?.netd());
    command.args(["--socket", SOCKET]).args(arguments);
    Process::spawn("netd", &mut command, namespace.folder())
}
