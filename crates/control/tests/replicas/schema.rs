//! Schemas: the same in both databases, and newer than a program that runs.

use std::collections::BTreeMap;

use postern_control::{
    clock::Clock,
    sql::query,
    store::{Absent, Store, StoreError},
};
use sqlx::AssertSqlSafe;

use crate::{
    choice,
    shared::{change, open, put_role},
};

/// Tables with their columns.
async fn tables(store: &Store, statement: &'static str) -> BTreeMap<String, Vec<String>> {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in query(statement).fetch_all(store.reader()).await.unwrap() {
        let (table, column): (String, String) = (row.try_get("t").unwrap(), row.try_get("c").unwrap());
        tables.entry(table).or_default().push(column);
    }
    tables.values_mut().for_each(|columns| columns.sort());
    tables.retain(|table, _| !table.starts_with('_') && !table.starts_with("sqlite_"));
    tables
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn both_databases_have_the_same_tables_and_columns() {
    let (folder, file) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let shared = open(folder.path()).await;
    let alone = Store::open(file.path(), Absent::Create { org: "Example" }, Clock::system()).await.unwrap();
    let statement = "SELECT CAST(table_name AS TEXT) AS t, CAST(column_name AS TEXT) AS c
        FROM information_schema.columns WHERE table_schema = current_schema()";
    let theirs = tables(&shared, statement).await;
    let statement = "SELECT m.name AS t, p.name AS c FROM sqlite_master m, pragma_table_info(m.name) p
        WHERE m.type = 'table'";
    assert_eq!(theirs, tables(&alone, statement).await);
    assert_eq!(shared.reader().program(), alone.reader().program());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL cluster"]
async fn a_program_that_runs_goes_on_when_a_newer_one_adds_to_the_schema() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    // Every statement is prepared once before.
    for name in ["before", "before that"] {
        let mut change = change(&store).await;
        put_role(&mut change, name).await;
        change.commit().await.unwrap();
    }
    let other = open(folder.path()).await;
    let statement = "SELECT CAST(table_name AS TEXT) AS t, CAST(column_name AS TEXT) AS c
        FROM information_schema.columns WHERE table_schema = current_schema()";
    for table in tables(&store, statement).await.keys() {
        let add = format!("ALTER TABLE {table} ADD COLUMN of_the_future TEXT NOT NULL DEFAULT 'x'");
        query(AssertSqlSafe(add)).execute(store.reader()).await.unwrap();
    }
    query("CREATE TABLE of_the_future (id TEXT PRIMARY KEY)").execute(store.reader()).await.unwrap();
    query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'of the future', TRUE, '', 0)",
    )
    .execute(store.reader())
    .await
    .unwrap();
    for name in ["after", "after that"] {
        let mut change = change(&store).await;
        put_role(&mut change, name).await;
        change.commit().await.unwrap();
        other.catch_up().await.unwrap();
    }
    assert_eq!(other.catalogue().roles.len(), 4);
    // One that starts on it does so too.
    assert_eq!(open(folder.path()).await.catalogue().roles.len(), 4);

    // Until the newer one says that it may not.
    query("UPDATE org SET oldest_program = 9999").execute(store.reader()).await.unwrap();
    assert!(matches!(store.catch_up().await, Err(StoreError::TooOld { needed: 9999, .. })));
    let place = choice::place(folder.path()).await;
    let refused = Store::open_at(&place, Absent::Refuse, Clock::system()).await.err().unwrap();
    assert!(refused.to_string().contains("update it"), "{refused}");
}

/// PostgreSQL keeps the columns of a prepared statement; `*` would break it when a newer program adds one.
#[test]
fn no_statement_asks_for_all_columns() {
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(!text.contains("SELECT *"), "{}", path.display());
            }
        }
    }
}
