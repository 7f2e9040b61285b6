//! utun: a device that is a socket, its addresses by `ioctl`, its routes by a routing socket.

use std::{
    ffi::CString,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use ipnet::IpNet;

use super::{Handover, User, landscape};
use crate::{
    netd::{Aliases, Settings, TunDevice},
    network::route_message::{self, Verb},
};

const CONTROL_NAME: &[u8] = b"com.apple.net.utun_control";
// Of `sys/sockio.h` and `netinet6/in6_var.h`: direction, size, letter and number in one.
const SIOCAIFADDR: libc::c_ulong = 0x8040_691a;
const SIOCDIFADDR: libc::c_ulong = 0x8020_6919;
const SIOCAIFADDR_IN6: libc::c_ulong = 0x8080_691a;
const SIOCDIFADDR_IN6: libc::c_ulong = 0x8120_6919;
const SIOCSIFMTU: libc::c_ulong = 0x8020_6934;
const SIOCGIFFLAGS: libc::c_ulong = 0xc020_6911;
const SIOCSIFFLAGS: libc::c_ulong = 0x8020_6910;
/// `IFF_UP` and `IFF_RUNNING`.
const UP: u16 = 0x1 | 0x40;
/// Where an `ifreq` holds its value.
const VALUE: usize = 16;

/// A utun device. It lives as long as its socket, which is the asker's alone once it is handed over.
#[derive(Debug)]
pub(crate) struct Device {
    name: String,
    index: u32,
    /// What was set up.
    had: Settings,
}

impl TunDevice for Device {
    fn create(_: u32, _: &User) -> io::Result<(Self, Vec<Handover>)> {
        let socket = open_control()?;
        let name = name_of(&socket)?;
        let index = index_of(&name).ok_or(io::ErrorKind::NotFound)?;
        Ok((Self { name, index, had: Settings::default() }, vec![socket]))
    }

    fn index(&self) -> u32 {
        self.index
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn is_there(&self) -> bool {
        index_of(&self.name) == Some(self.index)
    }

    fn has_ipv6(&self) -> bool {
        true
    }

    fn settle(&mut self, wanted: &Settings) -> io::Result<usize> {
        let there = landscape()?;
        let own = there.interfaces.iter().find(|interface| interface.index == self.index);
        let has = |address: &IpAddr| own.is_some_and(|own| own.addresses.iter().any(|net| net.addr() == *address));
        let leads = |network: &IpNet| {
            there.routes.iter().any(|route| route.interface == Some(self.index) && route.destination == *network)
        };
        let mut changed = 0;
        if self.had.mtu != wanted.mtu {
            set_number(&self.name, SIOCSIFMTU, wanted.mtu)?;
        }
        for address in wanted.addresses.iter().filter(|address| !has(address)) {
            add_address(&self.name, *address)?;
            changed += 1;
        }
        set_up(&self.name)?;
        for network in wanted.routes.iter().filter(|network| !leads(network)) {
            change_route(Verb::Add, *network, self.index)?;
            changed += 1;
        }
        for network in self.had.routes.difference(&wanted.routes) {
            change_route(Verb::Delete, *network, self.index)?;
        }
        for address in self.had.addresses.difference(&wanted.addresses) {
            delete_address(&self.name, *address)?;
        }
        self.had = wanted.clone();
        Ok(changed)
    }
}

impl Drop for Device {
    /// The asker may live on with his socket: the device then leads nowhere.
    fn drop(&mut self) {
        if !self.is_there() {
            return;
        }
        for network in &self.had.routes {
            log("delete a route", change_route(Verb::Delete, *network, self.index));
        }
        for address in &self.had.addresses {
            log("delete an address", delete_address(&self.name, *address));
        }
    }
}

/// Of 127.0.0.0/8 `lo0` has 127.0.0.1 alone.
#[derive(Debug)]
pub(crate) struct LoopbackAliases;

impl LoopbackAliases {
    pub(crate) const NEEDED: bool = true;
}

impl Aliases for LoopbackAliases {
    fn add(&self, address: Ipv4Addr) -> io::Result<()> {
        add_address("lo0", address.into())
    }

    fn remove(&self, address: Ipv4Addr) -> io::Result<()> {
        delete_address("lo0", address.into())
    }
}

fn log(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!("cannot {what}: {error}");
    }
}

/// A new device: the system chooses its number.
fn open_control() -> io::Result<OwnedFd> {
    let socket = open_socket(libc::PF_SYSTEM, libc::SOCK_DGRAM, libc::SYSPROTO_CONTROL)?;
    let mut info = libc::ctl_info { ctl_id: 0, ctl_name: [0; 96] };
    for (to, from) in info.ctl_name.iter_mut().zip(CONTROL_NAME) {
        *to = from.cast_signed();
    }
    // SAFETY: the descriptor is open; `info` is a whole `ctl_info` with a terminated name, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::CTLIOCGINFO, &raw mut info) })?;
    let length = size_of::<libc::sockaddr_ctl>();
    let address = libc::sockaddr_ctl {
        sc_len: u8::try_from(length).unwrap_or_default(),
        sc_family: libc::AF_SYSTEM as libc::c_uchar,
        ss_sysaddr: libc::AF_SYS_CONTROL as u16,
        sc_id: info.ctl_id,
        sc_unit: 0,
        sc_reserved: [0; 5],
    };
    let length = libc::socklen_t::try_from(length).unwrap_or_default();
    // SAFETY: the descriptor is open; `address` is a whole `sockaddr_ctl`, `length` bytes long, and outlives the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

fn name_of(socket: &OwnedFd) -> io::Result<String> {
    let mut name = [0_u8; 32];
    let mut length: libc::socklen_t = 32;
    // SAFETY: the descriptor is open; the kernel writes at most `length` bytes into `name`, which is that long, and how
    // many into `length`.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SYSPROTO_CONTROL,
            libc::UTUN_OPT_IFNAME,
            name.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    Ok(name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect())
}

fn index_of(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name ends with zero and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

fn add_address(interface: &str, address: IpAddr) -> io::Result<()> {
    let number = if address.is_ipv4() { SIOCAIFADDR } else { SIOCAIFADDR_IN6 };
    request(address, number, &mut route_message::alias(interface, address)).or_else(allow(libc::EEXIST))
}

fn delete_address(interface: &str, address: IpAddr) -> io::Result<()> {
    let number = if address.is_ipv4() { SIOCDIFADDR } else { SIOCDIFADDR_IN6 };
    request(address, number, &mut route_message::address_request(interface, address))
        .or_else(allow(libc::EADDRNOTAVAIL))
}

fn set_number(interface: &str, number: libc::c_ulong, value: u32) -> io::Result<()> {
    request(IpAddr::from([0; 4]), number, &mut route_message::number_request(interface, value))
}

fn set_up(interface: &str) -> io::Result<()> {
    let mut flags = route_message::number_request(interface, 0);
    request(IpAddr::from([0; 4]), SIOCGIFFLAGS, &mut flags)?;
    if let Some(value) = flags.get_mut(VALUE..).and_then(<[u8]>::first_chunk_mut::<2>) {
        *value = (u16::from_ne_bytes(*value) | UP).to_ne_bytes();
    }
    request(IpAddr::from([0; 4]), SIOCSIFFLAGS, &mut flags)
}

/// `bytes` is the structure whose size is part of `number`.
fn request(like: IpAddr, number: libc::c_ulong, bytes: &mut [u8]) -> io::Result<()> {
    let family = if like.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket = open_socket(family, libc::SOCK_DGRAM, 0)?;
    // The third byte of a request's number, and five bits of the fourth.
    if bytes.len() as libc::c_ulong != (number >> 16) & 0x1fff {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the descriptor is open; the kernel reads, and for a request that says so writes, as many bytes as the
    // number of the request holds, which was compared with the length of `bytes`.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), number, bytes.as_mut_ptr()) })
}

fn change_route(verb: Verb, network: IpNet, index: u32) -> io::Result<()> {
    let socket = open_socket(libc::PF_ROUTE, libc::SOCK_RAW, libc::AF_UNSPEC)?;
    let index = u16::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let message = route_message::route(verb, network, index, 1);
    let written = rustix::io::write(&socket, &message).map(drop).map_err(io::Error::from);
    match verb {
        Verb::Add => written.or_else(allow(libc::EEXIST)),
        Verb::Delete => written.or_else(allow(libc::ESRCH)),
    }
}

fn open_socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes three numbers.
    let socket = unsafe { libc::socket(family, kind, protocol) };
    check(socket.min(0))?;
    // SAFETY: a new descriptor that nothing else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    rustix::io::ioctl_fioclex(&socket)?;
    Ok(socket)
}

/// What is so already is no error.
fn allow(code: libc::c_int) -> impl FnOnce(io::Error) -> io::Result<()> {
    move |error| if error.raw_os_error() == Some(code) { Ok(()) } else { Err(error) }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
