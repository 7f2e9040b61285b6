//! What is written to a routing socket of a BSD system (route(4)), and to its `ioctl`s for addresses, as macOS has them:
//! bytes in the order of their C structures. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use super::route_dump::{HAS_DESTINATION, HAS_GATEWAY, HAS_NETMASK, INET, INET6, ROUTE_HEADER};

const VERSION: u8 = 5;
const ADD: u8 = 1;
const DELETE: u8 = 2;
/// `RTF_UP`, `RTF_STATIC`.
const FLAGS: u32 = 0x1 | 0x800;
/// `AF_LINK`, and the length of a `sockaddr_dl`.
const LINK: u8 = 18;
const LINK_BYTES: u8 = 20;
/// `IFNAMSIZ`.
const NAME: usize = 16;
/// Lifetimes of an IPv6 address: for ever.
const FOR_EVER: [u8; 4] = u32::MAX.to_ne_bytes();

/// What is to become of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Delete,
}

/// The message that adds or deletes the route of `network` to the interface with the number `index`.
pub(crate) fn route(verb: Verb, network: IpNet, index: u16, sequence: u32) -> Vec<u8> {
    let (destination, netmask) = (socket_address(network.network()), socket_address(network.netmask()));
    let index = index.to_ne_bytes();
    let link = [&[LINK_BYTES, LINK][..], &index, &[0; LINK_BYTES as usize - 4]].concat();
    let length = ROUTE_HEADER + destination.len() + link.len() + netmask.len();
    let kind = match verb {
        Verb::Add => ADD,
        Verb::Delete => DELETE,
    };
    let mut message = Vec::with_capacity(length);
    message.extend(u16::try_from(length).unwrap_or_default().to_ne_bytes());
    message.extend([VERSION, kind]);
    message.extend(index);
    message.extend([0; 2]);
    message.extend(FLAGS.to_ne_bytes());
    message.extend((HAS_DESTINATION | HAS_GATEWAY | HAS_NETMASK).to_ne_bytes());
    // The asking process, which the kernel fills in.
    message.extend([0; 4]);
    message.extend(sequence.to_ne_bytes());
    message.resize(ROUTE_HEADER, 0);
    message.extend(destination);
    message.extend(link);
    message.extend(netmask);
    message
}

/// `struct ifaliasreq` or `struct in6_aliasreq`: gives `interface` the address, alone in its network, its own peer.
pub(crate) fn alias(interface: &str, address: IpAddr) -> Vec<u8> {
    let mut request = name(interface);
    request.extend(socket_address(address));
    match address {
        IpAddr::V4(_) => {
            request.extend(socket_address(address));
            request.extend(socket_address(IpAddr::from([255; 4])));
        }
        IpAddr::V6(_) => {
            // No peer; flags; expiry and preference as times, then as lengths.
            request.extend([0; 28]);
            request.extend(socket_address(IpAddr::from([255_u8; 16])));
            request.extend([0; 4 + 16]);
            request.extend(FOR_EVER);
            request.extend(FOR_EVER);
        }
    }
    request
}

/// `struct ifreq` or `struct in6_ifreq`: names the address that `interface` is to lose.
pub(crate) fn address_request(interface: &str, address: IpAddr) -> Vec<u8> {
    let mut request = name(interface);
    request.extend(socket_address(address));
    // The other form is a union of 272 bytes.
    request.resize(if address.is_ipv4() { NAME + 16 } else { NAME + 272 }, 0);
    request
}

/// `struct ifreq` with a number in it.
pub(crate) fn number_request(interface: &str, number: u32) -> Vec<u8> {
    let mut request = name(interface);
    request.extend(number.to_ne_bytes());
    request.resize(NAME + 16, 0);
    request
}

/// Ends with a zero.
fn name(interface: &str) -> Vec<u8> {
    let mut name: Vec<u8> = interface.bytes().take(NAME - 1).collect();
    name.resize(NAME, 0);
    name
}

fn socket_address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => [&[16, INET, 0, 0][..], &address.octets(), &[0; 8]].concat(),
        IpAddr::V6(address) => [&[28, INET6, 0, 0, 0, 0, 0, 0][..], &address.octets(), &[0; 4]].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::route_dump::routes;

    #[test]
    fn a_route_that_is_written_is_the_route_that_a_dump_tells_of() {
        for network in ["100.72.0.0/16", "10.0.0.0/8", "192.168.7.128/29", "fd12:3456:789a::/48"] {
            let network: IpNet = network.parse().unwrap();
            let message = route(Verb::Add, network, 23, 1);
            assert_eq!(usize::from(u16::from_ne_bytes([message[0], message[1]])), message.len());
            let found = routes(&message);
            assert_eq!((found[0].destination, found[0].gateway, found[0].interface), (network, None, Some(23)));
            let delete = route(Verb::Delete, network, 23, 1);
            assert_eq!((delete[3], message[3], delete[4..] == message[4..]), (2, 1, true));
        }
    }

    #[test]
    fn requests_have_the_sizes_that_are_part_of_their_numbers() {
        let (four, six) = ("100.72.0.1".parse().unwrap(), "fd12:3456:789a::1".parse().unwrap());
        assert_eq!((alias("utun7", four).len(), alias("utun7", six).len()), (64, 128));
        assert_eq!((address_request("utun7", four).len(), address_request("utun7", six).len()), (32, 288));
        assert_eq!(&number_request("a name that is much too long", 1500)[..NAME], b"a name that is \0");
        assert_eq!(alias("utun7", four)[NAME..NAME + 8], [16, 2, 0, 0, 100, 72, 0, 1]);
    }
}
