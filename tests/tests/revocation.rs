//! Access that is taken away: 200 busy and idle streams, none of which may survive, whatever the way it is taken.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_proto::{id::ResourceId, resource::Kind};
use postern_tests::{
    client::{self, End},
    figure,
    stack::Stack,
    target::{Behaviour, Target},
};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};

const BUSY: usize = 100;
const IDLE: usize = 100;
/// No stream may be longer alive than this. What they take in fact is printed.
const LIMIT: Duration = Duration::from_secs(5);

/// Streams through an echo server: how each ended, and when its client saw it.
async fn watch(mut stream: TcpStream, busy: bool) -> anyhow::Result<(End, Instant)> {
    let end = if busy {
        let (mut read, mut write) = stream.split();
        let piece = vec![7; 4 * 1024];
        let writing = async {
            // Busy, but not so busy that the test measures how many processors there are.
            while write.write_all(&piece).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            anyhow::Ok(())
        };
        let reading = async {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match tokio::io::AsyncReadExt::read(&mut read, &mut buffer).await {
                    Ok(0) => return anyhow::Ok(End::Closed),
                    Ok(_) => {}
                    Err(_) => return Ok(End::Reset),
                }
            }
        };
        tokio::select! {
            end = reading => end?,
            done = writing => {
                done?;
                End::Reset
            }
        }
    } else {
        client::end_whenever(&mut stream).await?
    };
    Ok((end, Instant::now()))
}

async fn open_streams(address: SocketAddr) -> anyhow::Result<JoinSet<anyhow::Result<(End, Instant)>>> {
    let mut streams = JoinSet::new();
    for number in 0..BUSY + IDLE {
        let stream = client::open(address).await.with_context(|| format!("stream {number}"))?;
        streams.spawn(watch(stream, number < BUSY));
    }
    Ok(streams)
}

/// Opens the streams, takes access away as `revoke` does it (which gives the moment just before it asked), and checks
/// that all ended.
async fn nothing_survives(
    stack: &Stack,
    target: &Target,
    way: &str,
    revoke: impl AsyncFnOnce(ResourceId) -> anyhow::Result<Instant>,
) -> anyhow::Result<()> {
    let address = stack.user().connect("echo").await?;
    let resource = stack.resource("echo").await?;
    let streams = open_streams(address).await?;
    target.wait_open((BUSY + IDLE) as u64, Duration::from_secs(10)).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = revoke(resource).await?;
    let ends = tokio::time::timeout(Duration::from_secs(20), streams.join_all()).await.context("streams survived")?;
    let mut clients = Vec::new();
    for end in ends {
        let (end, at) = end?;
        assert_eq!(end, End::Reset, "{way}: a cut stream looked complete");
        clients.push(at.saturating_duration_since(asked));
    }
    target.wait_open(0, LIMIT).await.with_context(|| format!("{way}: streams survive at the resource"))?;
    // Idle streams were quiet before; their last sign of life at the resource is their end.
    let mut upstream: Vec<_> = target.last_seen().into_iter().map(|at| at.saturating_duration_since(asked)).collect();
    for (side, times) in [("client", &mut clients), ("resource", &mut upstream)] {
        figure::times(&format!("revocation by {way}, at the {side}"), times);
        assert!(times.iter().all(|time| *time <= LIMIT), "{way}: a stream lived too long");
    }
    Ok(())
}

async fn started() -> anyhow::Result<(Target, Stack)> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().gateways(2).resource("echo", Kind::Tcp, target.address()).start().await?;
    Ok((target, stack))
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_a_role_cuts_every_stream() -> anyhow::Result<()> {
    let (target, stack) = started().await?;
    nothing_survives(&stack, &target, "leaving a role", async |_| stack.revoke_all().await).await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_an_account_cuts_every_stream() -> anyhow::Result<()> {
    let (target, stack) = started().await?;
    let suspend = async |_| {
        let asked = Instant::now();
        stack.api().patch(&format!("/api/v1/accounts/{}", stack.account), json!({"suspended": true})).await?;
        Ok(asked)
    };
    nothing_survives(&stack, &target, "suspending the account", suspend).await?;
    stack.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_resource_cuts_every_stream() -> anyhow::Result<()> {
    let (target, stack) = started().await?;
    let delete = async |resource: ResourceId| {
        let asked = Instant::now();
        stack.api().delete(&format!("/api/v1/resources/{resource}")).await?;
        Ok(asked)
    };
    nothing_survives(&stack, &target, "deleting the resource", delete).await?;
    stack.stop().await
}

/// A grant with an end needs nobody to revoke it.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_grant_cuts_its_streams() -> anyhow::Result<()> {
    let target = Target::start(Behaviour::Echo).await?;
    let stack = Stack::builder().start().await?;
    let resource = stack.create_resource("echo", Kind::Tcp, target.address()).await?;
    stack.grant(stack.account, resource, Some(Duration::from_secs(6))).await?;
    let granted = Instant::now();
    stack.user().knows("echo").await?;
    let address = stack.user().connect("echo").await?;
    let mut stream = client::open(address).await?;
    assert_eq!(client::end(&mut stream).await?, End::Reset);
    let lived = granted.elapsed();
    figure::say(&format!("a stream under a grant of 6 s was cut after {lived:?}"));
    assert!(lived >= Duration::from_secs(5), "cut too early: {lived:?}");
    target.wait_open(0, LIMIT).await?;
    let deadline = Instant::now() + LIMIT;
    while client::open(address).await.is_ok() {
        assert!(Instant::now() < deadline, "a new stream was let through");
    }
    stack.stop().await
}
