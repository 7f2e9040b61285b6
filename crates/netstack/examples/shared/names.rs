//! The made-up names that the examples about names answer.

use std::{error::Error, net::Ipv4Addr};

use postern_netstack::dns::{Contents, Known, Range};

/// Where the names are.
pub(crate) const SUBNET: &str = "100.72.0.0/16";

/// `host-0.bench` to `host-<count - 1>.bench`, each at an address of its own.
pub(crate) fn contents(count: u16) -> Result<Contents, Box<dyn Error>> {
    let known = |host: u16| {
        let [high, low] = host.to_be_bytes();
        let addresses = vec![Ipv4Addr::new(100, 72, high, low).into()];
        Ok(Known { name: format!("host-{host}.bench").parse()?, addresses, notice: None })
    };
    Ok(Contents {
        zones: vec!["bench".parse()?],
        names: (0..count).map(known).collect::<Result<_, Box<dyn Error>>>()?,
        wildcards: vec![],
        bypass: vec![],
        resolver: vec![Ipv4Addr::new(100, 72, 255, 254).into()],
        range: Range { v4: SUBNET.parse()?, v6: None },
        notice: None,
        serial: 1,
    })
}
