//! A program that runs beside a test: its output goes to files, it is stopped by its process id, and it never
//! outlives the test.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take to be ready. Generous: the machine may be busy.
pub const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How long a program may take to end after SIGTERM, when the test says nothing else.
pub const STOP_DEADLINE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(10);
/// How much of a log is shown when a test fails.
const SHOWN_LINES: usize = 80;

/// A running program. Dropping it kills it, and shows the end of its log unless it was stopped in good order.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
    settled: bool,
}

/// Lets this process, and what it starts, open as many files as it may at all: a test that holds a thousand streams has more
/// than the thousand files that are usual.
pub fn raise_file_limit() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot raise the limit of open files")
}

impl Process {
    /// Starts `command` with its outputs in `<folder>/<name>.out` and `.log`. The outputs of an earlier process with
    /// this name are kept: the new one appends.
    pub fn spawn(name: &str, command: &mut Command, folder: &Path) -> anyhow::Result<Self> {
        let stdout = numbered(folder, name);
        let stderr = folder.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&stderr).context("cannot make a log file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).context("cannot make an output file")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, stdout, stderr, ended: None, settled: false })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far, by all processes of this name.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// What it printed on its standard output so far.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// Waits for the JSON line that says `"ready":true`.
    pub async fn ready(&mut self) -> anyhow::Result<serde_json::Value> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            let output = self.output();
            let complete = output.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let ready = complete
                .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
                .find(|value| value.get("ready").and_then(serde_json::Value::as_bool) == Some(true));
            if let Some(ready) = ready {
                return Ok(ready);
            }
            if let Some(status) = self.poll_exit()? {
                anyhow::bail!("{} ended with {status} before it was ready\n{}", self.name, self.log_end());
            }
            anyhow::ensure!(Instant::now() < deadline, "{} was not ready in time\n{}", self.name, self.log_end());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.poll_exit(), Ok(None))
    }

    /// Sends a signal, unless the process has ended.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if self.poll_exit()?.is_some() {
            return Ok(());
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// SIGSTOP, and waits until it stands still. SIGCONT lets it go on.
    pub async fn freeze(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        let deadline = Instant::now() + STOP_DEADLINE;
        while !self.is_frozen()? {
            anyhow::ensure!(Instant::now() < deadline, "{} does not stop", self.name);
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Whether all its threads are stopped.
    fn is_frozen(&self) -> anyhow::Result<bool> {
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.id()))? {
            let stat = std::fs::read_to_string(thread?.path().join("stat"))?;
            // The state follows the program's name, which is in brackets and may hold anything.
            let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
            if state != Some("T") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits for its end.
    pub async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.poll_exit()? {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < end, "{} still ran after {deadline:?}", self.name);
            tokio::time::sleep(POLL).await;
        }
    }

    /// SIGTERM, then waits. A program that stays is an error (and is killed when this value is dropped).
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let status = self.wait(STOP_DEADLINE).await?;
        self.settled = true;
        Ok(status)
    }

    /// SIGKILL, then waits: a crash.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.wait(STOP_DEADLINE).await?;
        self.settled = true;
        Ok(())
    }

    /// Whether a test stopped it, or expects its end.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Takes the end of this process, whatever it will be, for expected: nothing is shown when it is dropped.
    pub fn settle(&mut self) {
        self.settled = true;
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default();
        format!("--- end of the log of {} (process {}) ---\n{}\n---", self.name, self.id(), shown.join("\n"))
    }

    fn poll_exit(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("cannot look after {}", self.name))?;
        }
        Ok(self.ended)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if !self.settled {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "{}", self.log_end());
        }
    }
}

/// The first of `<name>.out`, `<name>.2.out`, … that is not there yet, so that a restarted process has an output of
/// its own and an old ready line is not taken for a new one.
fn numbered(folder: &Path, name: &str) -> PathBuf {
    let first = folder.join(format!("{name}.out"));
    std::iter::once(first.clone())
        .chain((2..).map(|number| folder.join(format!("{name}.{number}.out"))))
        .find(|path| !path.exists())
        .unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, folder: &Path) -> Process {
        let mut command = Command::new("sh");
        Process::spawn("shell", command.args(["-c", script]), folder).unwrap()
    }

    #[tokio::test]
    async fn the_ready_line_is_found_and_a_stopped_program_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(r#"echo hello; echo '{"ready":true,"n":7}'; exec sleep 60"#, folder.path());
        assert_eq!(process.ready().await.unwrap()["n"], 7);
        assert!(process.is_running());
        process.stop().await.unwrap();
        assert!(!process.is_running());
    }

    #[tokio::test]
    async fn a_program_that_ends_before_it_is_ready_is_an_error_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell("echo broken >&2; exit 3", folder.path());
        let error = process.ready().await.unwrap_err().to_string();
        process.settle();
        assert!(error.contains("broken") && error.contains('3'), "{error}");
    }

    #[tokio::test]
    async fn a_dropped_process_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell("exec sleep 60", folder.path());
        process.settle();
        let pid = Pid::from_child(&process.child);
        drop(process);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }
}
