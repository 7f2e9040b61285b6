//! The routing messages of BSD systems (route(4)), as macOS has them. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Change, HostRoute};

/// `struct rt_msghdr` is this long; its first fields are the same in every routing message.
pub(super) const ROUTE_HEADER: usize = 92;
pub(super) const INET: u8 = 2;
pub(super) const INET6: u8 = 30;
pub(super) const HAS_DESTINATION: u32 = 1;
pub(super) const HAS_GATEWAY: u32 = 2;
pub(super) const HAS_NETMASK: u32 = 4;
/// `RTF_HOST`, `RTF_MULTICAST`, `RTF_BROADCAST`: an address alone; nobody's network.
const IS_HOST: u32 = 0x4;
const IS_NOBODYS: u32 = 0x80_0000 | 0x40_0000;

/// The routes of a dump (`NET_RT_DUMP`). What cannot be read is left out.
pub(crate) fn routes(mut dump: &[u8]) -> Vec<HostRoute> {
    let mut routes = Vec::new();
    while let Some(length) = number16(dump, 0).map(usize::from).filter(|length| *length >= 4) {
        let Some(message) = dump.get(..length) else { break };
        routes.extend(route(message));
        dump = dump.get(length..).unwrap_or_default();
    }
    routes
}

/// What a message of a routing socket tells of.
pub(crate) fn change(message: &[u8]) -> Option<Change> {
    match message.get(3)? {
        // RTM_ADD, RTM_DELETE, RTM_CHANGE.
        1..=3 => Some(Change::Route),
        // RTM_NEWADDR, RTM_DELADDR.
        0xc | 0xd => Some(Change::Address),
        // RTM_IFINFO, RTM_IFINFO2.
        0xe | 0x12 => Some(Change::Link),
        _ => None,
    }
}

fn route(message: &[u8]) -> Option<HostRoute> {
    let (index, flags, which) = (number16(message, 4)?, number32(message, 8)?, number32(message, 12)?);
    if flags & IS_NOBODYS != 0 || which & HAS_DESTINATION == 0 {
        return None;
    }
    let mut rest = message.get(ROUTE_HEADER..)?;
    let destination = take(&mut rest).and_then(address)?;
    let gateway = if which & HAS_GATEWAY == 0 { None } else { take(&mut rest).and_then(address) };
    let netmask = if which & HAS_NETMASK == 0 { None } else { take(&mut rest) };
    let whole = if destination.is_ipv4() { 32 } else { 128 };
    let prefix = match netmask {
        Some(mask) if flags & IS_HOST == 0 => prefix(mask, destination).min(whole),
        // A default route may come without one.
        None if flags & IS_HOST == 0 && destination.is_unspecified() => 0,
        _ => whole,
    };
    if destination.is_loopback() || destination.is_multicast() {
        return None;
    }
    let destination = IpNet::new(destination, prefix).ok()?.trunc();
    Some(HostRoute { destination, gateway, interface: Some(index.into()) })
}

/// The next socket address: its length stands first, and it is padded to four bytes. Length 0 takes four.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::from(*rest.first()?);
    let taken = rest.get(..length)?;
    *rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
    Some(taken)
}

fn address(sockaddr: &[u8]) -> Option<IpAddr> {
    match *sockaddr.get(1)? {
        INET => Some(Ipv4Addr::from(*sockaddr.get(4..)?.first_chunk::<4>()?).into()),
        INET6 => {
            let mut bytes = *sockaddr.get(8..)?.first_chunk::<16>()?;
            // The kernel keeps the scope of fe80::/10 inside the address.
            if let [0xfe, second, third, fourth, ..] = &mut bytes
                && *second & 0xc0 == 0x80
            {
                (*third, *fourth) = (0, 0);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// The ones of a mask, whose zeros at the end may have been left out.
fn prefix(mask: &[u8], like: IpAddr) -> u8 {
    let start = if like.is_ipv4() { 4 } else { 8 };
    let ones = mask.get(start..).unwrap_or_default().iter().map(|byte| byte.count_ones()).sum::<u32>();
    u8::try_from(ones).unwrap_or(u8::MAX)
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(flags: u32, index: u16, addresses: &[(u32, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; ROUTE_HEADER];
        message[4..6].copy_from_slice(&index.to_ne_bytes());
        message[8..12].copy_from_slice(&flags.to_ne_bytes());
        let which: u32 = addresses.iter().map(|(bit, _)| bit).sum();
        message[12..16].copy_from_slice(&which.to_ne_bytes());
        for (_, address) in addresses {
            message.extend_from_slice(address);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        let length = u16::try_from(message.len()).unwrap();
        message[..2].copy_from_slice(&length.to_ne_bytes());
        message
    }

    fn inet(address: [u8; 4]) -> Vec<u8> {
        [&[16, INET, 0, 0][..], &address, &[0; 8]].concat()
    }

    #[test]
    fn a_dump_gives_networks_hosts_and_the_default_route() {
        let link: &[u8] = &[20, 18, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut inet6 = vec![28, INET6, 0, 0, 0, 0, 0, 0, 0xfe, 0x80, 0, 4];
        inet6.resize(28, 0);
        let dump = [
            // Short masks are as the kernel gives them.
            message(0, 4, &[(1, &inet([0; 4])), (2, &inet([192, 168, 1, 1])), (4, &[0])]),
            message(0, 4, &[(1, &inet([100, 64, 0, 0])), (2, link), (4, &[6, 0, 0, 0, 255, 192])]),
            message(IS_HOST, 5, &[(1, &inet([100, 72, 0, 9])), (2, link)]),
            message(
                0,
                4,
                &[(1, &inet6), (2, link), (4, &[16, 30, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255])],
            ),
            message(IS_NOBODYS, 4, &[(1, &inet([224, 0, 0, 0]))]),
            message(0, 1, &[(1, &inet([127, 0, 0, 0])), (4, &[5, 0, 0, 0, 255])]),
        ]
        .concat();
        let found: Vec<String> = routes(&dump)
            .iter()
            .map(|route| format!("{} {:?} {:?}", route.destination, route.gateway, route.interface))
            .collect();
        assert_eq!(
            found,
            [
                "0.0.0.0/0 Some(192.168.1.1) Some(4)",
                "100.64.0.0/10 None Some(4)",
                "100.72.0.9/32 None Some(5)",
                "fe80::/64 None Some(4)",
            ]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(dump in proptest::collection::vec(any::<u8>(), 0..600)) {
            routes(&dump);
            change(&dump);
        }
    }
}
