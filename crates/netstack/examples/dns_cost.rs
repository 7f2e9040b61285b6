//! What an answer of the resolver costs by itself, without sockets: prints nanoseconds for each of 1,000 names.

use std::{error::Error, sync::Arc, time::Instant};

use postern_netstack::dns::{HostAddresses, Outcome, Resolver, Table, Transport};

#[path = "shared/names.rs"]
mod names;

use names::{SUBNET, contents};

const NAMES: u16 = 1000;
const ROUNDS: u32 = 3000;

fn main() -> Result<(), Box<dyn Error>> {
    let table = Table::new(contents(NAMES)?)?;
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
