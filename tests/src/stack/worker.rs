//! `postern-node worker`.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::Context as _;
use postern_proto::id::{ClusterId, NodeId};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Stack, gateway::How};
use crate::process::Process;

/// A key pair of a cluster.
#[derive(Clone)]
pub struct ClusterKey {
    pub access_key: String,
    pub secret_key: String,
}

/// A worker with a state folder of its own.
pub struct Worker {
    process: Process,
    launch: Launch,
    id: NodeId,
    /// Not of an inner worker.
    listens: Option<SocketAddr>,
    liveness: Option<SocketAddr>,
}

struct Launch {
    name: String,
    folder: PathBuf,
    program: PathBuf,
    launcher: Vec<String>,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
}

impl Stack {
    /// Makes a proxy cluster that clients dial there.
    pub async fn create_cluster(&self, name: &str, advertise: SocketAddr) -> anyhow::Result<ClusterId> {
        let body = json!({"name": name, "advertise": advertise.to_string()});
        super::id(&self.api().post("/api/v1/clusters", body).await?)
    }

    /// Makes a key pair.
    pub async fn create_key(&self, cluster: ClusterId) -> anyhow::Result<ClusterKey> {
        key(&self.api().post(&format!("/api/v1/clusters/{cluster}/keys"), json!({})).await?)
    }

    /// Makes the secret key of a pair anew.
    pub async fn rotate_key(&self, cluster: ClusterId, key_pair: &ClusterKey) -> anyhow::Result<ClusterKey> {
        let path = format!("/api/v1/clusters/{cluster}/keys/{}/rotate", key_pair.access_key);
        key(&self.api().post(&path, json!({})).await?)
    }

    /// Starts a worker with a key pair; one of the same name has the same state folder.
    pub async fn start_worker(&self, name: &str, key: &ClusterKey) -> anyhow::Result<Worker> {
        self.start_worker_with(name, key, &[]).await
    }

    /// The same with these variables.
    pub async fn start_worker_with(
        &self,
        name: &str,
        key: &ClusterKey,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Worker> {
        self.start_worker_in(name, key, &How::default(), environment).await
    }

    /// The same in whatever way. `how.host`: where it listens, when not on loopback.
    pub async fn start_worker_in(
        &self,
        name: &str,
        key: &ClusterKey,
        how: &How,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Worker> {
        let setting = &self.setting;
        let state = setting.folder.path().join(format!("{name}.state"));
        let control = self.control.address();
        let at = how.control.unwrap_or(control.address);
        let ca_file = setting.folder.path().join(format!("{name}.ca.pem"));
        std::fs::write(&ca_file, &control.ca)?;
        let arguments: [OsString; 7] = [
            "worker".into(),
            "--control".into(),
            format!("https://{at}").into(),
            "--ca".into(),
            ca_file.into(),
            "--state".into(),
            state.into(),
        ];
        let own = [
            ("RUST_LOG", setting.log.as_str()),
            ("POSTERN_PROXY_CLUSTER_ACCESS_KEY", &key.access_key),
            ("POSTERN_PROXY_CLUSTER_SECRET_KEY", &key.secret_key),
        ];
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let launch = Launch {
            name: name.to_owned(),
            folder: setting.folder.path().to_owned(),
            program: setting.binaries.node(),
            launcher: how.launcher.clone(),
            arguments: arguments.into_iter().chain(how.options.iter().map(OsString::from)).collect(),
            environment: own.into_iter().chain(environment.iter().copied()).map(owned).collect(),
        };
        let listen = SocketAddr::new(how.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), 0);
        let mut process = launch.spawn(listen, None)?;
        let ready = process.ready().await?;
        let text = |field: &str| ready.get(field).and_then(Value::as_str);
        let address = |field: &str| text(field).map(str::parse).transpose();
        let id = text("node").context("no node")?.parse()?;
        Ok(Worker { id, listens: address("listen")?, liveness: address("liveness")?, process, launch })
    }
}

impl Launch {
    fn spawn(&self, listen: SocketAddr, liveness: Option<SocketAddr>) -> anyhow::Result<Process> {
        let mut command = crate::command::launched(&self.launcher, self.program.clone());
        command.args(&self.arguments).args(["--bind-address", &listen.to_string()]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.envs(liveness.map(|at| ("POSTERN_LIVENESS", at.to_string())));
        Process::spawn(&self.name, &mut command, &self.folder)
    }
}

fn key(answer: &Value) -> anyhow::Result<ClusterKey> {
    let text = |field: &str| answer.get(field).and_then(Value::as_str).map(str::to_owned);
    Ok(ClusterKey {
        access_key: text("access_key").context("no access key")?,
        secret_key: text("secret_key").context("no secret key")?,
    })
}

impl Worker {
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// Where it listens itself.
    #[must_use]
    pub fn listens(&self) -> SocketAddr {
        // Inner workers are not asked.
        self.listens.unwrap_or_else(|| unreachable!("an inner worker listens nowhere"))
    }

    /// Where it says how it is, when it was told to.
    #[must_use]
    pub const fn liveness(&self) -> Option<SocketAddr> {
        self.liveness
    }

    /// Whether it listens nowhere.
    #[must_use]
    pub const fn is_inner(&self) -> bool {
        self.listens.is_none()
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

    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().await
    }

    /// Starts it again with the same state and ports, after [`Self::kill`] or its end.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let anywhere = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        self.process = self.launch.spawn(self.listens.unwrap_or(anywhere), self.liveness)?;
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
