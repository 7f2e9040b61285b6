//! Questions for names through the stack, by datagram and over connections, at both ends.

use std::net::SocketAddr;

use hickory_proto::op::ResponseCode;
use postern_netstack::{
    FlowId, RecvError,
    dns::{Outcome, Transport},
};
use smoltcp::{iface::SocketHandle, socket::tcp};

use super::{Model, names::Question};
use crate::harness::{
    network::{Weather, client},
    wire::{addresses, udp},
};

/// Programs that ask for names over TCP.
pub(super) const ASKERS: usize = 2;
/// Where datagrams with questions come from.
const ASKING_PORT: u16 = 41_000;

/// A connection to the resolver.
pub(super) struct Asker {
    pub(super) handle: SocketHandle,
    /// Questions that wait for room.
    unsent: Vec<u8>,
    got: Vec<u8>,
}

impl Model {
    pub(super) fn ask(&mut self, question: Question) {
        let (answered, message) = (self.names.answered, self.names.ask(question));
        self.network.pass(true, udp(client(ASKING_PORT), self.names.resolver(), &message));
        self.settle();
        self.look();
        let Weather { loss, .. } = self.network.weather;
        assert!(loss > 0 || self.names.answered > answered, "a question without an answer");
    }

    pub(super) fn answer(&mut self, source: SocketAddr, destination: SocketAddr, message: &[u8]) {
        let mut out = Vec::new();
        if self.names.answer(Transport::Udp, message, &mut out) {
            self.publish();
        }
        self.network.stack.send_datagram(destination, source, &out);
    }

    pub(super) fn ask_over_tcp(&mut self, asker: usize, question: Question) {
        if let Some(old) = &self.askers[asker]
            && self.network.kernel.socket(old.handle).state() == tcp::State::Closed
        {
            self.network.kernel.remove(old.handle);
            self.askers[asker] = None;
        }
        let message = self.names.ask(question);
        let asker = self.askers[asker].get_or_insert_with(|| Asker {
            handle: self.network.kernel.connect(42_000 + asker as u16, self.names.resolver()),
            unsent: Vec::new(),
            got: Vec::new(),
        });
        asker.unsent.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
        asker.unsent.extend(message);
    }

    pub(super) fn send_questions(&mut self) -> bool {
        let mut any = false;
        for asker in self.askers.iter_mut().flatten() {
            let socket = self.network.kernel.socket(asker.handle);
            if socket.may_send() && !asker.unsent.is_empty() {
                let sent = socket.send_slice(&asker.unsent).unwrap();
                asker.unsent.drain(..sent);
                any |= sent > 0;
            }
        }
        any
    }

    /// The resolver's side of connections.
    pub(super) fn serve(&mut self) {
        let flows: Vec<FlowId> = self.serving.keys().copied().collect();
        for flow in flows {
            let mut queries = self.serving.remove(&flow).unwrap();
            let mut questions = Vec::new();
            let ended = loop {
                match self.network.stack.recv(flow, |bytes| {
                    questions.extend_from_slice(bytes);
                    bytes.len()
                }) {
                    Ok(_) => {}
                    Err(error) => break error == RecvError::Finished,
                }
            };
            let mut given = false;
            let taken = queries.receive(&questions, |question, out| {
                given |= self.names.answer(Transport::Tcp, question, out);
                Outcome::Answered(ResponseCode::NoError)
            });
            assert_eq!(taken, Ok(questions.len()));
            if given {
                self.publish();
            }
            while !queries.waiting().is_empty() {
                let waiting = queries.waiting();
                let Ok(sent) = self.network.stack.send(flow, |room| {
                    let length = room.len().min(waiting.len());
                    room[..length].copy_from_slice(&waiting[..length]);
                    length
                }) else {
                    break;
                };
                queries.advance(sent);
            }
            if ended && queries.waiting().is_empty() {
                let _ = self.network.stack.close(flow);
            }
            self.serving.insert(flow, queries);
        }
    }

    /// What those who asked were answered.
    pub(super) fn check_answers(&mut self) {
        for packet in self.network.seen.drain(..) {
            let (_, _, start) = addresses(&packet);
            // Of IPv4, from the resolver, UDP.
            if packet[0] >> 4 == 4 && packet[9] == 17 {
                self.names.check(&packet[start + 8..]);
            }
        }
        for asker in self.askers.iter_mut().flatten() {
            asker.got.extend(self.network.kernel.read(asker.handle));
            while let Some((length, rest)) = asker.got.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes(*length));
                let Some(answer) = rest.get(..length) else { break };
                self.names.check(answer);
                asker.got.drain(..2 + length);
            }
        }
    }
}
