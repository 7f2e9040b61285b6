//! posternd over its socket.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures_util::future::BoxFuture;
use postern_local_api::{
    client::{ClientError, LocalClient, Update},
    message::{
        ChangeReport, ControlAnswer, ControlCall, DoctorLine, KeyStorageChoice, LiveSession, LogExport, LogRequest,
        Login, NetworkChoice, NetworkStatus, PortOverride, ResourceStatus, Selection, Unlock,
    },
    names::{NameQuestion, NameReport},
    paths::Paths,
};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{Answer, Heard, Service, StartError, WAITING};

const PROGRAM: &str = "posternd";
/// How long posternd may take to answer after it was started. It reads its state and opens its ports first.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How often the socket is looked at meanwhile.
const START_PAUSE: Duration = Duration::from_millis(50);
/// The pause before a service that cannot be talked to is tried again: it may have been replaced meanwhile.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// The service of the user who runs this program.
pub struct Real {
    client: LocalClient,
    paths: Paths,
    /// Given to posternd as `--home` when it was given to us.
    home: Option<PathBuf>,
}

impl Real {
    #[must_use]
    pub fn new(paths: Paths, home: Option<PathBuf>) -> Self {
        Self { client: LocalClient::new(paths.socket()), paths, home }
    }

    async fn start_program(&self) -> Result<(), StartError> {
        if self.client.hello().await.is_ok() {
            return Ok(());
        }
        let program = find_program().ok_or(StartError::NotInstalled)?;
        let not_run = |error| StartError::NotRun { program: program.display().to_string(), error };
        let said = self.paths.state.join("service-start.log");
        let log = open_log(&said).map_err(not_run)?;
        let mut command = Command::new(&program);
        if let Some(home) = &self.home {
            command.arg("--home").arg(home);
        }
        // In a group of its own, so that Ctrl C in a terminal ends the window and not the connections.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let mut child = command.spawn().map_err(not_run)?;
        self.await_answer(&mut child, &said).await?;
        // Somebody has to take note of its end, or it stays as a zombie.
        tokio::spawn(async move {
            let ended = child.wait().await;
            tracing::info!(?ended, "posternd ended");
        });
        Ok(())
    }

    async fn await_answer(&self, child: &mut Child, said: &Path) -> Result<(), StartError> {
        let until = Instant::now() + START_DEADLINE;
        loop {
            // A version that differs answers too; the one who follows says so.
            if !matches!(self.client.hello().await, Err(ClientError::NotRunning { .. })) {
                return Ok(());
            }
            if let Ok(Some(_)) = child.try_wait() {
                return Err(StartError::Ended { said: last_line(said) });
            }
            if Instant::now() > until {
                return Err(StartError::Silent { after: START_DEADLINE });
            }
            sleep(START_PAUSE).await;
        }
    }
}

impl Service for Real {
    fn follow(&self) -> mpsc::Receiver<Heard> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let client = self.client.clone();
        tokio::spawn(async move {
            let mut follow = client.follow();
            loop {
                let heard = match follow.next().await {
                    Ok(Update::Event(event)) => Heard::Event(event),
                    Ok(Update::Lost(error)) => Heard::Lost(error),
                    Err(error) => Heard::Refused(error),
                };
                let refused = matches!(heard, Heard::Refused(_));
                if sender.send(heard).await.is_err() {
                    return;
                }
                if refused {
                    sleep(REFUSED_PAUSE).await;
                    follow = client.follow();
                }
            }
        });
        receiver
    }

    fn start(&self) -> BoxFuture<'_, Result<(), StartError>> {
        Box::pin(self.start_program())
    }

    fn broke_down(&self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            // One that stops takes its socket away first.
            let left = fs::symlink_metadata(self.client.socket()).is_ok();
            left && matches!(self.client.hello().await, Err(ClientError::NotRunning { .. }))
        })
    }

    fn shutdown(&self) -> Answer<'_, ()> {
        Box::pin(async {
            self.client.shutdown().await?;
            // It has agreed; gone it is when nothing answers any more.
            let gone = async {
                while self.client.hello().await.is_ok() {
                    sleep(START_PAUSE).await;
                }
            };
            if timeout(START_DEADLINE, gone).await.is_err() {
                return Err(ClientError::Silent { call: "POST /v1/shutdown".to_owned(), after: START_DEADLINE });
            }
            Ok(())
        })
    }

    fn login(&self, login: Login) -> Answer<'_, ()> {
        Box::pin(async move { self.client.login(&login).await.map(drop) })
    }

    fn logout(&self) -> Answer<'_, ()> {
        Box::pin(async { self.client.logout().await.map(drop) })
    }

    fn lock(&self) -> Answer<'_, ()> {
        Box::pin(async { self.client.lock().await.map(drop) })
    }

    fn unlock(&self, unlock: Unlock) -> Answer<'_, ()> {
        Box::pin(async move { self.client.unlock(&unlock).await.map(drop) })
    }

    fn connect(&self, selection: Selection) -> Answer<'_, ChangeReport> {
        Box::pin(async move { self.client.connect(&selection).await })
    }

    fn disconnect(&self, selection: Selection) -> Answer<'_, ChangeReport> {
        Box::pin(async move { self.client.disconnect(&selection).await })
    }

    fn port_override(&self, choice: PortOverride) -> Answer<'_, ResourceStatus> {
        Box::pin(async move { self.client.set_override(&choice).await })
    }

    fn key_storage(&self, choice: KeyStorageChoice) -> Answer<'_, ()> {
        Box::pin(async move { self.client.set_key_storage(&choice).await.map(drop) })
    }

    fn network(&self, choice: NetworkChoice) -> Answer<'_, NetworkStatus> {
        Box::pin(async move { self.client.network(&choice).await })
    }

    fn retry(&self) -> Answer<'_, ()> {
        Box::pin(async { self.client.retry().await.map(drop) })
    }

    fn sessions(&self) -> Answer<'_, Vec<LiveSession>> {
        Box::pin(self.client.sessions())
    }

    fn doctor(&self, lines: mpsc::Sender<DoctorLine>) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut stream = self.client.doctor_stream().await?;
            while let Some(line) = stream.next().await? {
                if lines.send(line).await.is_err() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn logs(&self, request: LogRequest) -> Answer<'_, LogExport> {
        Box::pin(async move { self.client.logs(&request).await })
    }

    fn names(&self, question: NameQuestion) -> Answer<'_, NameReport> {
        Box::pin(async move { self.client.names(&question).await })
    }

    fn control(&self, call: ControlCall) -> Answer<'_, ControlAnswer> {
        Box::pin(async move { self.client.control(&call).await })
    }
}

/// posternd beside this program, else in PATH.
fn find_program() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
    let in_path = std::env::var_os("PATH");
    let in_path = in_path.iter().flat_map(std::env::split_paths).filter(|folder| folder.is_absolute());
    beside
        .into_iter()
        .chain(in_path)
        .map(|folder| folder.join(PROGRAM))
        .find(|program| crate::tool::is_program(program))
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn last_line(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}
