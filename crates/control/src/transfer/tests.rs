use std::path::Path;

use postern_proto::resource::Tags;

use super::*;
use crate::{
    authority::Authority,
    catalogue::{Account, AccountKind, Role},
    keys::Keys,
    store::{Absent, Actor, Store},
};

fn end(folder: &Path) -> End {
    End { place: Place::Folder(folder.to_owned()), secrets: Secrets::Folder(folder.to_owned()) }
}

/// A control plane's folder with something in each kind of column.
async fn filled(folder: &Path) -> Store {
    let store = Store::open(folder, Absent::Create { org: "Exämple \"& Sons\"" }, Clock::system()).await.unwrap();
    let mut change = store.change(Actor::system()).await.unwrap();
    for number in 0..450_u64 {
        let id = postern_proto::id::RoleId::from_ulid(change.ulid());
        let tags = Tags::from([("k".to_owned(), "ü\n'\"".to_owned())]);
        change.put(Role { id, name: format!("role {number}"), tags, revision: 0 }).await.unwrap();
    }
    let account = Account {
        id: postern_proto::id::AccountId::from_ulid(change.ulid()),
        email: "ada@example.org".parse().unwrap(),
        name: "Ada".to_owned(),
        kind: AccountKind::User,
        admin: true,
        suspended: false,
        tags: Tags::new(),
        created_at: change.now(),
        revision: 0,
    };
    change.put(account).await.unwrap();
    change.commit().await.unwrap();
    let keys = Keys::Folder(folder.to_owned());
    keys.authority(folder, &store, store.clock().now()).await.unwrap();
    keys.lease_keys(store.org().id, store.clock().now()).await.unwrap();
    store
}

fn keys_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let secrets = |name: &str| name == "ca-key.pem" || name.ends_with(".lease-key");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut keys: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .filter(|(name, _)| secrets(name))
        .map(|(name, path)| (name, std::fs::read(path).unwrap()))
        .collect();
    keys.sort();
    keys
}

/// What both hold but the epoch.
fn without_epoch(store: &Store) -> String {
    format!("{:#?}", store.catalogue()).replace(&store.org().epoch, "")
}

#[tokio::test]
async fn a_backup_taken_while_it_runs_brings_everything_back_in_another_epoch() {
    postern_tunnel::tls::install_crypto_provider();
    let (from, to, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = filled(from.path()).await;
    let file = files.path().join("backup");
    let clock = Clock::system();
    let saved = backup(&end(from.path()), &file, &clock).await.unwrap();
    assert_eq!((saved["role"], saved["account"], saved["activity"]), (450, 1, 451));
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it holds the keys");
    // What comes after the backup is not in it.
    let mut change = store.change(Actor::system()).await.unwrap();
    change.remove_role(*change.catalogue().roles.keys().next().unwrap()).await.unwrap();
    let expected = store.catalogue();
    change.commit().await.unwrap();

    assert_eq!(restore(&file, &end(to.path()), &clock).await.unwrap(), saved);
    let restored = Store::open(to.path(), Absent::Refuse, Clock::system()).await.unwrap();
    assert_ne!(restored.org().epoch, expected.org.epoch);
    assert_eq!(without_epoch(&restored), format!("{expected:#?}").replace(&expected.org.epoch, ""));
    assert_eq!(keys_of(to.path()), keys_of(from.path()));
    Authority::open_or_create(to.path(), restored.org().id, "Example", clock.now()).unwrap();

    // Neither a backup nor an organisation is written over.
    assert!(matches!(backup(&end(from.path()), &file, &clock).await, Err(TransferError::Exists(_))));
    assert!(matches!(restore(&file, &end(to.path()), &clock).await, Err(TransferError::NotEmpty(_))));
}

#[tokio::test]
async fn a_backup_that_was_touched_or_cut_off_leaves_the_place_empty() {
    postern_tunnel::tls::install_crypto_provider();
    let (from, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(from.path()).await;
    let (file, bad) = (files.path().join("backup"), files.path().join("bad"));
    let clock = Clock::system();
    backup(&end(from.path()), &file, &clock).await.unwrap();
    let whole = std::fs::read_to_string(&file).unwrap();
    let cut = whole.lines().take(200).map(|line| format!("{line}\n")).collect::<String>();
    for (damage, text) in [
        ("touched", whole.replacen("role 7\"", "role 8\"", 1)),
        ("cut at a line", cut),
        ("cut within a line", whole[..whole.len() / 2].to_owned()),
        ("a row left out", whole.lines().filter(|line| !line.contains("role 7\"")).map(|l| format!("{l}\n")).collect()),
        ("a strange table", whole.replacen("\"name\":\"role\"", "\"name\":\"role; DROP TABLE org\"", 1)),
        ("a strange column", whole.replacen("[\"name\",\"text\"]", "[\"name) --\",\"text\"]", 1)),
        ("nothing", String::new()),
    ] {
        let to = tempfile::tempdir().unwrap();
        std::fs::write(&bad, text).unwrap();
        let refused = restore(&bad, &end(to.path()), &clock).await.unwrap_err();
        assert!(matches!(refused, TransferError::Damaged { .. } | TransferError::Database(_)), "{damage}: {refused}");
        let empty = Store::open(to.path(), Absent::Refuse, Clock::system()).await.err().unwrap();
        assert!(matches!(empty, OpenError::NoOrganisation(_)), "{damage}");
        // The good one still goes there.
        restore(&file, &end(to.path()), &clock).await.unwrap();
    }
}

#[tokio::test]
async fn a_copy_is_the_whole_and_needs_an_empty_place() {
    postern_tunnel::tls::install_crypto_provider();
    let (from, to, third) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = filled(from.path()).await;
    let clock = Clock::system();
    let counts = copy(&end(from.path()), &end(to.path()), &clock).await.unwrap();
    assert_eq!(counts["role"], 450);
    let copied = Store::open(to.path(), Absent::Refuse, Clock::system()).await.unwrap();
    assert_eq!(without_epoch(&copied), without_epoch(&store));
    assert_eq!(keys_of(to.path()), keys_of(from.path()));
    assert!(matches!(copy(&end(from.path()), &end(to.path()), &clock).await, Err(TransferError::NotEmpty(_))));
    let nothing = copy(&end(third.path()), &end(tempfile::tempdir().unwrap().path()), &clock).await;
    assert!(matches!(nothing, Err(TransferError::Empty(_))), "{:?}", nothing.err());
}

#[tokio::test]
async fn every_table_is_carried_over_or_left_knowingly() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Absent::Create { org: "Example" }, Clock::system()).await.unwrap();
    let statement = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE '\\_%' ESCAPE '\\'";
    let rows = sql::query(statement).fetch_all(store.reader()).await.unwrap();
    let mut there: Vec<String> = rows.iter().map(|row| row.try_get("name").unwrap()).collect();
    let mut known: Vec<&str> = tables::TABLES.iter().chain(tables::LEFT).copied().collect();
    there.sort();
    known.sort_unstable();
    assert_eq!(there, known, "a new table belongs into TABLES, after those that it refers to, or into LEFT");
}
