//! OpenSSH.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::{Folder, folder, start_on_free_port};
use crate::{
    command::{PATIENCE, find_program, run},
    process::Process,
    skip::is_root,
};

/// A running server with a host key of its own that lets our own user in with a key of the test.
pub struct Sshd {
    process: Process,
    port: u16,
    folder: Folder,
}

impl Sshd {
    /// The programs it needs; the test is skipped when one is missing.
    pub const PROGRAMS: [&str; 4] = ["sshd", "ssh", "scp", "ssh-keygen"];

    pub async fn start() -> anyhow::Result<Self> {
        let folder = folder()?;
        for key in ["host", "client"] {
            make_key(&folder.path().join(key)).await?;
        }
        std::fs::copy(folder.path().join("client.pub"), folder.path().join("authorized"))?;
        if is_root() {
            make_privilege_separation_folder()?;
        }
        // sshd starts itself anew for each connection and insists on an absolute path.
        let server = find_program("sshd").context("sshd is not installed")?;
        let (process, port) = start_on_free_port(async |port| {
            let file = folder.path().join("sshd_config");
            std::fs::write(&file, configuration(&folder, port))?;
            let mut command = Command::new(&server);
            Process::spawn("sshd", command.args(["-D", "-e", "-f"]).arg(&file), folder.path())
        })
        .await?;
        let key = std::fs::read_to_string(folder.path().join("host.pub"))?;
        // One name for the host, whatever port the client goes through.
        std::fs::write(folder.path().join("known"), format!("resource {key}"))?;
        Ok(Self { process, port, folder })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// `ssh` or `scp` with this server's keys and nothing of the user's configuration. The host in arguments is
    /// `resource`, which stands for `address`.
    pub fn client(&self, program: &str, address: SocketAddr) -> anyhow::Result<tokio::process::Command> {
        let program = find_program(program).with_context(|| format!("{program} is not installed"))?;
        let mut command = tokio::process::Command::new(program);
        command.arg("-F").arg("/dev/null").arg("-i").arg(self.folder.path().join("client"));
        let known = format!("UserKnownHostsFile={}", self.folder.path().join("known").display());
        let options = [
            "BatchMode=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "IdentityAgent=none".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "ServerAliveInterval=5".to_owned(),
            known,
            "HostKeyAlias=resource".to_owned(),
            format!("HostName={}", address.ip()),
            format!("Port={}", address.port()),
        ];
        for option in options {
            command.args(["-o", &option]);
        }
        Ok(command)
    }

    /// A folder for the files that a test copies.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.process.stop().await.map(drop)
    }
}

async fn make_key(path: &Path) -> anyhow::Result<()> {
    let keygen = find_program("ssh-keygen").context("ssh-keygen is not installed")?;
    let mut command = tokio::process::Command::new(keygen);
    run(command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path), PATIENCE).await?.success()?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(())
}

/// sshd as root insists on this folder, which the package leaves to the init system.
fn make_privilege_separation_folder() -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create("/run/sshd");
    made.context("cannot make /run/sshd, which sshd insists on")
}

fn configuration(folder: &Folder, port: u16) -> String {
    let path = folder.path().display();
    format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {path}/host\nPidFile {path}/sshd.pid\n\
         AuthorizedKeysFile {path}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nPermitRootLogin yes\nAllowTcpForwarding yes\nPrintMotd no\n\
         MaxStartups 200\nSubsystem sftp internal-sftp\n"
    )
}
