//! `postern-manuals FOLDER`: see the library.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

/// Writes man pages and shell completions of all programs into a folder
#[derive(Parser)]
#[command(name = "postern-manuals")]
struct CommandLine {
    folder: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    postern_manuals::write(&CommandLine::parse().folder)?;
    Ok(ExitCode::SUCCESS)
}
