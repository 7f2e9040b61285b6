//! Links, addresses, routes and rules over rtnetlink: what netd changes, and how it finds its own things again.

use std::{collections::BTreeSet, io, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
    },
    rule::{RuleAction, RuleAttribute, RuleMessage, RuleUidRange},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_ROUTE};

use crate::{
    netd::plan::{PROTOCOL_MARK, RULE_PRIORITIES, Route, Rule, is_our_table},
    network::DEVICE_PREFIX,
};

/// A part of a dump is at most 32 KiB (the kernel's own limit).
const RECEIVE_BYTES: usize = 32 * 1024;
/// No machine has more parts in a dump of its routes: a full routing table of the internet has 20,000.
const MAX_PARTS: usize = 100_000;
/// What the kernel calls a device of ours, beside its name: nobody else's device is ever deleted.
const ALIAS: &str = "postern-netd";
/// How programs control congestion on our routes, whatever this machine's default is. Nothing is ever lost or congested
/// between a program and its own user's stack, and what paces (BBR) leaves most of the link unused and costs timers.
const CONGESTION_CONTROL: &str = "reno";

/// A device of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
}

/// A connection to the kernel. Each question is answered when the call returns: the kernel works while it is asked.
#[derive(Debug)]
pub(crate) struct Kernel {
    socket: Socket,
    sequence: u32,
}

impl Kernel {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddress::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The devices that bear our name and our mark.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |answer| {
            if let RouteNetlinkMessage::NewLink(message) = answer {
                links.extend(our_link(&message));
            }
        })?;
        Ok(links)
    }

    /// Marks a new device as ours, sets its MTU and keeps it from taking IPv6 addresses by itself.
    pub(crate) fn prepare_link(&mut self, name: &str, mtu: u32) -> io::Result<Link> {
        let index = self.index_of(name)?;
        let mut message = link_message(index);
        message.attributes = vec![LinkAttribute::IfAlias(ALIAS.to_owned()), LinkAttribute::Mtu(mtu)];
        self.change(RouteNetlinkMessage::SetLink(message), 0)?;
        let mut message = link_message(index);
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        message.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])];
        match self.change(RouteNetlinkMessage::SetLink(message), 0) {
            // A kernel without IPv6, or an MTU too small for it.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            other => other?,
        }
        Ok(Link { index, name: name.to_owned(), up: false, mtu })
    }

    pub(crate) fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let mut message = link_message(index);
        message.attributes = vec![LinkAttribute::Mtu(mtu)];
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = link_message(index);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Deletes the device, whoever holds its queues and even if he made it persist. One that is gone is fine.
    pub(crate) fn delete_link(&mut self, index: u32) -> io::Result<()> {
        forgive(self.change(RouteNetlinkMessage::DelLink(link_message(index)), 0), &[libc::ENODEV])
    }

    pub(crate) fn addresses(&mut self, index: u32) -> io::Result<BTreeSet<IpAddr>> {
        let mut found = BTreeSet::new();
        self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |answer| {
            if let RouteNetlinkMessage::NewAddress(message) = answer
                && message.header.index == index
            {
                let address = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                });
                found.extend(address);
            }
        })?;
        Ok(found)
    }

    pub(crate) fn add_address(&mut self, index: u32, address: IpAddr) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewAddress(address_message(index, address));
        forgive(self.change(message, NLM_F_CREATE | NLM_F_EXCL), &[libc::EEXIST])
    }

    pub(crate) fn delete_address(&mut self, index: u32, address: IpAddr) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, address));
        forgive(self.change(message, 0), &[libc::EADDRNOTAVAIL, libc::ENODEV])
    }

    /// The routes in our tables, with the device of each.
    pub(crate) fn routes(&mut self) -> io::Result<BTreeSet<(u32, Route)>> {
        let mut found = BTreeSet::new();
        self.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()), |answer| {
            if let RouteNetlinkMessage::NewRoute(message) = answer {
                found.extend(our_route(&message));
            }
        })?;
        Ok(found)
    }

    pub(crate) fn add_route(&mut self, index: u32, route: &Route) -> io::Result<()> {
        let plain = route_message(index, route);
        let mut tuned = plain.clone();
        tuned.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::CcAlgo(CONGESTION_CONTROL.to_owned())]));
        let mut add = |message| {
            let result = self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL);
            forgive(result, &[libc::EEXIST])
        };
        match add(tuned) {
            // A kernel without that choice. The route is as good, only slower where the default paces.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => add(plain),
            other => other,
        }
    }

    pub(crate) fn delete_route(&mut self, index: u32, route: &Route) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelRoute(route_message(index, route));
        forgive(self.change(message, 0), &[libc::ESRCH, libc::ENODEV])
    }

    /// The rules with our mark in our range of priorities.
    pub(crate) fn rules(&mut self) -> io::Result<BTreeSet<Rule>> {
        let mut found = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RuleMessage::default();
            message.header.family = family;
            let asked = self.dump(RouteNetlinkMessage::GetRule(message), |answer| {
                if let RouteNetlinkMessage::NewRule(message) = answer {
                    found.extend(our_rule(&message));
                }
            });
            // A kernel without IPv6 has no rules for it.
            forgive(asked, &[libc::EAFNOSUPPORT, libc::EOPNOTSUPP])?;
        }
        Ok(found)
    }

    pub(crate) fn add_rule(&mut self, rule: &Rule) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewRule(rule_message(rule));
        forgive(self.change(message, NLM_F_CREATE | NLM_F_EXCL), &[libc::EEXIST])
    }

    pub(crate) fn delete_rule(&mut self, rule: &Rule) -> io::Result<()> {
        forgive(self.change(RouteNetlinkMessage::DelRule(rule_message(rule)), 0), &[libc::ENOENT])
    }

    fn index_of(&mut self, name: &str) -> io::Result<u32> {
        let mut index = None;
        self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |answer| {
            if let RouteNetlinkMessage::NewLink(message) = answer
                && message.attributes.contains(&LinkAttribute::IfName(name.to_owned()))
            {
                index = Some(message.header.index);
            }
        })?;
        index.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the new device is gone"))
    }

    /// Changes something, and waits for the kernel's yes or no.
    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.receive(&mut |_| {}).map(|_| ())
    }

    fn dump(&mut self, message: RouteNetlinkMessage, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        for _ in 0..MAX_PARTS {
            if self.receive(&mut each)? {
                return Ok(());
            }
        }
        Err(io::Error::other("the kernel's answer has no end"))
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, message.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let sent = self.socket.send(&bytes, 0)?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Reads one part of an answer; whether it was the last. What is left of the answer to an earlier question, which
    /// was given up, is passed over.
    fn receive(&mut self, each: &mut impl FnMut(RouteNetlinkMessage)) -> io::Result<bool> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        self.socket.recv_from(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            rest = rest.get((message.header.length as usize).next_multiple_of(4)..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::InnerMessage(message) => each(message),
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// Success where the system's "no" means that things are as wished already.
fn forgive(result: io::Result<()>, codes: &[i32]) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error().is_some_and(|code| codes.contains(&code)) => Ok(()),
        other => other,
    }
}

fn link_message(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn our_link(message: &LinkMessage) -> Option<Link> {
    let (mut name, mut mtu, mut marked, mut tun) = (None, 0, false, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Mtu(number) => mtu = *number,
            LinkAttribute::IfAlias(text) => marked = text == ALIAS,
            LinkAttribute::LinkInfo(info) => tun = info.contains(&LinkInfo::Kind(InfoKind::Tun)),
            _ => {}
        }
    }
    let name = name.filter(|name| marked && tun && name.starts_with(DEVICE_PREFIX))?;
    Some(Link { index: message.header.index, name, up: message.header.flags.contains(LinkFlags::Up), mtu })
}

fn address_message(index: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address);
    message.header.prefix_len = IpNet::from(address).prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    if address.is_ipv6() {
        // Nobody else is on this link to be asked whether he has the address too.
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute));
    }
    message
}

fn route_message(index: u32, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(route.source);
    message.header.destination_prefix_length = route.to.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.protocol = RouteProtocol::from(PROTOCOL_MARK);
    message.header.scope = if route.source.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Destination(route_address(route.to.addr())),
        RouteAttribute::PrefSource(route_address(route.source)),
        RouteAttribute::Oif(index),
        RouteAttribute::Table(route.table),
    ];
    message
}

fn our_route(message: &RouteMessage) -> Option<(u32, Route)> {
    let (mut to, mut source, mut index, mut table) = (None, None, None, u32::from(message.header.table));
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip_address(address),
            RouteAttribute::PrefSource(address) => source = ip_address(address),
            RouteAttribute::Oif(number) => index = Some(*number),
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let ours = message.header.protocol == RouteProtocol::from(PROTOCOL_MARK) && is_our_table(table);
    let to = IpNet::new(to.filter(|_| ours)?, message.header.destination_prefix_length).ok()?;
    Some((index?, Route { table, to, source: source? }))
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family_of(rule.to.addr());
    message.header.dst_len = rule.to.prefix_len();
    message.header.action = if rule.table.is_some() { RuleAction::ToTable } else { RuleAction::Unreachable };
    message.attributes = vec![
        RuleAttribute::Destination(rule.to.addr()),
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL_MARK)),
    ];
    if let Some(from) = rule.from {
        message.header.src_len = IpNet::from(from).prefix_len();
        message.attributes.push(RuleAttribute::Source(from));
    }
    message.attributes.extend(rule.uid.map(|uid| RuleAttribute::UidRange(RuleUidRange { start: uid, end: uid })));
    message.attributes.extend(rule.table.map(RuleAttribute::Table));
    message
}

/// The rule, when it bears our mark in our range. One that does but looks like none of ours cannot be told apart from
/// ours, so it is read as well as can be.
fn our_rule(message: &RuleMessage) -> Option<Rule> {
    let (mut priority, mut from, mut to, mut uid, mut table, mut marked) = (0, None, None, None, None, false);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Source(address) => from = Some(*address),
            RuleAttribute::Destination(address) => to = Some(*address),
            RuleAttribute::UidRange(range) if range.start == range.end => uid = Some(range.start),
            RuleAttribute::Table(number) => table = Some(*number),
            RuleAttribute::Protocol(protocol) => marked = *protocol == RouteProtocol::from(PROTOCOL_MARK),
            _ => {}
        }
    }
    let ours = marked && RULE_PRIORITIES.contains(&priority);
    let to = IpNet::new(to.filter(|_| ours)?, message.header.dst_len).ok()?;
    let table = table.filter(|_| message.header.action == RuleAction::ToTable);
    Some(Rule { priority, from, to, uid, table })
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn ip_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
