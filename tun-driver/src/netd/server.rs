//! The service: one lock, one socket, one task for each connection.

use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use ipnet::IpNet;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    authority::Asker,
    channel::{Channel, Listener, Packet, Received},
    host::{Applied, Host, HostError, Seat},
    message::{Answer, Code, Message, PROTOCOL, Problem, Request},
    options::Options,
    policy::Policy,
    repair,
};
use crate::{
    dns::{DnsState, LinkNames, SplitDns},
    interface::{Interface, InterfaceConfig},
    network::HostNetworks,
};

/// Connections at once, of all users and of one. More are told so and closed.
const MAX_CLIENTS: usize = 256;
const MAX_CLIENTS_OF_ONE: usize = 8;
/// A connection says hello within this time, and takes each answer within it.
const DEADLINE: Duration = Duration::from_secs(5);
/// The system's resolver may be starting. Names are then reported as unavailable; the network itself stands.
const DNS_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection waits for the last one of the same user to be undone: his service may have been restarted.
const SUCCESSION: Duration = Duration::from_secs(5);
/// All networks are taken back within this time after SIGTERM.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(15);
/// After an accept that failed (no more descriptors): whoever waits in the queue keeps waiting.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Runs until SIGTERM or SIGINT, then takes everything back. Privileges are to be dropped before.
///
/// # Errors
/// What keeps it from starting: another netd, an unsafe folder or configuration, a kernel that refuses.
pub(super) async fn run(options: Options, dns: impl SplitDns, networks: impl HostNetworks) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let folder = options.socket.parent().context("--socket needs a path with a folder")?;
    make_folder(folder, 0o755)?;
    if !options.no_dns {
        make_folder(&options.state, 0o700)?;
    }
    let _lock = take_lock(folder)?;
    let policy = Policy::read(&options.config)?;
    let host = Host::open(!options.no_filter).context("cannot clean up what an earlier run left")?;
    if let Err(error) = dns.restore().await {
        tracing::warn!("cannot restore the system's resolver from an earlier run: {error}");
    }
    let listener = listen(&options.socket)?;
    let (next_seat, guests) = (AtomicU64::new(0), Mutex::default());
    let service = Arc::new(Service { policy, host: Mutex::new(host), dns, networks, guests, next_seat });
    let watch = tokio::spawn(repair::run(Arc::clone(&service), stop.clone()));
    say_ready(&options.socket)?;
    accept_all(&service, &listener, &stop).await;
    let _ = fs::remove_file(&options.socket);
    watch.abort();
    service.host().remove_all().context("cannot take everything back")
}

fn stop_signal() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}

/// Whoever could write into the folder could put another socket in our place.
fn make_folder(folder: &Path, mode: u32) -> anyhow::Result<()> {
    if !folder.exists() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::set_permissions(folder, Permissions::from_mode(mode))?;
    }
    let data = fs::metadata(folder)?;
    let own = rustix::process::geteuid().as_raw();
    anyhow::ensure!(
        data.is_dir() && data.uid() == own && data.mode() & 0o022 == 0,
        "{} must be a folder that belongs to user {own} and that only he can write",
        folder.display()
    );
    Ok(())
}

/// Before anything else is touched: clean-up of a second instance would take the first one's networks away.
fn take_lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("netd.lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&path);
    let lock = lock.with_context(|| format!("cannot open {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => {
            anyhow::bail!("another postern-netd holds {}; there can be only one", path.display())
        }
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Everybody may connect: who may ask is decided by the uid that the kernel gives.
fn listen(path: &Path) -> anyhow::Result<Listener> {
    match fs::symlink_metadata(path) {
        // We hold the lock, so nobody listens there.
        Ok(data) if data.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => anyhow::bail!("{} is there and no socket", path.display()),
        Err(_) => {}
    }
    let listener = Listener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

fn say_ready(socket: &Path) -> io::Result<()> {
    let mut line = serde_json::json!({"ready": true, "socket": socket}).to_string();
    line.push('\n');
    io::stdout().lock().write_all(line.as_bytes())
}

async fn accept_all<D: SplitDns, N: HostNetworks>(
    service: &Arc<Service<D, N>>,
    listener: &Listener,
    stop: &CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(socket) => {
                let crowded = connections.len() >= MAX_CLIENTS;
                connections.spawn(Arc::clone(service).attend(socket, crowded, stop.clone()));
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    tracing::info!("taking everything back");
    let all_gone = async { while connections.join_next().await.is_some() {} };
    if timeout(SHUTDOWN_DEADLINE, all_gone).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
}

/// What all connections share.
pub(super) struct Service<D, N> {
    policy: Policy,
    host: Mutex<Host>,
    dns: D,
    networks: N,
    /// Connections of each user.
    guests: Mutex<BTreeMap<u32, usize>>,
    next_seat: AtomicU64,
}

/// Why a conversation ended.
enum End {
    Closed,
    Io(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl<D: SplitDns, N: HostNetworks> Service<D, N> {
    /// Held for the milliseconds that the kernel takes, never across a wait.
    pub(super) fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guests(&self) -> MutexGuard<'_, BTreeMap<u32, usize>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection from its first byte to the last thing undone.
    async fn attend(self: Arc<Self>, socket: OwnedFd, crowded: bool, stop: CancellationToken) {
        let (asker, channel) = match Asker::of(&socket).and_then(|asker| Ok((asker, Channel::new(socket)?))) {
            Ok(both) => both,
            Err(error) => return tracing::warn!("cannot take a connection over: {error}"),
        };
        let uid = asker.uid;
        let guests = {
            let mut guests = self.guests();
            let count = guests.entry(uid).or_default();
            *count += 1;
            *count
        };
        if crowded || guests > MAX_CLIENTS_OF_ONE {
            let _ = refuse(&channel, 0, too_many()).await;
        } else {
            self.clone().converse_and_undo(asker, channel, stop).await;
        }
        let mut guests = self.guests();
        if let Some(count) = guests.get_mut(&uid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                guests.remove(&uid);
            }
        }
    }

    async fn converse_and_undo(self: Arc<Self>, asker: Asker, channel: Channel, stop: CancellationToken) {
        let seat = Seat(self.next_seat.fetch_add(1, Ordering::Relaxed));
        let (uid, pid) = (asker.uid, asker.pid);
        let conversation = Arc::clone(&self);
        // In a task of its own, so that what was set up is undone even after a fault in it.
        let ended = tokio::spawn(async move { conversation.converse(seat, &asker, &channel, stop).await }).await;
        match ended {
            Ok(End::Closed) => tracing::debug!(uid, pid, "connection closed"),
            Ok(End::Io(error)) => tracing::info!(uid, pid, "connection ended: {error}"),
            Err(error) => tracing::error!(uid, pid, "connection failed: {error}"),
        }
        self.undo(seat).await;
    }

    async fn converse(&self, seat: Seat, asker: &Asker, channel: &Channel, stop: CancellationToken) -> End {
        match self.try_converse(seat, asker, channel, stop).await {
            Ok(()) => End::Closed,
            Err(end) => end,
        }
    }

    async fn try_converse(
        &self,
        seat: Seat,
        asker: &Asker,
        channel: &Channel,
        stop: CancellationToken,
    ) -> Result<(), End> {
        let hello = timeout(DEADLINE, receive(channel)).await.map_err(|_| End::Closed)??;
        match hello.body {
            Request::Hello { protocol: PROTOCOL } => {}
            Request::Hello { protocol } => return Ok(refuse(channel, hello.id, wrong_protocol(protocol)).await?),
            Request::Configure { .. } | Request::Release {} => {
                return Ok(refuse(channel, hello.id, bad_request("the first message must be a hello")).await?);
            }
        }
        if let Err(problem) = asker.authorize(&self.policy, channel.as_fd()).await {
            tracing::info!(uid = asker.uid, pid = asker.pid, "refused: {problem}");
            return Ok(refuse(channel, hello.id, problem).await?);
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        send(channel, hello.id, Answer::Hello { protocol: PROTOCOL, version }, &[]).await?;
        loop {
            let request = tokio::select! {
                () = stop.cancelled() => return Ok(refuse(channel, 0, shutting_down()).await?),
                request = receive(channel) => request?,
            };
            self.answer(seat, asker, channel, request).await?;
        }
    }

    async fn answer(&self, seat: Seat, asker: &Asker, channel: &Channel, request: Message<Request>) -> Result<(), End> {
        let (answer, queues) = match request.body {
            Request::Configure { interface } => match self.configure(seat, asker, interface).await {
                Ok(Applied { interface, queues }) => {
                    let count = u8::try_from(queues.len()).unwrap_or(u8::MAX);
                    (Answer::Configured { interface, queues: count }, queues)
                }
                Err(problem) => {
                    tracing::info!(uid = asker.uid, pid = asker.pid, "refused: {problem}");
                    (Answer::Refused { problem }, Vec::new())
                }
            },
            Request::Release {} => {
                self.undo(seat).await;
                (Answer::Released {}, Vec::new())
            }
            Request::Hello { .. } => (Answer::Refused { problem: bad_request("a second hello") }, Vec::new()),
        };
        // The queues are closed here afterwards: a copy of ours would keep the device alive without its holder.
        Ok(send(channel, request.id, answer, &queues).await?)
    }

    async fn configure(&self, seat: Seat, asker: &Asker, wish: InterfaceConfig) -> Result<Applied, Problem> {
        self.policy.check(&wish)?;
        self.check_conflicts(seat, &wish)?;
        let mut applied = self.apply(seat, asker.uid, &wish).await?;
        applied.interface.dns = self.register(&applied.interface, wish.zones).await;
        let Interface { name, subnet, slot, dns, .. } = &applied.interface;
        let new = !applied.queues.is_empty();
        tracing::info!(uid = asker.uid, pid = asker.pid, device = name, %subnet, slot, new, ?dns, "configured");
        Ok(applied)
    }

    /// Only for networks that are new to this connection: what came up later beside them is no reason to refuse a new
    /// zone. Whoever asks watches for that and moves.
    fn check_conflicts(&self, seat: Seat, wish: &InterfaceConfig) -> Result<(), Problem> {
        let (ours, known) = {
            let host = self.host();
            let known = host.wish(seat).map(|wish| (wish.subnet, wish.ipv6));
            (host.indices(), known)
        };
        let mut wanted = Vec::new();
        wanted.extend(Some(IpNet::V4(wish.subnet)).filter(|_| known.is_none_or(|(subnet, _)| subnet != wish.subnet)));
        wanted.extend(wish.ipv6.filter(|ipv6| known.is_none_or(|(_, known)| known != Some(*ipv6))).map(IpNet::V6));
        if wanted.is_empty() {
            return Ok(());
        }
        let conflicts = self.networks.conflicts(&wanted, &ours);
        let conflicts =
            conflicts.map_err(|error| system(&format!("cannot read the networks of this machine: {error}")))?;
        let Some(first) = conflicts.first() else { return Ok(()) };
        let holder = first.product.as_deref().unwrap_or(&first.interface);
        let title = format!("{} is used on this machine already ({} of {holder}).", wish.subnet, first.network);
        let remedy = "Another subnet is needed; Postern chooses one by itself.".to_owned();
        Err(Problem { conflicts, ..Problem::new(Code::SubnetConflict, title, remedy) })
    }

    async fn apply(&self, seat: Seat, uid: u32, wish: &InterfaceConfig) -> Result<Applied, Problem> {
        let end = Instant::now() + SUCCESSION;
        loop {
            let applied = self.host().apply(seat, uid, wish);
            match applied {
                Err(HostError::AlreadyInUse) if Instant::now() < end => sleep(Duration::from_millis(20)).await,
                other => return other.map_err(|error| problem_of(&error)),
            }
        }
    }

    async fn register(&self, interface: &Interface, zones: Vec<crate::interface::Zone>) -> DnsState {
        let names =
            LinkNames { index: interface.index, name: interface.name.clone(), resolvers: interface.resolvers(), zones };
        match timeout(DNS_DEADLINE, self.dns.register(&names)).await {
            Ok(Ok(state)) => state,
            Ok(Err(error)) => DnsState::Unavailable { reason: error.to_string() },
            Err(_) => DnsState::Unavailable { reason: "the system's resolver does not answer".to_owned() },
        }
    }

    /// Takes back what the connection has. Names first: while they are registered somebody asks for them.
    async fn undo(&self, seat: Seat) {
        let index = self.host().index(seat);
        let Some(index) = index else { return };
        match timeout(DNS_DEADLINE, self.dns.revert(index)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("cannot take back the names of a device: {error}"),
            Err(_) => tracing::warn!("the system's resolver does not take back the names of a device"),
        }
        if let Err(error) = self.host().remove(seat) {
            tracing::error!("cannot take a network back: {error}");
        }
    }
}

/// The next request. What is none ends the connection, after the asker was told why.
async fn receive(channel: &Channel) -> Result<Message<Request>, End> {
    let Packet { bytes, .. } = match channel.receive().await? {
        Received::Packet(packet) => packet,
        Received::Closed => return Err(End::Closed),
        Received::TooLong => {
            refuse(channel, 0, bad_request("a message that is too long")).await?;
            return Err(End::Closed);
        }
    };
    match Message::parse(&bytes) {
        Ok(message) => Ok(message),
        Err(error) => {
            refuse(channel, 0, bad_request(&error.to_string())).await?;
            Err(End::Closed)
        }
    }
}

async fn refuse(channel: &Channel, id: u64, problem: Problem) -> io::Result<()> {
    send(channel, id, Answer::Refused { problem }, &[]).await
}

async fn send(channel: &Channel, id: u64, answer: Answer, queues: &[OwnedFd]) -> io::Result<()> {
    let bytes = Message { id, body: answer }.encode().map_err(io::Error::other)?;
    let queues: Vec<_> = queues.iter().map(OwnedFd::as_fd).collect();
    timeout(DEADLINE, channel.send(&bytes, &queues)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn problem_of(error: &HostError) -> Problem {
    match error {
        HostError::AlreadyInUse => Problem::new(
            Code::AlreadyInUse,
            "Another service of this user has a virtual network.".to_owned(),
            "Stop it: one posternd per user.".to_owned(),
        ),
        HostError::NoFreeSlot => Problem::new(
            Code::NoFreeSlot,
            "Other users of this machine have all the addresses of this subnet that are kept for users.".to_owned(),
            "Choose a subnet of at least a /20, where there is room for 127 users.".to_owned(),
        ),
        HostError::NoTun(source) => Problem::new(
            Code::NoTun,
            format!("This machine gives no TUN device: {source}."),
            "Load the kernel module tun, and let postern-netd use /dev/net/tun.".to_owned(),
        ),
        HostError::Step { .. } => system(&error.to_string()),
    }
}

fn system(what: &str) -> Problem {
    let remedy = "See the log of postern-netd; it needs CAP_NET_ADMIN.".to_owned();
    Problem::new(Code::System, format!("The system refused: {what}."), remedy)
}

fn bad_request(what: &str) -> Problem {
    let remedy = "This is a fault of the program that asks.".to_owned();
    Problem::new(Code::BadRequest, format!("postern-netd does not understand the request: {what}."), remedy)
}

fn wrong_protocol(theirs: u32) -> Problem {
    let title = format!("postern-netd speaks version {PROTOCOL} of its protocol, posternd version {theirs}.");
    Problem::new(Code::WrongProtocol, title, "Install both from the same release and restart both.".to_owned())
}

fn too_many() -> Problem {
    let title = "postern-netd serves as many connections as it can.".to_owned();
    Problem::new(Code::TooManyClients, title, "Stop programs that connect to it; one per user is enough.".to_owned())
}

fn shutting_down() -> Problem {
    let title = "postern-netd is about to stop.".to_owned();
    Problem::new(Code::ShuttingDown, title, "Ask again when it runs.".to_owned())
}
