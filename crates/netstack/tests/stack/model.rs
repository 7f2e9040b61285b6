//! Random grants, revocations, questions for names, connections, resets, data, closes, moves, bad weather and time, over
//! the stack, the resolver and the table of addresses together, against a reference that knows which bytes and which
//! addresses belong to whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use postern_netstack::{CloseReason, Event, FlowId, RingSizes, StackConfig, dns::TcpQueries};
use proptest::prelude::*;
use smoltcp::{iface::SocketHandle, socket::tcp};

use self::{
    asking::{ASKERS, Asker},
    names::{GRANTS, NAMES, NETWORKS, Names, Question, grant, question},
};
use crate::harness::network::{Network, Weather};

mod asking;
mod names;

const PROGRAMS: usize = 5;

#[derive(Clone, Debug)]
enum Step {
    Grant(usize),
    Revoke(usize),
    Connect {
        program: usize,
        name: usize,
    },
    /// The program dies: its kernel sends RST.
    Reset(usize),
    Ask(Question),
    AskOverTcp {
        asker: usize,
        question: Question,
    },
    HangUp(usize),
    /// The network moves, live.
    Move(u8),
    /// Whoever answers for names starts anew with what is on its disk.
    Restart,
    /// The owner decides about the oldest held SYN.
    Accept,
    Refuse,
    Abort(usize),
    Up {
        program: usize,
        length: usize,
    },
    Down {
        flow: usize,
        length: usize,
    },
    CloseUp(usize),
    CloseDown(usize),
    Read,
    Wait(u64),
    Weather {
        loss: u8,
        twice: u8,
        late: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (program, name) = (0..PROGRAMS, 0..NAMES);
    prop_oneof![
        2 => (0..GRANTS).prop_map(Step::Grant),
        1 => (0..GRANTS).prop_map(Step::Revoke),
        6 => question().prop_map(Step::Ask),
        2 => (0..ASKERS, question()).prop_map(|(asker, question)| Step::AskOverTcp { asker, question }),
        1 => (0..ASKERS).prop_map(Step::HangUp),
        1 => (0..NETWORKS).prop_map(Step::Move),
        1 => Just(Step::Restart),
        6 => (program.clone(), name).prop_map(|(program, name)| Step::Connect { program, name }),
        1 => program.clone().prop_map(Step::Reset),
        5 => Just(Step::Accept),
        1 => Just(Step::Refuse),
        1 => (0..8usize).prop_map(Step::Abort),
        5 => (program.clone(), 1..40_000usize).prop_map(|(program, length)| Step::Up { program, length }),
        5 => (0..8usize, 1..40_000usize).prop_map(|(flow, length)| Step::Down { flow, length }),
        1 => program.prop_map(Step::CloseUp),
        1 => (0..8usize).prop_map(Step::CloseDown),
        4 => Just(Step::Read),
        2 => (1..12_000u64).prop_map(Step::Wait),
        1 => (0..20u8, 0..30u8, 0..60u8).prop_map(|(loss, twice, late)| Step::Weather { loss, twice, late }),
    ]
}

/// The byte at a place of somebody's stream: no two streams are alike for long.
fn byte(who: u64, at: usize) -> u8 {
    let mixed = (who + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (at as u64).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xff51_afd7_ed55_8ccd).to_be_bytes()[0]
}

/// A connection as its program knows it.
struct Connection {
    id: u64,
    name: usize,
    handle: SocketHandle,
    sent: usize,
    got: Vec<u8>,
    /// The name was taken away while it was open: from then on it must get nothing.
    cut: Option<usize>,
}

/// A flow as the owner knows it.
struct Known {
    name: usize,
    source: SocketAddr,
    held: bool,
    sent: usize,
    got: Vec<u8>,
}

struct Model {
    network: Network,
    names: Names,
    programs: Vec<Option<Connection>>,
    /// All connections ever made from a port, with the bytes that each sent.
    made: BTreeMap<u16, Vec<(u64, usize)>>,
    flows: BTreeMap<FlowId, Known>,
    /// Streams of flows that were accepted, by name: what programs may receive.
    streams: Vec<(FlowId, usize, u64)>,
    over: BTreeSet<FlowId>,
    next: u64,
    askers: [Option<Asker>; ASKERS],
    /// The resolver's side.
    serving: BTreeMap<FlowId, TcpQueries>,
}

impl Model {
    fn new(offload: bool, ipv6: bool, seed: u64) -> Self {
        let rings = RingSizes { large: 65_536, medium: 16_384, small: 8192, few_flows: 2, many_flows: 4 };
        let config = StackConfig { offload, rings, max_flows: 7, max_held: 5, ..StackConfig::default() };
        let mut model = Self {
            network: Network::seeded(config, seed),
            names: Names::new(ipv6),
            programs: (0..PROGRAMS).map(|_| None).collect(),
            made: BTreeMap::new(),
            flows: BTreeMap::new(),
            streams: Vec::new(),
            over: BTreeSet::new(),
            next: 0,
            askers: [None, None],
            serving: BTreeMap::new(),
        };
        model.publish();
        model
    }

    fn publish(&mut self) {
        self.network.stack.set_addresses(self.names.addresses());
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Grant(grant) => {
                self.names.set_granted(grant, true);
                self.publish();
            }
            Step::Revoke(grant) => self.revoke(grant),
            Step::Ask(question) => return self.ask(question),
            Step::AskOverTcp { asker, question } => self.ask_over_tcp(asker, question),
            Step::HangUp(asker) => {
                if let Some(asker) = &self.askers[asker] {
                    self.network.kernel.socket(asker.handle).close();
                }
            }
            Step::Move(network) => {
                let flows = self.network.stack.stats().flows;
                self.names.move_to(network);
                self.publish();
                assert_eq!(self.network.stack.stats().flows, flows, "what was open stays open");
            }
            Step::Restart => self.names.restart(),
            Step::Connect { program, name } => self.connect(program, name),
            Step::Reset(program) => {
                if let Some(connection) = &self.programs[program] {
                    self.network.kernel.socket(connection.handle).abort();
                }
            }
            Step::Accept => self.decide(true),
            Step::Refuse => self.decide(false),
            Step::Abort(which) => {
                if let Some(flow) = self.nth(which) {
                    self.network.stack.abort(flow).unwrap();
                    self.forget(flow);
                }
            }
            Step::Up { program, length } => self.up(program, length),
            Step::Down { flow, length } => self.down(flow, length),
            Step::CloseUp(program) => {
                if let Some(connection) = &self.programs[program] {
                    self.network.kernel.socket(connection.handle).close();
                }
            }
            Step::CloseDown(which) => {
                if let Some(flow) = self.nth(which) {
                    let _ = self.network.stack.close(flow);
                }
            }
            Step::Read => self.read(),
            Step::Wait(time) => {
                let events = self.network.pass_time(Duration::from_millis(time));
                self.hear(&events);
            }
            Step::Weather { loss, twice, late } => self.network.weather = Weather { loss, twice, late },
        }
        self.settle();
        self.look();
    }

    /// Until nobody has anything to say any more.
    fn settle(&mut self) {
        loop {
            let asked = self.send_questions();
            let events = self.network.settle();
            self.hear(&events);
            self.serve();
            if events.is_empty() && !asked {
                return;
            }
        }
    }

    fn revoke(&mut self, revoked: usize) {
        self.names.set_granted(revoked, false);
        self.publish();
        let gone = self.flows.iter().filter(|(_, known)| grant(known.name) == revoked);
        let gone: BTreeSet<FlowId> = gone.map(|(flow, _)| *flow).collect();
        self.network.stack.retain_flows(|info| !gone.contains(&info.flow));
        gone.into_iter().for_each(|flow| self.forget(flow));
        self.look();
        for connection in self.programs.iter_mut().flatten().filter(|connection| grant(connection.name) == revoked) {
            // One that asks for its connection still may get another one, if the name is granted again.
            let asks = self.network.kernel.socket(connection.handle).state() == tcp::State::SynSent;
            connection.cut = (!asks).then_some(connection.got.len());
        }
    }

    fn connect(&mut self, program: usize, name: usize) {
        if let Some(old) = self.programs[program].take() {
            if self.network.kernel.socket(old.handle).state() != tcp::State::Closed {
                self.programs[program] = Some(old);
                return;
            }
            self.network.kernel.remove(old.handle);
        }
        // It goes where it was told of last, be that still right or not.
        let Some(ip) = self.names.known(name) else { return };
        let port = 40_000 + program as u16;
        let handle = self.network.kernel.connect(port, SocketAddr::new(ip, 80));
        let id = self.next;
        self.next += 1;
        self.made.entry(port).or_default().push((id, 0));
        self.programs[program] = Some(Connection { id, name, handle, sent: 0, got: Vec::new(), cut: None });
    }

    fn decide(&mut self, accept: bool) {
        let Some((&flow, known)) = self.flows.iter_mut().find(|(_, known)| known.held) else { return };
        if accept {
            known.held = false;
            self.streams.push((flow, known.name, 1_000_000 + self.next));
            self.next += 1;
            self.network.stack.accept(flow).unwrap();
        } else {
            self.network.stack.refuse(flow).unwrap();
            self.forget(flow);
        }
    }

    fn up(&mut self, program: usize, length: usize) {
        let Some(connection) = &mut self.programs[program] else { return };
        let socket = self.network.kernel.socket(connection.handle);
        let bytes: Vec<u8> = (0..length).map(|at| byte(connection.id, connection.sent + at)).collect();
        let sent = socket.send_slice(&bytes).unwrap_or(0);
        connection.sent += sent;
        let made = self.made.get_mut(&(40_000 + program as u16)).unwrap();
        made.iter_mut().find(|(id, _)| *id == connection.id).unwrap().1 += sent;
    }

    fn down(&mut self, which: usize, length: usize) {
        let Some(flow) = self.nth(which) else { return };
        let Some(&(_, _, stream)) = self.streams.iter().find(|(id, ..)| *id == flow) else { return };
        let known = self.flows.get_mut(&flow).unwrap();
        let mut left = length;
        while left > 0 {
            let sent = known.sent;
            let Ok(length) = self.network.stack.send(flow, |room| {
                let length = room.len().min(left);
                room[..length].iter_mut().enumerate().for_each(|(at, place)| *place = byte(stream, sent + at));
                length
            }) else {
                break;
            };
            known.sent += length;
            left -= length;
        }
    }

    /// The owner reads all flows.
    fn read(&mut self) {
        for (flow, known) in &mut self.flows {
            let got = &mut known.got;
            while self
                .network
                .stack
                .recv(*flow, |bytes| {
                    got.extend_from_slice(bytes);
                    bytes.len()
                })
                .is_ok()
            {}
            let port = known.source.port();
            let from_one = self.made[&port]
                .iter()
                .any(|(id, sent)| got.len() <= *sent && got.iter().enumerate().all(|(at, got)| *got == byte(*id, at)));
            assert!(from_one, "bytes that no program sent so, from port {port}");
        }
    }

    fn hear(&mut self, events: &[Event]) {
        for event in events {
            let Some(flow) = event.flow() else {
                let Event::Datagram { source, destination, payload } = event else { panic!("{event:?}") };
                self.answer(*source, *destination, payload);
                continue;
            };
            assert!(!self.over.contains(&flow), "{event:?} of a flow that is over");
            match event {
                Event::Syn { destination, .. } if *destination == self.names.resolver() => {
                    // It may have been reset since; that is told next.
                    let _ = self.network.stack.accept(flow);
                    self.serving.insert(flow, TcpQueries::default());
                }
                Event::Closed { reason, .. } if self.serving.remove(&flow).is_some() => {
                    assert_ne!(*reason, CloseReason::Fault);
                    self.over.insert(flow);
                }
                _ if self.serving.contains_key(&flow) => {}
                Event::Syn { source, destination, .. } => {
                    let name = self.names.owner(destination.ip()).expect("a connection to what is not granted");
                    let known = Known { name, source: *source, held: true, sent: 0, got: Vec::new() };
                    assert!(self.flows.insert(flow, known).is_none());
                }
                Event::Closed { reason, .. } => {
                    assert_ne!(*reason, CloseReason::Fault);
                    assert!(self.flows.contains_key(&flow));
                    self.forget(flow);
                }
                _ => assert!(self.flows.contains_key(&flow), "{event:?}"),
            }
        }
    }

    fn forget(&mut self, flow: FlowId) {
        self.flows.remove(&flow);
        self.over.insert(flow);
    }

    /// What the programs got.
    fn look(&mut self) {
        self.check_answers();
        for connection in self.programs.iter_mut().flatten() {
            connection.got.extend(self.network.kernel.read(connection.handle));
            let got = &connection.got;
            if let Some(cut) = connection.cut {
                assert_eq!(got.len(), cut, "bytes after the revocation");
            }
            let from_one = got.is_empty()
                || self.streams.iter().any(|(_, name, stream)| {
                    *name == connection.name && got.iter().enumerate().all(|(at, got)| *got == byte(*stream, at))
                });
            assert!(from_one, "{} bytes that were never sent so to {}", got.len(), connection.name);
        }
        let stats = self.network.stack.stats();
        assert!(stats.flows <= 7 && stats.held <= 5 && stats.faults == 0, "{stats:?}");
        assert_eq!(stats.flows, self.flows.len() + self.serving.len());
    }

    fn nth(&self, which: usize) -> Option<FlowId> {
        self.flows.keys().nth(which).copied()
    }

    fn finish(mut self) {
        self.network.weather = Weather::default();
        (0..GRANTS).for_each(|grant| self.run(&Step::Revoke(grant)));
        for (flow, _) in std::mem::take(&mut self.serving) {
            self.network.stack.abort(flow).unwrap();
            self.over.insert(flow);
        }
        self.askers = [None, None];
        self.run(&Step::Wait(1_000_000));
        assert_eq!(self.network.stack.stats().flows, 0);
        assert_eq!(self.network.stack.poll_timeout(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_belongs_to_one_name_every_address_to_one_and_no_byte_comes_after_revocation(
        steps in prop::collection::vec(step(), 10..140),
        offload: bool,
        ipv6: bool,
        seed in 1..u64::MAX,
    ) {
        let mut model = Model::new(offload, ipv6, seed);
        (0..GRANTS - 1).for_each(|grant| model.run(&Step::Grant(grant)));
        steps.iter().for_each(|step| model.run(step));
        model.finish();
    }
}
