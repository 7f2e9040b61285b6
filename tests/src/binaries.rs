//! Postern's own programs, built from the same sources and in the same profile as the running test.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::Context as _;

/// Names a folder with the programs ready to use; nothing is built then.
pub const FOLDER_VARIABLE: &str = "POSTERN_BIN_DIR";

const PACKAGES: [&str; 7] =
    ["postern-cli", "postern-control", "postern-daemon", "postern-manuals", "postern-node", "tun-driver", "xtask"];

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.folder.join("postern-control")
    }

    #[must_use]
    pub fn node(&self) -> PathBuf {
        self.folder.join("postern-node")
    }

    #[must_use]
    pub fn daemon(&self) -> PathBuf {
        self.folder.join("posternd")
    }

    #[must_use]
    pub fn cli(&self) -> PathBuf {
        self.folder.join("postern")
    }

    /// The privileged part.
    #[must_use]
    pub fn netd(&self) -> PathBuf {
        self.folder.join("postern-netd")
    }

    /// The DNS stub for machines without systemd-resolved.
    #[must_use]
    pub fn dns_stub(&self) -> PathBuf {
        self.folder.join("postern-dns-stub")
    }

    /// The command of this repository, for the demo.
    #[must_use]
    pub fn xtask(&self) -> PathBuf {
        self.folder.join("xtask")
    }

    /// Where all of them are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Copies one of them into `folder`, for users who cannot read the build folder.
    pub fn copy_to(&self, program: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
        let copy = folder.join(program.file_name().context("a program without a name")?);
        std::fs::copy(program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
        Ok(copy)
    }
}

/// Finds the programs, and builds them first when this is the first test of a run that asks: `cargo` builds only the
/// programs of the package that is tested, and old ones must not be tested by mistake.
pub fn binaries() -> anyhow::Result<Binaries> {
    static FOUND: OnceLock<Result<Binaries, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.clone().map_err(|error| anyhow::anyhow!(error))
}

/// The desktop app with the front end that is built now. It is built only for tests that open the window: that takes
/// minutes where it was not built before.
pub fn desktop() -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build_desktop().map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow::anyhow!(error))
}

fn build_desktop() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        return Ok(PathBuf::from(folder).join("postern-desktop"));
    }
    let folder = profile_folder()?;
    build_once_per_run(&folder, ".postern-desktop-built", || {
        build(&folder, &["postern-desktop", "--features", "postern-desktop/custom-protocol"])
    })?;
    Ok(folder.join("postern-desktop"))
}

fn find() -> anyhow::Result<Binaries> {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        return Ok(Binaries { folder: PathBuf::from(folder) });
    }
    let folder = profile_folder()?;
    let packages: Vec<&str> = PACKAGES.iter().flat_map(|package| ["--package", package]).skip(1).collect();
    build_once_per_run(&folder, ".postern-tests-built", || build(&folder, &packages))?;
    Ok(Binaries { folder })
}

/// `<target>/<profile>`: test programs lie in its `deps`.
fn profile_folder() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("the test does not know its own path")?;
    let folder = own.parent().context("the test has no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().context("no profile folder")? } else { folder };
    Ok(folder.to_owned())
}

/// nextest runs each test in a process of its own: a lock file that holds the id of the run makes them build once.
fn build_once_per_run(folder: &Path, stamp: &str, build: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| format!("process {}", std::process::id()));
    let mut stamp = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(stamp))
        .context("cannot open the lock file")?;
    stamp.lock().context("cannot lock the build folder")?;
    let mut built = String::new();
    stamp.read_to_string(&mut built).context("cannot read the lock file")?;
    if built == run {
        return Ok(());
    }
    build()?;
    stamp.set_len(0)?;
    stamp.rewind()?;
    stamp.write_all(run.as_bytes())?;
    Ok(())
}

/// `packages`: the name of the first, and whatever else selects what is built.
fn build(folder: &Path, packages: &[&str]) -> anyhow::Result<()> {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => anyhow::bail!("the build folder {} has no name", folder.display()),
    };
    let target = folder.parent().context("the build folder has no parent")?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.args(["build", "--locked", "--quiet", "--bins", "--profile", profile, "--target-dir"]).arg(target);
    command.arg("--package").args(packages);
    let output = command.output().context("cannot start cargo")?;
    anyhow::ensure!(output.status.success(), "cargo build failed\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
