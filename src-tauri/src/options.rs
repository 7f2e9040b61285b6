//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// The Postern desktop app.
#[derive(Clone, Debug, Default, Parser)]
#[command(
    name = "postern-desktop",
    version,
    about = "Postern: private resources on this computer, in a window and a tray"
)]
pub struct Options {
    /// A link to ask about: postern://resource/NAME
    #[arg(value_name = "LINK")]
    pub link: Option<String>,

    /// Start in the tray, without a window
    #[arg(long)]
    pub hidden: bool,

    /// Put state, configuration and the socket of posternd under this folder
    #[arg(long, value_name = "DIR")]
    pub home: Option<PathBuf>,

    /// Show a made-up service: a number of resources (0, 40, 10000) or a scenario (`--mock help` lists them)
    #[arg(long, value_name = "SCENARIO")]
    pub mock: Option<String>,
}
