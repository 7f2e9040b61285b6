//! Relays: resources in networks that accept nothing from outside.

use std::{
    io::{Read as _, Seek as _, SeekFrom},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_proto::resource::Kind;
use postern_tests::{
    client::{self, End},
    figure,
    stack::Stack,
    target::{Behaviour, Target},
};
use rustix::process::Signal;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

/// A stack whose one resource is reached over relays only, and where it appears.
async fn behind_relays(target: &Target, gateways: usize, relays: usize) -> anyhow::Result<(Stack, SocketAddr)> {
    let builder = Stack::builder().gateways(gateways).resource("db", Kind::Tcp, target.address());
    let mut stack = builder.start().await?;
    for number in 1..=relays {
        stack.add_relay(&format!("relay-{number}"), "", gateways).await?;
    }
    let resource = stack.resource("db").await?;
    stack.set_egress(resource, "kind:relay").await?;
    let address = stack.user().connect("db").await?;
    reached_over_relays(&stack).await?;
    Ok((stack, address))
}

/// Waits until the user's service has heard of the relays.
async fn reached_over_relays(stack: &Stack) -> anyhow::Result<()> {
    let far = |status: &postern_local_api::message::ResourceStatus| {
        status.route.as_ref().is_some_and(|route| route.hops.len() == 2)
    };
    stack.user().resource_when("db", far).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_is_reached_over_a_relay_and_the_gateway_sees_none_of_it() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let (stack, address) = behind_relays(&target, 1, 1).await?;
    let canary = canary();
    let mut stream = client::open(address).await?;
    for _ in 0..50 {
        client::ask(&mut stream, &canary.repeat(64)).await?;
    }
    let sessions = stack.user().client().sessions().await?;
    let route = sessions.first().and_then(|session| session.route.clone()).context("no route is told")?;
    let names: Vec<&str> = route.hops.iter().map(|hop| hop.name.as_str()).collect();
    assert_eq!(names, ["gateway-1", "relay-1"]);
    let shown = stack.user().postern(&["sessions"]).await?;
    assert!(shown.contains("gateway-1 → relay-1"), "{}", shown);
    // What the relay dialled is with the relay, in the clear; so the look into memory finds what is there.
    let (relay, gateway) = (stack.relays[0].process_id(), stack.gateways[0].process_id());
    assert!(occurrences(relay, &canary)? > 0, "the look into memory finds nothing where something is");
    assert_eq!(occurrences(gateway, &canary)?, 0, "the gateway has seen what it carries");
    // The record of the session is the relay's own.
    let recorded = stack.sessions_when(|sessions| !sessions.is_empty()).await?;
    let by = recorded.first().and_then(|session| session.get("node_name")).cloned();
    assert_eq!(by, Some(serde_json::json!("relay-1")));
    drop(stream);
    stack.stop().await
}

/// 32 bytes that are nowhere else.
fn canary() -> Vec<u8> {
    let mut bytes = b"postern-canary-".to_vec();
    bytes.extend(std::iter::repeat_with(rand_letter).take(17));
    bytes
}

fn rand_letter() -> u8 {
    use std::hash::{BuildHasher as _, RandomState};
    b'a' + u8::try_from(RandomState::new().hash_one(0) % 26).unwrap_or_default()
}

/// How often `bytes` are in the memory of a process.
fn occurrences(process: u32, bytes: &[u8]) -> anyhow::Result<usize> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    let mut memory = std::fs::File::open(format!("/proc/{process}/mem")).context("memory cannot be read")?;
    let mut found = 0;
    for line in maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let Some((from, to)) = line.split_whitespace().next().and_then(|range| range.split_once('-')) else { continue };
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut region = vec![0; usize::try_from(to - from)?];
        if memory.seek(SeekFrom::Start(from)).is_ok() && memory.read_exact(&mut region).is_ok() {
            found += region.windows(bytes.len()).filter(|window| *window == bytes).count();
        }
    }
    Ok(found)
}

/// Streams over relays, when one node is killed: those that break are reset, and new ones go another way at once.
async fn kill_one(what: &str) -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let (mut stack, address) = behind_relays(&target, 2, 2).await?;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(client::open(address).await?);
    }
    let sessions = stack.user().client().sessions().await?;
    let route = sessions.first().and_then(|session| session.route.clone()).context("no route")?;
    let at = usize::from(what == "relay");
    let name = route.hops.get(at).context("no hop")?.name.clone();
    let over = |session: &postern_local_api::message::LiveSession| {
        session.route.as_ref().and_then(|route| route.hops.get(at)).is_some_and(|hop| hop.name == name)
    };
    let carried = sessions.iter().filter(|session| over(session)).count();
    let number = name.rsplit('-').next().and_then(|n| n.parse::<usize>().ok()).context("a number")? - 1;
    if what == "relay" {
        stack.relays.get_mut(number).context("no such relay")?.kill().await?;
    } else {
        stack.gateways.get_mut(number).context("no such gateway")?.kill().await?;
    }
    let killed = Instant::now();
    assert_eq!(client::exchange(address, b"again").await?, b"again", "a new stream after the {what} died");
    let anew = killed.elapsed();
    let (reset, _living) = client::reset_and_living(streams).await?;
    assert_eq!(reset, carried, "streams over the dead {what}, and only those, are reset");
    figure::say(&format!("{what} killed: {reset} streams reset, a new one after {anew:?}"));
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_over_a_dead_relay_are_reset_and_new_ones_go_over_another() -> anyhow::Result<()> {
    kill_one("relay").await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_to_a_relay_over_a_dead_gateway_are_reset_and_new_ones_go_over_another() -> anyhow::Result<()> {
    kill_one("gateway").await
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_access_ends_every_stream_over_relays_busy_or_idle() -> anyhow::Result<()> {
    const STREAMS: usize = 200;
    let target = Target::start(Behaviour::Echo).await?;
    let (stack, address) = behind_relays(&target, 2, 2).await?;
    let mut ends = tokio::task::JoinSet::new();
    for number in 0..STREAMS {
        let mut stream = client::open(address).await?;
        ends.spawn(async move {
            if number % 2 == 0 {
                while client::ask(&mut stream, b"busy").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            } else {
                let end = client::end_whenever(&mut stream).await?;
                anyhow::ensure!(end == End::Reset, "it looked complete");
            }
            anyhow::Ok(Instant::now())
        });
    }
    let asked = stack.revoke_all().await?;
    let mut last = Duration::ZERO;
    let ends = tokio::time::timeout(client::DEADLINE, ends.join_all()).await.context("streams survive")?;
    for ended in ends {
        last = last.max(ended?.duration_since(asked));
    }
    target.wait_open(0, Duration::from_secs(20)).await?;
    assert!(TcpStream::connect(address).await.is_err() || client::exchange(address, b"x").await.is_err());
    figure::say(&format!("0 of {STREAMS} streams over relays survive; the last ended after {last:?}"));
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_another_group_is_let_in_nowhere_and_leads_nowhere() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let builder = Stack::builder().resource("db", Kind::Tcp, target.address());
    let mut stack = builder.start().await?;
    stack.add_relay("stranger", "elsewhere", 0).await?;
    let resource = stack.resource("db").await?;
    stack.set_egress(resource, "name:stranger").await?;
    let address = stack.user().connect("db").await?;
    // Whether the change has arrived or not, nobody but the stranger dials the resource.
    let deadline = Instant::now() + Duration::from_secs(20);
    while client::exchange(address, b"x").await.is_ok_and(|answer| !answer.is_empty()) {
        anyhow::ensure!(Instant::now() < deadline, "a gateway goes on dialling what is meant for another node");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Whoever may dial it looks from time to time whether it is there: that is a connection without a byte.
    let seen = target.bytes();
    assert!(client::exchange(address, b"x").await.map_or(true, |answer| answer.is_empty()));
    assert_eq!(target.bytes(), seen, "0 bytes reached the resource");
    assert!(!stack.relays[0].log().contains("links are parked"));
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_stopped_finishes_old_streams_and_takes_no_new_ones() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let (mut stack, address) = behind_relays(&target, 1, 2).await?;
    let mut old = client::open(address).await?;
    let sessions = stack.user().client().sessions().await?;
    let route = sessions.first().and_then(|session| session.route.clone()).context("no route")?;
    let draining = route.hops.get(1).context("no relay")?.name.clone();
    let number = draining.rsplit('-').next().and_then(|n| n.parse::<usize>().ok()).context("a number")? - 1;
    stack.relays[number].signal(Signal::TERM)?;
    for _ in 0..10 {
        let mut new = client::open(address).await.context("a new stream while a relay drains")?;
        client::ask(&mut new, b"new").await?;
        client::ask(&mut old, b"old").await.context("the old stream while its relay drains")?;
    }
    assert!(stack.relays[number].is_running(), "it left a stream alone");
    old.shutdown().await?;
    drop(old);
    let status = stack.relays[number].wait(Duration::from_secs(20)).await.context("the drained relay does not end")?;
    assert!(status.success(), "{status}");
    assert_eq!(client::exchange(address, b"after").await?, b"after");
    stack.stop().await
}
