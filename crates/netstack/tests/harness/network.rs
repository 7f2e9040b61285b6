//! A stack and a program's kernel, with a wire in memory between them and a clock that jumps.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use postern_netstack::{Address, AddressTable, Event, FlowId, MAX_COUPLED, Offload, Stack, StackConfig};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp,
    time::Instant as WireInstant,
    wire::{HardwareAddress, IpCidr, Ipv4Address, Ipv6Address},
};

use super::wire::complete;

pub(crate) const CLIENT: &str = "100.72.0.1";
pub(crate) const CLIENT6: &str = "fd00:72::1";
pub(crate) const RESOLVER: &str = "100.72.0.2:53";
pub(crate) const SERVER: &str = "100.72.1.9:5432";
pub(crate) const SERVER6: &str = "[fd00:72::1:9]:5432";

pub(crate) fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

/// A program's end.
pub(crate) fn client(port: u16) -> SocketAddr {
    SocketAddr::new(CLIENT.parse().unwrap(), port)
}

pub(crate) fn addresses() -> AddressTable {
    let resource = |reachable| Address { ports: vec![5432..=5432, 8000..=8100], reachable };
    AddressTable {
        networks: vec![("100.72.0.0".parse().unwrap(), 16), ("fd00:72::".parse().unwrap(), 48)],
        device: vec![CLIENT.parse().unwrap(), CLIENT6.parse().unwrap()],
        resolvers: vec![at(RESOLVER)],
        addresses: BTreeMap::from([
            (at(SERVER).ip(), resource(true)),
            (at(SERVER6).ip(), resource(true)),
            ("100.72.1.10".parse().unwrap(), resource(false)),
        ]),
    }
}

/// What the wire does to packets, in parts of 256 each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) loss: u8,
    pub(crate) twice: u8,
    pub(crate) late: u8,
}

pub(crate) struct Network {
    pub(crate) stack: Stack,
    pub(crate) kernel: Kernel,
    pub(crate) weather: Weather,
    /// What went to the kernel, as it was on the wire.
    pub(crate) seen: Vec<Vec<u8>>,
    start: Instant,
    pub(crate) elapsed: Duration,
    chance: u64,
    late: VecDeque<(bool, Vec<u8>)>,
    mtu: usize,
    buffer: Vec<u8>,
}

impl Network {
    pub(crate) fn new(config: StackConfig) -> Self {
        Self::seeded(config, 1)
    }

    pub(crate) fn seeded(config: StackConfig, seed: u64) -> Self {
        let start = Instant::now();
        let mtu = config.mtu;
        let mut stack = Stack::new(config, seed, start);
        stack.set_addresses(addresses());
        Self {
            stack,
            kernel: Kernel::new(mtu),
            weather: Weather::default(),
            seen: Vec::new(),
            start,
            elapsed: Duration::ZERO,
            chance: seed,
            late: VecDeque::new(),
            mtu,
            buffer: vec![0; MAX_COUPLED],
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    /// Gives the stack a packet as if a program had sent it.
    pub(crate) fn inject(&mut self, packet: &[u8]) {
        self.stack.handle_packet(self.now(), packet, Offload::default());
    }

    /// All packets that the stack has to send, without handing them to the kernel.
    pub(crate) fn transmit(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while let Some(sent) = self.stack.poll_transmit(self.now(), &mut self.buffer) {
            packets.extend(complete(&self.buffer[..sent.len], sent.offload, self.mtu));
        }
        packets
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.stack.poll_event()).collect()
    }

    /// Carries packets both ways until nothing moves, and gives the events on the way. The owner does nothing meanwhile.
    pub(crate) fn settle(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            self.kernel.poll(self.elapsed);
            let outward: Vec<_> = self.kernel.device.sent.drain(..).collect();
            let inward = self.transmit();
            events.extend(self.events());
            let mut quiet = outward.is_empty() && inward.is_empty() && self.late.is_empty();
            for (to_stack, packet) in self.late.drain(..).collect::<Vec<_>>() {
                self.carry(to_stack, packet);
            }
            outward.into_iter().for_each(|packet| self.pass(true, packet));
            inward.into_iter().for_each(|packet| self.pass(false, packet));
            quiet &= self.late.is_empty();
            if quiet {
                return events;
            }
        }
    }

    /// Lets time go on to the next moment at which one of both ends wants to do something, if that is before `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> bool {
        let stack = self.stack.poll_timeout().map(|at| at.saturating_duration_since(self.start));
        let next = [stack, self.kernel.next(self.elapsed)].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= limit) else {
            self.elapsed = self.elapsed.max(limit);
            return false;
        };
        self.elapsed = self.elapsed.max(next);
        self.stack.handle_timeout(self.now());
        true
    }

    /// Lets time pass, doing what comes due.
    pub(crate) fn pass_time(&mut self, time: Duration) -> Vec<Event> {
        let limit = self.elapsed + time;
        let mut events = self.settle();
        while self.wait(limit) {
            events.extend(self.settle());
        }
        self.stack.handle_timeout(self.now());
        events.extend(self.settle());
        events
    }

    /// A connection from a program that the owner accepts.
    pub(crate) fn connect(&mut self, port: u16, destination: SocketAddr) -> (SocketHandle, FlowId) {
        let handle = self.kernel.connect(port, destination);
        let flow = self
            .settle()
            .iter()
            .find_map(|event| match event {
                Event::Syn { flow, source, destination: to } if source.port() == port && *to == destination => {
                    Some(*flow)
                }
                _ => None,
            })
            .expect("the SYN is told");
        self.stack.accept(flow).unwrap();
        assert!(self.settle().contains(&Event::Writable(flow)), "established");
        (handle, flow)
    }

    /// Gives a packet to the wire, whatever its weather is.
    pub(crate) fn pass(&mut self, to_stack: bool, packet: Vec<u8>) {
        let Weather { loss, twice, late } = self.weather;
        if self.dice() < loss {
            return;
        }
        if self.dice() < twice {
            self.carry(to_stack, packet.clone());
        }
        if self.dice() < late {
            self.late.push_back((to_stack, packet));
        } else {
            self.carry(to_stack, packet);
        }
    }

    fn carry(&mut self, to_stack: bool, packet: Vec<u8>) {
        if to_stack {
            self.inject(&packet);
        } else {
            self.seen.push(packet.clone());
            self.kernel.device.arrived.push_back(packet);
        }
    }

    /// One of 256 numbers (xorshift).
    fn dice(&mut self) -> u8 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance >> 24) as u8
    }
}

/// The end of the programs: smoltcp again, with one socket set for all, checking every checksum.
pub(crate) struct Kernel {
    interface: Interface,
    sockets: SocketSet<'static>,
    pub(crate) device: Tap,
}

pub(crate) struct Tap {
    mtu: usize,
    arrived: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

impl Kernel {
    fn new(mtu: usize) -> Self {
        let mut device = Tap { mtu, arrived: VecDeque::new(), sent: VecDeque::new() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = 99;
        let mut interface = Interface::new(config, &mut device, WireInstant::ZERO);
        let (four, six) = (CLIENT.parse::<Ipv4Address>().unwrap(), CLIENT6.parse::<Ipv6Address>().unwrap());
        interface.update_ip_addrs(|all| {
            // Wide enough for a network that moves.
            all.push(IpCidr::new(four.into(), 10)).unwrap();
            all.push(IpCidr::new(six.into(), 48)).unwrap();
        });
        Self { interface, sockets: SocketSet::new(Vec::new()), device }
    }

    pub(crate) fn connect(&mut self, port: u16, destination: SocketAddr) -> SocketHandle {
        let ring = || tcp::SocketBuffer::new(vec![0; 256 * 1024]);
        let mut socket = tcp::Socket::new(ring(), ring());
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let from: IpAddr = if destination.is_ipv4() { CLIENT.parse().unwrap() } else { CLIENT6.parse().unwrap() };
        socket.connect(self.interface.context(), destination, SocketAddr::new(from, port)).unwrap();
        self.sockets.add(socket)
    }

    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(crate) fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    /// All that has arrived for a program.
    pub(crate) fn read(&mut self, handle: SocketHandle) -> Vec<u8> {
        let socket = self.socket(handle);
        let mut all = Vec::new();
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), all.extend_from_slice(bytes))).unwrap();
        }
        all
    }

    fn poll(&mut self, elapsed: Duration) {
        let now = WireInstant::from_micros(elapsed.as_micros() as i64);
        self.interface.poll(now, &mut self.device, &mut self.sockets);
    }

    fn next(&mut self, elapsed: Duration) -> Option<Duration> {
        let now = WireInstant::from_micros(elapsed.as_micros() as i64);
        let at = self.interface.poll_at(now, &self.sockets)?;
        Some(Duration::from_micros(at.total_micros().max(0) as u64).max(elapsed + Duration::from_millis(1)))
    }
}

impl Device for Tap {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: WireInstant) -> Option<(Arrived, Leaving<'_>)> {
        let packet = self.arrived.pop_front()?;
        Some((Arrived(packet), Leaving(&mut self.sent)))
    }

    fn transmit(&mut self, _: WireInstant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

pub(crate) struct Arrived(Vec<u8>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

pub(crate) struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}
