//! The process that holds a network and mount namespace of the test's own. The namespace is gone when its value is
//! dropped, or when the test dies in whatever way: the holder's standard input ends then.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;

use crate::command::PATIENCE;

pub(crate) struct Holder(Child);

impl Holder {
    /// Runs `script` in new namespaces with `folder` as `$1`. It sets them up, writes the line "ready", and stays until
    /// its standard input is closed.
    pub(crate) async fn start(script: &str, folder: &Path) -> anyhow::Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["-n", "-m", "--propagation", "private", "--", "sh", "-c", script, "holder"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start unshare")?;
        let stdout = holder.stdout.take().context("no output")?;
        let holder = Self(holder);
        let mut line = String::new();
        let read = tokio::task::spawn_blocking(move || BufReader::new(stdout).read_line(&mut line).map(|_| line));
        let line = tokio::time::timeout(PATIENCE, read).await.context("the namespaces take too long")???;
        anyhow::ensure!(line == "ready\n", "the namespaces could not be set up");
        Ok(holder)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// `program` as root in the namespaces that `flags` of nsenter name. The process that is started *is* the program:
    /// its id can be signalled.
    pub(crate) fn command(&self, flags: &[&str], program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.id().to_string()]).args(flags).arg("--").arg(program);
        command
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
