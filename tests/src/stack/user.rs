//! `posternd` of one user, and that user's `postern`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_local_api::{
    client::LocalClient,
    message::{Connection, GatewayState, Login, ResourceStatus, Selection, Status, StatusApi, Trust},
    paths::Paths,
};
use postern_proto::api::Credential;
use rustix::process::Signal;

use super::Setting;
use crate::{
    api::ControlAddress,
    binaries::Binaries,
    command::{PATIENCE, as_user, run, run_with_input},
    process::Process,
};

/// How long the service may take to reach a state that it must reach. Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A user's background service with a home of its own.
pub struct User {
    process: Process,
    launch: Launch,
}

#[derive(Clone)]
struct Launch {
    name: String,
    daemon: PathBuf,
    cli: PathBuf,
    folder: PathBuf,
    home: PathBuf,
    ca_file: PathBuf,
    control: SocketAddr,
    owner: Option<u32>,
    allowed: Vec<u32>,
    log: String,
    environment: Vec<(String, String)>,
    launcher: Vec<String>,
}

impl User {
    pub(super) async fn start(
        setting: &Setting,
        name: &str,
        control: &ControlAddress,
        owner: Option<u32>,
        allowed: &[u32],
    ) -> anyhow::Result<Self> {
        let folder = setting.folder.path();
        let home = setting.folder.private(&format!("home-{name}"), owner)?;
        let ca_file = folder.join(format!("{name}.ca.pem"));
        std::fs::write(&ca_file, &control.ca)?;
        let (daemon, cli) = programs(&setting.binaries, folder, owner)?;
        let launch = Launch {
            name: format!("posternd-{name}"),
            daemon,
            cli,
            folder: folder.to_owned(),
            home,
            ca_file,
            control: control.address,
            owner,
            allowed: allowed.to_owned(),
            log: setting.log.clone(),
            environment: setting.user_environment.clone(),
            launcher: setting.user_launcher.clone(),
        };
        let mut process = launch.spawn()?;
        process.ready().await?;
        Ok(Self { process, launch })
    }

    /// The local API. Only for a service that runs as our own user.
    #[must_use]
    pub fn client(&self) -> LocalClient {
        LocalClient::new(self.socket())
    }

    #[must_use]
    pub fn home(&self) -> &Path {
        &self.launch.home
    }

    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The uid of the service, when it is not ours.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        self.launch.owner
    }

    /// `postern` for this service, run by its user.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = match self.launch.owner {
            None => tokio::process::Command::new(&self.launch.cli),
            Some(uid) => as_user(uid, &self.launch.cli),
        };
        command.args(arguments).env("POSTERN_HOME", &self.launch.home).env("NO_COLOR", "1");
        command.env_remove("POSTERN_SERVICE_TOKEN");
        command
    }

    /// Runs `postern` and gives its standard output.
    pub async fn postern(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(&mut self.cli(arguments), PATIENCE).await?.success().with_context(|| format!("postern {arguments:?}"))
    }

    pub async fn login(&self, email: &str, password: &str) -> anyhow::Result<()> {
        let credential = Credential::Password { email: email.to_owned(), password: password.to_owned() };
        let trust = Trust::Known;
        let login = Login { control: None, trust, credential };
        if self.launch.owner.is_none() {
            self.client().login(&login).await.context("login")?;
            return Ok(());
        }
        // The client refuses other users' sockets; their own `postern` does not.
        self.login_with_cli(email, password).await
    }

    /// `postern login` with the password on its standard input.
    pub async fn login_with_cli(&self, email: &str, password: &str) -> anyhow::Result<()> {
        let mut command = self.cli(&["login", "--email", email, "--password-stdin"]);
        run_with_input(&mut command, &format!("{password}\n"), PATIENCE).await?.success().context("postern login")?;
        Ok(())
    }

    pub async fn status(&self) -> anyhow::Result<Status> {
        match self.launch.owner {
            None => Ok(self.client().status().await?),
            Some(_) => Ok(serde_json::from_str(&self.postern(&["status", "--json"]).await?)?),
        }
    }

    /// What the service says of a resource, once it knows it.
    pub async fn knows(&self, name: &str) -> anyhow::Result<ResourceStatus> {
        self.resource_when(name, |_| true).await
    }

    /// What the service says of a resource, once `holds` says yes.
    pub async fn resource_when(
        &self,
        name: &str,
        holds: impl Fn(&ResourceStatus) -> bool,
    ) -> anyhow::Result<ResourceStatus> {
        let status = self
            .status_when(|status| status.resources.iter().any(|found| found.resource.name == name && holds(found)))
            .await
            .with_context(|| format!("resource {name}"))?;
        let found = status.resources.into_iter().find(|found| found.resource.name == name);
        found.context("the resource went away")
    }

    /// Waits until the service knows this many gateways and reached one of them.
    pub async fn has_gateways(&self, count: usize) -> anyhow::Result<()> {
        let usable = |status: &Status| {
            let known = status.gateways.len() >= count;
            known && (count == 0 || status.gateways.iter().any(|gateway| gateway.state == GatewayState::Reachable))
        };
        self.status_when(usable).await.map(drop)
    }

    /// The status once `holds` says yes; an error that shows the last one when it never does.
    pub async fn status_when(&self, holds: impl Fn(&Status) -> bool) -> anyhow::Result<Status> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.status().await?;
            if holds(&status) {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < deadline, "the service stays at {}", serde_json::to_string(&status)?);
            tokio::time::sleep(POLL).await;
        }
    }

    /// Connects a resource and gives the address on which it is listened for.
    pub async fn connect(&self, name: &str) -> anyhow::Result<SocketAddr> {
        match self.launch.owner {
            None => {
                let selection = Selection::Name { name: name.to_owned() };
                self.client().connect(&selection).await.context("connect")?;
            }
            Some(_) => {
                self.postern(&["connect", name]).await?;
            }
        }
        self.listens(name).await
    }

    /// The address of a connected resource, once it is listened on.
    pub async fn listens(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let listening = |status: &ResourceStatus| matches!(status.connection, Connection::Listening { .. });
        match self.resource_when(name, listening).await?.connection {
            Connection::Listening { address } => Ok(address),
            other => anyhow::bail!("{name} is {other:?}"),
        }
    }

    /// The address of a resource in the virtual network, once it is there.
    pub async fn resource_address(&self, name: &str) -> anyhow::Result<SocketAddr> {
        let there = |status: &ResourceStatus| status.virtual_name.is_some();
        match self.resource_when(name, there).await?.connection {
            Connection::Listening { address } => Ok(address),
            other => anyhow::bail!("{name} is {other:?}"),
        }
    }

    pub async fn disconnect(&self, name: &str) -> anyhow::Result<()> {
        self.client().disconnect(&Selection::Name { name: name.to_owned() }).await?;
        Ok(())
    }

    /// The address and the token of the status port.
    pub async fn status_port(&self) -> anyhow::Result<(SocketAddr, String)> {
        match self.status().await?.status_api {
            StatusApi::Listening { address, token_file } => {
                let token = std::fs::read_to_string(&token_file).context("the token file cannot be read")?;
                Ok((address, token.trim().to_owned()))
            }
            other => anyhow::bail!("the status port is {other:?}"),
        }
    }

    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.process.signal(signal)
    }

    /// Stops all its threads where they stand; SIGCONT lets them go on.
    pub async fn freeze(&mut self) -> anyhow::Result<()> {
        self.process.freeze().await
    }

    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().await
    }

    /// Starts it again on the same home, after [`Self::kill`] or [`Self::stop`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process = self.launch.spawn()?;
        self.process.ready().await.map(drop)
    }

    /// Tries to start a second service on the same home: how it ended, and what it said.
    pub async fn start_again(&self) -> anyhow::Result<(std::process::ExitStatus, String)> {
        let name = format!("{}-second", self.launch.name);
        let mut second = Launch { name, ..self.launch.clone() }.spawn()?;
        let status = second.wait(DEADLINE).await?;
        second.settle();
        Ok((status, second.log()))
    }

    pub async fn stop(&mut self) -> anyhow::Result<()> {
        super::stop_in_order(&mut self.process).await
    }

    fn socket(&self) -> PathBuf {
        Paths::under(&self.launch.home).map(|paths| paths.socket()).unwrap_or_default()
    }
}

impl Launch {
    fn spawn(&self) -> anyhow::Result<Process> {
        let mut command = match self.owner {
            None => std::process::Command::new(&self.daemon),
            Some(uid) => as_user(uid, &self.daemon).into_std(),
        };
        if let Some((program, words)) = self.launcher.split_first() {
            let mut launched = std::process::Command::new(program);
            launched.args(words).arg(command.get_program()).args(command.get_args());
            command = launched;
        }
        command.arg("--home").arg(&self.home).args(["--control", &format!("https://{}", self.control)]);
        command.arg("--ca").arg(&self.ca_file).args(["--status-listen", "127.0.0.1:0"]);
        for uid in &self.allowed {
            command.args(["--allow-uid", &uid.to_string()]);
        }
        command.env("RUST_LOG", &self.log).env_remove("POSTERN_HOME").env_remove("POSTERN_SERVICE_TOKEN");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Process::spawn(&self.name, &mut command, &self.folder)
    }
}

/// Another user may not be able to read the build folder, and then gets copies.
fn programs(binaries: &Binaries, folder: &Path, owner: Option<u32>) -> anyhow::Result<(PathBuf, PathBuf)> {
    if owner.is_none() {
        return Ok((binaries.daemon(), binaries.cli()));
    }
    let copy = |program: PathBuf| {
        let copied = folder.join(program.file_name().unwrap_or_default());
        if copied.exists() { Ok(copied) } else { binaries.copy_to(&program, folder) }
    };
    Ok((copy(binaries.daemon())?, copy(binaries.cli())?))
}
