//! The header with which a layer-4 balancer says whose connection it passes on: the PROXY protocol, version 2, of
//! HAProxy (`proxy-protocol.txt` §2.2).
//!
//! A header is [`PREFIX`] bytes that say how long the rest is, and the rest: addresses, and extensions that are passed
//! over. It proves nothing by itself: only what comes from a balancer's own address may be read as one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What every header begins with. No TLS record and no HTTP request does.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and protocol, and the length of the rest.
pub const PREFIX: usize = 16;
/// The longest rest that is read. Addresses take 36 bytes; what balancers add (names, TLS versions, identifiers of
/// endpoints) is far shorter than this.
pub const MAX_REST: usize = 2048;

const COMMAND_LOCAL: u8 = 0x20;
const COMMAND_PROXY: u8 = 0x21;
const STREAM_V4: u8 = 0x11;
const STREAM_V6: u8 = 0x21;
/// Unspecified, datagrams and Unix sockets: known, and without an address that is of use here.
const NO_CLIENT: [u8; 5] = [0x00, 0x12, 0x22, 0x31, 0x32];

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyHeaderError {
    #[error("the connection does not begin with a PROXY protocol header")]
    Missing,
    #[error("it is a header of version 1 of the PROXY protocol; the balancer has to send version 2")]
    FirstVersion,
    #[error("the PROXY protocol header says something that version 2 does not know")]
    Unknown,
    #[error("the PROXY protocol header is {0} bytes long, {MAX_REST} at most are read")]
    TooLong(usize),
    #[error("the PROXY protocol header is too short for its addresses")]
    TooShort,
}

/// How long the rest is.
pub fn rest_length(prefix: &[u8; PREFIX]) -> Result<usize, ProxyHeaderError> {
    if prefix.starts_with(b"PROXY ") {
        return Err(ProxyHeaderError::FirstVersion);
    }
    let Some([command, family, high, low]) = prefix.strip_prefix(&SIGNATURE) else {
        return Err(ProxyHeaderError::Missing);
    };
    let known_family = [STREAM_V4, STREAM_V6].contains(family) || NO_CLIENT.contains(family);
    // A balancer that speaks for itself may say any family.
    if *command != COMMAND_LOCAL && !(*command == COMMAND_PROXY && known_family) {
        return Err(ProxyHeaderError::Unknown);
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > MAX_REST { Err(ProxyHeaderError::TooLong(length)) } else { Ok(length) }
}

/// Where the client's connection comes from; `None` when the balancer speaks for itself (a health check) or does not
/// know. `rest` is as long as [`rest_length`] says.
pub fn client(prefix: &[u8; PREFIX], rest: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let length = rest_length(prefix)?;
    let [.., command, family, _, _] = *prefix;
    if rest.len() != length {
        return Err(ProxyHeaderError::TooShort);
    }
    match (command, family) {
        (COMMAND_PROXY, STREAM_V4) => {
            let addresses: &[u8; 12] = rest.first_chunk().ok_or(ProxyHeaderError::TooShort)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *addresses;
            let port = u16::from_be_bytes([high, low]);
            Ok(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port)))
        }
        (COMMAND_PROXY, STREAM_V6) => {
            let addresses: &[u8; 36] = rest.first_chunk().ok_or(ProxyHeaderError::TooShort)?;
            let source: &[u8; 16] = addresses.first_chunk().ok_or(ProxyHeaderError::TooShort)?;
            let [.., high, low, _, _] = *addresses;
            let port = u16::from_be_bytes([high, low]);
            Ok(Some(SocketAddr::new(Ipv6Addr::from(*source).to_canonical(), port)))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> ([u8; PREFIX], Vec<u8>) {
        let mut prefix = [0; PREFIX];
        prefix[..12].copy_from_slice(&SIGNATURE);
        prefix[12] = command;
        prefix[13] = family;
        prefix[14..].copy_from_slice(&u16::try_from(rest.len()).unwrap().to_be_bytes());
        (prefix, rest.to_vec())
    }

    #[test]
    fn the_clients_address_is_read_in_both_families_and_what_follows_it_is_passed_over() {
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0x13, 0x88];
        let (prefix, rest) = header(0x21, 0x11, &four);
        assert_eq!(client(&prefix, &rest), Ok(Some("192.0.2.7:12345".parse().unwrap())));
        let extended = [four.as_slice(), &[0x04, 0, 2, 1, 2]].concat();
        let (prefix, rest) = header(0x21, 0x11, &extended);
        assert_eq!(client(&prefix, &rest), Ok(Some("192.0.2.7:12345".parse().unwrap())));
        let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let six = [source.octets().as_slice(), &[0; 16], &[0x30, 0x39, 0, 0]].concat();
        let (prefix, rest) = header(0x21, 0x21, &six);
        assert_eq!(client(&prefix, &rest), Ok(Some("[2001:db8::7]:12345".parse().unwrap())));
        let mapped: Ipv6Addr = "::ffff:192.0.2.7".parse().unwrap();
        let six = [mapped.octets().as_slice(), &[0; 16], &[0x30, 0x39, 0, 0]].concat();
        let (prefix, rest) = header(0x21, 0x21, &six);
        assert_eq!(client(&prefix, &rest), Ok(Some("192.0.2.7:12345".parse().unwrap())));
    }

    #[test]
    fn a_balancer_that_speaks_for_itself_names_no_client() {
        for (command, family) in [(0x20, 0x00), (0x20, 0x11), (0x21, 0x00), (0x21, 0x31), (0x21, 0x12)] {
            let (prefix, rest) = header(command, family, &[0; 216]);
            assert_eq!(client(&prefix, &rest), Ok(None));
        }
        let (prefix, rest) = header(0x20, 0x00, &[]);
        assert_eq!(client(&prefix, &rest), Ok(None));
    }

    #[test]
    fn what_is_no_header_is_told_apart() {
        assert_eq!(rest_length(b"PROXY TCP4 192.0"), Err(ProxyHeaderError::FirstVersion));
        assert_eq!(rest_length(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\0\0\0\0\0"), Err(ProxyHeaderError::Missing));
        for (command, family) in [(0x11, 0x11), (0x22, 0x11), (0x21, 0x13), (0x21, 0x41), (0x31, 0x11)] {
            assert_eq!(rest_length(&header(command, family, &[0; 12]).0), Err(ProxyHeaderError::Unknown));
        }
        let (prefix, _) = header(0x21, 0x11, &[0; MAX_REST + 1]);
        assert_eq!(rest_length(&prefix), Err(ProxyHeaderError::TooLong(MAX_REST + 1)));
        let (prefix, rest) = header(0x21, 0x21, &[0; 35]);
        assert_eq!(client(&prefix, &rest), Err(ProxyHeaderError::TooShort));
        assert_eq!(client(&prefix, &rest[1..]), Err(ProxyHeaderError::TooShort));
    }
}
