//! A loopback port is a credential: it works for the user who owns the service, and for nobody else, whatever tricks
//! they know. "Refused" means here: not one byte reached the resource.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use postern_proto::resource::Kind;
use postern_tests::{
    need,
    peer::{Connect, as_user, send_and_reset},
    ports::free_port,
    skip::is_root,
    stack::Stack,
    target::{Behaviour, Target},
};
use rustix::process::Signal;

/// The uid that posternd runs as in these tests, and two others.
const OWNER: u32 = 20_001;
const STRANGER: u32 = 20_002;
const ALLOWED: u32 = 20_003;

/// How long to wait for bytes that must not come.
const SETTLE: Duration = Duration::from_millis(500);

/// The first answer of an echo server to `bytes`, as this user; an empty one when the connection is refused or broken.
fn ask(uid: u32, to: SocketAddr, bytes: &'static [u8]) -> Vec<u8> {
    let asked = as_user(uid, move || {
        let mut stream = Connect::to(to).open()?;
        stream.write_all(bytes)?;
        read_some(&mut stream, bytes.len())
    });
    asked.unwrap_or_default()
}

fn read_some(stream: &mut TcpStream, length: usize) -> std::io::Result<Vec<u8>> {
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_user_is_refused_and_the_owner_is_served() -> anyhow::Result<()> {
    need!(is_root(), "needs root to act as other users");
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().owner(OWNER).resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    for uid in [STRANGER, 0, 65_534] {
        for _ in 0..20 {
            let answer = tokio::task::spawn_blocking(move || ask(uid, address, b"EVIL")).await?;
            assert!(answer.is_empty(), "uid {uid} got {answer:?}");
        }
    }
    tokio::time::sleep(SETTLE).await;
    assert_eq!(target.bytes(), 0, "reached the resource: {}", target.received());
    let answer = tokio::task::spawn_blocking(move || ask(OWNER, address, b"good")).await?;
    assert_eq!(answer, b"good");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_was_allowed_is_served_and_it_is_recorded() -> anyhow::Result<()> {
    need!(is_root(), "needs root to act as other users");
    let target = Target::start(Behaviour::Echo).await?;
    let builder = Stack::builder().owner(OWNER).allow(ALLOWED);
    let stack = builder.resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    let answer = tokio::task::spawn_blocking(move || ask(ALLOWED, address, b"good")).await?;
    assert_eq!(answer, b"good");
    let answer = tokio::task::spawn_blocking(move || ask(STRANGER, address, b"EVIL")).await?;
    assert!(answer.is_empty());
    assert!(!target.received().contains("EVIL"));
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let activities = stack.api().list("/api/v1/activities").await?;
        let text = serde_json::to_string(&activities)?;
        if text.contains(&ALLOWED.to_string()) && text.contains(&STRANGER.to_string()) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "neither the wider use nor the refusal is recorded: {text}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stack.stop().await
}

/// Uid B connects, sends and resets; uid A connects from the same port before the service accepts. The kernel then names
/// A as the owner of both connections, and B's bytes are still readable.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_borrow_the_port_of_the_owner() -> anyhow::Result<()> {
    need!(is_root(), "needs root to act as other users");
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().owner(OWNER).resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    let mut served = 0;
    for _ in 0..20 {
        let from = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        stack.user_mut().freeze().await?;
        let attack = move || send_and_reset(Connect::to(address).from(from).open()?, b"EVIL REQUEST");
        tokio::task::spawn_blocking(move || as_user(STRANGER, attack)).await??;
        let honest = tokio::task::spawn_blocking(move || {
            as_user(OWNER, move || {
                let mut stream = Connect::to(address).from(from).open()?;
                stream.write_all(b"good")?;
                read_some(&mut stream, 4)
            })
        });
        // The owner's SYN must be there before the service looks.
        tokio::time::sleep(Duration::from_millis(50)).await;
        stack.user_mut().signal(Signal::CONT)?;
        served += usize::from(honest.await?.is_ok_and(|answer| answer == b"good"));
        assert!(!target.received().contains("EVIL"), "reached the resource: {}", target.received());
    }
    assert_eq!(served, 20, "the owner's own connections must work");
    assert_eq!(target.bytes(), 20 * 4);
    stack.stop().await
}

/// What a client leaves behind that is gone before the look-up.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    WriteAndReset,
    WriteAndClose,
    Close,
}

async fn leave_before_the_lookup(owner: Option<u32>, client: u32) -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let builder = Stack::builder().resource("echo", Kind::Tcp, target.address());
    let builder = if let Some(owner) = owner { builder.owner(owner) } else { builder };
    let mut stack = builder.start().await?;
    let address = stack.user().connect("echo").await?;
    stack.user_mut().freeze().await?;
    for leaving in [Leaving::WriteAndReset, Leaving::WriteAndClose, Leaving::Close] {
        let leave = move || {
            for _ in 0..20 {
                let mut stream = Connect::to(address).open()?;
                match leaving {
                    Leaving::WriteAndReset => send_and_reset(stream, b"EVIL")?,
                    Leaving::WriteAndClose => stream.write_all(b"EVIL")?,
                    Leaving::Close => {}
                }
            }
            Ok(())
        };
        tokio::task::spawn_blocking(move || as_user(client, leave)).await??;
    }
    // A closed client turns into a time-wait socket without an owner about one delayed acknowledgement later.
    tokio::time::sleep(Duration::from_millis(300)).await;
    stack.user_mut().signal(Signal::CONT)?;
    tokio::time::sleep(SETTLE).await;
    assert_eq!(target.bytes(), 0, "reached the resource: {}", target.received());
    let owner = owner.unwrap_or(0);
    let answer = tokio::task::spawn_blocking(move || ask(owner, address, b"good")).await?;
    assert_eq!(answer, b"good", "the listener must have survived");
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_is_gone_before_the_look_up_sends_nothing() -> anyhow::Result<()> {
    need!(is_root(), "needs root to act as other users");
    leave_before_the_lookup(Some(OWNER), STRANGER).await
}

/// The kernel names uid 0 for a socket that nobody holds any more: a service of root must not take it for its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_is_gone_is_not_taken_for_root() -> anyhow::Result<()> {
    need!(is_root(), "needs root to act as other users");
    leave_before_the_lookup(None, STRANGER).await
}
