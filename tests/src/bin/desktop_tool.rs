//! `cargo xtask screenshots` and `cargo xtask bench desktop`, which drive the real window as the tests do.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use postern_tests::desk::{figures, pictures};

/// Drives the desktop app on a screen that nobody sees
#[derive(Parser)]
struct CommandLine {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Takes a picture of each screen in both themes
    Screenshots {
        /// Where the pictures go
        folder: PathBuf,
        /// Only screens whose name begins with this
        #[arg(long)]
        only: Option<String>,
    },
    /// Measures start, search, memory and idle CPU
    Bench(figures::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    if let Some(missing) = postern_tests::desk::missing() {
        anyhow::bail!("there can be no window here: {missing}");
    }
    match CommandLine::parse().what {
        What::Screenshots { folder, only } => pictures::take(&folder, only.as_deref()).await,
        What::Bench(options) => figures::measure(&options).await,
    }
}
