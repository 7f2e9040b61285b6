//! How flows begin and end, and that none meets another.

use std::time::Duration;

use postern_netstack::{CloseReason, Event, FlowError, FlowId, Offload, RecvError, StackConfig, Stray};
use smoltcp::{socket::tcp, wire::TcpControl};

use crate::harness::{
    network::{Network, SERVER, SERVER6, at, client},
    wire::{ACK, FIN, Hand, RST, SYN, Seen, see},
};

fn network() -> Network {
    Network::new(StackConfig::default())
}

fn syn_of(events: &[Event]) -> FlowId {
    match events {
        [Event::Syn { flow, .. }] => *flow,
        other => panic!("not one SYN: {other:?}"),
    }
}

fn seen(network: &mut Network) -> Vec<Seen> {
    network.transmit().iter().filter_map(|packet| see(packet)).collect()
}

#[test]
fn a_held_syn_gets_no_answer_until_it_is_accepted() {
    for server in [SERVER, SERVER6] {
        let mut network = network();
        let handle = network.kernel.connect(40_000, at(server));
        let flow = syn_of(&network.settle());
        let info = network.stack.flow(flow).unwrap();
        assert_eq!((info.destination, info.held, info.uid), (at(server), true, None));
        assert!(network.pass_time(Duration::from_secs(9)).is_empty(), "the kernel's repeated SYNs are absorbed");
        assert!(network.seen.is_empty());
        network.stack.accept(flow).unwrap();
        assert_eq!(network.settle(), [Event::Writable(flow)]);
        assert_eq!(network.kernel.socket(handle).state(), tcp::State::Established);
        assert_eq!(network.stack.accept(flow), Err(FlowError::State), "not held any more");
    }
}

#[test]
fn an_offered_segment_of_no_flow_is_given_back_where_another_stack_may_have_it() {
    let mut network = network();
    let (source, destination) = (client(40_000), at(SERVER));
    let syn = Hand::syn(source, destination, 7);
    let data = Hand { control: TcpControl::Psh, acknowledgement: Some(1), payload: b"x", ..syn };
    let offer = |network: &mut Network, hand: &Hand<'_>| {
        let now = network.now();
        network.stack.offer_packet(now, &hand.packet(), Offload::default())
    };
    for (hand, opens) in [(syn, true), (data, false)] {
        assert_eq!(offer(&mut network, &hand), Some(Stray { source, destination, opens }));
        assert!(network.events().is_empty() && seen(&mut network).is_empty(), "untouched");
    }
    network.inject(&syn.packet());
    let flow = syn_of(&network.events());
    assert_eq!(offer(&mut network, &syn), None, "it is held here");
    assert_eq!(offer(&mut network, &Hand { sequence: 9_000, ..syn }), None, "another one from the same port");
    assert!(matches!(network.events()[..], [Event::Closed { flow: closed, .. }, Event::Syn { .. }] if closed == flow));
    let nowhere = Hand { destination: (destination.ip(), 1).into(), ..syn };
    assert_eq!(offer(&mut network, &nowhere), None, "a port of nobody, anywhere");
    assert!(matches!(seen(&mut network)[..], [answer] if answer.flags & RST != 0));
}

#[test]
fn a_refused_syn_is_reset() {
    for server in [SERVER, SERVER6] {
        let mut network = network();
        let handle = network.kernel.connect(40_000, at(server));
        let flow = syn_of(&network.settle());
        network.stack.refuse(flow).unwrap();
        assert!(network.settle().is_empty(), "the owner knows");
        assert_eq!(network.kernel.socket(handle).state(), tcp::State::Closed);
        assert_eq!(network.stack.accept(flow), Err(FlowError::Unknown));
        assert_eq!(network.stack.stats().flows, 0);
    }
}

#[test]
fn a_dial_that_takes_ten_seconds_is_refused() {
    let mut network = network();
    let handle = network.kernel.connect(40_000, at(SERVER));
    let flow = syn_of(&network.settle());
    assert!(network.pass_time(Duration::from_millis(9_900)).is_empty());
    let events = network.pass_time(Duration::from_millis(200));
    assert_eq!(events, [Event::Closed { flow, reason: CloseReason::DialTimeout }]);
    assert_eq!(network.kernel.socket(handle).state(), tcp::State::Closed);
}

#[test]
fn a_dropped_syn_gets_no_answer_at_all() {
    let mut network = network();
    network.inject(&Hand::syn(client(40_000), at(SERVER), 7).packet());
    let flow = syn_of(&network.events());
    network.stack.drop_flow(flow).unwrap();
    assert!(network.transmit().is_empty() && network.events().is_empty());
    assert_eq!(network.stack.stats().flows, 0);
}

#[test]
fn a_reset_in_syn_received_and_a_syn_from_another_port_never_meet_the_old_stream() {
    let mut network = network();
    network.inject(&Hand::syn(client(40_000), at(SERVER), 1000).packet());
    let old = syn_of(&network.events());
    network.stack.accept(old).unwrap();
    let synack = seen(&mut network)[0];
    assert_eq!((synack.flags, synack.acknowledgement), (SYN | ACK, 1001));
    // The program is gone before the handshake is done, and another one connects from another port, in the same batch.
    let reset = Hand {
        control: TcpControl::Rst,
        sequence: 1001,
        acknowledgement: None,
        ..Hand::syn(client(40_000), at(SERVER), 0)
    };
    network.inject(&reset.packet());
    network.inject(&Hand::syn(client(50_000), at(SERVER), 5000).packet());
    let events = network.events();
    let [Event::Closed { flow, reason: CloseReason::Reset }, Event::Syn { flow: new, source, .. }] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((flow, source), (old, client(50_000)));
    assert!(seen(&mut network).is_empty(), "the new SYN is held: nothing of the old stream answers it");
    // What the owner still does to the old flow reaches nobody, even where the new one has its slot.
    assert_eq!(
        network.stack.send(old, |_| panic!("no room for the old flow")),
        Err(postern_netstack::SendError::Unknown)
    );
    assert_eq!(network.stack.recv(old, |_| panic!("nothing for the old flow")), Err(RecvError::Unknown));
    for result in [network.stack.accept(old), network.stack.close(old), network.stack.abort(old)] {
        assert_eq!(result, Err(FlowError::Unknown));
    }
    assert_ne!(old, new);
    network.stack.accept(new).unwrap();
    let synack = seen(&mut network)[0];
    assert_eq!((synack.destination, synack.acknowledgement), (client(50_000), 5001));
}

#[test]
fn a_reset_takes_a_held_syn_back_and_the_port_can_be_used_at_once() {
    let mut network = network();
    network.inject(&Hand::syn(client(40_000), at(SERVER), 1000).packet());
    let old = syn_of(&network.events());
    let reset = |sequence| Hand {
        control: TcpControl::Rst,
        acknowledgement: None,
        sequence,
        ..Hand::syn(client(40_000), at(SERVER), 0)
    };
    network.inject(&reset(999).packet());
    network.inject(&reset(1002).packet());
    assert!(network.events().is_empty(), "an RST from outside the window");
    network.inject(&reset(1001).packet());
    assert_eq!(network.events(), [Event::Closed { flow: old, reason: CloseReason::Reset }]);
    network.inject(&Hand::syn(client(40_000), at(SERVER), 2000).packet());
    let new = syn_of(&network.events());
    assert_eq!(network.stack.accept(old), Err(FlowError::Unknown), "the old dial comes too late");
    assert!(network.transmit().is_empty());
    network.stack.accept(new).unwrap();
    assert_eq!(seen(&mut network)[0].acknowledgement, 2001);
}

#[test]
fn another_syn_from_the_port_of_a_held_one_is_another_flow() {
    let mut network = network();
    let syn = Hand::syn(client(40_000), at(SERVER), 1000).packet();
    network.inject(&syn);
    let old = syn_of(&network.events());
    network.inject(&syn);
    assert!(network.events().is_empty(), "the same SYN again");
    network.inject(&Hand::syn(client(40_000), at(SERVER), 77_000).packet());
    let events = network.events();
    let [Event::Closed { flow, reason: CloseReason::Reset }, Event::Syn { flow: new, .. }] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(flow, old);
    network.stack.accept(new).unwrap();
    assert_eq!(seen(&mut network)[0].acknowledgement, 77_001);
}

#[test]
fn no_byte_leaves_after_an_abort() {
    let mut network = network();
    let (handle, flow) = network.connect(40_000, at(SERVER));
    network.stack.send(flow, |room| room.len()).unwrap();
    network.stack.abort(flow).unwrap();
    let packets = seen(&mut network);
    assert!(packets.iter().all(|packet| packet.data == 0), "{packets:?}");
    assert!(packets.iter().any(|packet| packet.flags & RST != 0), "the kernel's buffers are freed");
    assert!(network.events().is_empty());
    assert_eq!(network.stack.recv(flow, |_| 0), Err(RecvError::Unknown));
    assert_eq!(network.stack.stats().flows, 0);
    // The program speaks on, and is told again.
    network.kernel.socket(handle).send_slice(b"hello").unwrap();
    network.settle();
    assert_eq!(network.kernel.socket(handle).state(), tcp::State::Closed);
    assert_eq!(network.kernel.read(handle), b"");
}

#[test]
fn flows_that_are_not_kept_are_reset_held_or_not() {
    let mut network = network();
    let (kept, flow) = network.connect(40_000, at(SERVER));
    let (cut, _) = network.connect(40_001, at("100.72.1.9:8000"));
    let held = network.kernel.connect(40_002, at("100.72.1.9:8001"));
    network.settle();
    assert_eq!(network.stack.retain_flows(|info| info.destination.port() == 5432), 2);
    network.settle();
    let mut state = |handle| network.kernel.socket(handle).state();
    assert_eq!(
        (state(kept), state(cut), state(held)),
        (tcp::State::Established, tcp::State::Closed, tcp::State::Closed)
    );
    assert_eq!(network.stack.flows().map(|info| info.flow).collect::<Vec<_>>(), [flow]);
}

#[test]
fn a_reset_by_the_program_ends_the_flow() {
    let mut network = network();
    let (handle, flow) = network.connect(40_000, at(SERVER));
    network.kernel.socket(handle).abort();
    assert_eq!(network.settle(), [Event::Closed { flow, reason: CloseReason::Reset }]);
    assert!(network.stack.poll_timeout().is_none(), "nothing is left to wait for");
}

#[test]
fn a_silent_program_is_asked_for_a_sign_of_life_and_then_given_up() {
    let mut network = network();
    let (handle, flow) = network.connect(40_000, at(SERVER));
    assert!(network.pass_time(Duration::from_secs(3600)).is_empty(), "its kernel answers");
    network.kernel.remove(handle);
    network.inject(&[]);
    let mut events = Vec::new();
    let limit = network.elapsed + Duration::from_secs(400);
    let mut probes = 0;
    while network.wait(limit) {
        probes += network.transmit().len();
        events.extend(network.events());
    }
    assert_eq!(events, [Event::Closed { flow, reason: CloseReason::Dead }]);
    assert!((2..20).contains(&probes), "{probes}");
}

#[test]
fn a_flow_that_carries_nothing_for_too_long_is_reset() {
    let config = StackConfig { idle: Some(Duration::from_secs(1000)), ..StackConfig::default() };
    let mut network = Network::new(config);
    let (handle, flow) = network.connect(40_000, at(SERVER));
    network.pass_time(Duration::from_secs(900));
    network.stack.send(flow, |room| room.len().min(1)).unwrap();
    assert!(network.pass_time(Duration::from_secs(900)).is_empty(), "it has carried something");
    let events = network.pass_time(Duration::from_secs(200));
    assert_eq!(events, [Event::Closed { flow, reason: CloseReason::Idle }]);
    assert_eq!(network.kernel.socket(handle).state(), tcp::State::Closed);
}

#[test]
fn a_socket_that_is_used_again_brings_nothing_of_its_last_flow() {
    let mut network = network();
    let (handle, flow) = network.connect(40_000, at(SERVER));
    network.kernel.socket(handle).send_slice(b"secret up").unwrap();
    network
        .stack
        .send(flow, |room| {
            room[..11].copy_from_slice(b"secret down");
            11
        })
        .unwrap();
    network.stack.abort(flow).unwrap();
    network.settle();
    assert_eq!(network.stack.stats().pooled, 1);
    let (handle, flow) = network.connect(40_001, at("100.72.1.9:8000"));
    assert_eq!(network.stack.stats().pooled, 0);
    network.pass_time(Duration::from_secs(5));
    assert_eq!(network.stack.recv(flow, |_| 0), Err(RecvError::Empty));
    assert_eq!(network.kernel.read(handle), b"");
}

#[test]
fn the_same_seed_and_the_same_calls_give_the_same_packets() {
    let run = |seed| {
        let mut network = Network::seeded(StackConfig { offload: true, ..StackConfig::default() }, seed);
        for port in 0..20 {
            let (handle, flow) = network.connect(40_000 + port, at(SERVER));
            network.kernel.socket(handle).send_slice(&[port as u8; 5000]).unwrap();
            network.stack.send(flow, |room| room.len().min(100_000)).unwrap();
            network.settle();
            if port % 3 == 0 {
                network.stack.abort(flow).unwrap();
            }
        }
        network.pass_time(Duration::from_secs(100));
        network.seen
    };
    let first = run(7);
    assert!(first.len() > 500);
    assert!(first == run(7));
    assert!(first != run(8), "sequence numbers come from the seed");
}

#[test]
fn a_lost_fin_is_sent_again_however_often_the_peer_says_that_it_lacks_it() {
    for repeats in [0, 2, 3, 4, 9] {
        let mut network = network();
        network.inject(&Hand::syn(client(40_000), at(SERVER), 1000).packet());
        let flow = syn_of(&network.events());
        network.stack.accept(flow).unwrap();
        let first = seen(&mut network)[0].sequence;
        let hand = |acknowledged: u32| Hand {
            control: TcpControl::None,
            sequence: 1001,
            acknowledgement: Some(acknowledged),
            ..Hand::syn(client(40_000), at(SERVER), 0)
        };
        network.inject(&hand(first.wrapping_add(1)).packet());
        assert_eq!(network.events(), [Event::Writable(flow)]);
        network.stack.close(flow).unwrap();
        let fin = seen(&mut network)[0];
        assert_eq!(fin.flags & FIN, FIN);
        // It is lost, and the peer says again and again what it has.
        let lacking = hand(fin.sequence).packet();
        (0..repeats).for_each(|_| network.inject(&lacking));
        let mut again = Vec::new();
        for _ in 0..100 {
            network.elapsed += Duration::from_millis(100);
            let now = network.now();
            network.stack.handle_timeout(now);
            again.extend(seen(&mut network).into_iter().filter(|packet| packet.flags & FIN != 0));
        }
        assert!(again.len() > 2, "{repeats} repeats: sent again {} times", again.len());
        assert!(again.iter().all(|packet| packet.sequence == fin.sequence));
        // Until the peer has it, and ends too.
        network.inject(&hand(fin.sequence.wrapping_add(1)).packet());
        let end = Hand { control: TcpControl::Fin, ..hand(fin.sequence.wrapping_add(1)) };
        network.inject(&end.packet());
        let _ = seen(&mut network);
        let events = network.events();
        assert!(events.contains(&Event::Closed { flow, reason: CloseReason::Finished }), "{repeats}: {events:?}");
    }
}
