//! `service`: running, installing and clearing up after posternd.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use postern_local_api::client::{ClientError, LocalClient};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{
    args::{ServiceArgs, ServiceCommand},
    context::Context,
    exit::Exit,
    failure::Failure,
    screen::{BOLD, GOOD, Line},
};

pub(super) mod autostart;
mod unit;

const PROGRAM: &str = "posternd";

pub(crate) async fn run(command: ServiceCommand, context: &mut Context) -> Result<(), Failure> {
    match command {
        ServiceCommand::Run(args) => Err(become_service(&args, context)),
        ServiceCommand::Install(args) => autostart::install(&args.options, context).await,
        ServiceCommand::Uninstall => autostart::uninstall(context).await,
        ServiceCommand::Stop => stop(context).await,
        ServiceCommand::Cleanup => cleanup(context).await,
    }
}

/// Replaces this process; comes back only with an error.
fn become_service(args: &ServiceArgs, context: &Context) -> Failure {
    let program = match find_program() {
        Ok(program) => program,
        Err(failure) => return failure,
    };
    let mut command = Command::new(&program);
    command.args(home_option(context)).args(&args.options);
    let error = command.exec();
    Failure::new(Exit::Failed, format!("cannot run {}", program.display())).because(error.to_string())
}

/// `--home DIR` when it was given to us; the environment reaches the service by itself.
fn home_option(context: &Context) -> Vec<OsString> {
    let given = context.home.as_deref().filter(|_| std::env::var_os("POSTERN_HOME").is_none_or(|home| home.is_empty()));
    given.map(|home| vec!["--home".into(), absolute(home).into()]).unwrap_or_default()
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// posternd beside this program (followed through links, then as it was called), else in PATH.
fn find_program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().ok();
    let beside = own.iter().flat_map(|own| [own.canonicalize().ok(), Some(own.clone())]).flatten();
    let beside = beside.filter_map(|own| own.parent().map(Path::to_owned));
    let in_path = std::env::var_os("PATH");
    let in_path = in_path.iter().flat_map(std::env::split_paths).filter(|folder| folder.is_absolute());
    beside.chain(in_path).map(|folder| folder.join(PROGRAM)).find(|program| is_executable(program)).ok_or_else(|| {
        Failure::new(Exit::Failed, "posternd is not installed")
            .because("it is neither beside this program nor in PATH")
            .next("put posternd into the folder of postern")
    })
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

async fn stop(context: &mut Context) -> Result<(), Failure> {
    let service = context.service().await?;
    let pid = service.hello().await?.pid;
    service.shutdown().await?;
    Ok(context.screen.line(&Line::of(format!("posternd (process {pid}) is stopping.")))?)
}

/// Removes what a dead service left. Only who can take the lock knows that it is dead; the lock of the state folder is
/// looked at too, because the place of the runtime folder depends on the environment. That one is never removed: two
/// services that start at this very moment still exclude each other by it.
async fn cleanup(context: &mut Context) -> Result<(), Failure> {
    let paths = context.paths()?;
    match LocalClient::new(paths.socket()).hello().await {
        Err(ClientError::NotRunning { .. }) => {}
        Ok(hello) => return Err(alive(format!("it answers as process {}", hello.pid))),
        Err(ClientError::NotOurs { reason, .. }) => {
            return Err(Failure::new(Exit::Denied, "the socket is not yours to remove").because(reason));
        }
        Err(error) => return Err(alive(error.to_string())),
    }
    let _state = hold(&paths.state.join("posternd.lock"))?;
    let _runtime = hold(&paths.lock())?;
    let mut removed = Vec::new();
    for path in [paths.socket(), paths.lock()] {
        match std::fs::remove_file(&path) {
            Ok(()) => removed.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(
                    Failure::new(Exit::Failed, format!("cannot remove {}", path.display())).because(error.to_string())
                );
            }
        }
    }
    if removed.is_empty() {
        return Ok(context.screen.line(&Line::of("There is nothing to clean up."))?);
    }
    for path in removed {
        let line = Line::new().styled(GOOD, "Removed ").styled(BOLD, path.display().to_string());
        context.screen.line(&line)?;
    }
    Ok(())
}

/// Takes a lock of the service; `None` where there is no such file.
fn hold(path: &Path) -> Result<Option<std::fs::File>, Failure> {
    let failed = |error: io::Error| {
        Failure::new(Exit::Failed, format!("cannot look at {}", path.display())).because(error.to_string())
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Err(alive(format!("it holds {}", path.display()))),
        Err(error) => Err(failed(error.into())),
    }
}

fn alive(why: String) -> Failure {
    Failure::new(Exit::Failed, "posternd is running; nothing was removed")
        .because(why)
        .next("stop it first: `postern service stop`")
}
