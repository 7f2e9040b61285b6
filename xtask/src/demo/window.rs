//! The desktop app of the demo, where there is a screen to show it on. The demo goes on without it: whatever keeps it
//! from being built or shown is said, and the command line does everything.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::{
    consent::Consent,
    front_end::{self, Node},
    packages::{self, Installed},
    process::Process,
    release,
    workspace::Workspace,
};

/// What the app is compiled with on Debian and Ubuntu.
const DEBIAN_PACKAGES: [&str; 2] = ["libwebkit2gtk-4.1-dev", "pkg-config"];

const PROGRAM: &str = "postern-desktop";

/// Whether the demo has a window.
pub(super) enum Window {
    /// The app, built.
    Ready(PathBuf),
    /// Why there is none.
    None(String),
}

impl Window {
    /// The app as the demo's arguments want it: none when headless, a built one in `programs`, else one built now.
    pub(super) fn prepare(headless: bool, programs: Option<&Path>, consent: Consent) -> Self {
        if headless {
            return Self::None("it was not asked for".to_owned());
        }
        if !has_screen() {
            return Self::None("there is no screen here (neither DISPLAY nor WAYLAND_DISPLAY is set)".to_owned());
        }
        let program = match programs {
            Some(folder) => Ok(folder.join(PROGRAM)),
            None => build(consent),
        };
        match program {
            Ok(program) if program.is_file() => Self::Ready(program),
            Ok(program) => Self::None(format!("{} is not built", program.display())),
            Err(error) => Self::None(format!("{error:#}")),
        }
    }

    /// Opens the app on the demo's own service, whose files are in `home`.
    pub(super) fn open(&self, home: &Path) -> Option<Process> {
        let Self::Ready(program) = self else { return None };
        match Process::start(PROGRAM, &home.join("logs"), program, [Path::new("--home"), home]) {
            Ok(process) => Some(process),
            Err(error) => {
                anstream::eprintln!("warning: the desktop app does not open: {error:#}");
                None
            }
        }
    }

    /// A sentence for who started the demo.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Ready(_) => "The desktop app is open: what is connected here is connected there.".to_owned(),
            Self::None(reason) => format!("The desktop app is not open: {reason}. The command line does everything."),
        }
    }
}

fn has_screen() -> bool {
    ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

fn build(consent: Consent) -> anyhow::Result<PathBuf> {
    let node = match Node::find() {
        Ok(node) => node,
        Err(missing) => bail!("{missing}"),
    };
    if let Installed::Declined { line } = packages::install(&DEBIAN_PACKAGES.map(str::to_owned), consent)? {
        bail!("what it is compiled with is missing; install it with: {line}");
    }
    let workspace = Workspace::find()?;
    front_end::build(&workspace, &node).context("its front end is not built")?;
    Ok(release::build(&workspace, &[PROGRAM], &[])?.join(PROGRAM))
}
