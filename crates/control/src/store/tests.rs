use super::*;

use crate::sql;

/// A full disk makes SQLite end a transaction without being asked; `ROLLBACK` behind the back of the pool does the same.
#[tokio::test]
async fn writing_goes_on_after_sqlite_has_rolled_back_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Absent::Create { org: "Example" }, Clock::system()).await.unwrap();
    let mut append = store.append().await.unwrap();
    sql::query("ROLLBACK").execute(append.connection()).await.unwrap();
    append.commit().await.unwrap_err();

    let mut change = store.change(Actor::system()).await.unwrap();
    let settings = postern_proto::sync::NetworkSettings { multi_loopback: true, ..Default::default() };
    change.put_settings(settings).await.unwrap();
    change.commit().await.unwrap();
    assert!(store.catalogue().settings.multi_loopback);
}
