//! nginx.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
};

use anyhow::Context as _;

use super::{Folder, folder, start_on_free_port};
use crate::{authority::ServerIdentity, command::find_program, process::Process, skip::is_root};

/// A running server that serves the files of [`Nginx::root`].
pub struct Nginx {
    process: Process,
    port: u16,
    folder: Folder,
}

impl Nginx {
    /// The programs it needs; the test is skipped when one is missing.
    pub const PROGRAMS: [&str; 2] = ["nginx", "curl"];

    pub async fn start() -> anyhow::Result<Self> {
        Self::start_on(folder()?, "").await
    }

    /// The same over TLS.
    pub async fn start_tls(identity: &ServerIdentity) -> anyhow::Result<Self> {
        let folder = folder()?;
        let (certificate, key) = (folder.path().join("server.pem"), folder.path().join("server.key"));
        std::fs::write(&certificate, &identity.certificate)?;
        std::fs::write(&key, &identity.key)?;
        let tls = format!("ssl_certificate {}; ssl_certificate_key {};", certificate.display(), key.display());
        Self::start_on(folder, &tls).await
    }

    async fn start_on(folder: Folder, tls: &str) -> anyhow::Result<Self> {
        std::fs::create_dir(folder.path().join("root"))?;
        let server = find_program("nginx").context("nginx is not installed")?;
        let (process, port) = start_on_free_port(async |port| {
            let file = folder.path().join("nginx.conf");
            std::fs::write(&file, configuration(&folder, port, tls))?;
            let mut command = Command::new(&server);
            command.arg("-e").arg("/dev/stderr").arg("-p").arg(folder.path()).arg("-c").arg(&file);
            Process::spawn("nginx", &mut command, folder.path())
        })
        .await?;
        Ok(Self { process, port, folder })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The folder whose files it serves.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.process.stop().await.map(drop)
    }
}

/// One process (a killed master would leave its workers), nothing outside the folder, no access log.
fn configuration(folder: &Folder, port: u16, tls: &str) -> String {
    let ssl = if tls.is_empty() { "" } else { "ssl" };
    let path = folder.path().display();
    let user = if is_root() { "user root;" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {path}/{name};\n"))
        .concat();
    format!(
        "daemon off; master_process off; {user} pid {path}/nginx.pid; error_log stderr;
         events {{ worker_connections 4096; }}
         http {{
           access_log off; sendfile on; keepalive_requests 100000; {temporary}
           server {{ listen 127.0.0.1:{port} {ssl} backlog=4096; {tls} root {path}/root; }}
         }}"
    )
}
