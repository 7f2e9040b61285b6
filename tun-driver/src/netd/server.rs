//! The service: one lock, one socket, one task for each connection.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    net::Ipv4Addr,
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
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    authority::Asker,
    footing::{Footing, stop_signal},
    host::{Applied, Host, HostError, Seat},
    loopback::Loopback,
    message::{Answer, Code, Message, PROTOCOL, Problem, Request},
    options::Options,
    policy::{Policy, check_loopback},
    repair,
};
use crate::{
    dns::{DnsState, LinkNames, SplitDns},
    interface::{Interface, InterfaceConfig},
    network::HostNetworks,
    sys::{Accepted, Channel, Handover, Listener, LoopbackAliases, Packet, Received, User},
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

#[cfg(target_os = "linux")]
const NO_TUN_REMEDY: &str = "Load the kernel module tun, and let postern-netd use /dev/net/tun.";
#[cfg(target_os = "macos")]
const NO_TUN_REMEDY: &str = "Let postern-netd run as root: only root gets a utun device.";
#[cfg(windows)]
const NO_TUN_REMEDY: &str = "Put wintun.dll (wintun.net) beside postern-netd.exe, and let it run as a service.";
#[cfg(target_os = "linux")]
const SYSTEM_REMEDY: &str = "See the log of postern-netd; it needs CAP_NET_ADMIN.";
#[cfg(not(target_os = "linux"))]
const SYSTEM_REMEDY: &str = "See the log of postern-netd; it needs the rights of the system's administrator.";

/// Runs until SIGTERM or SIGINT, then takes everything back. Privileges are to be dropped before.
///
/// # Errors
/// What keeps it from starting: another netd, an unsafe folder or configuration, a kernel that refuses.
pub(super) async fn run(options: Options, dns: impl SplitDns, networks: impl HostNetworks) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let mut footing = Footing::take(&options)?;
    let policy = Policy::read(&options.config)?;
    let host = Host::open(&options).context("cannot clean up what an earlier run left")?;
    let loopback = match LoopbackAliases::NEEDED {
        true => Some(Mutex::new(Loopback::open(LoopbackAliases, options.state.join("loopback"))?)),
        false => None,
    };
    if let Err(error) = dns.restore().await {
        tracing::warn!("cannot restore the system's resolver from an earlier run: {error}");
    }
    let mut listener = footing.listen(&options.socket)?;
    let (next_seat, guests) = (AtomicU64::new(0), Mutex::default());
    let service = Arc::new(Service { policy, host: Mutex::new(host), loopback, dns, networks, guests, next_seat });
    let watch = tokio::spawn(repair::run(Arc::clone(&service), stop.clone()));
    say_ready(&options.socket)?;
    accept_all(&service, &mut listener, &stop).await;
    footing.leave(&options.socket);
    watch.abort();
    if let Some(loopback) = &service.loopback {
        loopback
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear()
            .context("cannot take loopback addresses back")?;
    }
    service.host().remove_all().context("cannot take everything back")
}

fn say_ready(socket: &Path) -> io::Result<()> {
    let mut line = serde_json::json!({"ready": true, "socket": socket}).to_string();
    line.push('\n');
    io::stdout().lock().write_all(line.as_bytes())
}

async fn accept_all<D: SplitDns, N: HostNetworks>(
    service: &Arc<Service<D, N>>,
    listener: &mut Listener,
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
    /// Where the system does not have all of 127.0.0.0/8 by itself.
    loopback: Option<Mutex<Loopback<LoopbackAliases>>>,
    dns: D,
    networks: N,
    /// Connections of each user.
    guests: Mutex<BTreeMap<User, usize>>,
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

    fn guests(&self) -> MutexGuard<'_, BTreeMap<User, usize>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection from its first byte to the last thing undone.
    async fn attend(self: Arc<Self>, accepted: Accepted, crowded: bool, stop: CancellationToken) {
        let (asker, channel) = match take_over(accepted).await {
            Ok(both) => both,
            Err(error) => return tracing::warn!("cannot take a connection over: {error}"),
        };
        let user = asker.user.clone();
        let guests = {
            let mut guests = self.guests();
            let count = guests.entry(user.clone()).or_default();
            *count += 1;
            *count
        };
        if crowded || guests > MAX_CLIENTS_OF_ONE {
            let _ = refuse(&channel, 0, too_many()).await;
        } else {
            self.clone().converse_and_undo(asker, channel, stop).await;
        }
        let mut guests = self.guests();
        if let Some(count) = guests.get_mut(&user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                guests.remove(&user);
            }
        }
    }

    async fn converse_and_undo(self: Arc<Self>, asker: Asker, channel: Channel, stop: CancellationToken) {
        let seat = Seat(self.next_seat.fetch_add(1, Ordering::Relaxed));
        let (user, pid) = (asker.user.clone(), asker.pid);
        let conversation = Arc::clone(&self);
        // In a task of its own, so that what was set up is undone even after a fault in it.
        let ended = tokio::spawn(async move { conversation.converse(seat, &asker, &channel, stop).await }).await;
        match ended {
            Ok(End::Closed) => tracing::debug!(%user, pid, "connection closed"),
            Ok(End::Io(error)) => tracing::info!(%user, pid, "connection ended: {error}"),
            Err(error) => tracing::error!(%user, pid, "connection failed: {error}"),
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
            Request::Configure { .. } | Request::Loopback { .. } | Request::Release {} => {
                return Ok(refuse(channel, hello.id, bad_request("the first message must be a hello")).await?);
            }
        }
        if let Err(problem) = asker.authorize(&self.policy, channel).await {
            tracing::info!(user = %asker.user, pid = asker.pid, "refused: {problem}");
            return Ok(refuse(channel, hello.id, problem).await?);
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        send(channel, hello.id, Answer::Hello { protocol: PROTOCOL, version }, &[]).await?;
        let (mut names, mut told) = (self.dns.follow(), DnsState::NoZones);
        loop {
            let request = tokio::select! {
                () = stop.cancelled() => return Ok(refuse(channel, 0, shutting_down()).await?),
                request = receive(channel) => request?,
                dns = changed(&mut names) => {
                    // Who has no names here, and who heard it with an answer, is told nothing.
                    if told != DnsState::NoZones && dns != DnsState::NoZones && dns != told {
                        told = dns.clone();
                        send(channel, 0, Answer::Names { dns }, &[]).await?;
                    }
                    continue;
                }
            };
            self.answer(seat, asker, channel, request, &mut told).await?;
        }
    }

    /// `told`: how the names of the connection stand, as it knows.
    async fn answer(
        &self,
        seat: Seat,
        asker: &Asker,
        channel: &Channel,
        request: Message<Request>,
        told: &mut DnsState,
    ) -> Result<(), End> {
        let (answer, queues) = match request.body {
            Request::Configure { interface } => match self.configure(seat, asker, interface).await {
                Ok(Applied { interface, queues }) => {
                    told.clone_from(&interface.dns);
                    let count = u8::try_from(queues.len()).unwrap_or(u8::MAX);
                    (Answer::Configured { interface, queues: count }, queues)
                }
                Err(problem) => {
                    tracing::info!(user = %asker.user, pid = asker.pid, "refused: {problem}");
                    (Answer::Refused { problem }, Vec::new())
                }
            },
            Request::Loopback { addresses } => match self.set_loopback(seat, addresses) {
                Ok(()) => (Answer::Loopback {}, Vec::new()),
                Err(problem) => (Answer::Refused { problem }, Vec::new()),
            },
            Request::Release {} => {
                self.undo(seat).await;
                *told = DnsState::NoZones;
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
        let mut applied = self.apply(seat, &asker.user, &wish).await?;
        applied.interface.dns = self.register(&applied.interface, wish.zones).await;
        let Interface { name, subnet, slot, dns, .. } = &applied.interface;
        let new = !applied.queues.is_empty();
        tracing::info!(user = %asker.user, pid = asker.pid, device = name, %subnet, slot, new, ?dns, "configured");
        Ok(applied)
    }

    fn set_loopback(&self, seat: Seat, addresses: Vec<Ipv4Addr>) -> Result<(), Problem> {
        check_loopback(&addresses)?;
        let Some(loopback) = &self.loopback else { return Ok(()) };
        let set = loopback.lock().unwrap_or_else(PoisonError::into_inner).set(seat, addresses);
        set.map_err(|error| system(&format!("cannot change the loopback interface: {error}")))
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

    async fn apply(&self, seat: Seat, user: &User, wish: &InterfaceConfig) -> Result<Applied, Problem> {
        let end = Instant::now() + SUCCESSION;
        loop {
            let applied = self.host().apply(seat, user, wish);
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
        if self.set_loopback(seat, Vec::new()).is_err() {
            tracing::error!("cannot take loopback addresses back");
        }
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

/// Whoever connects and says nothing is not waited for.
async fn take_over(accepted: Accepted) -> io::Result<(Asker, Channel)> {
    let channel = Channel::new(accepted)?;
    let asker =
        timeout(DEADLINE, Asker::of(&channel)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok((asker, channel))
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

/// How names stand, when that changes.
async fn changed(names: &mut watch::Receiver<DnsState>) -> DnsState {
    match names.changed().await {
        Ok(()) => names.borrow_and_update().clone(),
        // It never will.
        Err(_) => std::future::pending().await,
    }
}

async fn refuse(channel: &Channel, id: u64, problem: Problem) -> io::Result<()> {
    send(channel, id, Answer::Refused { problem }, &[]).await
}

async fn send(channel: &Channel, id: u64, answer: Answer, queues: &[Handover]) -> io::Result<()> {
    let bytes = Message { id, body: answer }.encode().map_err(io::Error::other)?;
    timeout(DEADLINE, channel.send(&bytes, queues)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
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
        #[cfg(any(not(target_os = "linux"), test))]
        HostError::TakenByAnother(subnet) => Problem::new(
            Code::SubnetConflict,
            format!("{subnet} is another user's on this machine."),
            "Another subnet is needed; Postern chooses one by itself.".to_owned(),
        ),
        HostError::NoTun(source) => {
            Problem::new(Code::NoTun, format!("This machine gives no TUN device: {source}."), NO_TUN_REMEDY.to_owned())
        }
        HostError::Step { .. } => system(&error.to_string()),
    }
}

fn system(what: &str) -> Problem {
    let remedy = SYSTEM_REMEDY.to_owned();
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
