//! Interfaces and addresses by `getifaddrs`, routes by `sysctl`, name servers from resolv.conf (which macOS keeps up to date
//! for programs that read it), changes by a routing socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CStr,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use ipnet::IpNet;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    dns::resolv_conf::ResolvConf,
    network::{Change, HostInterface, Landscape, route_dump},
};

/// The longest message of a routing socket is shorter.
const MESSAGE_BYTES: usize = 2048;
/// No table of a living machine is longer.
const MAX_DUMP: usize = 64 << 20;

pub(crate) fn landscape() -> io::Result<Landscape> {
    Ok(Landscape { interfaces: interfaces()?, routes: route_dump::routes(&dump()?), resolvers: resolvers() })
}

fn interfaces() -> io::Result<Vec<HostInterface>> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: writes the address of a list of its own into `list`, freed below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut interfaces: BTreeMap<u32, HostInterface> = BTreeMap::new();
    let mut entry = list.cast_const();
    // SAFETY: each pointer of the list leads to its next entry, or is null.
    while let Some(one) = unsafe { entry.as_ref() } {
        entry = one.ifa_next;
        // SAFETY: the name is a text that ends with zero, and lives as long as the list.
        let (name, index) = unsafe { (CStr::from_ptr(one.ifa_name), libc::if_nametoindex(one.ifa_name)) };
        let interface = interfaces.entry(index).or_default();
        interface.index = index;
        interface.name = name.to_string_lossy().into_owned();
        // SAFETY: both are null or socket addresses that live as long as the list.
        let (address, mask) = unsafe { (ip(one.ifa_addr), ip(one.ifa_netmask)) };
        let Some(address) = address.filter(|address| !address.is_loopback()) else { continue };
        let network = match mask {
            Some(mask) => IpNet::with_netmask(address, mask).ok(),
            None => Some(IpNet::from(address)),
        };
        interface.addresses.extend(network);
    }
    // SAFETY: the list came from `getifaddrs`, and nothing of it is used any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(interfaces.into_values().collect())
}

/// # Safety
/// `address` is null or points to a socket address as long as its family demands.
unsafe fn ip(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: by the contract of this function.
    let family = unsafe { address.as_ref() }?.sa_family;
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: the family says what it is; an address of the list may lie at any place.
            let address = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// The whole routing table as routing messages.
fn dump() -> io::Result<Vec<u8>> {
    let mut what = [libc::CTL_NET, libc::PF_ROUTE, 0, 0, libc::NET_RT_DUMP, 0];
    let words = u32::try_from(what.len()).unwrap_or_default();
    for _ in 0..4 {
        let mut length = 0;
        // SAFETY: with no buffer the kernel writes the length that it needs, and nothing else.
        let result =
            unsafe { libc::sysctl(what.as_mut_ptr(), words, ptr::null_mut(), &raw mut length, ptr::null_mut(), 0) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // The table may grow in between.
        length = (length + length / 4).min(MAX_DUMP);
        let mut bytes = vec![0_u8; length];
        // SAFETY: the kernel writes at most `length` bytes into `bytes`, which is that long, and how many into `length`.
        let result = unsafe {
            libc::sysctl(what.as_mut_ptr(), words, bytes.as_mut_ptr().cast(), &raw mut length, ptr::null_mut(), 0)
        };
        if result == 0 {
            bytes.truncate(length);
            return Ok(bytes);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOMEM) {
            return Err(error);
        }
    }
    Err(io::Error::other("the routing table does not hold still"))
}

fn resolvers() -> Vec<IpAddr> {
    let text = fs::read("/etc/resolv.conf").unwrap_or_default();
    let servers = ResolvConf::parse(&text).servers().into_iter().map(|server| server.address);
    servers.filter(|server| !server.is_loopback() && !server.is_unspecified()).collect()
}

/// Changes as they come, unsettled. Name servers change with links: the socket tells no more.
#[derive(Debug)]
pub(crate) struct NetworkEvents {
    socket: AsyncFd<OwnedFd>,
}

impl NetworkEvents {
    pub(crate) fn open() -> io::Result<Self> {
        // SAFETY: takes three numbers.
        let socket = unsafe { libc::socket(libc::PF_ROUTE, libc::SOCK_RAW, libc::AF_UNSPEC) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nothing else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        rustix::io::ioctl_fioclex(&socket)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        // SAFETY: the descriptor is owned, and closed by the value that registers it alone.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self { socket: socket.map_err(io::Error::from)? })
    }

    pub(crate) async fn next(&mut self) -> io::Result<BTreeSet<Change>> {
        let mut ready = self.socket.readable().await?;
        let read = ready.try_io(|socket| {
            let mut message = [0_u8; MESSAGE_BYTES];
            // SAFETY: the kernel writes at most `MESSAGE_BYTES` bytes into `message`, which is that long.
            let length =
                unsafe { libc::read(socket.get_ref().as_raw_fd(), message.as_mut_ptr().cast(), MESSAGE_BYTES) };
            let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
            Ok(route_dump::change(message.get(..length).unwrap_or_default()))
        });
        match read {
            Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Change::ALL.into_iter().collect()),
            Ok(change) => {
                let change = change?;
                let with_link = (change == Some(Change::Link)).then_some(Change::Resolver);
                Ok(change.into_iter().chain(with_link).collect())
            }
            Err(_) => Ok(BTreeSet::new()),
        }
    }
}
