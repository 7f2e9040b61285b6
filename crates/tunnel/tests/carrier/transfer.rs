//! What goes in comes out.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{Gateway, Local, Org, Plan, Route, Target, within};

/// Bytes without a pattern that a mistake could hit by chance.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_both_ends_arrive() {
    let org = Org::new();
    let echo = Target::echo().await;
    let mut gateway = Gateway::start(&org, Duration::ZERO, move |_| Plan::Dial(echo)).await;
    let entry = gateway.entry(org.client());
    let mut local = Local::connect(Route::to(&[&entry])).await;
    local.app.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    within(local.app.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"hello");
    local.app.write_all(b" world").await.unwrap();
    local.app.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within(local.app.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b" world");
    let end = local.end().await;
    assert_eq!(end.cause, postern_tunnel::stream::EndCause::Done);
    assert_eq!((end.up, end.down), (11, 11));
    assert_eq!(within(gateway.ends.recv()).await.unwrap(), end);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_transfers_both_ways_at_once_are_identical() {
    let org = Org::new();
    let echo = Target::echo().await;
    let gateway = Gateway::start(&org, Duration::ZERO, move |_| Plan::Dial(echo)).await;
    let entry = gateway.entry(org.client());
    let mut tasks = Vec::new();
    for seed in 1..=4 {
        let route = Route::to(&[&entry]);
        tasks.push(tokio::spawn(async move {
            let sent = noise(seed, 24 << 20);
            let mut local = Local::connect(route).await;
            let received = local.echo(&sent).await;
            assert!(received == sent, "stream {seed} came back changed");
            assert_eq!(local.end().await.up, 24 << 20);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_one_stream_after_another() {
    let org = Org::new();
    let echo = Target::echo().await;
    let gateway = Gateway::start(&org, Duration::ZERO, move |_| Plan::Dial(echo)).await;
    let entry = gateway.entry(org.client());
    for seed in 1..200 {
        let sent = noise(seed, (seed as usize * 7919) % 300_000);
        let mut local = Local::connect(Route::to(&[&entry])).await;
        let received = local.echo(&sent).await;
        assert!(received == sent, "stream {seed} came back changed");
        local.end().await;
    }
    assert!((1..=3).contains(&entry.idle()), "{} connections were kept", entry.idle());
}
