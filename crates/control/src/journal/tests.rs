use crate::{
    clock::Clock,
    sql,
    store::{Absent, Subject},
};

use super::*;

#[tokio::test]
async fn what_waits_at_the_end_is_still_written() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Absent::Create { org: "Example" }, Clock::system()).await.unwrap();
    let (journal, writer) = Journal::new(store.clone());
    for n in 0..1000 {
        let subject = Subject { kind: "account", id: n.to_string(), name: "a".to_owned() };
        journal.note(Activity::new("account.login_failed", subject), Actor::system(), UnixMillis(n));
    }
    journal.saw(DeviceId::from_ulid(ulid::Ulid::from_parts(1, 1)), Actor::system(), UnixMillis(1));
    let cancel = CancellationToken::new();
    cancel.cancel();
    writer.run(cancel).await;
    let count: i64 = sql::query("SELECT COUNT(*) FROM activity").scalar(store.reader()).await.unwrap();
    assert_eq!(count, 1000);
}

#[tokio::test]
async fn a_flood_is_dropped_and_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Absent::Create { org: "Example" }, Clock::system()).await.unwrap();
    let (journal, writer) = Journal::new(store);
    let device = DeviceId::from_ulid(ulid::Ulid::from_parts(1, 1));
    for n in 0..WAITING as u64 + 10 {
        journal.saw(device, Actor::system(), UnixMillis(n));
    }
    assert_eq!(writer.queue.len(), WAITING);
}
