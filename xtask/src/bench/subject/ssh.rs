//! OpenSSH: `ssh -L` through an sshd of our own, as the user who runs the benchmark.

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt, path::Path};

use anyhow::Context;

use super::{Ground, Ports, Started, program, write};
use crate::process::{Process, run};

const CIPHER: &str = "aes128-gcm@openssh.com";

pub(super) fn start(ground: &Ground<'_>, ports: Ports) -> anyhow::Result<Started> {
    let folder = ground.folder;
    for key in ["host", "client"] {
        make_key(ground, &folder.join(key))?;
    }
    std::fs::copy(folder.join("client.pub"), folder.join("authorized"))?;
    let host = std::fs::read_to_string(folder.join("host.pub"))?;
    write(folder, "known", &format!("bench {host}"))?;
    let mut sshd = start_server(ground, ports)?;
    sshd.wait_until_listening(ports.far, ground.interrupt)?;
    let mut ssh = start_client(ground, ports)?;
    ssh.wait_until_listening(ports.entry, ground.interrupt)?;
    Ok((ports.entry, vec![ssh, sshd]))
}

fn make_key(ground: &Ground<'_>, path: &Path) -> anyhow::Result<()> {
    // A second try finds the keys of the first.
    if path.exists() {
        return Ok(());
    }
    let program = program("ssh-keygen")?;
    run("ssh-keygen", ground.interrupt, "", |command| {
        command.arg(program).args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path);
    })?;
    Ok(())
}

fn start_server(ground: &Ground<'_>, ports: Ports) -> anyhow::Result<Process> {
    if rustix::process::geteuid().is_root() {
        // sshd as root insists on this folder, which the package leaves to the init system.
        let made = DirBuilder::new().recursive(true).mode(0o755).create("/run/sshd");
        made.context("cannot make /run/sshd, which sshd insists on")?;
    }
    let path = ground.folder.display();
    let configuration = format!(
        "Port {}\nListenAddress 127.0.0.1\nHostKey {path}/host\nPidFile none\nAuthorizedKeysFile {path}/authorized\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
         AllowTcpForwarding yes\nCiphers {CIPHER}\nLogLevel ERROR\n",
        ports.far.port(),
    );
    let file = write(ground.folder, "sshd_config", &configuration)?;
    // It starts itself anew for each connection and insists on an absolute path.
    let args = [Path::new("-D"), Path::new("-e"), Path::new("-f"), &file];
    Process::start("sshd", ground.folder, &program("sshd")?, args)
}

fn start_client(ground: &Ground<'_>, ports: Ports) -> anyhow::Result<Process> {
    let path = ground.folder.display();
    let options = [
        "BatchMode=yes".to_owned(),
        "IdentitiesOnly=yes".to_owned(),
        "IdentityAgent=none".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "HostKeyAlias=bench".to_owned(),
        "ExitOnForwardFailure=yes".to_owned(),
        "LogLevel=ERROR".to_owned(),
        format!("UserKnownHostsFile={path}/known"),
        format!("IdentityFile={path}/client"),
        format!("Ciphers={CIPHER}"),
        format!("Port={}", ports.far.port()),
        format!("LocalForward={} {}", ports.entry, ground.target),
    ];
    let mut args = vec!["-N".to_owned(), "-F".to_owned(), "/dev/null".to_owned()];
    for option in options {
        args.extend(["-o".to_owned(), option]);
    }
    args.push("127.0.0.1".to_owned());
    Process::start("ssh", ground.folder, &program("ssh")?, args)
}
