//! [`SystemDns`] on Linux: systemd-resolved where programs ask it, otherwise the stub and a resolv.conf that names it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{
        Mutex, Notify,
        watch::{Receiver, Sender},
    },
    task::{AbortHandle, JoinHandle},
};
use zbus::Connection;

use super::{
    DnsBackend, DnsError, DnsState, DnsStatus, LinkNames, SplitDns,
    resolv_conf::ResolvConf,
    resolved,
    stub::{self, Control, LinkRoute, Order, Routes},
    takeover::{Restored, Takeover},
    watch,
};

/// DNS, where resolv.conf cannot say otherwise.
const PORT: u16 = 53;
/// Others may write resolv.conf this often a minute; then they win.
const MAX_CONTESTS: usize = 3;
const CONTEST: Duration = Duration::from_secs(60);

/// Where things lie. The defaults are those of a machine; tests have their own.
#[derive(Clone, Debug)]
pub struct SystemDnsConfig {
    pub resolv_conf: PathBuf,
    /// A file that holds resolv.conf as it was. Must outlive a reboot.
    pub backup: PathBuf,
    /// Where `postern-dns-stub` takes orders.
    pub stub_socket: PathBuf,
    /// Where the stub answers: an address in 127.0.0.0/8 that nobody else uses.
    pub stub_address: Ipv4Addr,
}

impl Default for SystemDnsConfig {
    fn default() -> Self {
        let socket = std::env::var_os(stub::SOCKET_VARIABLE).filter(|path| !path.is_empty());
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            backup: "/var/lib/postern-netd/resolv.conf.backup".into(),
            stub_socket: socket.unwrap_or_else(|| stub::DEFAULT_SOCKET.into()).into(),
            stub_address: Ipv4Addr::new(127, 0, 72, 53),
        }
    }
}

/// The system's resolver. One value for a whole service; keeps what is registered in force until it is dropped:
/// restarts of resolved and other programs' changes of resolv.conf are followed.
#[derive(Debug)]
pub struct SystemDns {
    shared: Arc<Shared>,
    watcher: JoinHandle<()>,
}

#[derive(Debug)]
pub(super) struct Shared {
    config: SystemDnsConfig,
    takeover: Takeover,
    state: Mutex<State>,
    /// The stub is gone.
    pub(super) stub_gone: Arc<Notify>,
    /// How the zones stand.
    outcome: Sender<DnsState>,
}

#[derive(Debug, Default)]
struct State {
    links: BTreeMap<u32, LinkNames>,
    bus: Option<Connection>,
    /// Links that resolved has, as it was told.
    resolved: BTreeMap<u32, LinkNames>,
    stub: Option<Stub>,
    contests: Vec<Instant>,
}

/// The stub as it was last told.
#[derive(Debug)]
struct Stub {
    control: Arc<Mutex<Control>>,
    order: Order,
    waiter: AbortHandle,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.waiter.abort();
    }
}

/// Through what names could be registered now.
enum Way {
    Resolved,
    File,
    /// resolv.conf leads to resolved, which does not run.
    Waiting,
}

impl SystemDns {
    /// Must be called within a tokio runtime. Changes nothing yet.
    #[must_use]
    pub fn new(config: SystemDnsConfig) -> Self {
        let takeover = Takeover::new(config.resolv_conf.clone(), config.backup.clone());
        let (stub_gone, outcome) = (Arc::new(Notify::new()), Sender::new(DnsState::NoZones));
        let shared = Arc::new(Shared { config, takeover, state: Mutex::default(), stub_gone, outcome });
        let watcher = tokio::spawn(watch::keep(Arc::downgrade(&shared), Arc::clone(&shared.stub_gone)));
        Self { shared, watcher }
    }

    /// What is registered, and how.
    pub async fn status(&self) -> DnsStatus {
        let mut state = self.shared.state.lock().await;
        let links: Vec<LinkNames> = state.links.values().cloned().collect();
        let outcome = self.shared.outcome.borrow().clone();
        let mut detail = Vec::new();
        if let Some(bus) = state.bus.clone().filter(|_| !state.resolved.is_empty()) {
            for link in &links {
                detail.push(describe_link(&bus, link).await);
            }
        }
        if let Some(Stub { order: Order::Serve { listen, routes, .. }, .. }) = &mut state.stub {
            let upstreams: Vec<String> = routes.upstreams.iter().map(ToString::to_string).collect();
            let file = self.shared.config.resolv_conf.display();
            detail.push(format!("{file} names {}; other names are asked at {}", listen.ip(), upstreams.join(", ")));
        }
        DnsStatus { state: outcome, links, detail }
    }
}

async fn describe_link(bus: &Connection, link: &LinkNames) -> String {
    match resolved::read_link(bus, link.index).await {
        Ok((servers, domains)) => {
            let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
            format!("systemd-resolved asks {} for {} on {}", servers.join(", "), domains.join(" "), link.name)
        }
        Err(error) => format!("systemd-resolved does not say what it has for {}: {error}", link.name),
    }
}

impl Drop for SystemDns {
    fn drop(&mut self) {
        self.watcher.abort();
        // resolved forgets a link with its device; a file stays.
        if let Err(error) = self.shared.takeover.restore() {
            tracing::error!("cannot give {} back: {error}", self.shared.config.resolv_conf.display());
        }
    }
}

impl SplitDns for SystemDns {
    async fn register(&self, names: &LinkNames) -> Result<DnsState, DnsError> {
        let mut state = self.shared.state.lock().await;
        if names.zones.is_empty() || names.resolvers.is_empty() {
            state.links.remove(&names.index);
            self.shared.reconcile(&mut state).await?;
            return Ok(DnsState::NoZones);
        }
        state.links.insert(names.index, names.clone());
        self.shared.reconcile(&mut state).await
    }

    async fn revert(&self, index: u32) -> Result<(), DnsError> {
        let mut state = self.shared.state.lock().await;
        state.links.remove(&index);
        self.shared.reconcile(&mut state).await.map(|_| ())
    }

    fn follow(&self) -> Receiver<DnsState> {
        self.shared.outcome.subscribe()
    }

    async fn restore(&self) -> Result<(), DnsError> {
        // What an earlier run told resolved is gone with its devices, which netd removes.
        let restored = self.shared.takeover.restore()?;
        if restored != Restored::Nothing {
            tracing::warn!("an earlier run left {}: {restored:?}", self.shared.config.resolv_conf.display());
        }
        Ok(())
    }
}

impl Shared {
    /// Looks again, after something may have changed. `resolved_is_new`: it was started and knows nothing.
    pub(super) async fn look_again(&self, resolved_is_new: bool) {
        let mut state = self.state.lock().await;
        if resolved_is_new {
            state.resolved.clear();
        }
        if state.links.is_empty() {
            return;
        }
        if let Err(error) = self.reconcile(&mut state).await {
            tracing::warn!("names are not registered: {error}");
        }
    }

    /// The bus changed or was lost: the connection is made anew when it is needed.
    pub(super) async fn forget_bus(&self) {
        self.state.lock().await.bus = None;
    }

    /// Makes the system say what `state.links` says.
    async fn reconcile(&self, state: &mut State) -> Result<DnsState, DnsError> {
        if state.links.is_empty() {
            self.leave_file(state).await?;
            self.leave_resolved(state).await?;
            self.stands(DnsState::NoZones);
            return Ok(DnsState::NoZones);
        }
        let result = match self.way(state).await {
            Way::Resolved => {
                self.leave_file(state).await?;
                self.tell_resolved(state).await
            }
            Way::File => {
                self.leave_resolved(state).await?;
                self.tell_stub(state).await
            }
            Way::Waiting => Ok(DnsState::Unavailable {
                reason: format!(
                    "{} leads to systemd-resolved, which is not running: start it (systemctl start systemd-resolved)",
                    self.config.resolv_conf.display()
                ),
            }),
        };
        self.stands(match &result {
            Ok(outcome) => outcome.clone(),
            Err(error) => DnsState::Unavailable { reason: error.to_string() },
        });
        result
    }

    fn stands(&self, now: DnsState) {
        self.outcome.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
    }

    async fn way(&self, state: &mut State) -> Way {
        let asked = self.leads_to_resolved();
        match self.resolved_runs(state).await {
            true if asked || names_resolve_in_nsswitch() => Way::Resolved,
            false if asked => Way::Waiting,
            _ => Way::File,
        }
    }

    /// Whether programs that read resolv.conf ask resolved.
    fn leads_to_resolved(&self) -> bool {
        let text = self.takeover.text_before().unwrap_or_default();
        ResolvConf::parse(&text).servers().iter().any(|server| resolved::STUBS.contains(&server.address))
            // A link to its file before it has written one.
            || fs::read_link(&self.config.resolv_conf).is_ok_and(|target| target.ends_with("systemd/resolve/stub-resolv.conf"))
    }

    async fn resolved_runs(&self, state: &mut State) -> bool {
        // A kept connection may have died with the bus: the second attempt has a new one.
        for _ in 0..2 {
            let Some(bus) = self.bus(state).await else { return false };
            match resolved::runs(&bus).await {
                Ok(runs) => return runs,
                Err(error) => {
                    tracing::debug!("the system bus does not answer: {error}");
                    state.bus = None;
                }
            }
        }
        false
    }

    async fn bus(&self, state: &mut State) -> Option<Connection> {
        if state.bus.is_none() {
            state.bus = match resolved::connect().await {
                Ok(bus) => Some(bus),
                Err(error) => {
                    tracing::debug!("no system bus: {error}");
                    None
                }
            };
        }
        state.bus.clone()
    }

    async fn tell_resolved(&self, state: &mut State) -> Result<DnsState, DnsError> {
        let Some(bus) = self.bus(state).await else {
            return Err(DnsError::Resolver("the system bus is gone".to_owned()));
        };
        let gone: Vec<u32> = state.resolved.keys().filter(|index| !state.links.contains_key(index)).copied().collect();
        for index in gone {
            resolved::revert_link(&bus, index).await.map_err(refused)?;
            state.resolved.remove(&index);
        }
        for (index, names) in &state.links {
            if state.resolved.get(index) != Some(names) {
                resolved::set_link(&bus, names).await.map_err(refused)?;
                state.resolved.insert(*index, names.clone());
            }
        }
        Ok(DnsState::Registered { backend: DnsBackend::Resolved })
    }

    async fn leave_resolved(&self, state: &mut State) -> Result<(), DnsError> {
        let told = std::mem::take(&mut state.resolved);
        if told.is_empty() || !self.resolved_runs(state).await {
            return Ok(());
        }
        let Some(bus) = self.bus(state).await else { return Ok(()) };
        for index in told.into_keys() {
            resolved::revert_link(&bus, index).await.map_err(refused)?;
        }
        Ok(())
    }

    async fn tell_stub(&self, state: &mut State) -> Result<DnsState, DnsError> {
        let taken = self.takeover.is_taken();
        if !taken && let Some(reason) = self.contested(state) {
            self.leave_file(state).await?;
            return Ok(DnsState::Unavailable { reason });
        }
        if !taken {
            // Somebody else's file by now, or a first time: what it says is where other names are asked from now on.
            self.takeover.restore()?;
        }
        let order = self.order(state)?;
        // The stub answers before anything asks it.
        if let Err(reason) = self.order_stub(state, order).await {
            self.leave_file(state).await?;
            return Ok(DnsState::Unavailable { reason });
        }
        if !taken {
            let stub = IpAddr::V4(self.config.stub_address);
            if let Err(error) = self.takeover.take(stub) {
                self.leave_file(state).await?;
                return Ok(DnsState::Unavailable { reason: error.to_string() });
            }
        }
        Ok(DnsState::Registered { backend: DnsBackend::ResolvConf })
    }

    /// Counts how often others took our file away; a sentence when that is too often.
    fn contested(&self, state: &mut State) -> Option<String> {
        let now = Instant::now();
        state.contests.retain(|contest| now.duration_since(*contest) < CONTEST);
        let was_ours = state.stub.is_some();
        if was_ours {
            state.contests.push(now);
        }
        let path = self.config.resolv_conf.display();
        (state.contests.len() > MAX_CONTESTS).then(|| {
            format!("another program keeps writing {path}: let it name systemd-resolved, or leave the file alone")
        })
    }

    fn order(&self, state: &State) -> Result<Order, DnsError> {
        let at_port = |address: &IpAddr| SocketAddr::new(*address, PORT);
        let links = state
            .links
            .values()
            .map(|link| LinkRoute { zones: link.zones.clone(), servers: link.resolvers.iter().map(at_port).collect() });
        let text = match self.takeover.text_before() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text?,
        };
        let routes = Routes { links: links.collect(), upstreams: upstreams(&text) };
        let listen = SocketAddr::new(self.config.stub_address.into(), PORT);
        Ok(Order::Serve { listen, resolv_conf: self.config.resolv_conf.clone(), routes })
    }

    /// Tells the stub, over a new connection when the kept one fails. The error is a sentence.
    async fn order_stub(&self, state: &mut State, order: Order) -> Result<(), String> {
        if let Some(stub) = &mut state.stub {
            if stub.order == order {
                return Ok(());
            }
            stub.waiter.abort();
            let told = stub.control.lock().await.order(&order).await;
            if told.is_ok() {
                stub.order = order;
                stub.waiter = self.wait_for_end(&stub.control);
                return Ok(());
            }
            state.stub = None;
        }
        let mut control = Control::connect(&self.config.stub_socket).await.map_err(|error| {
            format!(
                "neither systemd-resolved nor postern-dns-stub is running (systemctl start postern-dns-stub): {error}"
            )
        })?;
        control.order(&order).await.map_err(|error| format!("postern-dns-stub cannot answer: {error}"))?;
        let control = Arc::new(Mutex::new(control));
        let waiter = self.wait_for_end(&control);
        state.stub = Some(Stub { control, order, waiter });
        Ok(())
    }

    fn wait_for_end(&self, control: &Arc<Mutex<Control>>) -> AbortHandle {
        let (control, gone) = (Arc::clone(control), Arc::clone(&self.stub_gone));
        let wait = async move {
            control.lock().await.gone().await;
            gone.notify_one();
        };
        tokio::spawn(wait).abort_handle()
    }

    /// The stub ended: what it was told is void.
    pub(super) async fn forget_stub(&self) {
        self.state.lock().await.stub = None;
    }

    /// Gives resolv.conf back, then lets the stub rest.
    async fn leave_file(&self, state: &mut State) -> Result<(), DnsError> {
        self.takeover.restore()?;
        if let Some(stub) = state.stub.take() {
            stub.waiter.abort();
            if let Err(error) = stub.control.lock().await.order(&Order::Stop).await {
                tracing::debug!("the stub does not hear that it is over: {error}");
            }
        }
        Ok(())
    }
}

fn refused(error: zbus::Error) -> DnsError {
    DnsError::Resolver(error.to_string())
}

/// The servers of a resolv.conf, as programs would ask them. Without one glibc asks this machine.
fn upstreams(text: &[u8]) -> Vec<SocketAddr> {
    let mut seen = BTreeSet::new();
    let mut upstreams: Vec<SocketAddr> = Vec::new();
    for server in ResolvConf::parse(text).servers() {
        let address = match (server.address, server.scope) {
            (IpAddr::V6(address), Some(scope)) => {
                let Some(scope) = interface_number(scope) else { continue };
                SocketAddrV6::new(address, PORT, 0, scope).into()
            }
            (address, _) => SocketAddr::new(address, PORT),
        };
        if seen.insert(address) {
            upstreams.push(address);
        }
    }
    if upstreams.is_empty() {
        upstreams.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
    }
    upstreams
}

fn interface_number(scope: &str) -> Option<u32> {
    let by_name = || {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        rustix::net::netdevice::name_to_index(&socket, scope).ok()
    };
    scope.parse().ok().or_else(by_name)
}

/// Whether programs that ask by the C library ask resolved before they read resolv.conf.
fn names_resolve_in_nsswitch() -> bool {
    let text = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let hosts = text.lines().find_map(|line| line.trim().strip_prefix("hosts:"));
    let sources = hosts.unwrap_or_default().split_ascii_whitespace();
    sources.take_while(|source| *source != "dns").any(|source| source == "resolve")
}
