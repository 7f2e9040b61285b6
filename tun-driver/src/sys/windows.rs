//! Windows: the system's table of TCP connections with their processes, and the user of a process.
//!
//! Users have no number there: a process of the user who runs this program has [`own_uid`], any other has `u32::MAX`.
//! The inode is the number of the process. A look-up reads the whole table: milliseconds, not microseconds.
//!
//! Checked by the compiler only: no Windows was at hand.
#![expect(unsafe_code, reason = "these system calls have no safe wrapper; each block says why it is sound")]

use std::{
    ffi::c_void,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::SockRef;
use windows_sys::Win32::{
    Foundation::{CloseHandle, ERROR_INSUFFICIENT_BUFFER, HANDLE, NO_ERROR},
    NetworkManagement::IpHelper::{GetExtendedTcpTable, TCP_TABLE_OWNER_PID_ALL},
    Networking::WinSock::{AF_INET, AF_INET6},
    Security::{EqualSid, GetTokenInformation, TOKEN_QUERY, TOKEN_USER, TokenUser},
    System::Threading::{
        GetCurrentProcess, OpenProcess, OpenProcessToken, PROCESS_NAME_WIN32, PROCESS_QUERY_LIMITED_INFORMATION,
        QueryFullProcessImageNameW,
    },
};

use crate::{
    netd::Aliases,
    socket_owner::{Holder, Owner, Process, TcpState, Transport},
};

#[path = "windows/channel.rs"]
mod channel;
#[path = "windows/device.rs"]
mod device;
#[path = "windows/frames.rs"]
mod frames;
#[path = "windows/networks.rs"]
mod networks;
#[path = "windows/registry.rs"]
mod registry;
#[path = "windows/security.rs"]
mod security;
#[path = "windows/service.rs"]
mod service;
#[path = "windows/wintun.rs"]
mod wintun;

pub(crate) use channel::{Accepted, Channel, Handover, Listener, Packet, Received};
pub(crate) use device::Device;
pub use frames::{FrameQueue, is_gone};
pub(crate) use networks::{NetworkEvents, landscape};
pub(crate) use registry::Declarations;
pub(crate) use security::{User, is_the_administrators};
pub(crate) use service::{service_stopped, under_service_manager};

/// The whole of 127.0.0.0/8 is there.
#[derive(Debug)]
pub(crate) struct LoopbackAliases;

impl LoopbackAliases {
    pub(crate) const NEEDED: bool = false;
}

impl Aliases for LoopbackAliases {
    fn add(&self, _: Ipv4Addr) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: Ipv4Addr) -> io::Result<()> {
        Ok(())
    }
}

/// A service has what its account has: nothing is given up here.
///
/// # Errors
/// None here.
#[expect(clippy::unnecessary_wraps, reason = "other platforms may fail")]
pub(crate) fn drop_privileges() -> io::Result<()> {
    Ok(())
}

const OTHER_USER: u32 = u32::MAX;
/// `MIB_TCPROW_OWNER_PID` and `MIB_TCP6ROW_OWNER_PID`; the tables begin with the number of rows.
const ROW_V4: usize = 24;
const ROW_V6: usize = 56;
/// No table of a living machine is longer.
const MAX_TABLE: usize = 64 << 20;

pub(crate) const fn own_uid() -> u32 {
    0
}

/// Reads the state from the table: the row with the socket's own two addresses.
pub(crate) fn tcp_state(socket: &SockRef<'_>) -> io::Result<TcpState> {
    let address = |address: socket2::SockAddr| address.as_socket().ok_or(io::ErrorKind::Unsupported);
    let (local, peer) = (address(socket.local_addr()?)?, address(socket.peer_addr()?)?);
    let row = table(local)?.into_iter().find(|row| row.local == local && row.foreign == peer);
    Ok(row.map_or(TcpState::Close, |row| row.state))
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
        let row = table(source)?.into_iter().find(|row| row.local == source && row.foreign == destination);
        Ok(row.filter(|row| row.pid != 0).map(|row| row.owner()))
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
        let row = table(address)?.into_iter().find(|row| row.pid != 0 && has_it(row.local));
        Ok(row.map(|row| Holder { uid: row.owner().uid, process: process(row.pid) }))
    }
}

struct Row {
    local: SocketAddr,
    foreign: SocketAddr,
    state: TcpState,
    pid: u32,
}

impl Row {
    fn owner(&self) -> Owner {
        let uid = if is_own(self.pid) { own_uid() } else { OTHER_USER };
        Owner { uid, inode: u64::from(self.pid), state: self.state }
    }

    fn parse_v4(row: &[u8]) -> Option<Self> {
        let address = |at: usize| -> Option<SocketAddr> {
            let ip: [u8; 4] = *row.get(at..)?.first_chunk()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port(row, at + 4)?))
        };
        Some(Self {
            local: address(4)?,
            foreign: address(12)?,
            state: tcp_state_of(number(row, 0)?),
            pid: number(row, 20)?,
        })
    }

    fn parse_v6(row: &[u8]) -> Option<Self> {
        let address = |at: usize| -> Option<SocketAddr> {
            let ip: [u8; 16] = *row.get(at..)?.first_chunk()?;
            Some(SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port(row, at + 20)?))
        };
        Some(Self {
            local: address(0)?,
            foreign: address(24)?,
            state: tcp_state_of(number(row, 48)?),
            pid: number(row, 52)?,
        })
    }
}

fn number(row: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*row.get(at..)?.first_chunk()?))
}

/// A port in network order in the first two bytes of a `DWORD`.
fn port(row: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*row.get(at..)?.first_chunk()?))
}

/// Every TCP socket of the address's family.
fn table(like: SocketAddr) -> io::Result<Vec<Row>> {
    let (family, row_bytes) = if like.is_ipv4() { (AF_INET, ROW_V4) } else { (AF_INET6, ROW_V6) };
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        let mut bytes = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        // SAFETY: the system writes at most `bytes` bytes into `buffer`, which is that long, and the length that it
        // needs into `bytes`.
        let result = unsafe {
            GetExtendedTcpTable(
                buffer.as_mut_ptr().cast::<c_void>(),
                &raw mut bytes,
                0,
                u32::from(family),
                TCP_TABLE_OWNER_PID_ALL,
                0,
            )
        };
        match result {
            NO_ERROR => break,
            ERROR_INSUFFICIENT_BUFFER if buffer.len() < MAX_TABLE => {
                buffer.resize((bytes as usize).max(buffer.len()).saturating_mul(2).min(MAX_TABLE), 0);
            }
            error => return Err(io::Error::from_raw_os_error(i32::try_from(error).unwrap_or_default())),
        }
    }
    let count = number(&buffer, 0).unwrap_or_default() as usize;
    let rows = buffer.get(4..).unwrap_or_default().chunks_exact(row_bytes).take(count);
    Ok(rows.filter_map(|row| if like.is_ipv4() { Row::parse_v4(row) } else { Row::parse_v6(row) }).collect())
}

/// A handle that is closed in the end.
#[derive(Debug)]
struct Handle(HANDLE);

// SAFETY: a handle is a number for the system, which may be used and closed from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle was opened by us and is closed once.
        unsafe { CloseHandle(self.0) };
    }
}

/// Whether a process runs as the user who runs this program. No, when it cannot be told.
fn is_own(pid: u32) -> bool {
    // SAFETY: a pseudo handle that needs no closing.
    let ours = token_user(unsafe { GetCurrentProcess() });
    let theirs = open(pid).and_then(|process| token_user(process.0));
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return false };
    // SAFETY: both buffers were filled with a `TOKEN_USER` whose pointer leads into the same living buffer.
    unsafe {
        let sid = |user: &[u64]| (*user.as_ptr().cast::<TOKEN_USER>()).User.Sid;
        EqualSid(sid(&ours), sid(&theirs)) != 0
    }
}

fn open(pid: u32) -> Option<Handle> {
    // SAFETY: takes no pointers; the handle is closed by its owner.
    let handle = unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) };
    (!handle.is_null()).then_some(Handle(handle))
}

/// The `TOKEN_USER` of a process, in a buffer that is aligned for it.
fn token_user(process: HANDLE) -> Option<Vec<u64>> {
    let mut token: HANDLE = std::ptr::null_mut();
    // SAFETY: writes one handle into `token`.
    if unsafe { OpenProcessToken(process, TOKEN_QUERY, &raw mut token) } == 0 {
        return None;
    }
    user_of_token(&Handle(token))
}

fn user_of_token(token: &Handle) -> Option<Vec<u64>> {
    // A SID is at most 68 bytes long.
    let mut user = vec![0_u64; 32];
    let mut length = 0;
    // SAFETY: the system writes at most 256 bytes, the length of `user`.
    let result =
        unsafe { GetTokenInformation(token.0, TokenUser, user.as_mut_ptr().cast::<c_void>(), 256, &raw mut length) };
    (result != 0).then_some(user)
}

fn process(pid: u32) -> Option<Process> {
    let process = open(pid)?;
    let mut name = [0_u16; 1024];
    let mut length = 1024;
    // SAFETY: the system writes at most `length` characters into `name`, which has room for them.
    let result =
        unsafe { QueryFullProcessImageNameW(process.0, PROCESS_NAME_WIN32, name.as_mut_ptr(), &raw mut length) };
    let path = String::from_utf16_lossy(name.get(..length as usize).filter(|_| result != 0)?);
    let program = path.rsplit('\\').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    Some(Process { pid, program })
}

/// The numbers of `MIB_TCP_STATE`.
fn tcp_state_of(number: u32) -> TcpState {
    match number {
        1 | 12 => TcpState::Close,
        2 => TcpState::Listen,
        3 => TcpState::SynSent,
        4 => TcpState::SynReceived,
        5 => TcpState::Established,
        6 => TcpState::FinWait1,
        7 => TcpState::FinWait2,
        8 => TcpState::CloseWait,
        9 => TcpState::Closing,
        10 => TcpState::LastAck,
        11 => TcpState::TimeWait,
        other => TcpState::Other(u8::try_from(other).unwrap_or(u8::MAX)),
    }
}
