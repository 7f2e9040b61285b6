//! A whole Postern within a network of its own: the real `postern-netd`, control plane, gateway and posternd, and programs
//! that reach resources by name.
//!
//! ```text
//! #[test]
//! fn a_database_is_reached_by_name() -> anyhow::Result<()> {
//!     need_namespace!();
//!     network_bed::run(async |bed| {
//!         let stack = bed.stack().start().await?;
//!         …
//!     })
//! }
//! ```
//!
//! Every thread of the test is in the namespace, and so is every program that it starts. Only the file system is the
//! machine's, but for programs of [`Namespace::command`].

use std::{net::SocketAddr, os::fd::AsFd as _, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use postern_local_api::message::{NetworkStatus, NetworkUp};
use postern_proto::{id::ResourceId, resource::Kind};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

use crate::{
    binaries::binaries,
    command::{Output, PATIENCE, run as run_command},
    namespace::Namespace,
    process::Process,
    stack::{Builder, Stack, User, id},
};

/// See the module.
pub struct NetworkBed {
    pub namespace: Arc<Namespace>,
    netd: Option<Process>,
    stub: Option<Process>,
}

/// Runs a test in a namespace of its own. Call `need_namespace!` first.
pub fn run<F>(test: impl FnOnce(NetworkBed) -> F + Send + 'static) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let outer = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let namespace = Arc::new(outer.block_on(Namespace::new())?);
    let network = Arc::new(namespace.network()?);
    let name = crate::skip::test_name();
    let inner = std::thread::Builder::new().name(name.clone()).spawn(move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        let enter = move || {
            // A thread that cannot enter would test the machine's own network.
            if move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
                std::process::abort();
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .thread_name(name)
            .on_thread_start(enter)
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut bed = NetworkBed { namespace, netd: None, stub: None };
            bed.start_netd(&[]).await?;
            test(bed).await
        })
    })?;
    inner.join().map_err(|panic| std::panic::resume_unwind(panic))?
}

impl NetworkBed {
    /// Where netd listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.namespace.folder().join("netd.sock")
    }

    /// Starts `postern-netd`, or starts it again. Root and the uids 20001 and 20002 may ask.
    pub async fn start_netd(&mut self, options: &[&str]) -> anyhow::Result<()> {
        let folder = self.namespace.folder();
        let config = folder.join("netd.toml");
        std::fs::write(&config, "allow_uids = [20001, 20002]\npolkit = false\n")?;
        let mut command = self.namespace.command(binaries()?.netd());
        command.arg("--socket").arg(self.socket()).arg("--config").arg(&config);
        command.arg("--state").arg(folder.join("netd-state")).args(options).env("RUST_LOG", "info");
        let mut netd = Process::spawn("netd", &mut command, folder)?;
        netd.ready().await?;
        self.netd = Some(netd);
        Ok(())
    }

    pub fn netd(&mut self) -> anyhow::Result<&mut Process> {
        self.netd.as_mut().context("netd was stopped")
    }

    /// Stops netd in good order.
    pub async fn stop_netd(&mut self) -> anyhow::Result<()> {
        if let Some(mut netd) = self.netd.take() {
            netd.stop().await?;
        }
        Ok(())
    }

    /// Starts `postern-dns-stub`, which stands for a system's resolver: without one names are not registered.
    pub async fn start_stub(&mut self) -> anyhow::Result<()> {
        let mut command = self.namespace.command(binaries()?.dns_stub());
        let mut stub = Process::spawn("stub", &mut command, self.namespace.folder())?;
        stub.ready().await?;
        self.stub = Some(stub);
        Ok(())
    }

    /// Kills the stub.
    pub async fn kill_stub(&mut self) -> anyhow::Result<()> {
        self.stub.take().context("there is no stub")?.kill().await
    }

    /// The same command, in the namespace's file system too: what it asks of the system's resolver is asked there.
    #[must_use]
    pub fn within(&self, command: &tokio::process::Command) -> tokio::process::Command {
        self.within_as(command, str::to_owned)
    }

    /// The same with other words.
    #[must_use]
    pub fn within_as(
        &self,
        command: &tokio::process::Command,
        word: impl Fn(&str) -> String,
    ) -> tokio::process::Command {
        let command = command.as_std();
        let mut within = self.namespace.command(command.get_program());
        within.args(command.get_args().map(|argument| word(&argument.to_string_lossy())));
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => within.env(name, value),
                None => within.env_remove(name),
            };
        }
        within.into()
    }

    /// A Postern whose posternd asks this netd.
    #[must_use]
    pub fn stack(&self) -> Builder {
        Stack::builder().user_environment("POSTERN_NETD_SOCKET", &self.socket().display().to_string())
    }

    /// The same, and posternd has the namespace's file system too: it asks the namespace's resolver.
    #[must_use]
    pub fn stack_within(&self) -> Builder {
        let process = self.namespace.pid().to_string();
        self.stack().user_launcher(&["nsenter", "-t", &process, "-n", "-m", "--"])
    }

    /// Runs a program of the machine in the namespace as root.
    pub async fn command(&self, program: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.namespace.command(program);
        command.args(arguments);
        run_command(&mut command.into(), PATIENCE).await
    }

    /// The same as another user.
    pub async fn command_as(&self, uid: u32, program: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.namespace.command_as(uid, program);
        command.args(arguments);
        run_command(&mut command.into(), PATIENCE).await
    }
}

/// Makes a resource in the virtual network that the first user may reach; its id. The address and the name are the control
/// plane's to give, unless `bind` says more.
pub async fn add_virtual(
    stack: &Stack,
    name: &str,
    kind: Kind,
    at: SocketAddr,
    bind: Value,
) -> anyhow::Result<ResourceId> {
    let mut bind = bind;
    if let Some(fields) = bind.as_object_mut() {
        fields.entry("mode").or_insert(json!("vnm"));
    }
    let body = json!({
        "name": name, "kind": kind, "host": at.ip().to_string(), "port": at.port(), "allow_local": true, "bind": bind,
    });
    let resource = id(&stack.api().post("/api/v1/resources", body).await?)?;
    stack.add_rule(stack.role, &[resource]).await?;
    stack.user().knows(name).await?;
    Ok(resource)
}

/// Switches the network on and waits until it is up.
pub async fn enable(user: &User) -> anyhow::Result<NetworkUp> {
    user.postern(&["network", "enable"]).await?;
    up(user).await
}

/// Waits until the network is up.
pub async fn up(user: &User) -> anyhow::Result<NetworkUp> {
    let status = user.status_when(|status| matches!(status.network, NetworkStatus::Up(_))).await?;
    match status.network {
        NetworkStatus::Up(up) => Ok(*up),
        other => anyhow::bail!("the network is {other:?}"),
    }
}
