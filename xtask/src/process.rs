//! Programs that run beside this one, and never outlive it.
//!
//! Each is started through `xtask launch`, which asks the kernel to kill it when its parent dies (by SIGKILL too) and
//! then becomes the program. Each has a process group of its own, so that Ctrl-C at the terminal reaches only us and
//! we stop what runs in the right order.

use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use serde_json::Value;

use crate::interrupt::Interrupt;

/// How long a program may take until it says that it is ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// How long a program may take to end after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// The same where something went wrong before.
const DROP_DEADLINE: Duration = Duration::from_secs(3);
/// How much of a log is shown when a program fails.
const LOG_TAIL: usize = 2_000;

/// `xtask launch PARENT PROGRAM ARGS…`: becomes the program.
#[derive(Debug, clap::Args)]
pub(crate) struct LaunchArgs {
    parent: i32,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<std::ffi::OsString>,
}

pub(crate) fn launch(args: &LaunchArgs) -> anyhow::Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot tie this process to its parent")?;
    // The parent may have died before the kernel knew whom to watch.
    if getppid() != Pid::from_raw(args.parent) {
        bail!("the process that started this one is gone");
    }
    let [program, rest @ ..] = args.command.as_slice() else { bail!("no program given") };
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("cannot start {}", Path::new(program).display()))
}

/// A running program; ended when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    stdout: mpsc::Receiver<String>,
}

impl Process {
    /// Starts `program`; what it writes to stderr goes to `<folder>/<name>.log`. To be called on a thread that lives
    /// as long as the program shall: the kernel ties the program to the thread.
    pub(crate) fn start<S: AsRef<OsStr>>(
        name: &str,
        folder: &Path,
        program: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Self> {
        let args: Vec<S> = args.into_iter().collect();
        Self::start_with(name, folder, |launcher| {
            launcher.arg(program).args(&args);
        })
    }

    /// Like [`Self::start`], with all of a command's settings open. `set` adds the program, then its arguments.
    pub(crate) fn start_with(name: &str, folder: &Path, set: impl FnOnce(&mut Command)) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let stderr = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = launcher();
        set(&mut command);
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdout = lines_of(child.stdout.take());
        Ok(Self { name: name.to_owned(), child, log, stdout })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The JSON line with which our programs say on stdout that they are ready.
    pub(crate) fn ready_line(&mut self, interrupt: &Interrupt) -> anyhow::Result<Value> {
        let deadline = Instant::now() + READY_DEADLINE;
        let line = interrupt.wait_for(deadline, || match self.stdout.try_recv() {
            Ok(line) => Some(Some(line)),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => Some(None),
        })?;
        match line {
            Some(Some(line)) => {
                serde_json::from_str(&line).with_context(|| format!("{} is not ready, but says: {line}", self.name))
            }
            // Its stdout is closed, so it has ended or is about to.
            Some(None) => {
                let status = self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
                bail!("{} ended ({status}) before it was ready\n{}", self.name, self.log_tail())
            }
            None => bail!("{} was not ready within {READY_DEADLINE:?}\n{}", self.name, self.log_tail()),
        }
    }

    /// Waits until something accepts connections at `address`; for programs that do not say when they are ready.
    pub(crate) fn wait_until_listening(
        &mut self,
        address: std::net::SocketAddr,
        interrupt: &Interrupt,
    ) -> anyhow::Result<()> {
        let listening = interrupt.wait_for(Instant::now() + READY_DEADLINE, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(Err(status));
            }
            std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok().then_some(Ok(()))
        })?;
        match listening {
            Some(Ok(())) => Ok(()),
            Some(Err(status)) => bail!("{} ended ({status})\n{}", self.name, self.log_tail()),
            None => bail!("{} does not listen at {address}\n{}", self.name, self.log_tail()),
        }
    }

    /// Its exit status once it has ended, without waiting.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The end of what it wrote to stderr.
    pub(crate) fn log_tail(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let tail = bytes.get(bytes.len().saturating_sub(LOG_TAIL)..).unwrap_or_default();
        String::from_utf8_lossy(tail).trim().to_owned()
    }

    /// SIGTERM, then SIGKILL when it takes too long.
    pub(crate) fn stop(mut self) {
        self.end(STOP_DEADLINE);
    }

    fn end(&mut self, patience: Duration) {
        if self.ended().is_none()
            && let Ok(pid) = i32::try_from(self.pid())
            && let Some(pid) = Pid::from_raw(pid)
        {
            // Not reaped yet, so the id is still its own.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + patience;
        while self.ended().is_none() {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(DROP_DEADLINE);
    }
}

/// `xtask launch <our pid>`. The path stays right when cargo puts a newer xtask in this one's place.
fn launcher() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("xtask").arg("launch").arg(std::process::id().to_string());
    command
}

/// Runs a program to its end with `input` as its stdin, and gives what it wrote to stdout. Like all others it dies
/// with us.
pub(crate) fn run(
    name: &str,
    interrupt: &Interrupt,
    input: &str,
    set: impl FnOnce(&mut Command),
) -> anyhow::Result<String> {
    let mut command = launcher();
    set(&mut command);
    let mut child = command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read what it was asked to read says more itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let (stdout, stderr) = (text_of(child.stdout.take()), text_of(child.stderr.take()));
    let ended = interrupt.wait_for(Instant::now() + READY_DEADLINE, || child.try_wait().transpose());
    if !matches!(ended, Ok(Some(Ok(_)))) {
        let _ = child.kill();
        let _ = child.wait();
    }
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    match ended?.transpose().with_context(|| format!("cannot wait for {name}"))? {
        Some(status) if status.success() => Ok(stdout),
        Some(status) => bail!("{name} failed ({status}): {}{}", stdout.trim(), stderr.trim()),
        None => bail!("{name} took longer than {READY_DEADLINE:?}: {}", stderr.trim()),
    }
}

/// Reads lines in the background: a program never waits for us to read.
fn lines_of(stdout: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    // Of more than these nobody wants to know; later lines are read and dropped.
    let (sender, receiver) = mpsc::sync_channel(64);
    thread::spawn(move || {
        for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).map_while(Result::ok) {
            let _ = sender.try_send(line);
        }
    });
    receiver
}

fn text_of(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
