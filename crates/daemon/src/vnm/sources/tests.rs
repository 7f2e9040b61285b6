#![cfg(unix)]

use std::{
    collections::HashMap,
    future::poll_fn,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    os::unix::net::UnixDatagram,
};

use postern_netstack::{Address, AddressTable, Event, FlowId, StackConfig, VIRTIO_HEADER};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::vnm::neighbours::{GATHERED_HELD, Tenure};

const SYN: u8 = 2;
const ACK: u8 = 16;

/// Shards whose queues are sockets.
struct Device {
    shards: Vec<Member>,
    now: Instant,
}

struct Member {
    sources: Sources,
    stack: Stack,
    number: ShardNumber,
    /// The kernel's end of its queue.
    kernel: UnixDatagram,
}

fn destination() -> SocketAddrV4 {
    "100.64.1.1:5432".parse().unwrap()
}

/// A TCP segment of the program at `port`.
fn segment(port: u16, flags: u8) -> Vec<u8> {
    let mut frame = vec![0; VIRTIO_HEADER];
    frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 100, 64, 0, 1]);
    frame.extend(destination().ip().octets());
    frame.extend(port.to_be_bytes());
    frame.extend(destination().port().to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

impl Device {
    fn new(shards: usize) -> Self {
        let now = Instant::now();
        let address = Address { ports: vec![5432..=5432], reachable: true };
        let table = AddressTable {
            networks: vec![(IpAddr::from([100, 64, 0, 0]), 16)],
            addresses: [(IpAddr::from(*destination().ip()), address)].into(),
            ..AddressTable::default()
        };
        let member = |seat: Seat| {
            let (kernel, queue) = UnixDatagram::pair().unwrap();
            queue.set_nonblocking(true).unwrap();
            kernel.set_nonblocking(true).unwrap();
            let mut stack = Stack::new(StackConfig::default(), 1, now);
            stack.set_addresses(table.clone());
            let number = seat.number;
            Member { sources: Sources::open(seat, queue.into(), now).unwrap(), stack, number, kernel }
        };
        Self { shards: Seat::all(shards).into_iter().map(member).collect(), now }
    }

    fn send(&self, queue: usize, frame: &[u8]) {
        self.shards[queue].kernel.send(frame).unwrap();
    }

    /// Waits until something comes to a shard.
    async fn take(&mut self, shard: usize) {
        let Member { sources, stack, .. } = &mut self.shards[shard];
        poll_fn(|cx| match sources.take(cx, stack, self.now) {
            Ok(false) => Poll::Pending,
            Ok(true) => Poll::Ready(()),
            Err(error) => panic!("{error}"),
        })
        .await;
    }

    fn settle(&mut self, shard: usize) -> Option<Instant> {
        let Member { sources, stack, .. } = &mut self.shards[shard];
        sources.settle(stack, self.now)
    }

    /// A shard that has been without flows for long enough lends its queue.
    async fn lend(&mut self, shard: usize) {
        self.now = self.settle(shard).unwrap();
        assert_eq!(self.settle(shard), None);
        assert!(!self.shards[shard].sources.can_send());
        self.take(0).await;
    }

    /// The connection that was asked for at a shard.
    fn opening(&mut self, shard: usize) -> Option<(FlowId, Tenure)> {
        let Member { sources, stack, number, .. } = &mut self.shards[shard];
        match stack.poll_event()? {
            Event::Syn { flow, source, destination } => {
                Some((flow, sources.seat.neighbours.settle(*number, source, destination)))
            }
            other => panic!("{other:?}"),
        }
    }

    /// Much has been carried for the destination.
    fn carry_much(&self) {
        let source = SocketAddr::from(([100, 64, 0, 1], 9));
        let neighbours = &self.shards[0].sources.seat.neighbours;
        neighbours.settle(ShardNumber::GATHERING, source, destination().into()).note_moved(1 << 20);
    }

    /// And then little, often enough.
    fn forget_habits(&self) {
        let neighbours = &self.shards[0].sources.seat.neighbours;
        for port in 100..108 {
            let source = SocketAddr::from(([100, 64, 0, 1], port));
            drop(neighbours.settle(ShardNumber::GATHERING, source, destination().into()));
        }
    }

    /// Lets every shard run until nothing happens any more. What began, and how many answers were sent.
    async fn run(&mut self) -> (Vec<(usize, FlowId, Tenure)>, usize) {
        let (mut began, mut answers, mut idle) = (Vec::new(), 0, 0);
        while idle < 4 {
            let mut moved = false;
            for shard in 0..self.shards.len() {
                let Member { sources, stack, .. } = &mut self.shards[shard];
                moved |= poll_fn(|cx| Poll::Ready(sources.take(cx, stack, self.now).unwrap())).await;
                self.settle(shard);
                while let Some((flow, tenure)) = self.opening(shard) {
                    began.push((shard, flow, tenure));
                }
                while self.sent(shard).await.is_some() {
                    answers += 1;
                }
            }
            idle = if moved { 0 } else { idle + 1 };
            // The runtime looks for what has come.
            tokio::task::yield_now().await;
        }
        (began, answers)
    }

    /// What a shard sends leaves through its own queue.
    async fn sent(&mut self, shard: usize) -> Option<Vec<u8>> {
        let Member { sources, stack, kernel, .. } = &mut self.shards[shard];
        let sent = poll_fn(|cx| sources.poll_send(cx, |buffer| stack.poll_transmit(self.now, buffer))).await.unwrap();
        let mut frame = [0; 256];
        sent.then(|| kernel.recv(&mut frame).map(|length| frame[..length].to_vec()).unwrap())
    }
}

#[tokio::test]
async fn a_shard_without_flows_lends_its_queue_and_what_comes_through_it_begins_in_the_first() {
    let mut device = Device::new(4);
    device.lend(2).await;
    device.send(2, &segment(1, SYN));
    device.take(0).await;
    let (flow, _tenure) = device.opening(0).unwrap();
    device.shards[0].stack.refuse(flow).unwrap();
    assert!(device.sent(0).await.is_some());
}

#[tokio::test]
async fn before_it_lends_it_hands_on_what_begins() {
    let mut device = Device::new(2);
    device.send(1, &segment(1, SYN));
    device.take(1).await;
    assert!(device.opening(1).is_none());
    device.take(0).await;
    assert!(device.opening(0).is_some());
}

#[tokio::test]
async fn connections_to_where_much_is_carried_spread_and_bring_queues_back() {
    let mut device = Device::new(2);
    device.lend(1).await;
    device.carry_much();
    device.send(1, &segment(1, SYN));
    device.take(0).await;
    let _first = device.opening(0).unwrap();
    device.send(1, &segment(2, SYN));
    device.take(0).await;
    assert!(device.opening(0).is_none());
    device.take(1).await;
    let (flow, _tenure) = device.opening(1).unwrap();
    assert_eq!(device.settle(1), None, "it asks for its queue");
    device.take(0).await;
    device.settle(0);
    device.take(1).await;
    device.shards[1].stack.refuse(flow).unwrap();
    assert!(device.sent(1).await.is_some());
}

#[tokio::test]
async fn a_packet_that_comes_through_another_queue_reaches_its_flow() {
    let mut device = Device::new(3);
    device.send(0, &segment(1, SYN));
    device.take(0).await;
    let (_, _tenure) = device.opening(0).unwrap();
    // The destination changes its habits; the same SYN again is no new connection for all that.
    device.carry_much();
    for flags in [SYN, ACK] {
        device.send(2, &segment(1, flags));
        device.take(2).await;
        assert!(device.opening(2).is_none());
        device.take(0).await;
        assert!(device.opening(0).is_none());
        assert_eq!(device.sent(0).await, None, "nothing answers a held connection");
    }
}

#[tokio::test]
async fn a_segment_of_no_flow_is_refused_where_it_comes() {
    let mut device = Device::new(2);
    device.send(1, &segment(1, ACK));
    device.take(1).await;
    assert!(device.sent(1).await.is_some());
}

#[tokio::test]
async fn a_first_shard_with_enough_to_do_gives_all_queues_back_and_takes_none() {
    let mut device = Device::new(3);
    device.lend(1).await;
    device.lend(2).await;
    let gathered: u16 = GATHERED_HELD.try_into().unwrap();
    let mut tenures = Vec::new();
    for port in 1..=gathered {
        device.send(0, &segment(port, SYN));
        device.take(0).await;
        tenures.push(device.opening(0).unwrap());
        device.settle(0);
    }
    for shard in [1, 2] {
        device.take(shard).await;
        assert!(device.shards[shard].sources.can_send());
        device.send(shard, &segment(gathered + 1, SYN));
        device.take(shard).await;
        tenures.push(device.opening(shard).unwrap());
        tenures.pop();
        assert_eq!(device.settle(shard), None);
    }
}

#[tokio::test]
async fn what_a_first_shard_with_enough_to_do_is_handed_goes_home_again() {
    let mut device = Device::new(2);
    for port in 0..=u16::try_from(GATHERED_HELD).unwrap() {
        device.send(1, &segment(port + 1, SYN));
        device.take(1).await;
        assert!(device.opening(1).is_none(), "it has not heard that there is enough to do");
    }
    let mut gathered = Vec::new();
    // A task has a budget of 128 messages a turn.
    for _ in 0..2 {
        device.take(0).await;
        gathered.extend(std::iter::from_fn(|| device.opening(0)));
    }
    device.take(1).await;
    assert_eq!((gathered.len(), device.opening(1).is_some()), (GATHERED_HELD, true));
}

#[tokio::test]
async fn a_shard_with_a_flow_that_stays_keeps_what_begins_at_home() {
    let mut device = Device::new(2);
    device.carry_much();
    for port in 1..=2 {
        device.send(1, &segment(port, SYN));
        device.take(1).await;
    }
    device.take(0).await;
    let _stay = (device.opening(0).unwrap(), device.opening(1).unwrap());
    device.forget_habits();
    device.send(1, &segment(3, SYN));
    device.take(1).await;
    device.take(0).await;
    assert!(device.opening(0).is_some(), "it may be without flows in a moment");
    device.now += Duration::from_millis(500);
    device.send(1, &segment(4, SYN));
    device.take(1).await;
    assert!(device.opening(1).is_some());
}

#[tokio::test]
async fn a_shard_alone_keeps_its_queue() {
    let mut device = Device::new(1);
    assert_eq!(device.settle(0), None);
    device.send(0, &segment(1, SYN));
    device.take(0).await;
    assert!(device.opening(0).is_some());
}

/// What may happen to a device.
#[derive(Clone, Debug)]
enum Step {
    /// A program's segment comes through a queue.
    Segment {
        port: u16,
        opens: bool,
        queue: usize,
    },
    End {
        port: u16,
    },
    Much,
    Little,
    Wait {
        millis: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let port = 1..6_u16;
    prop_oneof![
        6 => (port.clone(), any::<bool>(), 0..3_usize).prop_map(|(port, opens, queue)| Step::Segment { port, opens, queue }),
        2 => port.prop_map(|port| Step::End { port }),
        1 => Just(Step::Much),
        1 => Just(Step::Little),
        2 => (1..1_200_u64).prop_map(|millis| Step::Wait { millis }),
    ]
}

/// Against what one stack with one queue would do.
async fn check(steps: Vec<Step>) {
    let mut device = Device::new(3);
    let mut flows = HashMap::new();
    for step in steps {
        match &step {
            &Step::Segment { port, opens, queue } => device.send(queue, &segment(port, if opens { SYN } else { ACK })),
            Step::End { port } => {
                if let Some((shard, flow, tenure)) = flows.remove(port) {
                    let member: &mut Member = &mut device.shards[shard];
                    member.stack.drop_flow(flow).unwrap();
                    drop::<Tenure>(tenure);
                }
            }
            Step::Much => device.carry_much(),
            Step::Little => device.forget_habits(),
            Step::Wait { millis } => device.now += Duration::from_millis(*millis),
        }
        let (began, answers) = device.run().await;
        let (begins, refused) = match step {
            Step::Segment { port, opens, .. } if !flows.contains_key(&port) => (opens, !opens),
            _ => (false, false),
        };
        assert_eq!((began.len(), answers), (usize::from(begins), usize::from(refused)), "{step:?}");
        for (shard, flow, tenure) in began {
            flows.insert(tenure.source().port(), (shard, flow, tenure));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_segment_finds_its_flow_and_none_begins_twice_wherever_queues_are(steps in vec(step(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(check(steps));
    }
}

#[test]
fn frames_are_whole() {
    assert!(Offload::decode(&segment(1, SYN)).is_ok());
}
