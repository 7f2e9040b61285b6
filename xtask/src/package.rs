//! `cargo xtask package`: the packages for Debian and Fedora and their relatives, built without a network.
//!
//! One table (`packaging/files.txt`) says what goes where; from it each package's files are laid out once, and Debian's
//! debhelper and rpmbuild make packages of them.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, bail};

use crate::{front_end, release, workspace::Workspace};

mod deb;
mod rpm;
mod stage;

use stage::Stage;

/// The packages that hold the programs, and the one that makes the man pages.
const PACKAGES: [&str; 7] = [
    "postern-cli",
    "postern-control",
    "postern-daemon",
    "postern-desktop",
    "postern-manuals",
    "postern-node",
    "tun-driver",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build the Debian packages (both kinds when neither is given)
    #[arg(long)]
    deb: bool,
    /// Build the RPM packages
    #[arg(long)]
    rpm: bool,
    /// Where the packages go [default: target/package]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Take programs that are built already from this folder, postern-manuals too
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Counts packages of the same version
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    revision: u32,
}

/// What is packaged.
struct Release {
    version: &'static str,
    revision: u32,
    /// Seconds since 1970; the same for the same sources.
    date: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    let target = workspace.target_folder()?;
    let programs = match &args.programs {
        Some(folder) => folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))?,
        None => build(&workspace)?,
    };
    let output = args.output.clone().unwrap_or_else(|| target.join("package"));
    std::fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    let output = output.canonicalize()?;
    let release = Release { version: env!("CARGO_PKG_VERSION"), revision: args.revision, date: date(&workspace)? };
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let stage = Stage::lay_out(workspace.root(), &programs, scratch.path())?;
    let mut built = Vec::new();
    if args.deb || !args.rpm {
        built.extend(deb::build(&stage, &release, workspace.root(), &output)?);
    }
    if args.rpm || !args.deb {
        built.extend(rpm::build(&stage, &release, workspace.root(), &output)?);
    }
    for package in built {
        anstream::println!("{}", package.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The release build, with the front end inside the desktop app.
fn build(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let node = match front_end::Node::find() {
        Ok(node) => node,
        Err(missing) => bail!("the desktop app cannot be built: {missing}"),
    };
    front_end::build(workspace, &node)?;
    release::build(workspace, &PACKAGES, &[])
}

/// When the sources were last changed, so that the same sources make the same packages.
fn date(workspace: &Workspace) -> anyhow::Result<u64> {
    if let Ok(date) = std::env::var("SOURCE_DATE_EPOCH") {
        return date.parse().with_context(|| format!("SOURCE_DATE_EPOCH is {date:?}"));
    }
    let mut git = Command::new("git");
    git.current_dir(workspace.root()).args(["log", "-1", "--format=%ct"]).stderr(Stdio::null());
    let committed = git.output().ok().and_then(|output| String::from_utf8_lossy(&output.stdout).trim().parse().ok());
    Ok(match committed {
        Some(date) => date,
        None => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
    })
}

/// Runs a packager's tool; what it said is shown when it fails.
fn run_tool(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {program}"))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{program} failed ({})\n{}\n{}", output.status, stdout.trim(), stderr.trim());
    }
    Ok(stdout.into_owned())
}

/// Moves the packages that a tool left in `folder` to `output`.
fn collect(folder: &Path, kind: &str, output: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut moved = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == kind)
            && let Some(name) = path.file_name()
        {
            let to = output.join(name);
            std::fs::copy(&path, &to).with_context(|| format!("cannot write {}", to.display()))?;
            moved.push(to);
        }
    }
    moved.sort();
    if moved.is_empty() {
        bail!("no .{kind} was made");
    }
    Ok(moved)
}
