//! The release build of our programs, with a progress bar where somebody watches.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

use crate::{front_end, workspace::Workspace};

/// Builds the programs of `packages`, and examples of theirs, and gives the folder where they are.
pub(crate) fn build(workspace: &Workspace, packages: &[&str], examples: &[&str]) -> anyhow::Result<PathBuf> {
    let bar = progress_bar(count_crates(workspace, packages)?);
    if bar.is_hidden() {
        anstream::eprintln!("building in release mode; the first time takes several minutes");
    }
    let mut command = workspace.cargo();
    command.args(["build", "--locked", "--release", "--bins", "--message-format", "json-render-diagnostics"]);
    for package in packages {
        command.args(["--package", package]);
    }
    if packages.contains(&"postern-desktop") {
        command.args(front_end::FEATURES);
    }
    for example in examples {
        command.args(["--example", example]);
    }
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start cargo build")?;
    let stderr = child.stderr.take();
    let complaints = thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = stderr.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let mut built = HashSet::new();
    for line in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).map_while(Result::ok)
    {
        if let Ok(Message { reason: "compiler-artifact", package_id: Some(package), target: Some(target) }) =
            serde_json::from_str(&line)
            && built.insert(package)
        {
            bar.set_message(target.name);
            bar.set_position(built.len() as u64);
        }
    }
    let status = child.wait().context("cannot wait for cargo build")?;
    bar.finish_and_clear();
    if !status.success() {
        bail!("the release build failed ({status})\n{}", complaints.join().unwrap_or_default());
    }
    Ok(workspace.target_folder()?.join("release"))
}

/// What cargo says about each thing that it built or found built.
#[derive(Deserialize)]
struct Message<'a> {
    reason: &'a str,
    package_id: Option<String>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// How many crates the build goes through.
fn count_crates(workspace: &Workspace, packages: &[&str]) -> anyhow::Result<u64> {
    let mut command = workspace.cargo();
    command.args(["tree", "--locked", "--quiet", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
    for package in packages {
        command.args(["--package", package]);
    }
    let output = command.output().context("cannot start cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let listed = String::from_utf8_lossy(&output.stdout);
    // Crates listed before are marked with a star at the end.
    let crates: HashSet<&str> = listed.lines().filter_map(|line| line.split(" (").next()).collect();
    Ok(crates.len() as u64)
}

/// Nothing is drawn where stderr is no terminal.
fn progress_bar(crates: u64) -> ProgressBar {
    let bar = ProgressBar::new(crates);
    bar.enable_steady_tick(Duration::from_millis(200));
    match ProgressStyle::with_template("{spinner} building (release) [{bar:30}] {pos}/{len} {elapsed} {msg}") {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}
