//! A small local API for the compiled `postern` to talk to: a real Unix socket in a temporary folder, answered by the
//! tables of a test. It keeps what it was asked, so that tests can look at that too.

use std::{
    collections::HashMap,
    io::{BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use postern_local_api::{message::*, paths::Paths};
use postern_proto::{
    api::AccountInfo,
    resource::{BindAddress, ClientResource, Health, Kind, Tags},
    time::UnixMillis,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contract;

pub(crate) const POSTERN: &str = env!("CARGO_BIN_EXE_postern");

/// What one call got: method and path with query, and the body.
pub(crate) type Call = (String, Value);

/// The service of a test.
pub(crate) struct Fake {
    pub(crate) home: TempDir,
    pub(crate) paths: Paths,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By `METHOD path`; of the control plane's API by `METHOD /api/v1/path`, there also without the query.
    answers: HashMap<String, (u16, Value)>,
    calls: Vec<Call>,
    /// The lines of the next event streams; each stream ends after its lines.
    streams: Vec<Vec<Value>>,
    /// How long every answer takes.
    delay: Duration,
}

impl Fake {
    /// A service where Ana is signed in and may reach three resources.
    pub(crate) fn start() -> Self {
        let fake = Self::start_empty();
        fake.answer("GET /v1/hello", 200, json!({ "version": VERSION, "service": "0.1.0", "pid": 42, "uid": 0 }));
        fake.set_status(&status());
        fake
    }

    /// A service that refuses everything.
    pub(crate) fn start_empty() -> Self {
        let home = TempDir::new().unwrap();
        let paths = Paths::under(home.path()).unwrap();
        std::fs::create_dir_all(&paths.runtime).unwrap();
        let listener = UnixListener::bind(paths.socket()).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let served = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = served.clone();
                std::thread::spawn(move || serve(stream.unwrap(), &state));
            }
        });
        Self { home, paths, state }
    }

    pub(crate) fn answer(&self, call: &str, status: u16, body: Value) {
        self.state.lock().unwrap().answers.insert(call.to_owned(), (status, body));
    }

    pub(crate) fn refuse(&self, call: &str, status: u16, code: &str, title: &str) {
        self.answer(call, status, json!({ "status": status, "code": code, "title": title }));
    }

    pub(crate) fn set_status(&self, status: &Status) {
        self.answer("GET /v1/status", 200, json!(status));
    }

    /// What the doctor sees: all checks begin, and the last one is done first.
    pub(crate) fn set_doctor(&self, checks: &[Check]) {
        let started = checks.iter().map(|check| {
            let (id, title) = (check.id.clone(), check.title.clone());
            DoctorLine::Started { id, title, group: check.group }
        });
        let finished = checks.iter().rev().cloned().map(DoctorLine::Finished);
        let lines: String = started.chain(finished).map(|line| format!("{}\n", json!(line))).collect();
        self.answer("POST /v1/doctor/stream", 200, json!(lines));
    }

    /// Lets every answer take its time.
    pub(crate) fn delay(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    /// Lets the next event stream hold these lines and then break off. A line that is a number is a pause, in
    /// milliseconds.
    pub(crate) fn stream(&self, lines: Vec<Value>) {
        self.state.lock().unwrap().streams.push(lines);
    }

    /// What was asked so far, greetings and status left out.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let calls = self.state.lock().unwrap().calls.clone();
        calls.into_iter().filter(|(call, _)| call != "GET /v1/hello" && call != "GET /v1/status").collect()
    }

    /// The calls of the control plane's API.
    pub(crate) fn control_calls(&self) -> Vec<Call> {
        let calls = self.calls();
        calls.into_iter().filter(|(call, _)| call.contains(" /api/v1/")).collect()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).run("")
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        self.command(arguments).run(input)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Invocation {
        Invocation::new(self.home.path(), arguments)
    }
}

/// A run of the program that is being prepared: nothing of the test's environment reaches it.
pub(crate) struct Invocation {
    pub(crate) command: Command,
}

impl Invocation {
    pub(crate) fn new(home: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(POSTERN);
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).env("POSTERN_HOME", home);
        Self { command }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn run(mut self, input: &str) -> Ran {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = loop {
            match self.command.spawn() {
                // A program that a test has copied is held open for a moment by what another test starts just then.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                other => break other.unwrap(),
            }
        };
        // Who does not read its input closes it; that is no failure of the test.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Ran::of(&child.wait_with_output().unwrap())
    }

    /// Runs it on a terminal, types `input` into it, and gives all that appeared. The terminal must be left as it was.
    pub(crate) fn run_on_terminal(self, input: &[Typed]) -> Ran {
        self.run_on_terminal_under("", input)
    }

    /// The same, started by another program (`timeout 3`).
    #[track_caller]
    pub(crate) fn run_on_terminal_under(mut self, starter: &str, input: &[Typed]) -> Ran {
        let inner = std::mem::replace(&mut self.command, Command::new("true"));
        let words: Vec<String> = std::iter::once(POSTERN)
            .map(str::to_owned)
            .chain(arguments_of(&inner))
            .map(|word| shell_quoted(&word))
            .collect();
        let mut script = Command::new("script");
        let notes = TempDir::new().unwrap();
        let (before, after) = (notes.path().join("before"), notes.path().join("after"));
        // The shell outlives Ctrl-C, to look at the terminal afterwards.
        let command = format!(
            "trap : INT; stty rows 24 cols 120; stty -g >{}; {starter} {}; code=$?; stty -g >{}; exit $code",
            before.display(),
            words.join(" "),
            after.display()
        );
        script
            .args(["-q", "-e", "-c", &command, "/dev/null"])
            .env_clear()
            .env("TERM", "xterm")
            .env("PATH", "/usr/bin:/bin")
            .env("SHELL", "/bin/sh");
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                script.env(name, value);
            }
        }
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = script.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let seen = Arc::new(Mutex::new(String::new()));
        let collected = seen.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut buffer) {
                collected.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        for Typed { after, keys } in input {
            wait_for(|| seen.lock().unwrap().contains(after), || format!("{after:?} in {:?}", seen.lock().unwrap()));
            stdin.write_all(keys.as_bytes()).unwrap();
        }
        let status = wait_for_child(&mut child, || seen.lock().unwrap().clone());
        drop(stdin);
        reader.join().unwrap();
        let out = seen.lock().unwrap().clone();
        let states = [before, after].map(|file| std::fs::read_to_string(file).unwrap());
        assert!(!states[0].is_empty() && states[0] == states[1], "the terminal is not as it was: {states:?}; {out:?}");
        Ran { code: status, out, err: String::new() }
    }
}

/// Keys that are typed once a text has appeared.
pub(crate) struct Typed {
    pub(crate) after: &'static str,
    pub(crate) keys: &'static str,
}

/// How a run ended and what it said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout.clone()).unwrap(),
            err: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// Checks the exit code, and shows everything when it is another.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.out.contains(text), "no {text:?} in stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn warns(self, text: &str) -> Self {
        assert!(self.err.contains(text), "no {text:?} in stderr: {}\nstdout: {}", self.err, self.out);
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

pub(crate) const RESOURCE_IDS: [&str; 3] =
    ["res_01JABCDEFGHJKMNPQRSTVWXYZ0", "res_01JABCDEFGHJKMNPQRSTVWXYZ1", "res_01JABCDEFGHJKMNPQRSTVWXYZ2"];

pub(crate) fn status() -> Status {
    Status {
        sign_in: SignIn::SignedIn {
            account: account(),
            org: "Example".to_owned(),
            device: "dev_01JABCDEFGHJKMNPQRSTVWXYZ0".parse().unwrap(),
            expires_at: UnixMillis(4_000_000_000_000),
            must_change_password: false,
        },
        control: ControlLink::Connected { url: "https://control.example:8443".to_owned(), since: UnixMillis(1) },
        key_storage: KeyStorage::File { path: "/state/device.key".to_owned() },
        certificate_ends: Some(UnixMillis(4_000_000_000_000)),
        gateways: vec![GatewayStatus {
            id: "nod_01JABCDEFGHJKMNPQRSTVWXYZ0".parse().unwrap(),
            name: "gw-1".to_owned(),
            address: "gw.example:5000".to_owned(),
            state: GatewayState::Reachable,
            spares: 1,
            handshake_micros: Some(2300),
        }],
        resources: vec![
            resource(0, "grafana", Kind::Http, 18080, listening(18080)),
            resource(1, "orders-db", Kind::Postgres, 15432, Connection::Disconnected),
            resource(2, "shell", Kind::Ssh, 10022, Connection::Disconnected),
        ],
        ..Status::signed_out("0.1.0")
    }
}

pub(crate) fn account() -> AccountInfo {
    AccountInfo {
        id: "acc_01JABCDEFGHJKMNPQRSTVWXYZ0".parse().unwrap(),
        email: "ana@example.com".to_owned(),
        name: "Ana".to_owned(),
        admin: true,
        service: false,
    }
}

pub(crate) fn resource(n: usize, name: &str, kind: Kind, port: u16, connection: Connection) -> ResourceStatus {
    let resource = ClientResource {
        id: RESOURCE_IDS[n].parse().unwrap(),
        name: name.to_owned(),
        kind,
        tags: Tags::from([("env".to_owned(), if n == 0 { "dev" } else { "prod" }.to_owned())]),
        bind: BindAddress::loopback([127, 0, 0, 1].into(), port),
        ports: postern_proto::port::PortSet::default(),
        revision: 3,
        via: Vec::new(),
        cluster: None,
        health: Health::Healthy,
    };
    let (wanted, state) = match &connection {
        Connection::Disconnected => (false, ResourceState::Off),
        Connection::Listening { .. } => (true, ResourceState::Connected),
        Connection::PortInUse { .. } | Connection::Failed { .. } => (true, ResourceState::Unhealthy),
        Connection::Suspended => (true, ResourceState::Locked),
    };
    ResourceStatus { connection, wanted, state, ..ResourceStatus::off(resource) }
}

pub(crate) fn listening(port: u16) -> Connection {
    Connection::Listening { address: ([127, 0, 0, 1], port).into() }
}

pub(crate) fn signed_out() -> Status {
    Status { sign_in: SignIn::SignedOut, control: ControlLink::None, resources: Vec::new(), ..status() }
}

pub(crate) fn locked() -> Status {
    Status { sign_in: SignIn::Locked { account: account(), org: "Example".to_owned() }, ..status() }
}

/// Waits with patience for what another process does; `missing` tells what did not come.
#[track_caller]
pub(crate) fn wait_for(done: impl Fn() -> bool, missing: impl Fn() -> String) {
    for _ in 0..600 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited in vain for {}", missing());
}

#[track_caller]
fn wait_for_child(child: &mut std::process::Child, seen: impl Fn() -> String) -> i32 {
    for _ in 0..600 {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    panic!("the program does not end; it said {:?}", seen());
}

/// A folder of programs that a test puts into PATH.
pub(crate) fn program(folder: &Path, name: &str, script: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn arguments_of(command: &Command) -> Vec<String> {
    command.get_args().map(|word| word.to_str().unwrap().to_owned()).collect()
}

fn shell_quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn serve(stream: UnixStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some((call, body)) = read_request(&mut reader) else { return };
    if call == "GET /v1/events" {
        return serve_events(stream, state);
    }
    let delay = state.lock().unwrap().delay;
    std::thread::sleep(delay);
    let (status, answer) = answer(&call, body, &mut state.lock().unwrap());
    let text = match answer {
        Value::Null => String::new(),
        Value::String(lines) if call == "POST /v1/doctor/stream" => lines,
        answer => answer.to_string(),
    };
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
    let mut stream = stream;
    let _ = stream.write_all((head + &text).as_bytes());
}

fn read_request(reader: &mut impl std::io::BufRead) -> Option<(String, Value)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let call = line.trim_end().strip_suffix(" HTTP/1.1")?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((call, if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() }))
}

fn answer(call: &str, body: Value, state: &mut State) -> (u16, Value) {
    let no_answer = |call: &str| json!({ "status": 404, "code": "no_answer", "title": format!("the test has no answer to {call}") });
    if call != "POST /v1/control" {
        state.calls.push((call.to_owned(), body));
        return state.answers.get(call).cloned().unwrap_or_else(|| (404, no_answer(call)));
    }
    // What the service passes on: the control plane's status and body in an answer of its own.
    let inner: ControlCall = serde_json::from_value(body).unwrap();
    let call = format!("{} {}", inner.method, inner.path);
    let body = inner.body.unwrap_or_default();
    if let Err(error) = contract::check(&inner.method, &inner.path, &body) {
        return (200, json!({ "status": 500, "body": { "status": 500, "code": "contract", "title": error } }));
    }
    state.calls.push((call.clone(), body));
    let without_query = call.split('?').next().unwrap();
    let found = state.answers.get(&call).or_else(|| state.answers.get(without_query)).cloned();
    let (status, body) = found.unwrap_or_else(|| (404, no_answer(&call)));
    (200, json!({ "status": status, "body": body }))
}

fn serve_events(mut stream: UnixStream, state: &Mutex<State>) {
    let lines = {
        let mut state = state.lock().unwrap();
        if state.streams.is_empty() { None } else { Some(state.streams.remove(0)) }
    };
    let snapshot = || {
        let status = state.lock().unwrap().answers.get("GET /v1/status").cloned().unwrap().1;
        json!({ "seq": 1, "event": "snapshot", "status": status })
    };
    let ends = lines.is_some();
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    for line in lines.unwrap_or_else(|| vec![snapshot()]) {
        if let Some(pause) = line.as_u64() {
            std::thread::sleep(Duration::from_millis(pause));
            continue;
        }
        if stream.write_all(format!("{line}\n").as_bytes()).is_err() {
            return;
        }
    }
    if !ends {
        // Stays open until the client goes.
        let _ = stream.read(&mut [0; 1]);
    }
}
