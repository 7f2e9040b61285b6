//! What a packet and a connection cost, by the number of flows that exist, against a peer made by hand in memory.
//!
//! `cargo run --release -p postern-netstack --example flow_cost [-- --json]`. Each packet carries 1,000 bytes, is read at
//! once and acknowledged. `one` keeps to one flow while the others are idle; `turn` gives every flow a packet in turn, so
//! that each packet finds its flow and its ring out of the caches. `copy` is what of that no stack can avoid: copying those
//! bytes, in the same order, to the next place of as many rings. `read` is what it takes to look at one word of each flow's
//! state, 4 KiB a flow, when which one is known only from the one before: the least that a packet pays for a flow that is
//! out of the caches. All rings have 64 KiB and were used whole before. The
//! best of several rounds counts; making the packets is included (a few nanoseconds: four fields of one packet change).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a benchmark that prints")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use postern_netstack::{Address, AddressTable, Event, FlowId, MAX_PACKET, Offload, RingSizes, Stack, StackConfig};

const DATA: usize = 1000;
const ROUNDS: usize = 7;
const PACKETS: usize = 200_000;
const GSO: usize = 65_000;
const RING: usize = 64 << 10;

fn main() {
    let json = std::env::args().any(|arg| arg == "--json");
    let small = RingSizes { large: RING, medium: RING, small: RING, ..RingSizes::default() };
    let mut beds: Vec<(usize, Bed)> =
        [1, 1000, 20_000].into_iter().map(|flows| (flows, Bed::new(flows, small.clone()))).collect();
    for (flows, bed) in &mut beds {
        bed.carry(*flows * 70, *flows);
    }
    let mut costs: BTreeMap<(&str, usize), Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for (flows, bed) in &mut beds {
            costs.entry(("one", *flows)).or_default().push(bed.carry(PACKETS, 1));
            costs.entry(("turn", *flows)).or_default().push(bed.carry(PACKETS, *flows));
        }
    }
    drop(beds);
    for flows in [1, 1000, 20_000] {
        costs.insert(("copy", flows), copies(flows));
        costs.insert(("read", flows), reads(flows));
    }
    for (name, flows) in costs.keys().copied().collect::<Vec<_>>() {
        let (cost, base) = (best(&costs[&(name, flows)]), best(&costs[&(name, 1)]));
        if json {
            println!(
                "{{\"what\":\"packet\",\"order\":\"{name}\",\"flows\":{flows},\"ns\":{cost:.0},\"ratio\":{:.2}}}",
                cost / base
            );
        } else {
            println!("packet, {name:4}, {flows:>6} flows: {cost:6.0} ns, {:.2} times one flow's", cost / base);
        }
    }
    let mut bed = Bed::new(1, RingSizes::default());
    let (up, down) = (bed.upload(), bed.download());
    let connect = bed.connections();
    if json {
        println!(
            "{{\"what\":\"stream\",\"up_gbps\":{up:.1},\"down_gbps\":{down:.1},\"connections_per_s\":{connect:.0}}}"
        );
    } else {
        println!("one stream of 64 KiB segments: up {up:.1} Gbit/s, down {down:.1} Gbit/s");
        println!("connections: {connect:.0} a second");
    }
}

/// Nanoseconds for copying a packet's data to each of `rings` rings in turn.
fn copies(rings: usize) -> Vec<f64> {
    let (data, mut rings) = ([7_u8; DATA], vec![vec![1_u8; RING]; rings]);
    let (places, count) = (RING / DATA, rings.len());
    let mut copy = || {
        let start = Instant::now();
        for at in 0..PACKETS {
            let from = at / count % places * DATA;
            rings[at % count][from..from + DATA].copy_from_slice(&data);
        }
        std::hint::black_box(&mut rings);
        start.elapsed().as_nanos() as f64 / PACKETS as f64
    };
    (0..ROUNDS).map(|_| copy()).collect()
}

/// Nanoseconds for reading one word of each of `flows` states, none of which is beside the one before.
fn reads(flows: usize) -> Vec<f64> {
    const WORDS: usize = 4096 / 8;
    let mut states = vec![0_usize; flows * WORDS];
    // 7919 is a prime that divides none of the numbers of flows.
    for at in 0..flows {
        states[at * 7919 % flows * WORDS] = (at + 1) * 7919 % flows;
    }
    let chase = || {
        let (start, mut at) = (Instant::now(), 0);
        for _ in 0..PACKETS {
            at = states[at * WORDS];
        }
        std::hint::black_box(at);
        start.elapsed().as_nanos() as f64 / PACKETS as f64
    };
    (0..ROUNDS).map(|_| chase()).collect()
}

fn best(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// A flow as the peer sees it.
#[derive(Clone, Copy)]
struct Peer {
    flow: FlowId,
    ends: Ends,
}

/// What its next segment says.
#[derive(Clone, Copy)]
struct Ends {
    source: (Ipv4Addr, u16),
    destination: Ipv4Addr,
    sequence: u32,
    acknowledgement: u32,
}

struct Bed {
    stack: Stack,
    peers: Vec<Peer>,
    packet: Vec<u8>,
    out: Vec<u8>,
    now: Instant,
}

impl Bed {
    fn new(flows: usize, rings: RingSizes) -> Self {
        let now = Instant::now();
        let config = StackConfig { offload: true, rings, ..StackConfig::default() };
        let mut stack = Stack::new(config, 1, now);
        let addresses = (0..8).map(|host| {
            (IpAddr::from(Ipv4Addr::new(100, 72, 1, host)), Address { ports: vec![443..=443], reachable: true })
        });
        stack.set_addresses(AddressTable {
            networks: vec![(Ipv4Addr::new(100, 72, 0, 0).into(), 16)],
            addresses: addresses.collect(),
            ..AddressTable::default()
        });
        let mut bed = Self { stack, peers: Vec::new(), packet: vec![0; MAX_PACKET], out: vec![0; MAX_PACKET], now };
        for at in 0..flows {
            let peer = bed.open(at);
            bed.peers.push(peer);
        }
        bed
    }

    /// The packet of a segment, in `self.packet`; gives its length.
    fn write(&mut self, peer: &Ends, flags: u8, data: usize) -> usize {
        let length = 40 + data;
        let packet = &mut self.packet;
        packet[..10].copy_from_slice(&[0x45, 0, (length >> 8) as u8, length as u8, 0, 0, 0x40, 0, 64, 6]);
        packet[12..16].copy_from_slice(&peer.source.0.octets());
        packet[16..20].copy_from_slice(&peer.destination.octets());
        packet[20..22].copy_from_slice(&peer.source.1.to_be_bytes());
        packet[22..24].copy_from_slice(&443u16.to_be_bytes());
        packet[24..28].copy_from_slice(&peer.sequence.to_be_bytes());
        packet[28..32].copy_from_slice(&peer.acknowledgement.to_be_bytes());
        packet[32..36].copy_from_slice(&[5 << 4, flags, 0xff, 0xff]);
        length
    }

    fn send(&mut self, peer: &Ends, flags: u8, data: usize) {
        let length = self.write(peer, flags, data);
        self.stack.handle_packet(self.now, &self.packet[..length], Offload::default());
    }

    fn open(&mut self, at: usize) -> Peer {
        let source = (Ipv4Addr::new(100, 72, 0, 1), (10_000 + at % 50_000) as u16);
        let destination = Ipv4Addr::new(100, 72, 1, (at / 50_000) as u8);
        // A SYN with a window scale: 8 bytes of options.
        self.write(&Ends { source, destination, sequence: 1000, acknowledgement: 0 }, 2, 8);
        self.packet[32] = 7 << 4;
        self.packet[40..48].copy_from_slice(&[2, 4, 5, 180, 1, 3, 3, 10]);
        self.stack.handle_packet(self.now, &self.packet[..48], Offload::default());
        let event = self.stack.poll_event();
        let Some(Event::Syn { flow, .. }) = event else {
            panic!("{event:?} instead of a SYN, {:?}", self.stack.stats())
        };
        self.stack.accept(flow).unwrap();
        assert!(self.stack.poll_transmit(self.now, &mut self.out).is_some());
        let first = u32::from_be_bytes(self.out[24..28].try_into().unwrap());
        let ends = Ends { source, destination, sequence: 1001, acknowledgement: first.wrapping_add(1) };
        let peer = Peer { flow, ends };
        self.send(&ends, 16, 0);
        self.drain();
        peer
    }

    fn drain(&mut self) {
        loop {
            while self.stack.poll_transmit(self.now, &mut self.out).is_some() {}
            // Sending a last packet may end a flow.
            if std::iter::from_fn(|| self.stack.poll_event()).count() == 0 {
                return;
            }
        }
    }

    /// Nanoseconds for each of `packets` packets to the first `flows` flows in turn.
    fn carry(&mut self, packets: usize, flows: usize) -> f64 {
        let start = Instant::now();
        for at in 0..packets {
            let mut peer = self.peers[at % flows];
            self.send(&peer.ends, 16, DATA);
            while let Some(event) = self.stack.poll_event() {
                if let Event::Readable(flow) = event {
                    let mut taken = 0;
                    while taken < DATA {
                        taken += self.stack.recv(flow, |bytes| bytes.len()).unwrap();
                    }
                }
            }
            assert!(self.stack.poll_transmit(self.now, &mut self.out).is_some(), "an acknowledgement");
            assert!(self.stack.poll_transmit(self.now, &mut self.out).is_none());
            peer.ends.sequence = peer.ends.sequence.wrapping_add(DATA as u32);
            self.peers[at % flows] = peer;
            if at % 64 == 0 {
                self.now += Duration::from_micros(10);
                self.stack.handle_timeout(self.now);
            }
        }
        start.elapsed().as_nanos() as f64 / packets as f64
    }

    /// Gbit/s of segments of 65,000 bytes to us.
    fn upload(&mut self) -> f64 {
        let (rounds, start) = (100_000, Instant::now());
        let mut peer = self.peers[0];
        let mut sink = vec![0u8; GSO];
        for _ in 0..rounds {
            self.send(&peer.ends, 16, GSO);
            while self.stack.poll_event().is_some() {}
            let mut taken = 0;
            while taken < GSO {
                taken += self
                    .stack
                    .recv(peer.flow, |bytes| {
                        sink[..bytes.len()].copy_from_slice(bytes);
                        bytes.len()
                    })
                    .unwrap();
            }
            while self.stack.poll_transmit(self.now, &mut self.out).is_some() {}
            peer.ends.sequence = peer.ends.sequence.wrapping_add(GSO as u32);
        }
        self.peers[0] = peer;
        gbps(rounds * GSO, start)
    }

    /// Gbit/s of segments from us.
    fn download(&mut self) -> f64 {
        let (mut carried, start) = (0, Instant::now());
        let source = vec![7u8; GSO];
        let mut peer = self.peers[0];
        while carried < 100_000 * GSO {
            while let Ok(length) = self.stack.send(peer.flow, |room| {
                let length = room.len().min(GSO);
                room[..length].copy_from_slice(&source[..length]);
                length
            }) {
                carried += length;
            }
            while let Some(sent) = self.stack.poll_transmit(self.now, &mut self.out) {
                peer.ends.acknowledgement = peer.ends.acknowledgement.wrapping_add(sent.len as u32 - 40);
            }
            self.send(&peer.ends, 16, 0);
            while self.stack.poll_event().is_some() {}
        }
        self.peers[0] = peer;
        gbps(carried, start)
    }

    /// Connections a second: handshake, both ends close.
    fn connections(&mut self) -> f64 {
        let (rounds, start) = (200_000, Instant::now());
        for at in 0..rounds {
            let mut peer = self.open(1 + at % 40_000);
            self.stack.close(peer.flow).unwrap();
            self.drain();
            peer.ends.acknowledgement = peer.ends.acknowledgement.wrapping_add(1);
            self.send(&peer.ends, 17, 0);
            self.drain();
            self.now += Duration::from_micros(100);
            self.stack.handle_timeout(self.now);
        }
        assert_eq!(self.stack.stats().flows, 1);
        rounds as f64 / start.elapsed().as_secs_f64()
    }
}

fn gbps(bytes: usize, start: Instant) -> f64 {
    bytes as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9
}
