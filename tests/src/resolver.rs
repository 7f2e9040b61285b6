//! Resolvers for tests: a DNS server that counts, systemd-resolved with a bus of its own, and a question asked.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;

use crate::{
    command::{PATIENCE, find_program, run},
    namespace::Namespace,
    process::Process,
};

/// Where the package puts it.
const RESOLVED: &str = "lib/systemd/systemd-resolved";
/// Where the bus is in a namespace.
pub(crate) const BUS: &str = "/run/dbus/system_bus_socket";
/// A bus that trusts everybody in its namespace.
const BUS_CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_type="method_call"/>
<allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/></policy></busconfig>
"#;

/// What a [`DnsServer`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// The same address to every question for an IPv4 address, and nothing to every other.
    Address(Ipv4Addr),
    /// That there is no such name.
    NoSuchName,
    /// That it cannot tell (SERVFAIL).
    Failure,
    Nothing,
}

/// A DNS server on UDP that says the same to everybody.
pub struct DnsServer {
    asked: Arc<Mutex<BTreeMap<String, u32>>>,
    address: SocketAddr,
}

impl DnsServer {
    /// On `address` in the namespace, which must be assigned there. Ends with the namespace or the test.
    pub async fn start(namespace: &Namespace, address: SocketAddr, says: Ipv4Addr) -> anyhow::Result<Self> {
        let (server, _) = Self::start_saying(namespace, address, Says::Address(says)).await?;
        Ok(server)
    }

    /// The same, with a word that can be changed while it runs.
    pub async fn start_saying(
        namespace: &Namespace,
        address: SocketAddr,
        says: Says,
    ) -> anyhow::Result<(Self, Arc<Mutex<Says>>)> {
        let word = Arc::new(Mutex::new(says));
        let said = Arc::clone(&word);
        let socket = namespace.inside(move || UdpSocket::bind(address)).await??;
        let asked: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let log = Arc::clone(&asked);
        std::thread::Builder::new().spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let says = *said.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((name, answer)) = buffer.get(..length).and_then(|query| answer(query, says)) {
                    *log.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
                    if says != Says::Nothing {
                        let _ = socket.send_to(&answer, from);
                    }
                }
            }
        })?;
        Ok((Self { asked, address }, word))
    }

    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which names were asked, how often.
    #[must_use]
    pub fn asked(&self) -> BTreeMap<String, u32> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn forget(&self) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The name that is asked, and the answer.
fn answer(query: &[u8], says: Says) -> Option<(String, Vec<u8>)> {
    let (name, end) = read_name(query)?;
    let question = query.get(12..end + 4)?;
    let address = match says {
        Says::Address(address) if query.get(end..end + 2)? == [0, 1] => Some(address),
        _ => None,
    };
    let code = match says {
        Says::Address(_) | Says::Nothing => 0,
        Says::Failure => 2,
        Says::NoSuchName => 3,
    };
    let mut answer = query.get(..2)?.to_vec();
    // An answer with recursion; one question, one record or none, nothing else.
    answer.extend_from_slice(&[0x85, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    answer.extend_from_slice(question);
    if let Some(address) = address {
        // The name of the question, A, IN, no time to live.
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend_from_slice(&address.octets());
    }
    Some((name, answer))
}

fn read_name(message: &[u8]) -> Option<(String, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_lowercase());
        at += length;
    }
}

/// Asks `server` in the namespace for the IPv4 address of a name. `None`: an answer without one, or a refusal.
pub async fn ask(namespace: &Namespace, server: IpAddr, name: &str) -> anyhow::Result<Option<Ipv4Addr>> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    let exchange = move || -> anyhow::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((server, 53))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.send(&query)?;
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).with_context(|| format!("{server} does not answer"))?;
        Ok(buffer.get(..length).context("an answer")?.to_vec())
    };
    let answer = namespace.inside(exchange).await??;
    let records = answer.get(7).copied().unwrap_or_default();
    let end: Option<&[u8; 4]> = answer.last_chunk();
    // Test servers answer with one record, whose last bytes are the address, unless EDNS follows.
    let (_, question_end) = read_name(&answer).context("a question")?;
    let record = answer.get(question_end + 4 + 12..).and_then(|record| record.first_chunk::<4>());
    Ok((records > 0).then(|| record.or(end).map(|bytes| Ipv4Addr::from(*bytes))).flatten())
}

/// systemd-resolved and the bus it needs, in a namespace.
pub struct Resolved {
    program: PathBuf,
    bus: Process,
    resolved: Process,
    starts: u32,
}

impl Resolved {
    /// Starts both. The namespace's resolv.conf becomes the link that installing resolved makes, and its default server is
    /// `default`. The error of the inner result says why it cannot be had here.
    pub async fn start(namespace: &Namespace, default: IpAddr) -> anyhow::Result<Result<Self, String>> {
        let program = match find_resolved().await {
            Ok(program) => program,
            Err(reason) => return Ok(Err(reason)),
        };
        let etc = namespace.path("/etc");
        let add = |file: &str, line: &str| -> anyhow::Result<()> {
            let path = etc.join(file);
            let mut text = fs::read_to_string(&path)?;
            if !text.contains("systemd-resolve:") {
                text.push_str(line);
                fs::write(&path, text)?;
            }
            Ok(())
        };
        add("passwd", "systemd-resolve:x:64990:64990::/:/usr/sbin/nologin\n")?;
        add("group", "systemd-resolve:x:64990:\n")?;
        fs::create_dir_all(etc.join("systemd"))?;
        let settings =
            format!("[Resolve]\nDNS={default}\nFallbackDNS=\nDNSSEC=no\nLLMNR=no\nMulticastDNS=no\nCache=no\n");
        fs::write(etc.join("systemd/resolved.conf"), settings)?;
        fs::remove_file(etc.join("resolv.conf"))?;
        std::os::unix::fs::symlink("../run/systemd/resolve/stub-resolv.conf", etc.join("resolv.conf"))?;
        // resolved wants to own it.
        fs::remove_dir(namespace.path("/run/systemd/resolve"))?;
        let bus = match start_bus(namespace).await? {
            Ok(bus) => bus,
            Err(reason) => return Ok(Err(reason)),
        };
        let resolved = Self::spawn(&program, namespace, 0).await?;
        Ok(Ok(Self { program, bus, resolved, starts: 0 }))
    }

    /// Kills resolved and starts it afresh: it knows nothing of what it was told.
    pub async fn restart(&mut self, namespace: &Namespace) -> anyhow::Result<()> {
        self.stop().await?;
        self.starts += 1;
        self.resolved = Self::spawn(&self.program, namespace, self.starts).await?;
        Ok(())
    }

    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.resolved.kill().await
    }

    pub fn settle(&mut self) {
        self.resolved.settle();
        self.bus.settle();
    }

    async fn spawn(program: &Path, namespace: &Namespace, number: u32) -> anyhow::Result<Process> {
        let _ = fs::remove_file(namespace.path("/run/systemd/resolve/stub-resolv.conf"));
        let name = format!("resolved{number}");
        let mut process = Process::spawn(&name, &mut namespace.command(program), namespace.folder())?;
        let stub = namespace.path("/run/systemd/resolve/stub-resolv.conf");
        for _ in 0..200 {
            anyhow::ensure!(process.is_running(), "resolved has ended\n{}", process.log_end());
            if stub.exists() && ask(namespace, Ipv4Addr::new(127, 0, 0, 53).into(), "localhost").await.is_ok() {
                return Ok(process);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("resolved does not answer\n{}", process.log_end())
    }
}

/// A system bus for the namespace. The error of the inner result says why it cannot be had here.
pub(crate) async fn start_bus(namespace: &Namespace) -> anyhow::Result<Result<Process, String>> {
    let Some(dbus) = find_program("dbus-daemon") else {
        return Ok(Err("dbus-daemon is not installed (tests/debian-packages.txt lists what is needed)".to_owned()));
    };
    let config = namespace.folder().join("bus.conf");
    fs::write(&config, BUS_CONFIG)?;
    let mut command = namespace.command(dbus);
    command.args(["--nofork", "--nopidfile", "--nosyslog"]).arg(format!("--config-file={}", config.display()));
    let bus = Process::spawn("bus", &mut command, namespace.folder())?;
    wait_for("the bus", || namespace.path(BUS).exists()).await?;
    Ok(Ok(bus))
}

async fn wait_for(what: &str, mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !done() {
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The machine's own, otherwise that of the package, unpacked beside the build and not installed: installing it changes
/// /etc/resolv.conf.
async fn find_resolved() -> Result<PathBuf, String> {
    let installed = Path::new("/").join(RESOLVED);
    if installed.exists() {
        return Ok(installed);
    }
    for program in ["apt-get", "dpkg"] {
        if find_program(program).is_none() {
            return Err("systemd-resolved is not installed, and there is no apt-get to fetch it".to_owned());
        }
    }
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = own.ancestors().nth(2).unwrap_or_else(|| Path::new("/tmp")).join("systemd-resolved");
    let program = folder.join(RESOLVED);
    if !program.exists() {
        unpack(&folder).await.map_err(|error| format!("systemd-resolved cannot be fetched: {error:#}"))?;
    }
    let mut version = Command::new(&program);
    version.arg("--version");
    match run(&mut version.into(), PATIENCE).await.and_then(crate::command::Output::success) {
        Ok(_) => Ok(program),
        Err(error) => Err(format!("systemd-resolved of the package does not run here: {error:#}")),
    }
}

/// Into `folder` at once: several tests may do this at the same time.
async fn unpack(folder: &Path) -> anyhow::Result<()> {
    let work = tempfile::tempdir_in(folder.parent().context("no folder")?)?;
    // apt-get gives up root for the download.
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o777))?;
    let mut fetch = Command::new("apt-get");
    fetch.args(["download", "-q", "systemd-resolved"]).current_dir(work.path());
    run(&mut fetch.into(), PATIENCE).await?.success()?;
    let package = fs::read_dir(work.path())?.filter_map(Result::ok).map(|entry| entry.path());
    let package =
        package.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb")).context("no package")?;
    let unpacked = work.path().join("unpacked");
    let mut unpack = Command::new("dpkg");
    unpack.arg("-x").args([&package, &unpacked]);
    run(&mut unpack.into(), PATIENCE).await?.success()?;
    fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755))?;
    match fs::rename(&unpacked, folder) {
        Err(_) if folder.join(RESOLVED).exists() => Ok(()),
        result => Ok(result?),
    }
}
