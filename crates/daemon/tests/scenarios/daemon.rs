//! posternd as a process, with everything it needs round it.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use postern_local_api::{
    client::{ClientError, LocalClient},
    message::{ChangeReport, Connection, Login, ResourceStatus, Selection, Status, Trust},
};
use postern_proto::{api::Credential, id::ResourceId, problem::Problem};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    control::{Control, EMAIL, PASSWORD},
    gateway::{Echo, Gateway},
};

/// Nothing here takes longer unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running posternd.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) client: LocalClient,
    home: PathBuf,
    options: Vec<String>,
    pub(crate) log: PathBuf,
}

impl Daemon {
    /// With `--status-listen off` unless the options say otherwise.
    pub(crate) fn start(home: &Path, options: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_posternd")), home, options)
    }

    pub(crate) fn start_by(mut command: Command, home: &Path, options: &[&str]) -> Self {
        let log = home.join("posternd.log");
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let status: &[&str] = if options.contains(&"--status-listen") { &[] } else { &["--status-listen", "off"] };
        let mut child = command
            .arg("--home")
            .arg(home)
            .args(status)
            .args(options)
            .env("RUST_LOG", "trace,hyper=info,mio=info,h2=info")
            // Never the keyring of whoever runs the tests.
            .env("POSTERN_KEY_STORAGE", "file")
            .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&ready)
            .unwrap_or_else(|_| panic!("no ready line; {}", std::fs::read_to_string(&log).unwrap()));
        assert_eq!(ready["ready"], true);
        let client = LocalClient::new(ready["socket"].as_str().unwrap());
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Self { child, client, home: home.to_owned(), options, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with a signal and waits; says whether it ended well.
    pub(crate) fn end(&mut self, signal: rustix::process::Signal) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        self.child.wait().unwrap().success()
    }

    /// Ends it with a signal and starts it again in the same way.
    pub(crate) fn restart(&mut self, signal: rustix::process::Signal) {
        self.end(signal);
        let options: Vec<_> = self.options.iter().map(String::as_str).collect();
        let fresh = Self::start(&self.home.clone(), &options);
        *self = fresh;
    }

    pub(crate) fn log_holds(&self, text: &str) -> bool {
        std::fs::read_to_string(&self.log).unwrap().contains(text)
    }

    pub(crate) async fn status(&self) -> Status {
        self.client.status().await.unwrap()
    }

    /// Waits until the status is as wanted.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let begun = Instant::now();
        loop {
            let status = self.status().await;
            if wanted(&status) {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "never {what}: {status:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn login(&self, control: &Control) -> Status {
        self.try_login(control, EMAIL, PASSWORD).await.unwrap()
    }

    pub(crate) async fn try_login(
        &self,
        control: &Control,
        email: &str,
        password: &str,
    ) -> Result<Status, ClientError> {
        let trust = Trust::Ca { pem: control.org.pem.clone() };
        self.login_by(control, trust, email, password).await
    }

    pub(crate) async fn login_by(
        &self,
        control: &Control,
        trust: Trust,
        email: &str,
        password: &str,
    ) -> Result<Status, ClientError> {
        let credential = Credential::Password { email: email.to_owned(), password: password.to_owned() };
        self.client.login(&Login { control: Some(control.url()), trust, credential }).await
    }

    pub(crate) async fn connect(&self, name: &str) -> ChangeReport {
        self.client.connect(&Selection::Name { name: name.to_owned() }).await.unwrap()
    }

    pub(crate) async fn disconnect(&self, name: &str) -> ChangeReport {
        self.client.disconnect(&Selection::Name { name: name.to_owned() }).await.unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a refused call was refused with.
pub(crate) fn problem<T>(result: Result<T, ClientError>) -> Problem {
    match result {
        Err(ClientError::Refused(problem)) => problem,
        Err(other) => panic!("not refused, but: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

pub(crate) fn resource(status: &Status, id: ResourceId) -> Option<&ResourceStatus> {
    status.resources.iter().find(|resource| resource.resource.id == id)
}

pub(crate) fn is_listening(status: &Status, id: ResourceId) -> bool {
    resource(status, id).is_some_and(|resource| matches!(resource.connection, Connection::Listening { .. }))
}

/// A port that nobody has, below the range from which the kernel draws ports for connections. A UDP socket of the same
/// number, which stays until this process ends, keeps it from the other tests.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = 10_000 + rand::random::<u16>() % 20_000;
        let Ok(kept) = std::net::UdpSocket::bind(("127.0.0.1", port)) else { continue };
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            std::mem::forget(kept);
            return port;
        }
    }
}

/// Control plane, gateway, an echo service and a signed-in posternd with one connected resource.
pub(crate) struct World {
    pub(crate) control: Control,
    pub(crate) gateway: Gateway,
    pub(crate) echo: Echo,
    pub(crate) daemon: Daemon,
    pub(crate) id: ResourceId,
    pub(crate) port: u16,
    pub(crate) home: tempfile::TempDir,
}

pub(crate) const NAME: &str = "echo";

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(options: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_posternd")), options).await
    }

    /// With so few files that a few connections take them all.
    pub(crate) async fn start_with_few_files(files: u32) -> Self {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -n {files} && exec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_posternd"));
        Self::start_by(shell, &[]).await
    }

    async fn start_by(command: Command, options: &[&str]) -> Self {
        let control = Control::start().await;
        let gateway = Gateway::start(&control.org);
        let echo = Echo::start().await;
        let port = free_port();
        let id = control.grant(NAME, port);
        gateway.route(id, echo.address);
        control.add_gateway(gateway.node, "gw-1", gateway.address);
        let home = tempfile::tempdir().unwrap();
        let daemon = Daemon::start_by(command, home.path(), options);
        daemon.login(&control).await;
        daemon.until("listed", |status| resource(status, id).is_some()).await;
        let report = daemon.connect(NAME).await;
        assert_eq!(report.changed, 1);
        assert!(matches!(report.resources[0].connection, Connection::Listening { .. }), "{report:#?}");
        Self { control, gateway, echo, daemon, id, port, home }
    }

    /// Another gateway for the same resource.
    pub(crate) fn second_gateway(&self) -> Gateway {
        let second = Gateway::start(&Arc::clone(&self.control.org));
        second.route(self.id, self.echo.address);
        self.control.add_gateway(second.node, "gw-2", second.address);
        second
    }

    pub(crate) async fn dial(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// A connection over which one word went there and back.
    pub(crate) async fn open(&self) -> TcpStream {
        let mut stream = self.dial().await;
        ping(&mut stream).await.unwrap();
        stream
    }
}

/// A word there and back.
pub(crate) async fn ping(stream: &mut TcpStream) -> std::io::Result<()> {
    let work = async {
        stream.write_all(b"ping").await?;
        let mut word = [0; 4];
        stream.read_exact(&mut word).await?;
        assert_eq!(&word, b"ping");
        Ok(())
    };
    tokio::time::timeout(PATIENCE, work).await.expect("no answer")
}

/// Waits until the connection breaks, which must be by a reset: an end would look complete.
pub(crate) async fn expect_reset(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("not cut");
    assert_eq!(end.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));
}

/// Connects and is reset, perhaps before the connect is over.
pub(crate) async fn expect_refusal(port: u16) {
    match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(mut stream) => expect_reset(&mut stream).await,
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}
