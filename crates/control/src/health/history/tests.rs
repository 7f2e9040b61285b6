use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ulid::Ulid;

use super::*;
use crate::{clock::Clock, housekeeping, store::Absent};

fn resource() -> ResourceId {
    ResourceId::from_ulid(Ulid::from_parts(1, 1))
}

fn node(n: u128) -> NodeId {
    NodeId::from_ulid(Ulid::from_parts(1, n))
}

fn down(error: &str) -> Health {
    Health::unhealthy(error)
}

fn turn(n: u128, at: u64, health: Health) -> Turn {
    Turn { resource: resource(), node: node(n), at: UnixMillis(at), health }
}

#[tokio::test]
async fn only_changes_are_kept_and_nothing_for_long_of_what_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let begin = 1_790_000_000_000;
    let now = Arc::new(AtomicU64::new(begin));
    let clock = Arc::clone(&now);
    let clock = Clock::from_fn(move || UnixMillis(clock.load(Ordering::SeqCst)));
    let store = Store::open(folder.path(), Absent::Create { org: "Example" }, clock).await.unwrap();
    let seen = [
        turn(1, begin, Health::Healthy),
        turn(2, begin + 1, Health::Healthy),
        turn(1, begin + 2, down("refused")),
        // As after a restart: the newest says it already.
        turn(1, begin + 3, down("timed out")),
        turn(1, begin + 4, Health::Healthy),
    ];
    write(&store, &seen.clone().map(Entry::Resource)).await.unwrap();
    write(&store, &[Entry::Resource(seen[4].clone())]).await.unwrap();
    let kept = read(&store, resource(), 100).await.unwrap();
    assert_eq!(kept, [seen[4].clone(), seen[2].clone(), seen[1].clone(), seen[0].clone()]);
    assert_eq!(read(&store, resource(), 1).await.unwrap(), [seen[4].clone()]);

    now.fetch_add(u64::try_from(KEEP.as_millis()).unwrap() + 10, Ordering::SeqCst);
    housekeeping::sweep(&store).await.unwrap();
    assert_eq!(read(&store, resource(), 100).await.unwrap(), [], "there are neither the resource nor the nodes");
    store.close().await;
}

#[tokio::test]
async fn what_a_node_says_again_is_no_change() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Absent::Create { org: "Example" }, Clock::system()).await.unwrap();
    let (history, mut writer) = History::new(store.clone());
    let report =
        |health| HealthReport { resource: resource(), health, checked_at: UnixMillis(7), connect_micros: None };
    history.note(node(1), Some(&Health::Healthy), &report(Health::Healthy));
    history.note(node(1), Some(&down("refused")), &report(down("timed out")));
    history.note(node(1), None, &report(Health::Unknown));
    history.note(node(1), Some(&Health::Healthy), &report(down("refused")));
    assert_eq!(writer.queue.try_recv(), Ok(Entry::Resource(turn(1, 7, down("refused")))));
    assert!(writer.queue.try_recv().is_err());
    store.close().await;
}
