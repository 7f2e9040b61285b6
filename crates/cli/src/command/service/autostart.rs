//! Starting posternd with the user's session, by a systemd user unit.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use postern_local_api::{
    client::LocalClient,
    message::{Check, CheckGroup, Verdict},
};
use tokio::{process::Command, time::timeout};

use super::{find_program, home_option, unit};
use crate::{
    context::Context,
    exit::Exit,
    failure::Failure,
    screen::{BOLD, GOOD, Line},
    waiting,
};

const UNIT: &str = "posternd.service";
/// systemd answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a started service may take until it answers.
const START: Duration = Duration::from_secs(10);

pub(super) async fn install(options: &[OsString], context: &mut Context) -> Result<(), Failure> {
    let program = find_program()?;
    let options: Vec<OsString> = home_to_keep(context).into_iter().chain(options.iter().cloned()).collect();
    let text = unit::text(&program, &options).map_err(|unit::Unspeakable(word)| {
        Failure::new(Exit::Usage, format!("{word:?} cannot stand in a systemd unit"))
            .because("it holds control characters")
    })?;
    let path = unit_path()?;
    let before = read(&path)?;
    if before.as_ref().is_some_and(|before| !before.starts_with(unit::MARK)) {
        return Err(Failure::new(Exit::Failed, format!("{} is there already", path.display()))
            .because("it was not written by this program")
            .next("remove it, or change it by hand"));
    }
    write(&path, &text)?;
    let verb = if before.is_some() { "Updated " } else { "Wrote " };
    context.screen.line(&Line::new().styled(GOOD, verb).styled(BOLD, path.display().to_string()))?;
    context.screen.flush()?;
    match enable(before.as_ref().is_some_and(|before| *before != text)).await {
        Ok(()) => {
            waiting::during("starting posternd", wait_for_service(context)).await?;
            context.screen.line(&Line::of("posternd runs now, and starts with each of your sessions."))?;
            let line = "To keep it running while you are logged out: `loginctl enable-linger`.";
            Ok(context.screen.line(&Line::of(line))?)
        }
        Err(why) => {
            context.warn(format!("the unit could not be enabled: {why}"));
            context.screen.line(&Line::of("Where systemd runs your session, enable it there:"))?;
            context
                .screen
                .line(&Line::of(format!("  systemctl --user daemon-reload && systemctl --user enable --now {UNIT}")))?;
            context.screen.line(&Line::of("Elsewhere, run it yourself: `postern service run`."))?;
            Ok(())
        }
    }
}

pub(super) async fn uninstall(context: &mut Context) -> Result<(), Failure> {
    let path = unit_path()?;
    match read(&path)? {
        None => return Ok(context.screen.line(&Line::of("It is not installed."))?),
        Some(text) if !text.starts_with(unit::MARK) => {
            return Err(Failure::new(Exit::Failed, format!("{} is not ours to remove", path.display()))
                .because("it was not written by `postern service install`"));
        }
        Some(_) => {}
    }
    let disabled = systemctl(&["disable", "--now", UNIT]).await;
    std::fs::remove_file(&path).map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot remove {}", path.display())).because(error.to_string())
    })?;
    context.screen.line(&Line::new().styled(GOOD, "Removed ").styled(BOLD, path.display().to_string()))?;
    match disabled {
        Ok(()) => {
            let _ = systemctl(&["daemon-reload"]).await;
            Ok(context.screen.line(&Line::of("posternd is stopped and no longer starts by itself."))?)
        }
        Err(why) => {
            remove_link(&path);
            context.warn(format!("systemd could not be told: {why}"));
            Ok(context.screen.line(&Line::of("If posternd still runs, stop it: `postern service stop`."))?)
        }
    }
}

/// For `doctor`: whether posternd starts by itself.
pub(in crate::command) fn check() -> Check {
    let installed = unit_path().ok().filter(|path| path.exists());
    let enabled = installed.as_deref().and_then(enabled_link).is_some_and(|link| link.symlink_metadata().is_ok());
    let (verdict, detail, advice) = match installed {
        Some(path) if enabled => (Verdict::Ok, format!("posternd starts with your session ({})", path.display()), None),
        Some(path) => {
            let advice = format!("enable it: `systemctl --user enable --now {UNIT}`");
            (Verdict::Warning, format!("{} is there, but not enabled", path.display()), Some(advice))
        }
        None => {
            let detail = "posternd does not start by itself; `postern service install` sets that up".to_owned();
            (Verdict::Skipped, detail, None)
        }
    };
    let (id, title) = ("autostart".to_owned(), "Start with the session".to_owned());
    let group = CheckGroup::ThisComputer;
    Check { id, title, verdict, detail, advice, commands: Vec::new(), group, took_micros: None }
}

/// A unit does not inherit our environment: what decides the place of the service goes into its command line.
fn home_to_keep(context: &Context) -> Vec<OsString> {
    let from_environment = std::env::var_os("POSTERN_HOME").filter(|home| !home.is_empty());
    match from_environment {
        Some(home) => vec!["--home".into(), super::absolute(Path::new(&home)).into()],
        None => home_option(context),
    }
}

/// Where systemd looks for the user's own units.
fn unit_path() -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    match config {
        Some(config) => Ok(config.join("systemd/user").join(UNIT)),
        None => Err(Failure::new(Exit::Failed, "there is no folder for the unit").because("HOME is not set")),
    }
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Failure::new(Exit::Failed, format!("cannot read {}", path.display())).because(error.to_string()))
        }
    }
}

/// Writes the whole file or nothing.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let aside = path.with_extension(format!("service.{}", std::process::id()));
    let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
        let mut file = std::fs::File::create(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    });
    written.map_err(|error| {
        let _ = std::fs::remove_file(&aside);
        Failure::new(Exit::Failed, format!("cannot write {}", path.display())).because(error.to_string())
    })
}

async fn enable(changed: bool) -> Result<(), String> {
    systemctl(&["daemon-reload"]).await?;
    systemctl(&["enable", "--now", UNIT]).await?;
    if changed { systemctl(&["restart", UNIT]).await } else { Ok(()) }
}

async fn wait_for_service(context: &Context) -> Result<(), Failure> {
    let client = LocalClient::new(context.paths()?.socket());
    let answers = async {
        while client.hello().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(START, answers).await.map_err(|_| {
        Failure::new(Exit::NotReady, "posternd was started but does not answer")
            .next(format!("see what it wrote: `journalctl --user -u {UNIT}`"))
    })
}

/// Runs `systemctl --user`; the error is what it said.
async fn systemctl(arguments: &[&str]) -> Result<(), String> {
    let running =
        Command::new("systemctl").arg("--user").args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output: Output = match timeout(PATIENCE, running).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Err("there is no systemctl here".to_owned());
        }
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("systemctl does not answer".to_owned()),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|line| !line.trim().is_empty());
    Err(first.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned()))
}

/// What `systemctl enable` made, for when systemctl cannot be used to undo it.
fn remove_link(unit: &Path) {
    if let Some(link) = enabled_link(unit) {
        let _ = std::fs::remove_file(link);
    }
}

/// What `systemctl enable` makes.
fn enabled_link(unit: &Path) -> Option<PathBuf> {
    unit.parent().map(|folder| folder.join("default.target.wants").join(UNIT))
}
