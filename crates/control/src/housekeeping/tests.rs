use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use postern_proto::{
    id::{AccountId, DeviceId},
    lease::RevokedSubject,
};
use ulid::Ulid;

use super::*;
use crate::{
    catalogue::{Account, AccountKind},
    clock::Clock,
    sql,
    store::{Absent, Actor},
};

async fn count(store: &Store, table: &str) -> i64 {
    let statement = format!("SELECT COUNT(*) FROM {table}");
    sql::query(sqlx::AssertSqlSafe(statement)).scalar(store.reader()).await.unwrap()
}

#[tokio::test]
async fn only_what_is_old_goes_and_activities_stay() {
    let folder = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(1_790_000_000_000));
    let clock = Arc::clone(&now);
    let clock = Clock::from_fn(move || UnixMillis(clock.load(Ordering::SeqCst)));
    let store = Store::open(folder.path(), Absent::Create { org: "Example" }, clock).await.unwrap();
    let id = AccountId::from_ulid(Ulid::from_parts(1, 1));
    let mut change = store.change(Actor::system()).await.unwrap();
    let account = Account {
        id,
        email: "ada@example.org".parse().unwrap(),
        name: "Ada".to_owned(),
        kind: AccountKind::User,
        admin: false,
        suspended: false,
        tags: postern_proto::resource::Tags::new(),
        created_at: change.now(),
        revision: 0,
    };
    change.put(account).await.unwrap();
    for n in 0..2500_u64 {
        change.revoke(RevokedSubject::Device { device: DeviceId::from_ulid(Ulid::from_parts(n, 1)) }, "test");
    }
    for (n, expires_at) in [(1, change.now().0), (2, change.now().plus(KEEP_ENDED).0)] {
        let statement =
            "INSERT INTO login (id, account_id, token_hash, created_at, expires_at) VALUES ($1, $2, $1, 0, $3)";
        sql::query(statement)
            .bind(n.to_string())
            .bind(id.to_string())
            .bind(signed(expires_at))
            .execute(change.connection())
            .await
            .unwrap();
    }
    change.commit().await.unwrap();
    let activities = count(&store, "activity").await;
    assert_eq!(sweep(&store).await.unwrap(), 0);
    now.fetch_add(u64::try_from(KEEP_CHANGES.as_millis()).unwrap() + 1, Ordering::SeqCst);
    sweep(&store).await.unwrap();
    assert_eq!((count(&store, "revocation").await, count(&store, "change_log").await), (0, 0));
    assert_eq!(count(&store, "login").await, 2);
    now.fetch_add(u64::try_from((KEEP_ENDED - KEEP_CHANGES).as_millis()).unwrap(), Ordering::SeqCst);
    assert_eq!(sweep(&store).await.unwrap(), 1);
    assert_eq!(count(&store, "activity").await, activities);
}
