//! macOS: `libproc` over the processes of this user, `TCP_CONNECTION_INFO`.
//!
//! The system names no owner of a socket to an ordinary user, but it shows him the sockets of his own processes. So a
//! peer is known when one of our processes has its socket, and unknown, which means refused, otherwise; other users
//! cannot be let in here. A look-up reads the list of open files of each process: milliseconds, not microseconds.
//!
//! Checked by the compiler only: no macOS was at hand.
#![expect(
    unsafe_code,
    reason = "libproc and TCP_CONNECTION_INFO have no safe wrapper; each block says why it is sound"
)]

use std::{
    ffi::c_void,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use socket2::SockRef;

use crate::socket_owner::{Holder, Owner, Process, TcpState, Transport};

#[path = "macos/channel.rs"]
mod channel;
#[path = "macos/device.rs"]
mod device;
#[path = "macos/frames.rs"]
mod frames;
#[path = "macos/networks.rs"]
mod networks;
#[path = "macos/peer.rs"]
mod peer;

pub(crate) use crate::dns::resolver_folder::ResolverFolder as Declarations;
pub(crate) use channel::{Accepted, Channel, Listener, Packet, Received};
pub(crate) use device::{Device, LoopbackAliases};
pub use frames::{FrameQueue, is_gone};
pub(crate) use networks::{NetworkEvents, landscape};

pub(crate) use peer::peer_credentials;

pub(crate) use super::uid::{User, is_the_administrators};
/// What netd gives away for each queue of a device.
pub(crate) type Handover = OwnedFd;

/// Nothing that netd writes is for others, and no core dump tells what users asked for.
///
/// # Errors
/// What the system says.
pub(crate) fn drop_privileges() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit, umask};
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
}

/// `PROC_UID_ONLY` and `PROC_PIDFDSOCKETINFO` of `sys/proc_info.h`.
const PROC_UID_ONLY: u32 = 4;
const PROC_PIDFDSOCKETINFO: i32 = 3;
/// `PROX_FDTYPE_SOCKET` and `SOCKINFO_TCP`.
const FD_SOCKET: u32 = 2;
const KIND_TCP: u32 = 2;
/// `INI_IPV4`: which of the two forms an address has.
const FLAG_IPV4: u8 = 1;
/// `struct socket_fdinfo` is 792 bytes long.
const SOCKET_INFO_BYTES: usize = 1024;
/// Places in it, counted from the headers: `psi.soi_so`, `psi.soi_kind`, then within `psi.soi_proto.pri_tcp`.
const AT_SOCKET: usize = 160;
const AT_KIND: usize = 256;
const AT_FOREIGN_PORT: usize = 264;
const AT_LOCAL_PORT: usize = 268;
const AT_FLAGS: usize = 288;
const AT_FOREIGN_ADDRESS: usize = 296;
const AT_LOCAL_ADDRESS: usize = 312;
const AT_STATE: usize = 344;
/// More processes and files than a user has are not looked at.
const MAX_PROCESSES: usize = 16_384;
const MAX_FILES: usize = 65_536;

pub(crate) fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

pub(crate) fn tcp_state(socket: &SockRef<'_>) -> io::Result<TcpState> {
    let mut state = 0_u8;
    let mut length: libc::socklen_t = 1;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel writes at most `length` bytes, the
    // one byte of `state` (`tcpi_state` is the first field), and the new length into `length`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONNECTION_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    if result == 0 && length == 1 { Ok(tcp_state_of(u32::from(state))) } else { Err(io::Error::last_os_error()) }
}

/// There is nothing to keep: each question goes to the system afresh.
#[derive(Debug)]
pub(crate) struct Lookup(());

impl Lookup {
    #[expect(clippy::unnecessary_wraps, reason = "other platforms may fail")]
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self(()))
    }

    pub(crate) fn exact(&self, source: SocketAddr, destination: SocketAddr) -> io::Result<Option<Owner>> {
        let found = find(|socket| socket.local == source && socket.foreign == destination)?;
        Ok(found.map(|(socket, _)| socket.owner()))
    }

    /// Datagram sockets are not asked about: nobody can be named.
    pub(crate) fn sender(
        &self,
        transport: Transport,
        source: SocketAddr,
        destination: SocketAddr,
        _device: u32,
    ) -> io::Result<Option<Owner>> {
        match transport {
            Transport::Tcp => self.exact(source, destination),
            Transport::Udp | Transport::Echo => Ok(None),
        }
    }

    pub(crate) fn holder(&self, address: SocketAddr) -> io::Result<Option<Holder>> {
        let has_it = |local: SocketAddr| {
            local.port() == address.port() && (local.ip() == address.ip() || local.ip().is_unspecified())
        };
        let found = find(|socket| has_it(socket.local))?;
        Ok(found.map(|(socket, pid)| Holder { uid: socket.owner().uid, process: Some(process(pid)) }))
    }
}

/// A TCP socket of one of our processes.
struct TcpSocket {
    handle: u64,
    local: SocketAddr,
    foreign: SocketAddr,
    state: TcpState,
}

impl TcpSocket {
    fn owner(&self) -> Owner {
        Owner { uid: own_uid(), inode: self.handle, state: self.state }
    }

    fn parse(info: &[u8]) -> Option<Self> {
        let flags = *info.get(AT_FLAGS)?;
        let address = |at: usize, port: usize| -> Option<SocketAddr> {
            let bytes: [u8; 16] = *info.get(at..)?.first_chunk()?;
            let ip = if flags & FLAG_IPV4 == 0 {
                Ipv6Addr::from(bytes).to_canonical()
            } else {
                IpAddr::V4(Ipv4Addr::from(*bytes.last_chunk::<4>()?))
            };
            // A port in network order in the low half of an `int`.
            let port: [u8; 2] = *info.get(port..)?.first_chunk()?;
            Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
        };
        if number(info, AT_KIND)? != KIND_TCP {
            return None;
        }
        Some(Self {
            handle: u64::from_ne_bytes(*info.get(AT_SOCKET..)?.first_chunk()?),
            local: address(AT_LOCAL_ADDRESS, AT_LOCAL_PORT)?,
            foreign: address(AT_FOREIGN_ADDRESS, AT_FOREIGN_PORT)?,
            state: tcp_state_of(number(info, AT_STATE)?),
        })
    }
}

fn number(info: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*info.get(at..)?.first_chunk()?))
}

/// The first socket of our processes that fits, and the process.
fn find(fits: impl Fn(&TcpSocket) -> bool) -> io::Result<Option<(TcpSocket, i32)>> {
    for pid in own_processes()? {
        for fd in sockets_of(pid) {
            if let Some(socket) = socket_of(pid, fd).filter(&fits) {
                return Ok(Some((socket, pid)));
            }
        }
    }
    Ok(None)
}

fn own_processes() -> io::Result<Vec<i32>> {
    let mut pids = vec![0_i32; MAX_PROCESSES];
    let bytes = i32::try_from(size_of_val(pids.as_slice())).unwrap_or(i32::MAX);
    // SAFETY: the kernel writes at most `bytes` bytes into `pids`, which is that long.
    let written = unsafe { libc::proc_listpids(PROC_UID_ONLY, own_uid(), pids.as_mut_ptr().cast::<c_void>(), bytes) };
    let written = usize::try_from(written).map_err(|_| io::Error::last_os_error())?;
    pids.truncate(written / size_of::<i32>());
    pids.retain(|pid| *pid > 0);
    Ok(pids)
}

/// The sockets among the open files of a process; none when it is gone.
fn sockets_of(pid: i32) -> Vec<i32> {
    // SAFETY: with no buffer the kernel writes nothing and says how many bytes it would take.
    let wanted = unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDLISTFDS, 0, std::ptr::null_mut(), 0) };
    let count = usize::try_from(wanted).unwrap_or_default() / size_of::<libc::proc_fdinfo>();
    let mut files = vec![libc::proc_fdinfo { proc_fd: 0, proc_fdtype: 0 }; count.min(MAX_FILES)];
    let bytes = i32::try_from(size_of_val(files.as_slice())).unwrap_or(i32::MAX);
    // SAFETY: the kernel writes at most `bytes` bytes into `files`, which is that long.
    let written =
        unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDLISTFDS, 0, files.as_mut_ptr().cast::<c_void>(), bytes) };
    files.truncate(usize::try_from(written).unwrap_or_default() / size_of::<libc::proc_fdinfo>());
    files.iter().filter(|file| file.proc_fdtype == FD_SOCKET).map(|file| file.proc_fd).collect()
}

fn socket_of(pid: i32, fd: i32) -> Option<TcpSocket> {
    let mut info = [0_u8; SOCKET_INFO_BYTES];
    // SAFETY: the kernel writes at most `SOCKET_INFO_BYTES` bytes into `info`, which is that long.
    let written = unsafe {
        libc::proc_pidfdinfo(
            pid,
            fd,
            PROC_PIDFDSOCKETINFO,
            info.as_mut_ptr().cast::<c_void>(),
            i32::try_from(SOCKET_INFO_BYTES).unwrap_or_default(),
        )
    };
    TcpSocket::parse(info.get(..usize::try_from(written).ok()?)?)
}

fn process(pid: i32) -> Process {
    let mut name = [0_u8; 64];
    // SAFETY: the kernel writes at most 64 bytes into `name`, which is that long.
    let written = unsafe { libc::proc_name(pid, name.as_mut_ptr().cast::<c_void>(), 64) };
    let name = name.get(..usize::try_from(written).unwrap_or_default()).unwrap_or_default();
    let program = String::from_utf8_lossy(name).chars().filter(|c| !c.is_control()).collect();
    Process { pid: u32::try_from(pid).unwrap_or_default(), program }
}

/// The numbers of `netinet/tcp_fsm.h`.
fn tcp_state_of(number: u32) -> TcpState {
    match number {
        0 => TcpState::Close,
        1 => TcpState::Listen,
        2 => TcpState::SynSent,
        3 => TcpState::SynReceived,
        4 => TcpState::Established,
        5 => TcpState::CloseWait,
        6 => TcpState::FinWait1,
        7 => TcpState::Closing,
        8 => TcpState::LastAck,
        9 => TcpState::FinWait2,
        10 => TcpState::TimeWait,
        other => TcpState::Other(u8::try_from(other).unwrap_or(u8::MAX)),
    }
}
