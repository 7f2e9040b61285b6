//! A session bus of one test, and a keyring on it: the real GNOME Keyring, with a password that the test knows.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use zbus::{Connection, ObjectPath, OwnedObjectPath, OwnedVariant, Variant};

use crate::{command::find_program, process::Process};

const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(30);

/// It starts no services by itself: what answers is what the test put there.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=FOLDER/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;

/// The bus. Dropping it ends it.
pub struct SessionBus {
    _process: Process,
    address: String,
    connection: Connection,
}

impl SessionBus {
    /// With its socket `bus` in `folder`.
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let config = folder.join("bus.conf");
        fs::write(&config, BUS.replace("FOLDER", &folder.display().to_string()))?;
        let mut command = Command::new(find_program("dbus-daemon").context("dbus-daemon is not installed")?);
        command.args(["--nofork", "--nopidfile", "--nosyslog"]).arg(format!("--config-file={}", config.display()));
        let mut process = Process::spawn("dbus-daemon", &mut command, folder)?;
        let deadline = Instant::now() + DEADLINE;
        while UnixStream::connect(folder.join("bus")).is_err() {
            anyhow::ensure!(process.is_running(), "dbus-daemon ended\n{}", process.log_end());
            anyhow::ensure!(Instant::now() < deadline, "the bus did not come");
            tokio::time::sleep(POLL).await;
        }
        let address = format!("unix:path={}", folder.join("bus").display());
        let connection = zbus::connection::Builder::address(address.as_str()).build().await;
        Ok(Self { _process: process, address, connection: connection.context("cannot connect to the test's bus")? })
    }

    /// For `DBUS_SESSION_BUS_ADDRESS`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    pub const fn connection(&self) -> &Connection {
        &self.connection
    }
}

const SECRETS: &str = "org.freedesktop.secrets";
const SECRETS_PATH: &str = "/org/freedesktop/secrets";
const SERVICE: &str = "org.freedesktop.Secret.Service";
const PASSWORD: &str = "the keyring's password";

/// GNOME Keyring on a bus, open at first.
pub struct Keyring {
    process: Process,
    connection: Connection,
    login: OwnedObjectPath,
}

impl Keyring {
    pub const PROGRAM: &str = "gnome-keyring-daemon";

    pub async fn start(bus: &SessionBus, folder: &Path) -> anyhow::Result<Self> {
        let home = folder.join("keyring");
        let runtime = home.join("runtime");
        fs::create_dir_all(&runtime)?;
        for path in [&home, &runtime] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        }
        let password = home.join("password");
        fs::write(&password, PASSWORD)?;
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec \"$1\" --foreground --unlock --components=secrets < \"$2\"", "sh"])
            .arg(find_program(Self::PROGRAM).context("gnome-keyring-daemon is not installed")?)
            .arg::<PathBuf>(password)
            .env("HOME", &home)
            .env("XDG_DATA_HOME", home.join("data"))
            .env("XDG_RUNTIME_DIR", &runtime)
            .env("DBUS_SESSION_BUS_ADDRESS", bus.address())
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY");
        let mut process = Process::spawn("gnome-keyring", &mut command, folder)?;
        let connection = bus.connection().clone();
        let deadline = Instant::now() + DEADLINE;
        let login = loop {
            let reply = connection.call_method(Some(SECRETS), SECRETS_PATH, Some(SERVICE), "ReadAlias", &("default"));
            let path = reply.await.and_then(|reply| reply.body().deserialize::<OwnedObjectPath>());
            match path {
                Ok(path) if path.as_str() != "/" => break path,
                last => {
                    anyhow::ensure!(process.is_running(), "the keyring ended\n{}", process.log_end());
                    anyhow::ensure!(Instant::now() < deadline, "the keyring did not come: {last:?}");
                }
            }
            tokio::time::sleep(POLL).await;
        };
        Ok(Self { process, connection, login })
    }

    pub async fn lock(&self) -> anyhow::Result<()> {
        self.call("Lock", &(vec![&*self.login],)).await?;
        Ok(())
    }

    /// As its own dialogue would with the right password.
    pub async fn unlock(&self) -> anyhow::Result<()> {
        let reply = self.call("OpenSession", &("plain", Variant::from(""))).await?;
        let (_, session): (OwnedVariant, OwnedObjectPath) = reply.body().deserialize()?;
        let none: Vec<u8> = Vec::new();
        let secret = (&*session, none, PASSWORD.as_bytes().to_vec(), "text/plain");
        let interface = "org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface";
        let body = (&*self.login, secret);
        let method = "UnlockWithMasterPassword";
        self.connection.call_method(Some(SECRETS), SECRETS_PATH, Some(interface), method, &body).await?;
        Ok(())
    }

    /// How many items of Postern there are.
    pub async fn items(&self) -> anyhow::Result<usize> {
        let wanted = std::collections::HashMap::from([("service", "postern")]);
        let reply = self.call("SearchItems", &(wanted,)).await?;
        let (open, locked): (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) = reply.body().deserialize()?;
        Ok(open.len() + locked.len())
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.process.stop().await?;
        Ok(())
    }

    async fn call<B>(&self, method: &str, body: &B) -> anyhow::Result<zbus::Message>
    where
        B: serde::Serialize + zbus::Type,
    {
        let call = self.connection.call_method(Some(SECRETS), SECRETS_PATH, Some(SERVICE), method, body);
        call.await.with_context(|| format!("{method} at the keyring"))
    }
}

/// A keyring that takes every question and answers none.
pub struct Mute;

#[zbus::interface(name = "org.freedesktop.Secret.Service")]
impl Mute {
    #[zbus(out_args("collection"))]
    async fn read_alias(&self, _name: &str) -> ObjectPath<'static> {
        std::future::pending().await
    }
}

impl Mute {
    pub async fn serve(bus: &SessionBus) -> anyhow::Result<()> {
        bus.connection().object_server().at(SECRETS_PATH, Self).await?;
        bus.connection().request_name(SECRETS).await?;
        Ok(())
    }
}
