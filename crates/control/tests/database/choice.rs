//! Which database the tests of the API run on: a file, or, where `POSTERN_TEST_DATABASE` names a cluster, a PostgreSQL
//! database of each world's own. `cargo xtask test` runs them on both.

use std::path::{Path, PathBuf};

use postern_control::{
    config::{Data, Shared},
    sealed::Keyring,
    store::Place,
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// A cluster in which databases may be made, as `postgres://postgres@127.0.0.1:5432/postgres`.
const CLUSTER: &str = "POSTERN_TEST_DATABASE";

/// The URL of the database that belongs to a folder, which is made at the first time; `None`: a file.
pub(crate) async fn url(folder: &Path) -> Option<String> {
    let cluster = std::env::var(CLUSTER).ok()?;
    let noted = folder.join("database-url");
    if let Ok(url) = std::fs::read_to_string(&noted) {
        return Some(url);
    }
    let url = make_database(&cluster).await;
    std::fs::write(noted, &url).unwrap();
    std::fs::write(key_file(folder), Keyring::draw().unwrap().as_bytes()).unwrap();
    Some(url)
}

/// The key under which the secrets of that database are sealed.
pub(crate) fn key_file(folder: &Path) -> PathBuf {
    folder.join("key")
}

/// A data folder in a folder, and its database.
pub(crate) async fn data(folder: &Path) -> Data {
    let shared = match url(folder).await {
        None => Shared::default(),
        Some(url) => Shared { database: Some(url.parse().unwrap()), key_file: Some(key_file(folder)) },
    };
    Data { data: folder.join("data"), shared }
}

/// Where the database of [`data`] is.
pub(crate) async fn place(folder: &Path) -> Place {
    data(folder).await.place()
}

/// A new and empty database of the cluster.
async fn make_database(cluster: &str) -> String {
    let name = format!("test_{}", ulid::Ulid::generate().to_string().to_lowercase());
    let mut connection = PgConnection::connect(cluster).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let (place, parameters) = cluster.split_once('?').unwrap_or((cluster, ""));
    let (cluster, _) = place.rsplit_once('/').unwrap();
    format!("{cluster}/{name}?{parameters}")
}
