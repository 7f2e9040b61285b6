//! Networks of the benchmark's own: what is measured never touches the machine's.

use std::{
    ffi::OsStr,
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::Command,
};

use anyhow::{Context, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{interrupt::Interrupt, process::Process, workspace::find_program};

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

/// Brings up the loopback interface of a network that has just been made, and nothing in a network that is in use.
pub(crate) fn raise_loopback() -> anyhow::Result<()> {
    const ROUTES: &str = "/proc/thread-self/net/route";
    let routes = std::fs::read_to_string(ROUTES).with_context(|| format!("cannot read {ROUTES}"))?;
    // Its first line says what the others are.
    if routes.lines().count() > 1 {
        bail!("this network has routes: it is the machine's, which nothing here may touch; leave --measure away");
    }
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

/// A further network, for a subject that wants one to itself. It is gone with its last process and this value.
#[derive(Debug)]
pub(crate) struct Network {
    inside: OwnedFd,
    outside: OwnedFd,
}

impl Network {
    pub(crate) fn make(folder: &Path, interrupt: &Interrupt) -> anyhow::Result<Self> {
        const HOLDER: &str = r#"ip link set lo up && echo '{"ready":true}' && exec sleep infinity"#;
        let args = ["--net", "--", "sh", "-c", HOLDER];
        let mut holder = Process::start("network", folder, Path::new("unshare"), args)?;
        holder.ready_line(interrupt)?;
        let open = |path: &str| File::open(path).with_context(|| format!("cannot open {path}")).map(OwnedFd::from);
        let inside = open(&format!("/proc/{}/ns/net", holder.pid()))?;
        holder.stop();
        Ok(Self { inside, outside: open("/proc/thread-self/ns/net")? })
    }

    /// Does `work` with this thread in the network: sockets that it opens, threads and programs that it starts belong
    /// there.
    pub(crate) fn enter<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let move_to = |network: &OwnedFd| move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network));
        move_to(&self.inside).context("cannot enter the subject's network")?;
        let done = work();
        move_to(&self.outside).context("cannot leave the subject's network")?;
        done
    }
}
