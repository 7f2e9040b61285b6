//! `postern-control`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use serde_json::Value;

use super::{PASSWORD, Setting};
use crate::{api::ControlAddress, binaries::Binaries, device::Device, process::Process};

/// A control plane with a data folder of its own. It keeps its port over restarts.
pub struct ControlPlane {
    process: Process,
    binaries: Binaries,
    folder: PathBuf,
    data: PathBuf,
    log: String,
    listen: SocketAddr,
    environment: Vec<(String, String)>,
    /// Its own, or that of the balancer before it.
    address: ControlAddress,
    ca_file: PathBuf,
    ca_fingerprint: String,
    /// E-mail and one-time password of the first start.
    first_admin: Option<(String, String)>,
}

impl ControlPlane {
    pub(super) async fn start(setting: &Setting, name: &str) -> anyhow::Result<Self> {
        let data = setting.folder.private(name, None)?;
        let environment = environment(setting)?;
        let listen = SocketAddr::new(setting.host, 0);
        let folder = setting.folder.path().to_owned();
        let mut process = spawn(&setting.binaries, &folder, &data, (&setting.log, &environment), listen)?;
        let ready = process.ready().await?;
        let field = |name: &str| {
            let value = ready.get(name).and_then(Value::as_str);
            value.map(str::to_owned).with_context(|| format!("no {name} in the ready line {ready}"))
        };
        let url = field("url")?;
        let address = url.strip_prefix("https://").context("the control plane is not at https")?;
        let listen: SocketAddr = address.trim_end_matches('/').parse().context("the URL holds no address")?;
        let ca_file = PathBuf::from(field("ca_file")?);
        let ca = std::fs::read_to_string(&ca_file).context("the CA file of the ready line cannot be read")?;
        let address = match &setting.behind {
            Some(entrance) => {
                entrance.add(listen);
                entrance.address()
            }
            None => listen,
        };
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let first_admin =
            ready.get("admin").and_then(|admin| Some((text(admin.get("email"))?, text(admin.get("password"))?)));
        Ok(Self {
            process,
            binaries: setting.binaries.clone(),
            folder,
            data,
            log: setting.log.clone(),
            listen,
            environment,
            address: ControlAddress { address, ca },
            ca_file,
            ca_fingerprint: field("ca_fingerprint")?,
            first_admin,
        })
    }

    /// Signs the first administrator in and replaces the one-time password by [`PASSWORD`].
    pub(super) async fn take_admin(&mut self) -> anyhow::Result<Device> {
        let (email, password) = self.first_admin.clone().context("the ready line of a first start names no admin")?;
        let device = Device::with_password(&self.address, &email, &password).await?;
        anyhow::ensure!(device.must_change_password, "a printed one-time password must be changed");
        device.change_password(&password, PASSWORD).await?;
        Device::with_password(&self.address, &email, PASSWORD).await
    }

    #[must_use]
    pub fn address(&self) -> &ControlAddress {
        &self.address
    }

    /// Where this one listens, which its clients do not know when it is behind a balancer.
    #[must_use]
    pub fn listens(&self) -> SocketAddr {
        self.listen
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address.address)
    }

    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    #[must_use]
    pub fn ca_fingerprint(&self) -> &str {
        &self.ca_fingerprint
    }

    /// E-mail of the first administrator and the one-time password that was printed for it.
    #[must_use]
    pub fn first_admin(&self) -> Option<(&str, &str)> {
        self.first_admin.as_ref().map(|(email, password)| (email.as_str(), password.as_str()))
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill().await
    }

    /// Starts it again on the same data and port, after [`Self::kill`] or [`Self::stop`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process = spawn(&self.binaries, &self.folder, &self.data, (&self.log, &self.environment), self.listen)?;
        let ready = self.process.ready().await?;
        let admin = ready.get("admin");
        anyhow::ensure!(admin.is_none_or(Value::is_null), "a second start printed an administrator: {ready}");
        Ok(())
    }

    pub async fn stop(&mut self) -> anyhow::Result<()> {
        super::stop_in_order(&mut self.process).await
    }
}

/// What tells a control plane of its database. The key is made by the program once, for all of a stack.
fn environment(setting: &Setting) -> anyhow::Result<Vec<(String, String)>> {
    let Some(url) = &setting.database else { return Ok(Vec::new()) };
    let key = setting.folder.path().join("control.key");
    if !key.exists() {
        let made = Command::new(setting.binaries.control()).arg("new-key").arg(&key).status()?;
        anyhow::ensure!(made.success(), "no key was made");
    }
    let key = key.to_str().context("the folder is no text")?.to_owned();
    Ok(vec![("POSTERN_DATABASE_URL".to_owned(), url.clone()), ("POSTERN_CONTROL_KEY_FILE".to_owned(), key)])
}

fn spawn(
    binaries: &Binaries,
    folder: &Path,
    data: &Path,
    (log, environment): (&str, &[(String, String)]),
    listen: SocketAddr,
) -> anyhow::Result<Process> {
    let mut command = Command::new(binaries.control());
    command.arg("serve").arg("--data").arg(data).args(["--listen", &listen.to_string()]).env("RUST_LOG", log);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let name = data.file_name().and_then(|name| name.to_str()).unwrap_or("control").to_owned();
    Process::spawn(&name, &mut command, folder)
}
