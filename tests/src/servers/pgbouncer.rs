//! PgBouncer.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use anyhow::Context as _;

use super::{Folder, folder, postgres::unprivileged_user, start_on_free_port};
use crate::{
    command::{as_user, find_program},
    process::Process,
};

/// A running pooler before a PostgreSQL.
pub struct PgBouncer {
    _process: Process,
    port: u16,
    _folder: Folder,
}

impl PgBouncer {
    /// Its program.
    pub const PROGRAM: &str = "pgbouncer";

    /// With few connections to each database behind it. `mode` is `session` or `transaction`; `ignored` are settings at the
    /// start of a connection that it passes over.
    pub async fn start(database: SocketAddr, mode: &str, ignored: &str) -> anyhow::Result<Self> {
        let server = find_program(Self::PROGRAM).context("pgbouncer is not installed")?;
        let folder = folder()?;
        // It refuses to run as root.
        let owner = unprivileged_user()?;
        let own = folder.private("pgbouncer", owner)?;
        let (users, file) = (folder.path().join("users.txt"), folder.path().join("pgbouncer.ini"));
        std::fs::write(&users, "\"postgres\" \"\"\n")?;
        let (process, port) = start_on_free_port(async |port| {
            let text = format!(
                "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = 16\n\
                 max_client_conn = 500\nignore_startup_parameters = {ignored}\npidfile = {}/pid\n",
                database.ip(),
                database.port(),
                users.display(),
                own.display(),
            );
            std::fs::write(&file, text)?;
            let mut command = match owner {
                None => Command::new(&server),
                Some(uid) => as_user(uid, &server).into_std(),
            };
            Process::spawn("pgbouncer", command.arg(&file), folder.path())
        })
        .await?;
        let mut pooler = Self { _process: process, port, _folder: folder };
        pooler._process.settle();
        Ok(pooler)
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }
}
