//! A whole system to install packages into: this machine's, with every change going to memory, and a network of its own.
//! The machine itself never sees any of it.

use std::{ffi::OsStr, path::PathBuf, process::Command};

use anyhow::Context as _;

use crate::{
    command::{self, PATIENCE, find_program},
    holder::Holder,
};

const NEEDED: [&str; 4] = ["chroot", "mount", "nsenter", "unshare"];

/// Mounts the overlay, says so, and stays in it until its standard input is closed.
const HOLDER: &str = r#"set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
mount -t proc proc "$1/root/proc"
mount -t tmpfs -o mode=755 tmpfs "$1/root/run"
mount -t tmpfs -o mode=1777 tmpfs "$1/root/tmp"
mount --rbind /dev "$1/root/dev"
ip link set lo up 2>/dev/null || true
exec chroot "$1/root" sh -c 'echo ready; exec cat >/dev/null'
"#;

/// What this machine lacks for [`Overlay::new`].
#[must_use]
pub fn missing() -> Option<String> {
    if !crate::skip::is_root() {
        return Some("needs root to make a system of its own".to_owned());
    }
    if let Some(program) = NEEDED.into_iter().find(|program| find_program(program).is_none()) {
        return Some(format!("{program} is not installed"));
    }
    let script = "mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w && mount -t overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w o /mnt";
    let made = Command::new("unshare").args(["-m", "--propagation", "private", "sh", "-c", script]).output();
    match made {
        Ok(output) if output.status.success() => None,
        _ => Some("may not mount an overlay".to_owned()),
    }
}

/// The system; gone when dropped.
pub struct Overlay {
    holder: Holder,
    folder: tempfile::TempDir,
}

impl Overlay {
    pub async fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let holder = Holder::start(HOLDER, folder.path()).await?;
        Ok(Self { holder, folder })
    }

    /// A program of that system, as root.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.holder.command(&["-n", "-m", "-r", "-w"], program);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8").env("HOME", "/root");
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs a program to its end, which must be a good one; its standard output.
    pub async fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        command::run(&mut command.into(), PATIENCE).await?.success().with_context(|| format!("{program} {arguments:?}"))
    }

    /// Where this process finds a file of that system.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.holder.id()))
    }

    /// Every file that is not as on the machine itself: new, changed or taken away.
    pub async fn changed(&self) -> anyhow::Result<Vec<String>> {
        let upper = self.folder.path().join("upper");
        let mut command = self.holder.command(&["-m"], "find");
        command.arg(&upper).args(["!", "-type", "d", "-printf", "/%P\\n"]);
        let mut found: Vec<String> =
            command::run(&mut command.into(), PATIENCE).await?.success()?.lines().map(str::to_owned).collect();
        found.sort();
        Ok(found)
    }
}
