//! Linux: `sock_diag` over netlink, `TCP_INFO`, `/proc`. Needs no capability, for sockets of other users neither.
#![expect(unsafe_code, reason = "TCP_INFO has no safe wrapper; the block says why it is sound")]

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    sync::Mutex,
};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG};
use socket2::SockRef;

use crate::{
    netd::Aliases,
    socket_owner::{Holder, Owner, Process, TcpState, Transport},
};

#[path = "linux/channel.rs"]
mod channel;
#[path = "linux/echo.rs"]
mod echo;
#[path = "linux/filter.rs"]
mod filter;
#[path = "linux/frames.rs"]
mod frames;
#[path = "linux/kernel.rs"]
mod kernel;
#[path = "linux/networks.rs"]
mod networks;
#[path = "linux/orphans.rs"]
mod orphans;
#[path = "linux/peer.rs"]
mod peer;
#[path = "linux/tun.rs"]
mod tun;

pub(crate) use channel::{Accepted, Channel, Listener, Packet, Received};
pub(crate) use filter::{Filter, Lock};
pub use frames::{FrameQueue, is_gone};
pub(crate) use kernel::{Kernel, Link};
pub(crate) use networks::{NetworkEvents, landscape};
pub(crate) use orphans::end_connections_from;
pub(crate) use peer::{peer_groups, peer_is_alive};
pub(crate) use tun::Tun;

pub(crate) use super::uid::{User, is_the_administrators};
/// The whole of 127.0.0.0/8 is there.
#[derive(Debug)]
pub(crate) struct LoopbackAliases;

impl Aliases for LoopbackAliases {
    fn add(&self, _: Ipv4Addr) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: Ipv4Addr) -> io::Result<()> {
        Ok(())
    }
}

impl LoopbackAliases {
    pub(crate) const NEEDED: bool = false;
}

/// What netd gives away for each queue of a device.
pub(crate) type Handover = OwnedFd;

/// "Any cookie": the look-up goes by addresses alone.
const NO_COOKIE: [u8; 8] = [0xff; 8];
/// An answer about one socket is about 150 bytes, a part of a dump at most 32 KiB (the kernel's own limit).
const RECEIVE_BYTES: usize = 32 * 1024;
/// Processes looked at to name the one that holds a socket.
const MAX_PROCESSES: usize = 20_000;

pub(crate) fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

pub(crate) fn tcp_state(socket: &SockRef<'_>) -> io::Result<TcpState> {
    let mut state = 0_u8;
    let mut length: libc::socklen_t = 1;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel writes at most `length` bytes, the
    // one byte of `state` (`tcpi_state` is the first field of `tcp_info`), and the new length into `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    if result == 0 && length == 1 { Ok(tcp_state_of(state)) } else { Err(io::Error::last_os_error()) }
}

/// The kept netlink socket and the number of the last question. After any fault a new socket takes its place, so that a
/// late answer can never be taken for that of another question.
#[derive(Debug)]
pub(crate) struct Lookup {
    channel: Mutex<Option<SockDiag>>,
}

impl Lookup {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { channel: Mutex::new(Some(SockDiag::open()?)) })
    }

    /// The socket whose own address is `source` and whose peer is `destination`; listeners that the kernel offers in
    /// its place do not count.
    pub(crate) fn exact(&self, source: SocketAddr, destination: SocketAddr) -> io::Result<Option<Owner>> {
        let found = self.with_sock_diag(|channel| channel.exact(source, destination))?;
        Ok(found.filter(|found| is_between(found, source, destination)).map(|found| owner_of(&found)))
    }

    /// The socket at `source` that sent something to `destination` by way of a device.
    pub(crate) fn sender(
        &self,
        transport: Transport,
        source: SocketAddr,
        destination: SocketAddr,
        device: u32,
    ) -> io::Result<Option<Owner>> {
        if transport == Transport::Echo {
            return echo::sender(source.ip(), source.port());
        }
        let found = self.with_sock_diag(|channel| channel.sender(transport, source, destination, device))?;
        Ok(found.filter(|found| is_sender(found, transport, source, destination)).map(|found| owner_of(&found)))
    }

    /// Who has `address`: the listener that would answer there, else any socket with that local port.
    pub(crate) fn holder(&self, address: SocketAddr) -> io::Result<Option<Holder>> {
        let owner = self.with_sock_diag(|channel| {
            let anywhere = SocketAddr::new(unspecified(address), 0);
            if let Some(listener) = channel.exact(address, anywhere)? {
                return Ok(Some(owner_of(&listener)));
            }
            let same_port = channel.dump(address)?;
            Ok(same_port.iter().map(owner_of).find(|owner| owner.inode != 0))
        })?;
        Ok(owner.map(|owner| Holder { uid: owner.uid, process: process_of(&owner) }))
    }

    fn with_sock_diag<T>(&self, ask: impl FnOnce(&mut SockDiag) -> io::Result<T>) -> io::Result<T> {
        let mut kept = self.channel.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut channel = match kept.take() {
            Some(channel) => channel,
            None => SockDiag::open()?,
        };
        let answer = ask(&mut channel)?;
        *kept = Some(channel);
        Ok(answer)
    }
}

#[derive(Debug)]
struct SockDiag {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl SockDiag {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddress::new(0, 0))?;
        // The kernel has its answer ready when `send` returns; whoever waits here would wait for ever.
        socket.set_non_blocking(true)?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BYTES) })
    }

    fn exact(&mut self, source: SocketAddr, destination: SocketAddr) -> io::Result<Option<InetResponseHeader>> {
        self.send(NLM_F_REQUEST, IPPROTO_TCP, (source, destination), 0)?;
        let mut found = None;
        self.receive(|header| found = Some(header))?;
        Ok(found)
    }

    fn sender(
        &mut self,
        transport: Transport,
        source: SocketAddr,
        destination: SocketAddr,
        device: u32,
    ) -> io::Result<Option<InetResponseHeader>> {
        match transport {
            Transport::Tcp => self.send(NLM_F_REQUEST, IPPROTO_TCP, (source, destination), device)?,
            // The kernel wants these the other way round for datagrams, for historical reasons.
            Transport::Udp | Transport::Echo => self.send(NLM_F_REQUEST, IPPROTO_UDP, (destination, source), device)?,
        }
        let mut found = None;
        self.receive(|header| found = Some(header))?;
        Ok(found)
    }

    /// Every TCP socket with the local port of `source`, in any state. Slow (milliseconds): never for accepts.
    fn dump(&mut self, source: SocketAddr) -> io::Result<Vec<InetResponseHeader>> {
        let nowhere = unspecified(source);
        let any = (SocketAddr::new(nowhere, source.port()), SocketAddr::new(nowhere, 0));
        self.send(NLM_F_REQUEST | NLM_F_DUMP, IPPROTO_TCP, any, 0)?;
        let mut found = Vec::new();
        while self.receive(|header| found.push(header))? == Dump::GoesOn {}
        found.retain(|header| header.socket_id.source_port == source.port());
        Ok(found)
    }

    fn send(
        &mut self,
        flags: u16,
        protocol: u8,
        (source, destination): (SocketAddr, SocketAddr),
        device: u32,
    ) -> io::Result<()> {
        let request = InetRequest {
            family: if source.is_ipv4() { AF_INET } else { AF_INET6 },
            protocol,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id: SocketId {
                source_port: source.port(),
                destination_port: destination.port(),
                source_address: source.ip(),
                destination_address: destination.ip(),
                interface_id: device,
                cookie: NO_COOKIE,
            },
        };
        self.send_message(flags, SockDiagMessage::InetRequest(request))
    }

    fn send_message(&mut self, flags: u16, message: impl NetlinkSerializable) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let sent = self.socket.send(&bytes, 0)?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Reads one datagram and hands on every socket that it tells of. "No such socket" is no error and no socket.
    fn receive(&mut self, mut each: impl FnMut(InetResponseHeader)) -> io::Result<Dump> {
        self.buffer.clear();
        let (_, from) = self.socket.recv_from(&mut self.buffer, 0)?;
        if from.port_number() != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that is not the kernel's"));
        }
        let mut rest = self.buffer.as_slice();
        let mut dump = Dump::GoesOn;
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if message.header.sequence_number != self.sequence {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"));
            }
            let aligned = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(aligned..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => each(response.header),
                NetlinkPayload::Done(_) => dump = Dump::Done,
                NetlinkPayload::Error(error) if error.code.is_none() => dump = Dump::Done,
                NetlinkPayload::Error(error) if error.raw_code() == -libc::ENOENT => dump = Dump::Done,
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        Ok(dump)
    }
}

#[derive(PartialEq, Eq)]
enum Dump {
    GoesOn,
    Done,
}

fn is_between(found: &InetResponseHeader, source: SocketAddr, destination: SocketAddr) -> bool {
    let id = &found.socket_id;
    let (from, to) = (id.source_address.to_canonical(), id.destination_address.to_canonical());
    SocketAddr::new(from, id.source_port) == source && SocketAddr::new(to, id.destination_port) == destination
}

/// Whether the socket that the kernel offers is one that may have sent the packet: a listener in its place is none, and a
/// datagram socket may have no peer or no address of its own.
fn is_sender(found: &InetResponseHeader, transport: Transport, source: SocketAddr, destination: SocketAddr) -> bool {
    let id = &found.socket_id;
    let (from, to) = (id.source_address.to_canonical(), id.destination_address.to_canonical());
    match transport {
        Transport::Tcp => is_between(found, source, destination),
        Transport::Udp | Transport::Echo => {
            let from_there = id.source_port == source.port() && (from == source.ip() || from.is_unspecified());
            let connected = !to.is_unspecified() || id.destination_port != 0;
            from_there && (!connected || SocketAddr::new(to, id.destination_port) == destination)
        }
    }
}

fn owner_of(found: &InetResponseHeader) -> Owner {
    Owner { uid: found.uid, inode: u64::from(found.inode), state: tcp_state_of(found.state) }
}

fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// The numbers of `include/net/tcp_states.h`.
fn tcp_state_of(number: u8) -> TcpState {
    match number {
        1 => TcpState::Established,
        2 => TcpState::SynSent,
        3 | 12 => TcpState::SynReceived,
        4 => TcpState::FinWait1,
        5 => TcpState::FinWait2,
        6 => TcpState::TimeWait,
        7 => TcpState::Close,
        8 => TcpState::CloseWait,
        9 => TcpState::LastAck,
        10 => TcpState::Listen,
        11 => TcpState::Closing,
        other => TcpState::Other(other),
    }
}

/// The process that has the socket open, where `/proc` lets us see it (our own processes; all of them for root).
fn process_of(owner: &Owner) -> Option<Process> {
    let wanted = format!("socket:[{}]", owner.inode);
    fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .take(MAX_PROCESSES)
        .find(|pid| has_open(*pid, &wanted))
        .map(|pid| Process { pid, program: program_of(pid) })
}

fn has_open(pid: u32, wanted: &str) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == wanted))
}

fn program_of(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end_matches('\n').chars().filter(|c| !c.is_control()).collect()
}
