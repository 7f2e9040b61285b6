use super::*;
use crate::{
    clock::Clock,
    store::{Absent, Actor, FILE as DATABASE},
};

async fn open(data: &Path) -> Store {
    Store::open(data, Absent::Create { org: "Example" }, Clock::system()).await.unwrap()
}

async fn change(store: &Store, subnet: &str) {
    let mut change = store.change(Actor::system()).await.unwrap();
    let settings = postern_proto::sync::NetworkSettings { vnm_subnet: subnet.to_owned(), ..Default::default() };
    change.put_settings(settings).await.unwrap();
    change.commit().await.unwrap();
}

#[tokio::test]
async fn a_restart_goes_on_in_the_same_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    assert!(!settle(&store, folder.path()).await.unwrap());
    change(&store, "100.73.0.0/16").await;
    let epoch = store.org().epoch.clone();
    store.close().await;
    let store = open(folder.path()).await;
    assert!(!settle(&store, folder.path()).await.unwrap());
    assert_eq!(store.org().epoch, epoch);
}

#[tokio::test]
async fn a_database_from_a_backup_begins_another_epoch_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    settle(&store, folder.path()).await.unwrap();
    let epoch = store.org().epoch.clone();
    store.close().await;
    let backup = std::fs::read(folder.path().join(DATABASE)).unwrap();
    let store = open(folder.path()).await;
    change(&store, "100.73.0.0/16").await;
    settle(&store, folder.path()).await.unwrap();
    store.close().await;
    for leftover in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.path().join(format!("{DATABASE}{leftover}")));
    }
    std::fs::write(folder.path().join(DATABASE), backup).unwrap();

    let store = open(folder.path()).await;
    assert!(settle(&store, folder.path()).await.unwrap());
    assert_ne!(store.org().epoch, epoch);
    assert!(!settle(&store, folder.path()).await.unwrap());
}

#[tokio::test]
async fn an_unreadable_mark_counts_as_another_database() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    std::fs::write(folder.path().join(FILE), "half a fi").unwrap();
    assert!(settle(&store, folder.path()).await.unwrap());
    assert!(!settle(&store, folder.path()).await.unwrap());
}

#[tokio::test]
async fn the_mark_follows_the_changes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    settle(&store, folder.path()).await.unwrap();
    let cancel = CancellationToken::new();
    let keeping = tokio::spawn(keep(store.clone(), folder.path().to_owned(), cancel.clone()));
    tokio::task::yield_now().await;
    change(&store, "100.73.0.0/16").await;
    let expected = Mark::of(&store.catalogue());
    let read = || serde_json::from_slice::<Mark>(&std::fs::read(folder.path().join(FILE)).unwrap()).unwrap();
    while read() != expected {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cancel.cancel();
    keeping.await.unwrap();
}
