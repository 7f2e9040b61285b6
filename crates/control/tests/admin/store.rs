//! The store: one writer, dense revisions, also with two processes on one folder.

use std::sync::Arc;

use postern_control::{
    catalogue::Role,
    clock::Clock,
    store::{Absent, Actor, Changes, Store},
};
use postern_proto::{id::RoleId, resource::Tags};
use tokio::sync::broadcast;

async fn open(folder: &tempfile::TempDir) -> Store {
    let place = crate::choice::place(folder.path()).await;
    std::fs::create_dir_all(folder.path().join("data")).unwrap();
    Store::open_at(&place, Absent::Create { org: "Example" }, Clock::system()).await.unwrap()
}

async fn create(store: &Store, name: String) -> u64 {
    let mut change = store.change(Actor::operator()).await.unwrap();
    put(&mut change, name).await;
    change.commit().await.unwrap().revision
}

async fn put(change: &mut postern_control::store::Change, name: String) {
    let id = RoleId::from_ulid(change.ulid());
    change.put(Role { id, name, tags: Tags::new(), revision: 0 }).await.unwrap();
}

fn received(changes: &mut broadcast::Receiver<Arc<Changes>>) -> Vec<u64> {
    std::iter::from_fn(|| changes.try_recv().ok()).map(|changes| changes.revision).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_dropped_never_was() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut change = store.change(Actor::operator()).await.unwrap();
    put(&mut change, "dropped".to_owned()).await;
    drop(change);
    let append = store.append().await.unwrap();
    drop(append);
    assert_eq!(store.catalogue().revision, 0);
    assert_eq!(create(&store, "kept".to_owned()).await, 1);
    let names: Vec<_> = store.catalogue().roles.values().map(|role| role.name.clone()).collect();
    assert_eq!(names, ["kept"]);
    store.close().await;
    assert_eq!(open(&folder).await.catalogue().roles.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_changes_at_once_each_has_a_revision_of_its_own_and_all_are_told_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut changes = store.follow();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..100 {
        let store = store.clone();
        tasks.spawn(async move { create(&store, format!("role {n}")).await });
    }
    let mut revisions = tasks.join_all().await;
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=100).collect::<Vec<_>>());
    assert_eq!(received(&mut changes), revisions);
    assert_eq!(store.catalogue().roles.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_database_lose_nothing_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(&folder).await, open(&folder).await);
    let mut changes = one.follow();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40 {
        let store = if n % 2 == 0 { one.clone() } else { other.clone() };
        tasks.spawn(async move { create(&store, format!("role {n}")).await });
    }
    let mut revisions = tasks.join_all().await;
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=40).collect::<Vec<_>>());
    for store in [&one, &other] {
        store.catch_up().await.unwrap();
        assert_eq!(store.catalogue().revision, 40);
        assert_eq!(store.catalogue().roles.len(), 40);
    }
    // A change of a role alone concerns no scope, so what the other process did is not told of here; the order is.
    let told = received(&mut changes);
    assert!(told.is_sorted(), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_changed_is_told_with_its_revocations() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(&folder).await, open(&folder).await);
    let mut changes = one.follow();
    let node = {
        let mut change = other.change(Actor::operator()).await.unwrap();
        let node =
            postern_control::gateway::create(&mut change, postern_control::gateway::NewNode::gateway("gw", None))
                .await
                .unwrap();
        change.commit().await.unwrap();
        node.id
    };
    let mut change = other.change(Actor::operator()).await.unwrap();
    change.revoke(postern_proto::lease::RevokedSubject::Node { node }, "lost");
    change.commit().await.unwrap();
    one.catch_up().await.unwrap();
    let made = changes.recv().await.unwrap();
    assert!(made.entries.iter().any(|entry| entry.scope == format!("node:{node}")));
    let revoked = changes.recv().await.unwrap();
    assert_eq!((revoked.revision, revoked.revocations.len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_itself_refuses_what_two_entities_cannot_share() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut change = store.change(Actor::operator()).await.unwrap();
    // A row that the catalogue does not know of, as if a check had been forgotten.
    postern_control::sql::query(
        "INSERT INTO role (id, name, name_key, tags, rev) VALUES ('rol_x', 'Ops', 'ops', '{}', 1)",
    )
    .execute(change.connection())
    .await
    .unwrap();
    let id = RoleId::from_ulid(change.ulid());
    let refused = change.put(Role { id, name: "OPS".to_owned(), tags: Tags::new(), revision: 0 }).await;
    assert!(matches!(refused, Err(postern_control::store::StoreError::Taken(_))), "{refused:?}");
    drop(change);
    assert_eq!(create(&store, "ops".to_owned()).await, 1);
}
