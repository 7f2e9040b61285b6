//! `cargo xtask bench scale`: what a large organisation and many devices cost a control plane.
#![forbid(unsafe_code)]

use clap::Parser;
use postern_tests::scale::{Figures, Size, measure};

/// Measures a control plane with as many resources, accounts and devices as asked for
#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    size: Size,
    /// Prints one line of JSON a figure
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    postern_tunnel::tls::install_crypto_provider();
    let line = CommandLine::parse();
    measure(line.size, &mut Figures::new(line.json)).await
}
