//! HTTPS proxies as companies have them, which want a user name and a password.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
};

use anyhow::Context as _;

use super::{Folder, folder, start_at};
use crate::{command::find_program, process::Process, skip::is_root};

/// What the proxies accept.
pub const PROXY_USER: &str = "ada";
/// See [`PROXY_USER`].
pub const PROXY_PASSWORD: &str = "sesame-7f3a9";
/// Whom squid runs as where we are root: nobody.
const NOBODY: u32 = 65_534;

/// A running proxy.
pub struct HttpsProxy {
    process: Process,
    address: SocketAddr,
    folder: Folder,
}

impl HttpsProxy {
    /// The program of [`HttpsProxy::squid`].
    pub const SQUID: &str = "squid";
    /// The program of [`HttpsProxy::tinyproxy`].
    pub const TINYPROXY: &str = "tinyproxy";

    pub async fn squid() -> anyhow::Result<Self> {
        Self::squid_at(Ipv4Addr::LOCALHOST.into()).await
    }

    /// The same at another address of this machine.
    pub async fn squid_at(host: IpAddr) -> anyhow::Result<Self> {
        let server = find_program(Self::SQUID).context("squid is not installed")?;
        let folder = folder()?;
        let own = folder.private("squid", is_root().then_some(NOBODY))?;
        std::fs::write(folder.path().join("accepts"), accepts())?;
        let (process, address) = start_at(host, async |address| {
            let file = folder.path().join("squid.conf");
            std::fs::write(&file, squid_configuration(&folder, &own, address))?;
            let mut command = Command::new(if is_root() { "setpriv" } else { "env" });
            if is_root() {
                command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]).args(["--clear-groups", "--"]);
            }
            command.arg(&server).arg("-N").arg("-f").arg(&file);
            Process::spawn("squid", &mut command, folder.path())
        })
        .await?;
        Ok(Self { process, address, folder })
    }

    pub async fn tinyproxy() -> anyhow::Result<Self> {
        Self::tinyproxy_at(Ipv4Addr::LOCALHOST.into()).await
    }

    /// The same at another address of this machine.
    pub async fn tinyproxy_at(host: IpAddr) -> anyhow::Result<Self> {
        let server = find_program(Self::TINYPROXY).context("tinyproxy is not installed")?;
        let folder = folder()?;
        let (process, address) = start_at(host, async |address| {
            let file = folder.path().join("tinyproxy.conf");
            let (host, port) = (address.ip(), address.port());
            let text = format!(
                "Port {port}\nListen {host}\nTimeout 600\nMaxClients 200\nLogLevel Connect\n\
                 BasicAuth {PROXY_USER} {PROXY_PASSWORD}\n"
            );
            std::fs::write(&file, text)?;
            let mut command = Command::new(&server);
            command.arg("-d").arg("-c").arg(&file);
            Process::spawn("tinyproxy", &mut command, folder.path())
        })
        .await?;
        Ok(Self { process, address, folder })
    }

    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A file with what the proxy accepts, for posternd.
    pub fn credentials_file(&self) -> anyhow::Result<std::path::PathBuf> {
        let file = self.folder.path().join("credentials");
        std::fs::write(&file, format!("{PROXY_USER}:{PROXY_PASSWORD}\n"))?;
        Ok(file)
    }

    /// Every line that it has written about what it carries.
    pub fn carried(&self) -> anyhow::Result<String> {
        let written = self.folder.path().join("squid/access.log");
        if written.exists() {
            return Ok(std::fs::read_to_string(written)?);
        }
        let output = std::fs::read_dir(self.folder.path())?.flatten().map(|entry| entry.path());
        let output = output.filter(|path| path.extension().is_some_and(|extension| extension == "out"));
        let texts: Vec<String> = output.map(std::fs::read_to_string).collect::<Result<_, _>>()?;
        Ok(texts.concat())
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.process.stop().await.map(drop)
    }
}

/// A program that says of a line `user password` whether it is accepted.
fn accepts() -> String {
    format!("while read -r line; do [ \"$line\" = '{PROXY_USER} {PROXY_PASSWORD}' ] && echo OK || echo ERR; done\n")
}

fn squid_configuration(folder: &Folder, own: &std::path::Path, address: SocketAddr) -> String {
    let (folder, own) = (folder.path().display(), own.display());
    format!(
        "http_port {address}\n\
         pid_filename none\n\
         cache_log {own}/cache.log\n\
         access_log stdio:{own}/access.log\n\
         coredump_dir {own}\n\
         cache deny all\n\
         cache_mem 8 MB\n\
         max_filedescriptors 1024\n\
         pinger_enable off\n\
         visible_hostname proxy.test\n\
         shutdown_lifetime 0 seconds\n\
         auth_param basic program /bin/sh {folder}/accepts\n\
         auth_param basic children 1 startup=1\n\
         auth_param basic realm proxy\n\
         acl known proxy_auth REQUIRED\n\
         http_access allow CONNECT known\n\
         http_access deny all\n"
    )
}
