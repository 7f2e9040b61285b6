//! Redis.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use anyhow::Context as _;

use super::{Folder, folder, start_on_free_port};
use crate::{command::find_program, process::Process};

/// A running server that keeps nothing on disk.
pub struct Redis {
    process: Process,
    port: u16,
    #[expect(dead_code, reason = "holds the working folder until the server is gone")]
    folder: Folder,
}

impl Redis {
    /// The programs it needs; the test is skipped when one is missing.
    pub const PROGRAMS: [&str; 3] = ["redis-server", "redis-cli", "redis-benchmark"];

    pub async fn start() -> anyhow::Result<Self> {
        let folder = folder()?;
        let server = find_program("redis-server").context("redis-server is not installed")?;
        let (process, port) = start_on_free_port(async |port| {
            let mut command = Command::new(&server);
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.args(["--logfile", "/dev/stderr", "--dir"]).arg(folder.path());
            Process::spawn("redis", &mut command, folder.path())
        })
        .await?;
        Ok(Self { process, port, folder })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// `redis-cli` or `redis-benchmark`, told to connect to `address`.
    pub fn client(program: &str, address: SocketAddr) -> anyhow::Result<tokio::process::Command> {
        let program = find_program(program).with_context(|| format!("{program} is not installed"))?;
        let mut command = tokio::process::Command::new(program);
        command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
        Ok(command)
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.process.stop().await.map(drop)
    }
}
