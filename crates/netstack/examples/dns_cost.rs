//! What an answer of the resolver costs by itself, without sockets: prints nanoseconds for each of 1,000 names.

use std::{error::Error, net::Ipv4Addr, sync::Arc, time::Instant};

use postern_netstack::dns::{Contents, HostAddresses, Known, Outcome, Range, Resolver, Table, Transport};

const NAMES: u16 = 1000;
const ROUNDS: u32 = 3000;
const SUBNET: &str = "100.72.0.0/16";

fn main() -> Result<(), Box<dyn Error>> {
    let known = |host: u16| {
        let [high, low] = host.to_be_bytes();
        let addresses = vec![Ipv4Addr::new(100, 72, high, low).into()];
        Ok(Known { name: format!("host-{host}.bench").parse()?, addresses, notice: None })
    };
    let table = Table::new(Contents {
        zones: vec!["bench".parse()?],
        names: (0..NAMES).map(known).collect::<Result<_, Box<dyn Error>>>()?,
        wildcards: vec![],
        bypass: vec![],
        resolver: vec![Ipv4Addr::new(100, 72, 255, 254).into()],
        range: Range { v4: SUBNET.parse()?, v6: None },
        notice: None,
        serial: 1,
    })?;
    let (resolver, mut hosts) = (Resolver::new(Arc::new(table)), HostAddresses::new(SUBNET.parse()?));
    let queries: Vec<Vec<u8>> = (0..NAMES).map(|host| query(&format!("host-{host}.bench"))).collect();
    let mut answer = Vec::new();
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        for query in &queries {
            let outcome = resolver.answer(Transport::Udp, std::hint::black_box(query), &mut hosts, &mut answer);
            if !matches!(outcome, Outcome::Answered(_)) || answer.len() < query.len() {
                return Err("no answer".into());
            }
        }
    }
    let nanos = begun.elapsed().as_nanos() / u128::from(ROUNDS) / u128::from(NAMES);
    println!("{nanos} ns for each answer");
    Ok(())
}

/// As systems send it, with EDNS.
fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap_or(63));
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1, 0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
    message
}
