//! `cargo xtask icons`: the app's icons in the sizes that desktops ask for, drawn from their SVG files by librsvg. They
//! are committed, so that nobody needs librsvg to build packages.

use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use crate::workspace::{Workspace, find_program};

/// Below 48 pixels the drawing made for small sizes is taken.
const SIZES: [(u32, &str); 9] = [
    (16, "app-small"),
    (22, "app-small"),
    (24, "app-small"),
    (32, "app-small"),
    (48, "app"),
    (64, "app"),
    (128, "app"),
    (256, "app"),
    (512, "app"),
];

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    let folder = workspace.root().join("packaging/icons");
    let Some(program) = find_program("rsvg-convert") else {
        bail!("rsvg-convert is missing; on Debian: sudo apt-get install --no-install-recommends librsvg2-bin");
    };
    for (size, drawing) in SIZES {
        let (size, output) = (size.to_string(), folder.join(format!("{size}.png")));
        let mut command = Command::new(&program);
        command.args(["--width", &size, "--height", &size, "--output"]).arg(&output);
        let status =
            command.arg(folder.join(format!("{drawing}.svg"))).status().context("cannot start rsvg-convert")?;
        if !status.success() {
            bail!("rsvg-convert failed ({status})");
        }
        anstream::println!("{}", output.display());
    }
    Ok(ExitCode::SUCCESS)
}
