//! Running a program to its end, with a deadline and its output.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;

/// How long a command may take when the test says nothing else. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How a command ended.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A program, or one that becomes it and its arguments.
#[must_use]
pub fn launched(launcher: &[String], program: PathBuf) -> std::process::Command {
    let Some((first, words)) = launcher.split_first() else { return std::process::Command::new(program) };
    let mut command = std::process::Command::new(first);
    command.args(words).arg(program);
    command
}

impl Output {
    /// The standard output, or an error that shows both outputs when the command failed.
    pub fn success(self) -> anyhow::Result<String> {
        anyhow::ensure!(
            self.status.success(),
            "the command ended with {}\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout,
            self.stderr
        );
        Ok(self.stdout)
    }

    /// The standard error, or an error when the command succeeded although it must not.
    pub fn failure(self) -> anyhow::Result<String> {
        anyhow::ensure!(!self.status.success(), "the command succeeded\nstdout: {}", self.stdout);
        Ok(self.stderr)
    }
}

/// Runs a program to its end. One that takes longer than `deadline` is killed, which is an error.
pub async fn run(command: &mut tokio::process::Command, deadline: Duration) -> anyhow::Result<Output> {
    run_with_input(command, "", deadline).await
}

/// The same with something on its standard input.
pub async fn run_with_input(
    command: &mut tokio::process::Command,
    input: &str,
    deadline: Duration,
) -> anyhow::Result<Output> {
    let shown = format!("{:?}", command.as_std());
    let mut child = command
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let stdin = child.stdin.take();
    let running = async {
        if let Some(mut stdin) = stdin {
            // A program may end without having read it.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(deadline, running)
        .await
        .with_context(|| format!("{shown} was not done after {deadline:?}"))??;
    Ok(Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The variables that a command of one of our programs reads, as its help names them.
pub fn variables(program: &Path, command: &str) -> anyhow::Result<Vec<String>> {
    let help = std::process::Command::new(program).args([command, "--help"]).output().context("no help is told")?;
    // Lines are broken anywhere.
    let help = String::from_utf8_lossy(&help.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(help.split("[env: ").skip(1).filter_map(|rest| Some(rest.split(['=', ']']).next()?.to_owned())).collect())
}

/// Finds a program: among Debian's versioned PostgreSQL folders (newest first; the ones in `PATH` are scripts that
/// choose a version by configuration), in `PATH`, or in the folders of administrators.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    postgres_folders()
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

/// A command that is run as another user. Needs root.
#[must_use]
pub fn as_user(uid: u32, program: impl AsRef<OsStr>) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={uid}")]).args(["--clear-groups", "--"]).arg(program);
    command
}

fn postgres_folders() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, folder)| folder).collect()
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
