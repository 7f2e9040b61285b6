//! The program `postern-dns-stub`: its socket, its privileges, its end.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::{fs::PermissionsExt as _, net},
    path::{Path, PathBuf},
};

use clap::Parser;
use rustix::{
    process::{Gid, Uid, geteuid},
    thread::{
        CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_no_new_privs, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid,
    },
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};

use super::{
    control::{DEFAULT_SOCKET, SOCKET_VARIABLE},
    serve::run,
};

/// `nobody`: owns nothing.
const NOBODY: u32 = 65_534;

/// Splits DNS by zones on machines without systemd-resolved, on orders of postern-netd
///
/// Names in the zones of virtual networks are asked there, all others where this machine asked before. Started as root it
/// becomes nobody at once and keeps the right to ports below 1024, nothing else.
#[derive(Clone, Debug, Parser)]
#[command(name = "postern-dns-stub", version, about)]
pub struct StubOptions {
    /// Where netd gives its orders.
    #[arg(long, env = SOCKET_VARIABLE, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// The user to become when started as root.
    #[arg(long, env = "POSTERN_DNS_UID", value_name = "UID", default_value_t = NOBODY)]
    pub uid: u32,
}

/// Why the stub does not run.
#[derive(Debug, thiserror::Error)]
pub enum StubError {
    #[error("another postern-dns-stub listens on {}", .0.display())]
    Running(PathBuf),
    #[error("cannot listen on {}: {error}", path.display())]
    Listen { path: PathBuf, error: io::Error },
    #[error("cannot give up the rights of root: {0}")]
    Privileges(io::Error),
    #[error("cannot run: {0}")]
    Run(#[from] io::Error),
}

/// Runs until SIGTERM or SIGINT. Call it while the process has one thread.
///
/// # Errors
/// The socket or the privileges.
pub fn start(options: &StubOptions) -> Result<(), StubError> {
    let socket = listen(&options.socket)?;
    drop_privileges(options.uid).map_err(StubError::Privileges)?;
    socket.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let socket = UnixListener::from_std(socket)?;
        writeln!(io::stdout(), "{}", serde_json::json!({"ready": true, "socket": options.socket}))?;
        tokio::select! {
            ended = run(socket) => ended,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })?;
    Ok(())
}

/// Everybody may connect: who may give orders is asked of the kernel ([`run`]). netd is root without the right to pass
/// over permissions, so the socket's own are wide.
fn listen(path: &Path) -> Result<net::UnixListener, StubError> {
    let fail = |error| StubError::Listen { path: path.to_owned(), error };
    if net::UnixStream::connect(path).is_ok() {
        return Err(StubError::Running(path.to_owned()));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fail)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let socket = net::UnixListener::bind(path).map_err(fail)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(fail)?;
    Ok(socket)
}

fn drop_privileges(uid: u32) -> io::Result<()> {
    if geteuid().is_root() {
        set_keep_capabilities(true)?;
        set_thread_groups(&[])?;
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
        let ports = CapabilitySet::NET_BIND_SERVICE;
        set_capabilities(
            None,
            CapabilitySets { effective: ports, permitted: ports, inheritable: CapabilitySet::empty() },
        )?;
    }
    set_no_new_privs(true)?;
    Ok(())
}
