//! Many streams that carry nothing, and many strangers who begin and never end: everybody else is served, and memory is printed.
//! `cargo xtask bench load` does the same with 10,000 and 5,000.

use std::{
    io::Write as _,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    client, figure,
    process::raise_file_limit,
    stack::Stack,
    target::{Behaviour, Target},
};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncReadExt as _;

/// Idle streams over each way.
const IDLE: usize = 400;
/// Handshakes that never end, and how many come from one address.
const STALLED: usize = 1_000;
const FROM_ONE: usize = 250;
/// New connections of a good client meanwhile.
const GOOD: usize = 100;
/// A gateway waits ten seconds for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Resident memory of a process, KiB.
fn resident(process: u32) -> anyhow::Result<i64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Makes a resource that only nodes of this filter dial, and connects it.
async fn connect(stack: &Stack, name: &str, at: SocketAddr, egress: &str, hops: usize) -> anyhow::Result<SocketAddr> {
    let resource = stack.create_resource(name, Kind::Tcp, at).await?;
    stack.set_egress(resource, egress).await?;
    stack.add_rule(stack.role, &[resource]).await?;
    let led = |status: &postern_local_api::message::ResourceStatus| {
        status.route.as_ref().is_some_and(|route| route.hops.len() == hops)
    };
    stack.user().resource_when(name, led).await?;
    stack.user().connect(name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_streams_over_a_gateway_and_over_a_relay_all_carry_when_they_are_used_again() -> anyhow::Result<()> {
    raise_file_limit()?;
    let target = Target::start(Behaviour::Echo).await?;
    let mut stack = Stack::builder().start().await?;
    stack.add_relay("relay-1", "", 1).await?;
    for (name, egress, hops) in [("direct", "kind:gateway", 1), ("relayed", "kind:relay", 2)] {
        let address = connect(&stack, name, target.address(), egress, hops).await?;
        drop(client::open(address).await?);
        let processes = [
            ("posternd", stack.user().process_id()),
            ("gateway", stack.gateways.first().context("no gateway")?.process_id()),
            ("relay", stack.relays.first().context("no relay")?.process_id()),
        ];
        let memory = || processes.iter().map(|(_, id)| resident(*id)).collect::<anyhow::Result<Vec<_>>>();
        let before = memory()?;
        let mut streams = Vec::new();
        for number in 0..IDLE {
            streams.push(client::open(address).await.with_context(|| format!("{name}: stream {number}"))?);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let with = memory()?;
        for ((process, _), (before, with)) in processes.iter().zip(before.iter().zip(&with)) {
            figure::say(&format!(
                "{IDLE} idle streams, {name}: {process} grew by {:.1} KiB a stream to {} MiB (this build)",
                (with - before) as f64 / IDLE as f64,
                with / 1024
            ));
        }
        for stream in &mut streams {
            client::ask(stream, b"still here").await.with_context(|| format!("{name}: an idle stream is dead"))?;
        }
    }
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_never_end_keep_nobody_out_and_are_given_up() -> anyhow::Result<()> {
    raise_file_limit()?;
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().resource("echo", Kind::Tcp, target.address()).start().await?;
    let address = stack.user().connect("echo").await?;
    let gateway = stack.gateways.first().context("no gateway")?;
    let (door, process) = (gateway.address(), gateway.process_id());
    // A record of 512 bytes that begins a ClientHello, and a part of it.
    let begun = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 100]].concat();
    let before = resident(process)?;
    let mut stalled = Vec::new();
    for number in 0..STALLED {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let host = u8::try_from(number / FROM_ONE + 2)?;
        socket.bind(&SocketAddr::from(([127, 0, 98, host], 0)).into())?;
        socket.connect(&door.into()).with_context(|| format!("stranger {number}"))?;
        let mut stream = std::net::TcpStream::from(socket);
        stream.write_all(&begun)?;
        stream.set_nonblocking(true)?;
        stalled.push(tokio::net::TcpStream::from_std(stream)?);
    }
    let (mut times, mut streams) = (Vec::new(), Vec::new());
    for number in 0..GOOD {
        let begun = Instant::now();
        // Kept open, so that each needs a connection of its own.
        streams.push(client::open(address).await.with_context(|| format!("good client {number}"))?);
        times.push(begun.elapsed());
    }
    let grown = resident(process)? - before;
    figure::times(&format!("{STALLED} stalled handshakes: a good client's new connection"), &mut times);
    figure::say(&format!(
        "{STALLED} stalled handshakes and {GOOD} streams: the gateway grew by {grown} KiB (this build)"
    ));
    for mut stranger in stalled {
        let ended = tokio::time::timeout(HANDSHAKE, stranger.read(&mut [0; 64])).await;
        assert!(!matches!(ended.context("a stranger is waited for without end")?, Ok(1..)), "a stranger got an answer");
    }
    for stream in &mut streams {
        client::ask(stream, b"still here").await?;
    }
    stack.stop().await
}
