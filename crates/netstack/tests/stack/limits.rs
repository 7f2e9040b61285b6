//! What a hostile program cannot do: make the stack grow, work, or wait for others.

use std::{net::SocketAddr, time::Duration};

use postern_netstack::{Answers, Event, FlowError, FlowId, StackConfig};

use crate::harness::{
    network::{Network, RESOLVER, SERVER, at, client},
    wire::{Hand, see},
};

fn syn(port: u16) -> Vec<u8> {
    Hand::syn(client(port), at(SERVER), 1000).packet()
}

fn syns(events: &[Event]) -> Vec<FlowId> {
    events.iter().filter(|event| matches!(event, Event::Syn { .. })).filter_map(Event::flow).collect()
}

#[test]
fn so_many_syns_are_held_and_no_more_and_each_user_has_two_thirds() {
    let mut network = Network::new(StackConfig { max_held: 9, ..StackConfig::default() });
    (0..20).for_each(|port| network.inject(&syn(40_000 + port)));
    let held = syns(&network.events());
    assert_eq!((held.len(), network.stack.stats().held, network.stack.stats().dropped_syns), (9, 9, 11));
    let claims: Vec<_> = held.iter().map(|flow| network.stack.claim(*flow, 1000)).collect();
    assert_eq!(claims, [[Ok(()); 6].as_slice(), &[Err(FlowError::TooManyHeld); 3]].concat());
    assert!(network.transmit().is_empty(), "nobody is answered: their kernels ask again");
    // Another user finds room, and so does the first one when a dial of theirs is over.
    (0..2).for_each(|port| network.inject(&syn(50_000 + port)));
    let others = syns(&network.events());
    assert_eq!(network.stack.claim(others[0], 1001), Ok(()));
    assert_eq!(network.stack.claim(others[0], 1001), Ok(()), "said twice, counted once");
    network.stack.refuse(held[0]).unwrap();
    network.stack.accept(held[1]).unwrap();
    assert_eq!(network.stack.claim(others[1], 1000), Ok(()));
    assert_eq!(network.stack.stats().held, 6);
}

#[test]
fn five_hundred_held_syns_cost_nothing_while_they_wait() {
    let mut network = Network::new(StackConfig::default());
    (0..500).for_each(|port| network.inject(&syn(40_000 + port)));
    assert_eq!(syns(&network.events()).len(), 500);
    assert!(network.transmit().is_empty());
    let before = network.stack.stats();
    let wait = network.stack.poll_timeout().unwrap() - network.now();
    assert!(wait > Duration::from_millis(9_999), "{wait:?}");
    // Woken nevertheless, it does nothing.
    for _ in 0..100 {
        network.elapsed += Duration::from_millis(50);
        let now = network.now();
        network.stack.handle_timeout(now);
        assert!(network.transmit().is_empty() && network.events().is_empty());
    }
    assert_eq!(network.stack.stats(), before, "no poll, no packet");
    network.elapsed = Duration::from_secs(10);
    let now = network.now();
    network.stack.handle_timeout(now);
    assert_eq!((network.transmit().len(), network.events().len()), (500, 500));
    assert_eq!(network.stack.stats().flows, 0);
    assert!(network.stack.poll_timeout().is_none());
}

#[test]
fn a_packet_polls_its_own_flow_however_many_there_are() {
    let polls = |flows: u16| {
        let config = StackConfig { max_held: 5000, ..StackConfig::default() };
        let mut network = Network::new(config);
        for port in 0..flows {
            network.inject(&Hand::syn(client(10_000 + port), at(SERVER), 1000).packet());
            let flow = syns(&network.events())[0];
            network.stack.accept(flow).unwrap();
            let synack = network.transmit().iter().find_map(|packet| see(packet)).unwrap();
            let ack = Hand {
                control: smoltcp::wire::TcpControl::None,
                sequence: 1001,
                acknowledgement: Some(synack.sequence.wrapping_add(1)),
                ..Hand::syn(client(10_000 + port), at(SERVER), 0)
            };
            network.inject(&ack.packet());
            network.transmit();
            network.events();
            if port + 1 == flows {
                let before = network.stack.stats().polls;
                network.inject(&Hand { payload: b"data", ..ack }.packet());
                assert_eq!(network.transmit().len(), 1, "the acknowledgement");
                return network.stack.stats().polls - before;
            }
        }
        0
    };
    assert_eq!(polls(1), 2, "one packet, and then nothing more");
    assert_eq!(polls(2000), 2);
}

#[test]
fn so_many_flows_exist_and_no_more() {
    let mut network = Network::new(StackConfig { max_flows: 10, ..StackConfig::default() });
    (0..20).for_each(|port| network.inject(&syn(40_000 + port)));
    let flows = syns(&network.events());
    assert_eq!(flows.len(), 10);
    flows.iter().for_each(|flow| network.stack.accept(*flow).unwrap());
    network.inject(&syn(50_000));
    assert!(network.events().is_empty());
    network.stack.abort(flows[3]).unwrap();
    network.inject(&syn(50_000));
    assert_eq!(syns(&network.events()).len(), 1);
}

#[test]
fn what_nobody_fetches_is_dropped_at_a_limit_and_counted() {
    let datagram = |length: usize| {
        // The checksum of a local sender may be missing; IPv4 allows that.
        let mut packet = Hand { payload: &vec![1; length], ..Hand::syn(client(9), at(RESOLVER), 0) }.packet();
        packet[9] = 17;
        let udp = ((packet.len() - 20) as u16).to_be_bytes();
        packet[24..26].copy_from_slice(&udp);
        packet
    };
    let config = StackConfig { max_datagrams: 5, max_datagram: 1000, max_answers: 7, ..StackConfig::default() };
    let mut network = Network::new(config.clone());
    (0..8).for_each(|_| network.inject(&datagram(10)));
    network.inject(&datagram(1001));
    assert_eq!((network.events().len(), network.stack.stats().dropped_datagrams), (5, 4));
    let unknown = Hand::syn(client(9), at("100.72.1.9:1"), 0).packet();
    (0..10).for_each(|_| network.inject(&unknown));
    assert_eq!((network.transmit().len(), network.stack.stats().dropped_answers), (7, 3));

    let mut network = Network::new(StackConfig { answers: Answers::Asked, ..config });
    (0..10_000).for_each(|_| network.inject(&unknown));
    let events = network.events();
    assert_eq!(events.len(), 256);
    let Some(Event::Answer { answer, .. }) = events.last() else { panic!("{events:?}") };
    network.stack.release(*answer);
    assert_eq!(network.transmit().len(), 1, "the latest ones are kept");
}

#[test]
fn a_buffer_that_is_too_small_takes_nothing_away() {
    let mut network = Network::new(StackConfig::default());
    network.inject(&Hand::syn(client(9), at("100.72.1.9:1"), 0).packet());
    let now = network.now();
    assert_eq!(network.stack.poll_transmit(now, &mut [0; 1500]), None);
    assert_eq!(network.transmit().len(), 1);
}

#[test]
fn time_that_runs_backwards_changes_nothing() {
    let mut network = Network::new(StackConfig::default());
    network.elapsed = Duration::from_secs(100);
    network.inject(&syn(40_000));
    network.elapsed = Duration::ZERO;
    let now = network.now();
    network.stack.handle_timeout(now);
    network.inject(&syn(40_001));
    assert_eq!(syns(&network.events()).len(), 2);
    let at: SocketAddr = client(40_001);
    assert!(network.stack.flows().any(|info| info.source == at));
    assert_eq!(network.stack.poll_timeout(), Some(now + Duration::from_secs(110)));
}
