//! A database that the version before the virtual network wrote.

use postern_control::{
    clock::Clock,
    store::{Absent, Store},
    upgrade,
};
use postern_proto::{id::ResourceId, resource::BindMode};
use sqlx::{Connection as _, SqliteConnection, migrate::Migrator, sqlite::SqliteConnectOptions};
use ulid::Ulid;

/// Settings as they were before there was a zone.
const SETTINGS: &str = r#"{"loopback_range":"127.0.0.1/32","multi_loopback":false,"vnm_subnet":"SUBNET"}"#;

struct Old {
    folder: tempfile::TempDir,
    connection: SqliteConnection,
    resources: u128,
}

impl Old {
    async fn new(org: &str, subnet: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(folder.path().join("postern.db")).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let first =
            sqlx::migrate!("migrations/sqlite").iter().filter(|migration| migration.version == 1).cloned().collect();
        Migrator::with_migrations(first).run(&mut connection).await.unwrap();
        sqlx::query("INSERT INTO org VALUES ('org_01JABCDEFGHJKMNPQRSTVWXYZ0', $1, 7, 'epoch', $2, 0)")
            .bind(org)
            .bind(SETTINGS.replace("SUBNET", subnet))
            .execute(&mut connection)
            .await
            .unwrap();
        Self { folder, connection, resources: 0 }
    }

    async fn put(&mut self, name: &str, mode: &str, ip: &str, port: u16, dns_name: Option<&str>) {
        self.resources += 1;
        let id = ResourceId::from_ulid(Ulid::from_parts(1, self.resources)).to_string();
        sqlx::query("INSERT INTO resource VALUES ($1, $2, $2, 'ssh', 'h', 22, '{}', $3, $4, $5, $6, 0, 0, 0, 1)")
            .bind(&id)
            .bind(name)
            .bind(mode)
            .bind(ip)
            .bind(i64::from(port))
            .bind(dns_name)
            .execute(&mut self.connection)
            .await
            .unwrap();
        if mode == "vnm" {
            let statement = "INSERT INTO vnm_address VALUES ($1, $2, 1)";
            sqlx::query(statement).bind(ip).bind(&id).execute(&mut self.connection).await.unwrap();
        }
    }

    /// Opens it as this version does at its start.
    async fn open(self) -> (tempfile::TempDir, Store) {
        self.connection.close().await.unwrap();
        let store = Store::open(self.folder.path(), Absent::Refuse, Clock::system()).await.unwrap();
        upgrade::run(&store, &["control.example".parse().unwrap()]).await.unwrap();
        (self.folder, store)
    }
}

/// Name, mode, main address, alias and loopback address of every resource, by name.
fn shown(store: &Store) -> Vec<String> {
    let catalogue = store.catalogue();
    let mut all: Vec<String> = catalogue
        .resources
        .values()
        .map(|resource| {
            let bind = &resource.bind;
            let name = bind.dns_name.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            let loopback = bind.loopback_address().map_or_else(|| "-".to_owned(), |address| address.to_string());
            format!("{} {} {}:{} {name} {loopback}", resource.name, bind.mode.as_str(), bind.ip, bind.port)
        })
        .collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_version_wrote_keeps_working_and_gets_what_is_new() {
    let mut old = Old::new("Acme Inc.", "100.72.0.0/16").await;
    old.put("a-loopback", "loopback", "127.0.0.1", 10000, None).await;
    old.put("b-reserved", "vnm", "100.72.0.3", 22, None).await;
    old.put("c-fine", "vnm", "100.72.5.5", 2222, Some("c.other")).await;
    old.put("d-upper", "vnm", "100.72.200.1", 22, Some("d.other")).await;
    old.put("e-covering", "vnm", "100.72.5.6", 22, Some("control.example")).await;
    let (folder, store) = old.open().await;
    let expected = [
        "a-loopback loopback 127.0.0.1:10000 - 127.0.0.1:10000",
        "b-reserved vnm 100.72.1.0:22 b-reserved.acme-inc 127.0.0.1:10001",
        "c-fine vnm 100.72.5.5:2222 c.other 127.0.0.1:10002",
        "d-upper vnm 100.72.1.1:22 d.other 127.0.0.1:10003",
        "e-covering vnm 100.72.5.6:22 e-covering.acme-inc 127.0.0.1:10004",
    ];
    assert_eq!(shown(&store), expected);
    assert_eq!((store.catalogue().settings.dns_zone.as_str(), store.catalogue().revision), ("acme-inc", 8));
    store.close().await;

    let store = Store::open(folder.path(), Absent::Refuse, Clock::system()).await.unwrap();
    upgrade::run(&store, &[]).await.unwrap();
    assert_eq!(shown(&store), expected);
    assert_eq!(store.catalogue().revision, 8, "there is nothing left to do");
    let retired = store.catalogue().had.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert!(retired.contains(&"100.72.0.3".to_owned()), "an address is never given again");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_without_a_place_stays_as_it_is() {
    let mut old = Old::new("Acme", "192.168.7.0/29").await;
    for last in 3..=5 {
        old.put(&format!("r{last}"), "vnm", &format!("192.168.7.{last}"), 22, None).await;
    }
    let (_folder, store) = old.open().await;
    let expected =
        ["r3 vnm 192.168.7.3:22 r3.acme 127.0.0.1:10000", "r4 vnm 192.168.7.4:22 - -", "r5 vnm 192.168.7.5:22 - -"];
    assert_eq!(shown(&store), expected);
    assert!(store.catalogue().resources.values().all(|resource| resource.bind.mode == BindMode::Vnm));
    store.close().await;
}
