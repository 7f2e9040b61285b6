//! The front end of the desktop app: node is looked for, never installed, and what it builds is built into the app.

use std::{fmt, path::PathBuf, process::Command};

use anyhow::{Context, bail};

use crate::workspace::{Workspace, find_program};

/// What Vite 8 works with (its `engines`): 20.19 and later of 20, 22.12 and everything later.
const OLDEST: [(u32, u32); 2] = [(20, 19), (22, 12)];

/// With these the desktop app loads the front end that is built into it, not that of a development server. Every build
/// and test of the whole workspace names them, since Tauri is compiled anew when they change.
pub(crate) const FEATURES: [&str; 2] = ["--features", "postern-desktop/custom-protocol"];

/// A node that the front end can be built with, and its npm.
pub(crate) struct Node {
    npm: PathBuf,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Program(&'static str),
    TooOld(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(name) => write!(f, "{name} is not installed; the front end needs node 20.19, 22.12 or later"),
            Self::TooOld(version) => write!(f, "node is {version}; the front end needs 20.19, 22.12 or later"),
        }
    }
}

impl Node {
    pub(crate) fn find() -> Result<Self, Missing> {
        let node = find_program("node").ok_or(Missing::Program("node"))?;
        let npm = find_program("npm").ok_or(Missing::Program("npm"))?;
        let output = Command::new(node).arg("--version").output().map_err(|_| Missing::Program("node"))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if is_new_enough(&version) { Ok(Self { npm }) } else { Err(Missing::TooOld(version)) }
    }

    /// `npm` with `args` in the folder of the front end.
    pub(crate) fn npm(&self, workspace: &Workspace, args: &[&str]) -> Command {
        let mut command = Command::new(&self.npm);
        command.current_dir(folder(workspace)).stdin(std::process::Stdio::null()).args(args);
        // No news of npm itself, no telemetry, no colours in logs.
        command.env("NPM_CONFIG_UPDATE_NOTIFIER", "false").env("NPM_CONFIG_FUND", "false");
        command.env("NPM_CONFIG_AUDIT", "false");
        command
    }
}

pub(crate) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root().join("ui")
}

/// What `npm ci` last installed from: it takes the installed packages away first, so it is not done twice.
const MARK: &str = "node_modules/.postern-lockfile";

/// Installs the packages that the lockfile names, unless they are there.
pub(crate) fn install(workspace: &Workspace, node: &Node) -> anyhow::Result<()> {
    let folder = folder(workspace);
    let lockfile = std::fs::read(folder.join("package-lock.json")).context("cannot read ui/package-lock.json")?;
    if std::fs::read(folder.join(MARK)).is_ok_and(|installed| installed == lockfile) {
        return Ok(());
    }
    run(&mut node.npm(workspace, &["ci", "--no-audit", "--no-fund"]))?;
    std::fs::write(folder.join(MARK), lockfile).context("cannot write to ui/node_modules")
}

/// Builds `ui/desktop/dist`, which the desktop app is compiled with.
pub(crate) fn build(workspace: &Workspace, node: &Node) -> anyhow::Result<()> {
    install(workspace, node)?;
    run(&mut node.npm(workspace, &["run", "build"]))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("npm {}", command.get_args().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" "));
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("`{shown}` in ui/ failed ({status}); see above");
    }
    Ok(())
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return false };
    match OLDEST.iter().find(|(oldest, _)| *oldest == major) {
        Some((_, oldest)) => minor >= *oldest,
        None => major > 22,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_vite_works_with_is_taken() {
        for (version, good) in [
            ("v20.20.2", true),
            ("v20.19.0", true),
            ("v20.18.9", false),
            ("v18.20.4", false),
            ("v21.9.0", false),
            ("v22.11.0", false),
            ("v22.12.0", true),
            ("v24.0.1", true),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), good, "{version}");
        }
    }
}
