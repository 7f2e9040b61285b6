//! What must hold whatever a program sends, and whatever the owner does meanwhile.
//!
//! The input is a list of steps. Packets come raw, or as a TCP segment whose numbers lie near those that the stack itself
//! used last, so that the depth of TCP is reached and not only its door.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use postern_netstack::{
    Address, AddressTable, Answers, Event, FlowId, MAX_COUPLED, MAX_PACKET, Offload, RingSizes, Stack, StackConfig,
};

const CLIENT: Ipv4Addr = Ipv4Addr::new(100, 72, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(100, 72, 1, 9);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(100, 72, 0, 2);
const MTU: usize = 1500;
const MAX_FLOWS: usize = 6;

/// Runs the steps in `bytes`.
pub(crate) fn check(bytes: &[u8]) {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let mut bed = Bed::new(first);
    let mut input = rest;
    while let Some(rest) = bed.step(input) {
        bed.drain();
        input = rest;
    }
    bed.finish();
}

struct Bed {
    stack: Stack,
    start: Instant,
    elapsed: Duration,
    /// By the program's port: where our numbers and the program's stand.
    numbers: BTreeMap<u16, (u32, u32)>,
    flows: Vec<FlowId>,
    out: Vec<u8>,
}

impl Bed {
    fn new(flags: u8) -> Self {
        let large = flags & 8 != 0;
        let rings = if large {
            RingSizes { large: 256 << 10, ..RingSizes::default() }
        } else {
            RingSizes { large: 4096, medium: 8192, small: 16_384, few_flows: 2, many_flows: 4 }
        };
        let config = StackConfig {
            mtu: MTU,
            offload: flags & 1 != 0,
            largest: if large { MAX_COUPLED } else { MAX_PACKET },
            answers: if flags & 2 != 0 { Answers::Asked } else { Answers::Direct },
            max_flows: MAX_FLOWS,
            max_held: 3,
            rings,
            pool: 40_000,
            ..StackConfig::default()
        };
        let start = Instant::now();
        let mut stack = Stack::new(config, u64::from(flags), start);
        let six = "fd00:72::9".parse().unwrap_or(IpAddr::V4(SERVER));
        let resource = Address { ports: vec![0..=100], reachable: true };
        stack.set_addresses(AddressTable {
            networks: vec![(Ipv4Addr::new(100, 72, 0, 0).into(), 16), (six, 48)],
            device: if flags & 4 != 0 { vec![CLIENT.into()] } else { Vec::new() },
            resolvers: vec![(RESOLVER, 53).into()],
            addresses: BTreeMap::from([(SERVER.into(), resource.clone()), (six, resource)]),
        });
        Self {
            stack,
            start,
            elapsed: Duration::ZERO,
            numbers: BTreeMap::new(),
            flows: Vec::new(),
            out: vec![0; MAX_COUPLED],
        }
    }

    /// Does one step, and gives what is left of the input.
    fn step<'a>(&mut self, input: &'a [u8]) -> Option<&'a [u8]> {
        let (&[kind, a, b, c], rest) = input.split_first_chunk::<4>()?;
        match kind % 12 {
            0 => {
                let length = usize::from(u16::from_le_bytes([a, b])).min(rest.len());
                let (packet, rest) = rest.split_at_checked(length)?;
                self.stack.handle_packet(self.now(), packet, Offload::default());
                return Some(rest);
            }
            1..=5 => self.segment(a, b, c, kind),
            6 => {
                self.elapsed += Duration::from_millis(u64::from(a) << (b % 16));
                self.stack.handle_timeout(self.now());
            }
            7 => self.act(a, |stack, flow| {
                let _ = stack.accept(flow);
            }),
            8 => self.act(a, |stack, flow| {
                let _ = match b % 4 {
                    0 => stack.refuse(flow),
                    1 => stack.drop_flow(flow),
                    2 => stack.abort(flow),
                    _ => stack.claim(flow, u32::from(c % 2)),
                };
            }),
            9 => self.act(a, |stack, flow| {
                let _ = stack.send(flow, |room| room.len().min(usize::from(b) * usize::from(c)));
            }),
            10 => self.act(a, |stack, flow| {
                let _ = stack.recv(flow, |data| data.len().min(usize::from(b) * usize::from(c)));
            }),
            _ => self.act(a, |stack, flow| {
                let _ = stack.close(flow);
            }),
        }
        Some(rest)
    }

    fn act(&mut self, which: u8, act: impl FnOnce(&mut Stack, FlowId)) {
        if let Some(flow) = self.flows.iter().rev().nth(usize::from(which) % 8) {
            act(&mut self.stack, *flow);
        }
    }

    /// A segment of one of four ports, with numbers near the expected ones.
    fn segment(&mut self, who: u8, how: u8, flags: u8, kind: u8) {
        let port = u16::from(who % 4);
        let (ours, theirs) = self.numbers.get(&port).copied().unwrap_or((0, 1000));
        let near = |number: u32, by: u8| match by & 3 {
            0 => number,
            1 => number.wrapping_add(u32::from(by)),
            2 => number.wrapping_sub(u32::from(by)),
            _ => number.wrapping_add(u32::from(by) << 24),
        };
        let data = if kind & 1 == 0 { 0 } else { usize::from(how) * 13 };
        let options = if flags & 2 != 0 { 8 } else { 0 };
        let length = 40 + options + data;
        let sequence = near(theirs, who >> 2);
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0];
        packet.extend_from_slice(&CLIENT.octets());
        packet.extend_from_slice(&SERVER.octets());
        packet.extend_from_slice(&port.to_be_bytes());
        packet.extend_from_slice(&80u16.to_be_bytes());
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&near(ours, how >> 5).to_be_bytes());
        let offset = if options > 0 { 7 << 4 } else { 5 << 4 };
        packet.extend_from_slice(&[offset, flags, how, how, 0, 0, 0, 0]);
        if options > 0 {
            packet.extend_from_slice(&[2, 4, how & 7, how, 1, 3, 3, who & 15]);
        }
        packet.resize(length, who);
        if let Some(field) = packet.get_mut(2..4) {
            field.copy_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        }
        let control = u32::from(flags & 2 != 0) + u32::from(flags & 1 != 0);
        let next = sequence.wrapping_add(u32::try_from(data).unwrap_or(0)).wrapping_add(control);
        self.numbers.insert(port, (ours, next));
        self.stack.handle_packet(self.now(), &packet, Offload::default());
    }

    /// Takes all packets and events, which must come to an end, and looks at them.
    fn drain(&mut self) {
        for _ in 0..1000 {
            let mut quiet = true;
            while let Some(sent) = self.stack.poll_transmit(self.now(), &mut self.out) {
                quiet = false;
                self.look_at(sent.len, sent.offload);
            }
            while let Some(event) = self.stack.poll_event() {
                quiet = false;
                self.hear(event);
            }
            if quiet {
                return self.look_around();
            }
        }
        panic!("packets and events never end");
    }

    fn look_at(&mut self, length: usize, offload: Offload) {
        let packet = self.out.get(..length).unwrap_or_default();
        let &[first, _, l0, l1, _, _, _, _, _, protocol, _, _, s0, s1, s2, s3, ..] = packet else {
            panic!("{length} bytes are no packet")
        };
        if first >> 4 == 6 {
            return;
        }
        assert_eq!(first, 0x45);
        let said = usize::from(u16::from_be_bytes([l0, l1]));
        assert_eq!(said, if length > MAX_PACKET { 0 } else { length });
        assert!(length <= MAX_PACKET || offload.segmentation.is_some(), "{length} bytes that are not cut");
        assert!([s0, s1] == [100, 72], "from {s0}.{s1}.{s2}.{s3}");
        if let Some(segmentation) = offload.segmentation {
            assert!(usize::from(segmentation.size) + usize::from(segmentation.headers) <= MTU);
            assert!(segmentation.size > 0 && length > usize::from(segmentation.size));
        } else if protocol == 6 {
            assert!(length <= MTU, "{length} bytes");
        }
        if let (6, Some(&[_, _, d0, d1, n0, n1, n2, n3, _, _, _, _, offset, flags])) =
            (protocol, packet.get(20..34).and_then(|header| header.first_chunk::<14>()))
        {
            let data = length - 20 - usize::from(offset >> 4) * 4;
            let control = u32::from(flags & 2 != 0) + u32::from(flags & 1 != 0);
            let next = u32::from_be_bytes([n0, n1, n2, n3])
                .wrapping_add(u32::try_from(data).unwrap_or(0))
                .wrapping_add(control);
            let port = u16::from_be_bytes([d0, d1]);
            let theirs = self.numbers.get(&port).map_or(1000, |numbers| numbers.1);
            if self.numbers.len() < 16 {
                self.numbers.insert(port, (next, theirs));
            }
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Syn { flow, .. } => {
                assert!(self.stack.flow(flow).is_some_and(|info| info.held));
                self.flows.push(flow);
            }
            Event::Closed { flow, .. } => {
                assert!(self.stack.flow(flow).is_none());
                assert!(self.flows.contains(&flow), "never told of");
            }
            Event::Readable(flow) | Event::Writable(flow) | Event::PeerClosed(flow) => {
                assert!(self.stack.flow(flow).is_some_and(|info| !info.held));
            }
            Event::Answer { answer, .. } => self.stack.release(answer),
            Event::Datagram { source, destination, payload } => {
                self.stack.send_datagram(destination, source, &payload);
            }
        }
    }

    fn look_around(&self) {
        let stats = self.stack.stats();
        assert!(stats.flows <= MAX_FLOWS && stats.held <= 3, "{stats:?}");
        assert_eq!(stats.faults, 0, "the TCP implementation failed");
        if let Some(at) = self.stack.poll_timeout() {
            assert!(at > self.now(), "a busy loop");
        }
    }

    /// All flows end, and leave nothing behind.
    fn finish(mut self) {
        self.stack.retain_flows(|_| false);
        self.drain();
        let stats = self.stack.stats();
        assert_eq!((stats.flows, stats.held), (0, 0));
        assert_eq!(self.stack.poll_timeout(), None);
    }

    fn now(&self) -> Instant {
        self.start + self.elapsed
    }
}
