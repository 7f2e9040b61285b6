//! `postern-node gateway`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::Command,
};

use anyhow::Context as _;
use postern_proto::id::NodeId;
use rustix::process::Signal;
use serde_json::Value;

use super::Setting;
use crate::{api::ControlAddress, binaries::Binaries, process::Process};

/// A gateway with a state folder of its own. It keeps its port over restarts.
pub struct Gateway {
    process: Process,
    launch: Launch,
    id: NodeId,
    address: SocketAddr,
}

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// Its peering group.
    pub group: String,
    pub options: Vec<String>,
    /// A program and its arguments that become the node.
    pub launcher: Vec<String>,
    /// Where it listens, when not where the control plane does.
    pub host: Option<IpAddr>,
    /// Of a worker: where it calls the control plane, when that is not the usual address.
    pub control: Option<SocketAddr>,
}

struct Launch {
    binaries: Binaries,
    name: String,
    folder: PathBuf,
    state: PathBuf,
    ca_file: PathBuf,
    control: SocketAddr,
    log: String,
    options: Vec<String>,
    launcher: Vec<String>,
    environment: Vec<(String, String)>,
    /// What its `/etc/hosts` says.
    hosts: Option<PathBuf>,
}

/// Puts the first argument over `/etc/hosts` of this mount namespace, and becomes the rest.
const WITH_HOSTS: &str = r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#;

impl Gateway {
    pub(super) async fn start(
        setting: &Setting,
        name: &str,
        control: &ControlAddress,
        token: &str,
        how: &How,
    ) -> anyhow::Result<Self> {
        let state = setting.folder.private(name, None)?;
        let ca_file = setting.folder.path().join(format!("{name}.ca.pem"));
        std::fs::write(&ca_file, &control.ca)?;
        let launch = Launch {
            binaries: setting.binaries.clone(),
            name: name.to_owned(),
            folder: setting.folder.path().to_owned(),
            state,
            ca_file,
            control: control.address,
            log: setting.log.clone(),
            options: how.options.clone(),
            launcher: how.launcher.clone(),
            environment: Vec::new(),
            hosts: setting.gateway_hosts.clone(),
        };
        let mut process = launch.spawn(SocketAddr::new(how.host.unwrap_or(setting.host), 0), Some(token))?;
        let ready = process.ready().await?;
        let field = |name: &str| {
            let value = ready.get(name).and_then(Value::as_str);
            value.with_context(|| format!("no {name} in the ready line {ready}"))
        };
        let (id, address) = (field("node")?.parse()?, field("listen")?.parse()?);
        Ok(Self { process, launch, id, address })
    }

    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    #[must_use]
    pub fn state(&self) -> &std::path::Path {
        &self.launch.state
    }

    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.process.signal(signal)
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().await
    }

    /// Starts it again with the same state and port, after [`Self::kill`] or [`Self::stop`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process = self.launch.spawn(self.address, None)?;
        self.process.ready().await.map(drop)
    }

    /// A variable for the processes that are started from now on.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.launch.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Waits for its end after a signal.
    pub async fn wait(&mut self, deadline: std::time::Duration) -> anyhow::Result<std::process::ExitStatus> {
        let status = self.process.wait(deadline).await?;
        self.process.settle();
        Ok(status)
    }

    pub async fn stop(&mut self) -> anyhow::Result<()> {
        super::stop_in_order(&mut self.process).await
    }
}

impl Launch {
    fn spawn(&self, listen: SocketAddr, token: Option<&str>) -> anyhow::Result<Process> {
        let mut command = match &self.hosts {
            None => crate::command::launched(&self.launcher, self.binaries.node()),
            Some(file) => {
                let mut command = Command::new("unshare");
                command.args(["-m", "--propagation", "private", "--", "sh", "-c", WITH_HOSTS, "with-hosts"]);
                command.arg(file).arg(self.binaries.node());
                command
            }
        };
        command.args(["gateway", "--control", &format!("https://{}", self.control)]).arg("--ca").arg(&self.ca_file);
        command.arg("--state").arg(&self.state).args(["--listen", &listen.to_string()]).args(&self.options);
        command.env("RUST_LOG", &self.log).env_remove("POSTERN_ENROL_TOKEN");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(token) = token {
            command.env("POSTERN_ENROL_TOKEN", token);
        }
        Process::spawn(&self.name, &mut command, &self.folder)
    }
}
