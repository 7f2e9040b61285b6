//! Networks of the benchmark's own: what is measured never touches the machine's.

use std::{ffi::OsStr, fs::File, path::Path, process::Command};

use anyhow::{Context, bail};

use crate::workspace::find_program;

/// Programs that it takes.
const NEEDED: [&str; 2] = ["ip", "unshare"];

/// What is missing here to measure virtual networks.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root can make a network of its own with TUN devices; run it as root".to_owned());
    }
    if let Some(program) = NEEDED.into_iter().find(|name| find_program(name).is_none()) {
        return Some(format!("{program} is not installed"));
    }
    let device = File::options().read(true).write(true).open("/dev/net/tun");
    device.err().map(|error| format!("cannot open /dev/net/tun: {error}"))
}

/// A command that runs `program` in a network and with mounts of its own.
pub(crate) fn in_new_network(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--propagation", "private", "--"]).arg(program);
    command
}

/// Brings up the loopback interface of a network that has just been made.
pub(crate) fn raise_loopback() -> anyhow::Result<()> {
    ip(["link", "set", "lo", "up"])
}

/// `ip ARGS…` in the network of this thread.
pub(crate) fn ip<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    command.args(args);
    let output = command.output().context("cannot start ip")?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
