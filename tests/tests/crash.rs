//! Ten thousand short sessions while gateways and control plane are killed at random points: what was served is
//! recorded, once, and the chains of records are whole.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{client, figure, stack::Stack};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const SESSIONS: u64 = 10_000;
const WORKERS: u64 = 40;
/// How long a session rests in the middle, so that kills meet many that are under way.
const REST: Duration = Duration::from_millis(40);
/// Every session sends a number of bytes of its own, so that its record can be told from all others.
const SHORTEST: u64 = 16;

/// An echo server that notes whose bytes reached it.
struct Witness {
    address: SocketAddr,
    /// For each session how often its first bytes came.
    served: Arc<Mutex<BTreeMap<u64, u32>>>,
    accepted: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

async fn witness() -> anyhow::Result<Witness> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let served = Arc::new(Mutex::new(BTreeMap::new()));
    let accepted = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let (noted, counted) = (Arc::clone(&served), Arc::clone(&accepted));
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            counted.fetch_add(1, Ordering::SeqCst);
            let noted = Arc::clone(&noted);
            connections.spawn(async move {
                let mut number = [0; 8];
                if stream.read_exact(&mut number).await.is_err() {
                    return;
                }
                *noted.lock().unwrap_or_else(PoisonError::into_inner).entry(u64::from_be_bytes(number)).or_insert(0) +=
                    1;
                let (mut from, mut to) = stream.split();
                if to.write_all(&number).await.is_ok() && tokio::io::copy(&mut from, &mut to).await.is_ok() {
                    let _ = to.shutdown().await;
                }
            });
            while connections.try_join_next().is_some() {}
        }
    });
    Ok(Witness { address, served, accepted, _tasks: tasks })
}

/// What a session sends: its number, then filling up to the length that only it has.
fn message(number: u64) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize((SHORTEST + number) as usize, b'x');
    bytes
}

/// One session; whether all of it came back.
async fn session(address: SocketAddr, sent: &[u8]) -> anyhow::Result<bool> {
    let (first, rest) = sent.split_at(8);
    let mut stream = TcpStream::connect(address).await?;
    client::ask(&mut stream, first).await?;
    tokio::time::sleep(REST).await;
    stream.write_all(rest).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    tokio::time::timeout(client::DEADLINE, stream.read_to_end(&mut answer)).await??;
    Ok(answer == rest)
}

/// Runs all sessions; the numbers of those that came back whole.
async fn run_sessions(address: SocketAddr) -> anyhow::Result<Vec<u64>> {
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let next = Arc::clone(&next);
        workers.spawn(async move {
            let mut acknowledged = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= SESSIONS {
                    return acknowledged;
                }
                if session(address, &message(number)).await.unwrap_or(false) {
                    acknowledged.push(number);
                } else {
                    // While every gateway is down connections fail at once; give the next process its time.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
    }
    Ok(workers.join_all().await.concat())
}

/// Kills something, waits, starts it again, until the sessions are over. How often it did.
async fn kill_at_random(stack: &mut Stack, seed: u64, over: &AtomicBool) -> anyhow::Result<u32> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut kills = 0;
    while !over.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(random.random_range(20..300))).await;
        let pause = Duration::from_millis(random.random_range(0..200));
        match random.random_range(0..3_usize) {
            2 => {
                stack.control.kill().await?;
                tokio::time::sleep(pause).await;
                stack.control.restart().await.context("the control plane after a SIGKILL")?;
            }
            number => {
                let gateway = stack.gateways.get_mut(number).context("two gateways")?;
                gateway.kill().await?;
                tokio::time::sleep(pause).await;
                gateway.restart().await.with_context(|| format!("gateway {number} after a SIGKILL"))?;
            }
        }
        kills += 1;
    }
    Ok(kills)
}

fn number_of(session: &Value) -> Option<u64> {
    session.get("bytes_up")?.as_u64()?.checked_sub(SHORTEST)
}

fn is_over(session: &Value) -> bool {
    session.get("ended_at").is_some_and(|at| !at.is_null())
}

/// Ended by a crash: the bytes are not known.
fn is_lost(session: &Value) -> bool {
    session.get("reason").and_then(Value::as_str) == Some("node_lost")
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_sessions_with_kills_are_recorded_once_each() -> anyhow::Result<()> {
    let seed = std::env::var("POSTERN_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    figure::say(&format!("seed {seed} (POSTERN_TEST_SEED repeats it)"));
    let witness = witness().await?;
    let mut stack = Stack::builder().gateways(2).resource("echo", Kind::Tcp, witness.address).start().await?;
    let address = stack.user().connect("echo").await?;

    let over = AtomicBool::new(false);
    let sessions = async {
        let acknowledged = run_sessions(address).await;
        over.store(true, Ordering::SeqCst);
        acknowledged
    };
    let (acknowledged, kills) = tokio::join!(sessions, kill_at_random(&mut stack, seed, &over));
    let (acknowledged, kills) = (acknowledged?, kills?);
    let served = witness.served.lock().unwrap_or_else(PoisonError::into_inner).clone();
    figure::say(&format!(
        "{kills} kills; {} of {SESSIONS} sessions acknowledged, {} reached the resource, {} connections there",
        acknowledged.len(),
        served.len(),
        witness.accepted.load(Ordering::SeqCst)
    ));
    assert!(kills >= 5, "too few kills to say anything");
    assert!(acknowledged.len() as u64 > SESSIONS / 2, "most sessions must work although processes are killed");

    // A replay on another connection sends each byte once.
    let twice: Vec<_> = served.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "sent more than once: {twice:?}");

    let whole = |records: &[Value]| records.len() >= served.len() && records.iter().all(is_over);
    let records = stack.sessions_when(whole).await?;
    let open = records.iter().filter(|record| !is_over(record)).count();
    assert_eq!(open, 0, "sessions that never ended");
    let lost = records.iter().filter(|record| is_lost(record)).count();
    let mut recorded: BTreeMap<u64, u32> = BTreeMap::new();
    for number in records.iter().filter(|record| !is_lost(record)).filter_map(number_of) {
        *recorded.entry(number).or_default() += 1;
    }
    let twice: Vec<_> = recorded.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "recorded more than once: {twice:?}");
    let missing: Vec<_> = served.keys().filter(|number| !recorded.contains_key(number)).collect();
    figure::say(&format!(
        "{} records, {lost} of them of sessions that died with a gateway, {} sizes not known",
        records.len(),
        missing.len()
    ));
    // Of a session that died with its gateway the bytes are not known, so it cannot be told which one it was.
    assert!(missing.len() <= lost, "served, without a record, and only {lost} died with a gateway: {missing:?}");
    let verified = stack.api().get("/api/v1/audit/verify").await?;
    assert_eq!(verified["ok"], true, "{verified}");
    stack.stop().await
}
