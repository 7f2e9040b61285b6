//! `cargo xtask bench scale`: builds the control plane and lets the test bed grow an organisation on it (`scale-tool` of
//! the tests).

use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use crate::{release, workspace::Workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How much of everything, as `scale-tool` takes it: --resources N --accounts N --roles N --devices N --connections N
    /// --touched N, and --json
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

pub(crate) fn bench(args: &Args) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    let programs = release::build(&workspace, &["postern-control", "postern-tests"], &[])?;
    let mut command = Command::new(programs.join("scale-tool"));
    command.args(&args.options).env("POSTERN_BIN_DIR", &programs);
    if !command.status().context("cannot start scale-tool")?.success() {
        bail!("the organisation was not measured to its end");
    }
    Ok(ExitCode::SUCCESS)
}
