//! Peers that no package of Debian brings: programs that are built for the comparison.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use super::subject::Kind;
use crate::workspace::{Workspace, find_program, is_executable, tools_folder};

/// The release that the figures in docs/benchmarks.md were measured with.
const TUN2PROXY: &str = "0.8.7";
/// Where Debian puts the source of Go packages.
const GO_PACKAGES: &str = "/usr/share/gocode";

/// What has to be built for a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    NetstackSmoltcp,
    Gvisor,
    Tun2proxy,
}

impl Peer {
    /// Those that subjects need.
    pub(crate) fn of(subjects: &[Kind]) -> Vec<Self> {
        let mut peers: Vec<Self> = subjects.iter().filter_map(|kind| kind.peer()).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// Where the program is once it is built. `target`: cargo's target folder.
    pub(crate) fn program(self, target: &Path) -> anyhow::Result<PathBuf> {
        let built = target.join("bench-peers");
        Ok(match self {
            Self::NetstackSmoltcp => built.join("netstack-smoltcp/release/peer-netstack-smoltcp"),
            Self::Gvisor => built.join("gvisor/peer-gvisor"),
            Self::Tun2proxy => tun2proxy_root()?.join("bin/tun2proxy-bin"),
        })
    }

    /// Builds it. An error says why it cannot be had here.
    pub(crate) fn build(self, workspace: &Workspace, target: &Path) -> anyhow::Result<()> {
        let source = workspace.root().join("xtask/peers");
        let built = target.join("bench-peers");
        match self {
            Self::NetstackSmoltcp => {
                let mut cargo = workspace.cargo();
                cargo.args(["build", "--locked", "--release", "--manifest-path"]);
                cargo.arg(source.join("netstack-smoltcp/Cargo.toml"));
                finish(cargo.arg("--target-dir").arg(built.join("netstack-smoltcp")))
            }
            // Building it takes minutes, and it never changes.
            Self::Tun2proxy if is_executable(&self.program(target)?) => Ok(()),
            Self::Tun2proxy => {
                let mut cargo = workspace.cargo();
                cargo.args(["install", "--locked", "--version", TUN2PROXY, "tun2proxy", "--root"]);
                finish(cargo.arg(tun2proxy_root()?))
            }
            Self::Gvisor => {
                if find_program("go").is_none() {
                    bail!("golang-go is not installed");
                }
                let program = self.program(target)?;
                let mut go = Command::new("go");
                go.current_dir(source.join("gvisor")).args(["build", "-o"]).arg(program).arg(".");
                go.env("GO111MODULE", "off").env("GOPATH", GO_PACKAGES);
                finish(go.env("GOCACHE", built.join("gvisor/cache")))
            }
        }
    }
}

fn tun2proxy_root() -> anyhow::Result<PathBuf> {
    Ok(tools_folder()?.join(format!("tun2proxy-{TUN2PROXY}")))
}

fn finish(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        bail!("{} failed ({}): {last}", command.get_program().display(), output.status);
    }
    Ok(())
}
