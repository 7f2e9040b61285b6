//! The programs that are compared: each carries TCP from an entry address to the target.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::ValueEnum;

use super::{dns, load::Entry, network::Network, peers::Peer};
use crate::{interrupt::Interrupt, process::Process};

mod certificates;
mod haproxy;
mod postern;
mod ssh;
mod stunnel;
mod tun;
mod virtual_network;

/// The order is that of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Kind {
    /// Loopback, nothing in between
    Raw,
    /// A proxy that only copies (tokio, 64 KiB)
    Plain,
    /// Two such proxies in a row: the least that a client's and a node's process cost
    Plain2,
    /// Two stunnel4, TLS 1.3 with certificates at both ends
    Stunnel,
    /// Two haproxy, TLS 1.3 with certificates at both ends
    Haproxy,
    /// ssh -L and an sshd, aes128-gcm
    Ssh,
    /// posternd in loopback mode, a gateway and the control plane, audit on
    Postern,
    /// The same with the target behind a relay
    #[value(name = "postern-relayed")]
    PosternRelayed,
    /// The same with the target behind a worker of a cluster
    #[value(name = "postern-worker")]
    PosternAtWorker,
    /// The stack of our virtual network alone: no tunnel, a thread for each core
    Stack,
    /// The same with one thread
    #[value(name = "stack-1q")]
    Stack1q,
    /// The device of our virtual network and no stack: packets are turned round, a thread for each core
    Device,
    /// The same with one thread
    #[value(name = "device-1q")]
    Device1q,
    /// Our virtual network end to end: as postern, but at an address of its own
    Vnm,
    /// The crate netstack-smoltcp behind a TUN device, MTU 65535
    #[value(name = "smoltcp-64k")]
    Smoltcp64k,
    /// The same, MTU 1500
    #[value(name = "smoltcp-1500")]
    Smoltcp1500,
    /// gVisor's network stack behind a TUN device, MTU 65535
    #[value(name = "gvisor-64k")]
    Gvisor64k,
    /// The same, MTU 1500
    #[value(name = "gvisor-1500")]
    Gvisor1500,
    /// tun2proxy and a SOCKS5 proxy, MTU 65535
    #[value(name = "tun2proxy-64k")]
    Tun2proxy64k,
    /// The same, MTU 1500
    #[value(name = "tun2proxy-1500")]
    Tun2proxy1500,
    /// dnsmasq, which answers names and nothing else
    Dnsmasq,
    /// A UDP socket that sends each query back, and looks nothing up
    #[value(name = "udp-echo")]
    UdpEcho,
}

impl Kind {
    /// What ends a comparison with Postern is a peer; raw loopback and the plain proxies are yardsticks.
    pub(crate) const PEERS: &'static [Self] = &[Self::Stunnel, Self::Haproxy, Self::Ssh];

    /// The Debian packages that it comes from.
    pub(crate) fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Raw | Self::Plain | Self::Plain2 | Self::UdpEcho => &[],
            Self::Postern | Self::PosternRelayed | Self::PosternAtWorker | Self::Vnm => &[],
            Self::Stack | Self::Stack1q | Self::Device | Self::Device1q => &[],
            Self::Smoltcp64k | Self::Smoltcp1500 | Self::Tun2proxy64k | Self::Tun2proxy1500 => &[],
            Self::Gvisor64k | Self::Gvisor1500 => &["golang-gvisor-gvisor-dev", "golang-go"],
            Self::Stunnel => &["stunnel4", "openssl"],
            Self::Haproxy => &["haproxy", "openssl"],
            Self::Ssh => &["openssh-client", "openssh-server"],
            Self::Dnsmasq => &["dnsmasq-base"],
        }
    }

    /// What is built for it. A benchmark goes on without those that cannot be had, and says so.
    pub(crate) fn peer(self) -> Option<Peer> {
        match self {
            Self::Smoltcp64k | Self::Smoltcp1500 => Some(Peer::NetstackSmoltcp),
            Self::Gvisor64k | Self::Gvisor1500 => Some(Peer::Gvisor),
            Self::Tun2proxy64k | Self::Tun2proxy1500 => Some(Peer::Tun2proxy),
            Self::Raw | Self::Plain | Self::Plain2 | Self::Stunnel | Self::Haproxy | Self::Ssh => None,
            Self::Postern | Self::PosternRelayed | Self::PosternAtWorker | Self::Vnm => None,
            Self::Stack | Self::Stack1q | Self::Device | Self::Device1q => None,
            Self::Dnsmasq | Self::UdpEcho => None,
        }
    }

    /// Whether our programs are part of it.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Postern | Self::PosternRelayed | Self::PosternAtWorker | Self::Vnm) || self.is_stack()
    }

    /// Whether it is our stack without the rest, or its device without the stack: one program is both.
    pub(crate) fn is_stack(self) -> bool {
        matches!(self, Self::Stack | Self::Stack1q) || self.is_device()
    }

    /// Whether its target has to be at the device's address.
    fn is_device(self) -> bool {
        matches!(self, Self::Device | Self::Device1q)
    }

    /// Whether it needs a network to itself: postern-netd gives a user one device.
    pub(crate) fn is_virtual(self) -> bool {
        self == Self::Vnm || self.is_stack()
    }

    /// Whether names can be asked of it.
    pub(crate) fn answers_names(self) -> bool {
        self.is_virtual() || self.answers_only_names()
    }

    /// Whether it carries no streams.
    pub(crate) fn answers_only_names(self) -> bool {
        matches!(self, Self::Dnsmasq | Self::UdpEcho)
    }

    /// Of the device that it has for itself.
    fn mtu(self) -> u16 {
        match self {
            Self::Smoltcp64k | Self::Gvisor64k | Self::Tun2proxy64k => tun::JUMBO,
            _ => tun::ETHERNET,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// How long a stream may stand still.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for somebody else's stack: some stall for ever, and would take most of a benchmark's time. The slowest that
/// works empties what the kernel has queued for it within this.
const PEER_PATIENCE: Duration = Duration::from_secs(4);

/// What a subject is started with.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    /// For its files; a subfolder for each start.
    pub(crate) folder: &'a Path,
    pub(crate) target: SocketAddr,
    /// Cargo's, where peers are that were built.
    pub(crate) target_folder: &'a Path,
    pub(crate) interrupt: &'a Interrupt,
    /// The limit of open files, which some want to be told.
    pub(crate) open_files: u64,
}

/// A running subject. It stops when dropped, entry first.
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    pub(crate) entry: Entry,
    pub(crate) processes: Vec<Process>,
    pub(crate) name_server: Option<NameServer>,
    /// Where strangers may knock: the gateway's own port.
    pub(crate) door: Option<SocketAddr>,
    home: Option<Home>,
}

/// Where a subject answers names, and which it knows.
#[derive(Clone, Debug)]
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    pub(crate) names: Vec<String>,
}

/// A network of the subject's own, with its own far end.
struct Home {
    network: Network,
    target: Process,
}

impl Subject {
    pub(crate) fn start(kind: Kind, ground: &Ground<'_>) -> anyhow::Result<Self> {
        let started =
            if kind.is_virtual() { Self::start_at_home(kind, ground) } else { Self::start_here(kind, ground) };
        started.with_context(|| format!("cannot start {kind}"))
    }

    fn start_at_home(kind: Kind, ground: &Ground<'_>) -> anyhow::Result<Self> {
        let network = Network::make(ground.folder, ground.interrupt)?;
        let (subject, target) = network.enter(|| {
            let args: &[&str] = if kind.is_device() { &["--anywhere"] } else { &[] };
            let (target, process) = start_own("bench-target", args, ground.folder, ground.interrupt)?;
            Ok((Self::start_here(kind, &Ground { target, ..*ground })?, process))
        })?;
        Ok(Self { home: Some(Home { network, target }), ..subject })
    }

    fn start_here(kind: Kind, ground: &Ground<'_>) -> anyhow::Result<Self> {
        let (mut name_server, mut door) = (None, None);
        let mut behind = |(started, at): (Started, SocketAddr)| {
            door = Some(at);
            started
        };
        let (address, processes) = match kind {
            Kind::Raw => (ground.target, Vec::new()),
            Kind::Plain => start_plain(ground)?,
            Kind::Plain2 => start_plain_twice(ground)?,
            Kind::Stunnel => on_free_ports(|ports| stunnel::start(ground, ports))?,
            Kind::Haproxy => on_free_ports(|ports| haproxy::start(ground, ports))?,
            Kind::Ssh => on_free_ports(|ports| ssh::start(ground, ports))?,
            Kind::Postern => behind(postern::start_with_door(ground)?),
            Kind::PosternRelayed => behind(postern::start_relayed(ground)?),
            Kind::PosternAtWorker => behind(postern::start_at_worker(ground)?),
            Kind::Stack => virtual_network::start_stack(ground, &[], &mut name_server)?,
            Kind::Stack1q => virtual_network::start_stack(ground, &["--queues=1"], &mut name_server)?,
            Kind::Device => virtual_network::start_stack(ground, &["--bounce"], &mut name_server)?,
            Kind::Device1q => virtual_network::start_stack(ground, &["--bounce", "--queues=1"], &mut name_server)?,
            Kind::Vnm => virtual_network::start_whole(ground, &mut name_server)?,
            Kind::Dnsmasq => {
                let (address, process) = dns::start_dnsmasq(ground.folder, ground.interrupt)?;
                name_server = Some(NameServer { address, names: dns::names() });
                (address, vec![process])
            }
            Kind::UdpEcho => {
                let (address, process) = start_own("bench-echo", &[], ground.folder, ground.interrupt)?;
                name_server = Some(NameServer { address, names: dns::names() });
                (address, vec![process])
            }
            Kind::Smoltcp64k | Kind::Smoltcp1500 => tun::start(kind, Peer::NetstackSmoltcp, ground)?,
            Kind::Gvisor64k | Kind::Gvisor1500 => tun::start(kind, Peer::Gvisor, ground)?,
            Kind::Tun2proxy64k | Kind::Tun2proxy1500 => tun::start(kind, Peer::Tun2proxy, ground)?,
        };
        let carries_ends = kind.peer() != Some(Peer::Tun2proxy);
        let patience = if kind.peer().is_some() { PEER_PATIENCE } else { PATIENCE };
        Ok(Self { kind, entry: Entry { address, carries_ends, patience }, processes, name_server, door, home: None })
    }

    /// Does `work` where the subject's entry can be reached.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        match &self.home {
            Some(home) => home.network.enter(work),
            None => work(),
        }
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    pub(crate) fn stop(self) {
        for process in self.processes {
            process.stop();
        }
        if let Some(home) = self.home {
            home.target.stop();
        }
    }
}

type Started = (SocketAddr, Vec<Process>);

/// `xtask <hidden command>` in a process of its own.
pub(crate) fn start_own(
    command: &str,
    args: &[&str],
    ground_folder: &Path,
    interrupt: &Interrupt,
) -> anyhow::Result<(SocketAddr, Process)> {
    start_own_as(command, &[&[command], args].concat(), ground_folder, interrupt)
}

/// The same under a name of its own.
fn start_own_as(
    name: &str,
    args: &[&str],
    ground_folder: &Path,
    interrupt: &Interrupt,
) -> anyhow::Result<(SocketAddr, Process)> {
    let own = PathBuf::from("/proc/self/exe");
    let mut process = Process::start(name, ground_folder, &own, args)?;
    let ready = process.ready_line(interrupt)?;
    let listen = ready.get("listen").and_then(|listen| listen.as_str()).context("its ready line names no address")?;
    Ok((listen.parse()?, process))
}

fn start_plain(ground: &Ground<'_>) -> anyhow::Result<Started> {
    let (entry, process) = start_own("bench-copy", &[&ground.target.to_string()], ground.folder, ground.interrupt)?;
    Ok((entry, vec![process]))
}

fn start_plain_twice(ground: &Ground<'_>) -> anyhow::Result<Started> {
    let start = |name: &str, target: SocketAddr| {
        start_own_as(name, &["bench-copy", &target.to_string()], ground.folder, ground.interrupt)
    };
    let (far, second) = start("copy-far", ground.target)?;
    let (entry, first) = start("copy-near", far)?;
    Ok((entry, vec![first, second]))
}

/// Two loopback addresses that are free now, for programs that cannot be given port 0: the entry's and the far end's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) entry: SocketAddr,
    pub(crate) far: SocketAddr,
}

/// Somebody may take a port between our look and the program's, so it is tried again.
fn on_free_ports(start: impl Fn(Ports) -> anyhow::Result<Started>) -> anyhow::Result<Started> {
    const TRIES: usize = 3;
    let mut tries = 0;
    loop {
        tries += 1;
        match start(free_ports()?) {
            Err(error) if tries < TRIES && error.downcast_ref::<crate::interrupt::Interrupted>().is_none() => {}
            done => return done,
        }
    }
}

fn free_ports() -> anyhow::Result<Ports> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    // Both are open at once, else they could be the same.
    let (entry, far) = (listen()?, listen()?);
    Ok(Ports { entry: entry.local_addr()?, far: far.local_addr()? })
}

/// Writes a file of a subject and gives its path.
fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Where our programs lie: beside this one.
fn our_programs() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    Ok(own.parent().context("this program lies in no folder")?.to_owned())
}

/// A program that the packages should have brought.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    crate::workspace::find_program(name).with_context(|| format!("{name} is not installed"))
}
