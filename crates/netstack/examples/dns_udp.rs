//! The resolver behind a plain UDP socket on loopback, for measuring it beside other DNS servers. Not for use: it answers
//! from a made-up table, and knows nothing of TCP.
//!
//! `dns_udp NAMES THREADS` answers `host-0.bench` to `host-<NAMES - 1>.bench`. Once ready, it prints one JSON line with its
//! address.

use std::{
    error::Error,
    io,
    net::{Ipv4Addr, UdpSocket},
    sync::Arc,
    thread,
};

use postern_netstack::dns::{HostAddresses, Outcome, Resolver, Table, Transport};

#[path = "shared/names.rs"]
mod names;

use names::{SUBNET, contents};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let count: u16 = args.next().ok_or("how many names?")?.parse()?;
    let threads: usize = args.next().ok_or("how many threads?")?.parse()?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (resolver, hosts) =
        (Resolver::new(Arc::new(Table::new(contents(count)?)?)), HostAddresses::new(SUBNET.parse()?));
    println!(r#"{{"ready":true,"listen":"{}"}}"#, socket.local_addr()?);
    thread::scope(|scope| {
        // Each as a shard has it: a resolver of its own over the same table.
        let serving: Vec<_> = (0..threads)
            .map(|_| {
                let (resolver, hosts, socket) = (resolver.clone(), hosts.clone(), &socket);
                scope.spawn(move || serve(socket, &resolver, hosts))
            })
            .collect();
        serving.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?.map_err(Into::into))
    })
}

fn serve(socket: &UdpSocket, resolver: &Resolver, mut hosts: HostAddresses) -> io::Result<()> {
    let (mut message, mut answer) = (vec![0; 4096], Vec::new());
    loop {
        let (length, asker) = socket.recv_from(&mut message)?;
        let query = message.get(..length).unwrap_or_default();
        if let Outcome::Answered(_) = resolver.answer(Transport::Udp, query, &mut hosts, &mut answer) {
            // An asker that is gone is no reason to stop.
            let _ = socket.send_to(&answer, asker);
        }
    }
}
