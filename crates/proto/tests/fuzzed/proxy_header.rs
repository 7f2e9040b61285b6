//! What holds for any bytes that a connection may begin with.

use std::net::IpAddr;

use postern_proto::proxy_header::{MAX_REST, PREFIX, SIGNATURE, client, rest_length};

/// Whatever is read as a client's address stands in the bytes of a header that begins with the signature.
pub(crate) fn check(bytes: &[u8]) {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else { return };
    let Ok(length) = rest_length(prefix) else {
        assert!(client(prefix, rest).is_err());
        return;
    };
    assert!(length <= MAX_REST && prefix.starts_with(&SIGNATURE));
    let Some(rest) = rest.get(..length) else {
        assert!(client(prefix, rest).is_err(), "it was cut short");
        return;
    };
    let Ok(Some(address)) = client(prefix, rest) else { return };
    let octets = match address.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    assert!(rest.windows(octets.len()).any(|window| window == octets));
    assert!(rest.windows(2).any(|window| window == address.port().to_be_bytes()));
    // What follows the addresses changes nothing.
    if length < MAX_REST {
        let mut longer = *prefix;
        longer[PREFIX - 2..].copy_from_slice(&u16::try_from(length + 1).unwrap().to_be_bytes());
        assert_eq!(client(&longer, &[rest, &[0xff]].concat()), Ok(Some(address)));
    }
}
