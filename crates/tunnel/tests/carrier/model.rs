//! A model of the carrier: many streams over few connections, cut and refused at random, held against what TCP promises.
//!
//! Whatever happens: a target gets a beginning of what its program sent, and nothing of another stream; no more than one
//! target connection of a stream gets anything; who sees an orderly end has everything.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use postern_proto::{
    head::Request,
    id::{ResourceId, StreamId},
    problem::Problem,
};
use postern_tunnel::{
    client::{Attempt, Entry, Failure, StreamGuide},
    stream::{EndCause, StreamEnd},
};
use proptest::prelude::*;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use ulid::Ulid;

use crate::world::{Gateway, Local, Org, Plan, within};

/// What a gateway does with one attempt.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    Open,
    OpenLate,
    Refuse(u16),
}

/// How a program or a target behaves.
#[derive(Clone, Debug)]
struct Manner {
    sends: usize,
    /// Writes so much at a time.
    chunk: usize,
    /// Resets its connection when it has read so much.
    resets_after: Option<usize>,
    /// Ends its writing only when it has read everything.
    answers: bool,
}

#[derive(Clone, Debug)]
struct StreamScript {
    verdicts: Vec<Verdict>,
    program: Manner,
    target: Manner,
}

/// What the way does to a connection.
#[derive(Clone, Debug)]
struct WayScript {
    chunk: usize,
    /// Closes when it has carried so much up, or down; what it had read is lost.
    cut_up: Option<usize>,
    cut_down: Option<usize>,
}

fn manner() -> impl Strategy<Value = Manner> {
    let sends = prop_oneof![2 => Just(0), 3 => 1usize..2000, 2 => 2000usize..400_000];
    let resets = prop_oneof![8 => Just(None), 1 => (0usize..100_000).prop_map(Some)];
    (sends, prop_oneof![1usize..100, 100usize..70_000], resets, any::<bool>())
        .prop_map(|(sends, chunk, resets_after, answers)| Manner { sends, chunk, resets_after, answers })
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        6 => Just(Verdict::Open),
        2 => Just(Verdict::OpenLate),
        3 => prop::sample::select(vec![401, 421, 503, 403]).prop_map(Verdict::Refuse),
    ]
}

fn stream() -> impl Strategy<Value = StreamScript> {
    (prop::collection::vec(verdict(), 1..4), manner(), manner()).prop_map(|(verdicts, program, mut target)| {
        // Two that wait for each other's end would wait for ever.
        target.answers &= !program.answers;
        StreamScript { verdicts, program, target }
    })
}

fn way() -> impl Strategy<Value = WayScript> {
    let cut =
        || prop_oneof![5 => Just(None), 1 => (0usize..3000).prop_map(Some), 1 => (0usize..500_000).prop_map(Some)];
    (prop_oneof![1usize..50, 50usize..3000, Just(65536)], cut(), cut())
        .prop_map(|(chunk, cut_up, cut_down)| WayScript { chunk, cut_up, cut_down })
}

/// Byte `at` of what `who` of stream `number` sends: another sequence for each.
fn bytes(number: usize, who: u8, length: usize) -> Vec<u8> {
    let mut state = (number as u64 * 2 + u64::from(who) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[5]
        })
        .collect()
}

/// What one end of a stream saw.
#[derive(Debug, Default, Clone)]
struct Seen {
    bytes: Vec<u8>,
    orderly: bool,
    /// It had written everything and said so.
    wrote_all: bool,
}

/// Plays a program or a target, as its manner is.
async fn play(mut socket: TcpStream, manner: Manner, sends: Vec<u8>) -> Seen {
    let seen = Mutex::new(Seen::default());
    let (mut read, mut write) = socket.split();
    let told = tokio::sync::Notify::new();
    let writing = async {
        for chunk in sends.chunks(manner.chunk) {
            if write.write_all(chunk).await.is_err() {
                return false;
            }
        }
        if manner.answers {
            told.notified().await;
        }
        let ended = write.shutdown().await.is_ok();
        seen.lock().unwrap().wrote_all = ended;
        ended
    };
    let reading = async {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            match read.read(&mut buffer).await {
                Ok(0) => {
                    seen.lock().unwrap().orderly = true;
                    told.notify_one();
                    return true;
                }
                Ok(count) => {
                    let mut seen = seen.lock().unwrap();
                    seen.bytes.extend_from_slice(&buffer[..count]);
                    if manner.resets_after.is_some_and(|most| seen.bytes.len() >= most) {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    };
    // A side that broke off does not go on writing.
    let playing = async {
        tokio::pin!(writing, reading);
        tokio::select! {
            // A write that fails takes up the error that the next read would have told.
            written = &mut writing => reading.await && written,
            whole = &mut reading => whole && writing.await,
        }
    };
    let whole = within(playing).await;
    seen.lock().unwrap().orderly &= whole;
    if !whole {
        let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    }
    drop(socket);
    seen.into_inner().unwrap()
}

/// What is to happen to each stream's attempts, and where its target is.
type Plans = HashMap<ResourceId, (SocketAddr, Vec<Verdict>, AtomicUsize)>;

/// The targets of one stream: what each connection to them saw.
struct Targets {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<JoinHandle<Seen>>>>,
    task: JoinHandle<()>,
}

impl Targets {
    async fn start(manner: Manner, sends: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                notes.lock().unwrap().push(tokio::spawn(play(socket, manner.clone(), sends.clone())));
            }
        });
        Self { address, seen, task }
    }
}

/// The way to a gateway: passes bytes on in odd pieces, and breaks as its scripts say.
async fn lay_way(gateway: SocketAddr, scripts: Vec<WayScript>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for script in scripts.into_iter().cycle() {
            let Ok((client, _)) = listener.accept().await else { return };
            tokio::spawn(async move {
                let Ok(node) = TcpStream::connect(gateway).await else { return };
                let ((client_read, client_write), (node_read, node_write)) = (client.into_split(), node.into_split());
                tokio::select! {
                    () = pass(client_read, node_write, script.chunk, script.cut_up) => {}
                    () = pass(node_read, client_write, script.chunk, script.cut_down) => {}
                }
            });
        }
    });
    address
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    chunk: usize,
    cut: Option<usize>,
) {
    let (mut buffer, mut carried) = (vec![0; chunk], 0);
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        carried += count;
        if cut.is_some_and(|most| carried > most) || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        if carried % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Goes back and forth between two entries.
struct Guide {
    entries: [Arc<Entry>; 2],
    stream: usize,
}

fn resource(stream: usize) -> ResourceId {
    ResourceId::from_ulid(Ulid(stream as u128))
}

impl StreamGuide for Guide {
    async fn next_attempt(&mut self, number: u32, failure: Option<&Failure>) -> Result<Attempt, Problem> {
        if number >= 6 {
            return Err(failure.map_or_else(|| Problem::new(500, "none", "None"), Failure::problem));
        }
        let entry = self.entries[number as usize % 2].clone();
        let stream = StreamId::from_ulid(Ulid(self.stream as u128));
        Ok(Attempt { entry, request: Request::new(resource(self.stream), "gw", "v4.public.x", stream).unwrap() })
    }
}

/// Everything that is known of a stream when it is over.
struct Outcome {
    number: usize,
    script: StreamScript,
    end: StreamEnd,
    program: Seen,
    targets: Vec<Seen>,
}

fn check(outcome: &Outcome, disturbed: bool) {
    let Outcome { number, script, end, program, targets } = outcome;
    let context = || format!("stream {number}, {script:?}, {:?}, {} target connections", end.cause, targets.len());
    let (up, down) = (bytes(*number, 0, script.program.sends), bytes(*number, 1, script.target.sends));
    assert!(down.starts_with(&program.bytes), "the program got what was not for it: {}", context());
    for target in targets {
        assert!(up.starts_with(&target.bytes), "a target got what was not for it: {}", context());
        if target.orderly {
            assert!(target.bytes.len() == up.len() && program.wrote_all, "a cut upload looked complete: {}", context());
        }
    }
    let fed = targets.iter().filter(|target| !target.bytes.is_empty()).count();
    assert!(fed <= 1, "{fed} target connections were fed: {}", context());
    if program.orderly {
        assert!(program.bytes.len() == down.len(), "a cut download looked complete: {}", context());
        assert!(targets.iter().any(|target| target.wrote_all), "nobody had ended: {}", context());
    }
    if end.cause == EndCause::Done {
        // Who broke off himself may have done so after everything was with his system.
        let resets = script.program.resets_after.is_some();
        assert!(program.orderly || resets, "the program does not know the end: {}", context());
        // A connection that was cut after the target had everything and had ended may have taken the program's end along.
        let whole = |target: &Seen| target.orderly || (disturbed && target.wrote_all && target.bytes.len() == up.len());
        let resets = script.target.resets_after.is_some();
        assert!(targets.iter().any(whole) || resets, "no target knows the end: {}", context());
        assert_eq!((end.up, end.down), (up.len() as u64, down.len() as u64), "{}", context());
    }
    let resets = script.program.resets_after.is_some() || script.target.resets_after.is_some();
    let renewals = |status| {
        script.verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Refuse(code) if *code == status)).count()
    };
    let refused = renewals(403) > 0 || renewals(401) > 1 || renewals(421) > 1;
    if !disturbed && !resets && !refused {
        assert_eq!(end.cause, EndCause::Done, "it did not go through: {}", context());
    }
}

async fn run(scripts: Vec<StreamScript>, ways: [Vec<WayScript>; 2], at_once: usize) {
    let org = Org::new();
    let mut plans = Plans::new();
    let mut targets = Vec::new();
    for (number, script) in scripts.iter().enumerate() {
        let sends = bytes(number, 1, script.target.sends);
        let target = Targets::start(script.target.clone(), sends).await;
        plans.insert(resource(number), (target.address, script.verdicts.clone(), AtomicUsize::new(0)));
        targets.push(target);
    }
    let plans = Arc::new(plans);
    let decide = |plans: Arc<Plans>| {
        move |wish: &postern_tunnel::node::OpenRequest<'_>| {
            let (address, verdicts, next) = &plans[&wish.request.resource()];
            // When the script is at its end, the stream is opened.
            match verdicts.get(next.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or(Verdict::Open) {
                Verdict::Open => Plan::Dial(*address),
                Verdict::OpenLate => Plan::DialAfter(Duration::from_millis(5), *address),
                Verdict::Refuse(status) => Plan::problem(status, "scripted"),
            }
        }
    };
    let disturbed = ways.iter().flatten().any(|way| way.cut_up.is_some() || way.cut_down.is_some());
    let tls = org.client();
    let mut gateways = Vec::new();
    let mut entries = Vec::new();
    for way in ways {
        let gateway = Gateway::start(&org, Duration::ZERO, decide(plans.clone())).await;
        let address = lay_way(gateway.address, way).await;
        entries.push(Entry::new(gateway.node, address.to_string(), tls.clone()).unwrap());
        gateways.push(gateway);
    }
    let entries: [Arc<Entry>; 2] = [entries[0].clone(), entries[1].clone()];
    let scripts: Vec<_> = scripts.into_iter().enumerate().collect();
    let mut outcomes = Vec::new();
    for group in scripts.chunks(at_once) {
        let running: Vec<_> = group
            .iter()
            .map(|(number, script)| {
                let guide = Guide { entries: entries.clone(), stream: *number };
                let (manner, sends) = (script.program.clone(), bytes(*number, 0, script.program.sends));
                tokio::spawn(async move {
                    let Local { app, task, .. } = Local::connect(guide).await;
                    let program = play(app, manner, sends).await;
                    (program, within(task).await.unwrap())
                })
            })
            .collect();
        for ((number, script), running) in group.iter().zip(running) {
            let (program, end) = running.await.unwrap();
            outcomes.push((*number, script.clone(), program, end));
        }
    }
    for gateway in &gateways {
        within(async {
            while gateway.server.streams() > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
    drop(gateways);
    for (number, script, program, end) in outcomes {
        targets[number].task.abort();
        let played = std::mem::take(&mut *targets[number].seen.lock().unwrap());
        let mut seen = Vec::new();
        for target in played {
            seen.push(target.await.unwrap());
        }
        check(&Outcome { number, script, end, program, targets: seen }, disturbed);
    }
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap().block_on(work);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn streams_over_good_ways_go_through(
        scripts in prop::collection::vec(stream(), 1..12),
        chunks in prop::array::uniform2(prop_oneof![1usize..50, 50usize..3000, Just(65536)]),
        at_once in 1usize..5,
    ) {
        let ways = chunks.map(|chunk| vec![WayScript { chunk, cut_up: None, cut_down: None }]);
        block_on(run(scripts, ways, at_once));
    }

    #[test]
    fn streams_over_bad_ways_never_lie(
        scripts in prop::collection::vec(stream(), 1..12),
        ways in prop::array::uniform2(prop::collection::vec(way(), 1..6)),
        at_once in 1usize..5,
    ) {
        block_on(run(scripts, ways, at_once));
    }
}
