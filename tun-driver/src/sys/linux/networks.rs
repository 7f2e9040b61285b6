//! Interfaces, addresses, routes and name servers by rtnetlink dumps and the files of resolvers; changes of them by
//! rtnetlink's multicast groups and inotify.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    mem::MaybeUninit,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::Path,
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_ROUTE};
use rustix::fs::inotify;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    dns::resolv_conf,
    network::{Change, HostInterface, HostRoute, Landscape},
};

/// Where name servers are written down, wherever /etc/resolv.conf points.
const RESOLVER_FILES: [&str; 3] =
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/resolv.conf"];
/// A part of a dump is at most 32 KiB (the kernel's own limit).
const RECEIVE_BYTES: usize = 32 * 1024;
/// No machine has more parts in a dump of its routes: a full routing table of the internet has 20,000.
const MAX_PARTS: usize = 100_000;
/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV4_RULE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE`,
/// and the group of IPv6 rules.
const GROUPS: u32 = 1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18;

pub(crate) fn landscape() -> io::Result<Landscape> {
    let mut interfaces: BTreeMap<u32, HostInterface> = BTreeMap::new();
    let mut routes = Vec::new();
    let link = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let address = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let route = RouteNetlinkMessage::GetRoute(RouteMessage::default());
    for question in [link, address, route] {
        dump(question, |answer| match answer {
            RouteNetlinkMessage::NewLink(link) => {
                let interface = interfaces.entry(link.header.index).or_default();
                interface.index = link.header.index;
                interface.name = name_of(&link);
            }
            RouteNetlinkMessage::NewAddress(address) => {
                let network = address_of(&address).filter(|network| !network.addr().is_loopback());
                if let (Some(interface), Some(network)) = (interfaces.get_mut(&address.header.index), network) {
                    interface.addresses.push(network);
                }
            }
            RouteNetlinkMessage::NewRoute(route) => routes.extend(routes_of(&route)),
            _ => {}
        })?;
    }
    Ok(Landscape { interfaces: interfaces.into_values().collect(), routes, resolvers: resolvers() })
}

/// The name servers that the system asks, loopback ones left out: those lead to another file of the list.
fn resolvers() -> Vec<IpAddr> {
    let mut found: BTreeSet<IpAddr> = BTreeSet::new();
    for file in RESOLVER_FILES {
        if let Ok(text) = fs::read(file) {
            let servers = resolv_conf::ResolvConf::parse(&text).servers();
            let addresses = servers.into_iter().map(|server| server.address);
            found.extend(addresses.filter(|address| !address.is_loopback() && !address.is_unspecified()));
        }
    }
    found.into_iter().collect()
}

fn name_of(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

/// The interface's own address with its network's prefix; of a point-to-point link the other end's, which is routed.
fn address_of(message: &AddressMessage) -> Option<IpNet> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let address = find(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    IpNet::new(address.or(local)?, message.header.prefix_len).ok()
}

/// One route per next hop. Multicast, broadcast and loopback destinations are nobody's wish.
fn routes_of(message: &RouteMessage) -> Vec<HostRoute> {
    let whole = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0_u8; 4]),
        AddressFamily::Inet6 => IpAddr::from([0_u8; 16]),
        _ => return Vec::new(),
    };
    if matches!(message.header.kind, RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast) {
        return Vec::new();
    }
    let mut destination = whole;
    let (mut interface, mut gateway, mut hops) = (None, None, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address).unwrap_or(whole),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::MultiPath(paths) => hops.clone_from(paths),
            _ => {}
        }
    }
    let Ok(destination) = IpNet::new(destination, message.header.destination_prefix_length) else { return Vec::new() };
    if destination.addr().is_loopback() || destination.addr().is_multicast() {
        return Vec::new();
    }
    let mut routes: Vec<HostRoute> = hops
        .iter()
        .map(|hop| {
            let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Gateway(address) => ip(address),
                _ => None,
            });
            HostRoute { destination, gateway, interface: Some(hop.interface_index) }
        })
        .collect();
    if routes.is_empty() {
        routes.push(HostRoute { destination, gateway, interface });
    }
    routes
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Asks for everything of one kind, and hands over each answer.
fn dump(question: RouteNetlinkMessage, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = 1;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(question));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    for _ in 0..MAX_PARTS {
        let mut part = Vec::with_capacity(RECEIVE_BYTES);
        socket.recv(&mut part, 0)?;
        for message in messages(&part) {
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(inner) => each(inner),
                _ => {}
            }
        }
    }
    Err(io::Error::other("the kernel's list of routes has no end"))
}

/// The messages of one datagram. One that cannot be read (a newer kernel's) is left out.
fn messages(mut bytes: &[u8]) -> Vec<NetlinkMessage<RouteNetlinkMessage>> {
    let mut messages = Vec::new();
    while let Some(length) = bytes.first_chunk::<4>().map(|length| u32::from_ne_bytes(*length) as usize) {
        let Some(one) = bytes.get(..length).filter(|_| length >= 16) else { break };
        messages.extend(NetlinkMessage::deserialize(one));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// Changes as they come, unsettled.
#[derive(Debug)]
pub(crate) struct NetworkEvents {
    netlink: AsyncFd<Netlink>,
    files: AsyncFd<OwnedFd>,
}

#[derive(Debug)]
struct Netlink(Socket);

impl AsRawFd for Netlink {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl NetworkEvents {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind(&NetlinkAddress::new(0, GROUPS))?;
        let files = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        watch_folders(files.as_fd());
        // SAFETY: the socket owns its descriptor, which nothing else closes while the value that registers it lives.
        let netlink = unsafe { AsyncFd::register_with_interest(Netlink(socket), Interest::READABLE) };
        // SAFETY: as above; the descriptor is owned.
        let files = unsafe { AsyncFd::register_with_interest(files, Interest::READABLE) };
        Ok(Self { netlink: netlink.map_err(io::Error::from)?, files: files.map_err(io::Error::from)? })
    }

    pub(crate) async fn next(&mut self) -> io::Result<BTreeSet<Change>> {
        let changes = tokio::select! {
            ready = self.netlink.readable_mut() => ready?.try_io(|socket| read_netlink(&mut socket.get_mut().0)),
            ready = self.files.readable() => ready?.try_io(|files| read_files(files.get_ref().as_fd())),
        };
        // Not ready after all: the caller asks again.
        let changes = changes.unwrap_or_else(|_| Ok(BTreeSet::new()))?;
        if changes.contains(&Change::Resolver) || changes.contains(&Change::Link) {
            // The folder of a resolver that has started meanwhile.
            watch_folders(self.files.get_ref().as_fd());
        }
        Ok(changes)
    }
}

fn read_netlink(socket: &mut Socket) -> io::Result<BTreeSet<Change>> {
    let mut bytes = Vec::with_capacity(RECEIVE_BYTES);
    match socket.recv(&mut bytes, 0) {
        Ok(_) => {}
        // More changes than the socket holds: anything may be different now.
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Change::ALL.into_iter().collect()),
        Err(error) => return Err(error),
    }
    let kinds = messages(&bytes).into_iter().filter_map(|message| match message.payload {
        NetlinkPayload::InnerMessage(inner) => kind_of(&inner),
        _ => None,
    });
    Ok(kinds.collect())
}

fn kind_of(message: &RouteNetlinkMessage) -> Option<Change> {
    match message {
        RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) => Some(Change::Link),
        RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => Some(Change::Address),
        RouteNetlinkMessage::NewRoute(_)
        | RouteNetlinkMessage::DelRoute(_)
        | RouteNetlinkMessage::NewRule(_)
        | RouteNetlinkMessage::DelRule(_) => Some(Change::Route),
        _ => None,
    }
}

/// Folders, not files: the files are replaced by renaming. Watching one twice changes nothing.
fn watch_folders(inotify: BorrowedFd<'_>) {
    let events = inotify::WatchFlags::CLOSE_WRITE
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::DELETE
        | inotify::WatchFlags::ONLYDIR;
    for folder in RESOLVER_FILES.iter().filter_map(|file| Path::new(file).parent()) {
        if let Err(error) = inotify::add_watch(inotify, folder, events) {
            tracing::trace!("changes in {} are not seen: {error}", folder.display());
        }
    }
}

/// One buffer full; what is left is read by the next call, until the descriptor is no longer ready.
fn read_files(inotify: BorrowedFd<'_>) -> io::Result<BTreeSet<Change>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    let mut changes = BTreeSet::new();
    loop {
        let event = reader.next()?;
        let name = event.file_name().map(std::ffi::CStr::to_bytes).unwrap_or_default();
        if name == b"resolv.conf" || event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
            changes.insert(Change::Resolver);
        }
        if reader.is_buffer_empty() {
            return Ok(changes);
        }
    }
}
