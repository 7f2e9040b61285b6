//! `cargo xtask screenshots` and `cargo xtask bench desktop`: both build the desktop app and let the test bed drive it on
//! a screen of its own (`desktop-tool` of the tests).

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, bail};

use crate::{
    front_end::{self, Node},
    release,
    test::Tool,
    workspace::Workspace,
};

/// Names the folder of the programs for the test bed.
const PROGRAMS: &str = "POSTERN_BIN_DIR";
/// Names tauri-driver for the test bed.
const DRIVER: &str = "POSTERN_TAURI_DRIVER";

#[derive(Debug, clap::Args)]
pub(crate) struct ScreenshotArgs {
    /// Where the pictures go [default: docs/screenshots]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Only screens whose name begins with this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Take a postern-desktop that is built already from this folder
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

pub(crate) fn screenshots(args: &ScreenshotArgs) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    let output = args.output.clone().unwrap_or_else(|| workspace.root().join("docs/screenshots"));
    let programs = match &args.programs {
        Some(folder) => folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))?,
        None => {
            build_front_end(&workspace)?;
            let mut command = workspace.cargo();
            command.args(["build", "--locked", "--package", "postern-desktop"]).args(front_end::FEATURES);
            run(&mut command)?;
            workspace.target_folder()?.join("debug")
        }
    };
    let mut command = tool(&workspace, &programs)?;
    command.arg("screenshots").arg(&output);
    if let Some(only) = &args.only {
        command.args(["--only", only]);
    }
    run(&mut command)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Print JSON lines instead of a table
    #[arg(long)]
    json: bool,
    /// Starts of the app; medians are taken over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How long the idle app is watched, in seconds
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    idle: u64,
    /// Take a postern-desktop that is built already (in release mode) from this folder
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

/// The release build, measured by the test bed.
pub(crate) fn bench(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    let programs = match &args.programs {
        Some(folder) => folder.canonicalize().with_context(|| format!("cannot find {}", folder.display()))?,
        None => {
            build_front_end(&workspace)?;
            release::build(&workspace, &["postern-desktop"], &[])?
        }
    };
    let mut command = tool(&workspace, &programs)?;
    command.args(["bench", "--runs", &args.runs.to_string(), "--idle", &args.idle.to_string()]);
    if args.json {
        command.arg("--json");
    }
    run(&mut command)?;
    Ok(ExitCode::SUCCESS)
}

fn build_front_end(workspace: &Workspace) -> anyhow::Result<()> {
    match Node::find() {
        Ok(node) => front_end::build(workspace, &node),
        Err(missing) => bail!("{missing}"),
    }
}

/// The part of the test bed that drives the window.
fn tool(workspace: &Workspace, programs: &Path) -> anyhow::Result<Command> {
    let mut build = workspace.cargo();
    build.args(["build", "--locked", "--quiet", "--package", "postern-tests", "--bin", "desktop-tool"]);
    run(&mut build)?;
    let mut command = Command::new(workspace.target_folder()?.join("debug/desktop-tool"));
    command.current_dir(workspace.root()).stdin(Stdio::null()).env(PROGRAMS, programs);
    if let Some(driver) = Tool::TAURI_DRIVER.find()? {
        command.env(DRIVER, driver);
    }
    Ok(command)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().display().to_string();
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("{program} failed ({status}); see above");
    }
    Ok(())
}
