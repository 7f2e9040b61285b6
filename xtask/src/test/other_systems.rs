//! What is written for macOS and Windows, checked by the compiler alone: nothing of it can run here.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context as _;

use super::{Outcome, Setting};

const TARGETS: [&str; 2] = ["x86_64-apple-darwin", "x86_64-pc-windows-gnu"];
/// Those whose dependencies need no C compiler for the target. (The others need one for aws-lc.)
const PACKAGES: [&str; 1] = ["tun-driver"];

pub(super) fn check(setting: &Setting) -> anyhow::Result<Outcome> {
    let mut missing = Vec::new();
    for target in TARGETS {
        if !is_installed(target)? {
            missing.push(target);
            continue;
        }
        let mut command = setting.workspace.cargo();
        command.args(["clippy", "--locked", "--target", target]);
        command.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
        command.args(["--", "-D", "warnings"]);
        let status = command.status().context("cannot start cargo")?;
        if !status.success() {
            return Ok(Outcome::Failed(format!("{target}: see above ({status})")));
        }
    }
    Ok(match missing.as_slice() {
        [] => Outcome::Passed,
        missing => {
            let names = missing.join(" ");
            Outcome::Skipped(format!("not installed; install with: rustup target add {names}"))
        }
    })
}

/// Whether the compiler has the target's standard library.
fn is_installed(target: &str) -> anyhow::Result<bool> {
    let printed = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .stdin(Stdio::null())
        .output()
        .context("cannot start rustc")?;
    let folder = String::from_utf8_lossy(&printed.stdout);
    Ok(printed.status.success() && Path::new(folder.trim()).is_dir())
}
