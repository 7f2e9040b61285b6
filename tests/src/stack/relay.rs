//! `postern-node relay`.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use postern_proto::id::NodeId;
use rustix::process::Signal;
use serde_json::Value;

use super::{Setting, gateway::How};
use crate::{api::ControlAddress, binaries::Binaries, process::Process};

/// A relay with a state folder of its own.
pub struct Relay {
    process: Process,
    launch: Launch,
    id: NodeId,
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
}

impl Relay {
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
        };
        let mut process = launch.spawn(Some(token))?;
        let ready = process.ready().await?;
        let id = ready.get("node").and_then(Value::as_str).context("no node in the ready line")?.parse()?;
        Ok(Self { process, launch, id })
    }

    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
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

    /// Starts it again with the same state.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process = self.launch.spawn(None)?;
        self.process.ready().await.map(drop)
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
    fn spawn(&self, token: Option<&str>) -> anyhow::Result<Process> {
        let mut command = crate::command::launched(&self.launcher, self.binaries.node());
        command.args(["relay", "--control", &format!("https://{}", self.control)]).arg("--ca").arg(&self.ca_file);
        command.arg("--state").arg(&self.state).args(&self.options);
        command.env("RUST_LOG", &self.log).env_remove("POSTERN_ENROL_TOKEN");
        if let Some(token) = token {
            command.env("POSTERN_ENROL_TOKEN", token);
        }
        Process::spawn(&self.name, &mut command, &self.folder)
    }
}
