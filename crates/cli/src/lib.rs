//! `postern`: the command line of Postern.
//!
//! It reads the command line, calls posternd over its local API, and shows the answer. It never talks to a control
//! plane, a gateway or a resource itself, holds no key, and takes no secret from its arguments. Text that comes from
//! elsewhere never reaches the terminal with a control character in it.
#![forbid(unsafe_code)]

use std::{ffi::OsString, process::ExitCode};

use anstream::ColorChoice;
use clap::{CommandFactory as _, Parser as _};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    args::{Cli, When},
    context::Context,
    failure::Failure,
    prompt::Restore,
    screen::Screen,
};

mod account;
mod admin;
mod args;
mod command;
mod context;
mod exit;
mod failure;
mod name;
mod prompt;
mod resource;
mod screen;
mod table;
mod text;
mod waiting;

pub use exit::Exit;

/// Does what the command line asks. Returns the exit code; what there was to say has been said.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is nobody's error, and help ends well.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    let colours = colours(cli.color);
    let result = Runtime::new()
        .map_err(|error| Failure::new(Exit::Failed, "cannot start").because(error.to_string()))
        .and_then(|runtime| {
            let result = runtime.block_on(run_until_signal(cli, colours));
            // A prompt may still block a thread of its own.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            screen::note(colours, &failure.lines());
            failure.exit
        }
    }
    .into()
}

/// The command line as clap sees it, for documentation and tests.
#[must_use]
pub fn command_line() -> clap::Command {
    Cli::command()
}

async fn run_until_signal(cli: Cli, colours: ColorChoice) -> Result<(), Failure> {
    let terminal = Restore::remember();
    let mut context =
        Context { home: cli.home.filter(|home| !home.as_os_str().is_empty()), screen: Screen::new(colours), colours };
    let stopped = tokio::select! {
        result = command::run(cli.command, &mut context) => {
            let flushed = context.screen.flush();
            return result.and(Ok(flushed?));
        }
        exit = stop_signal() => exit,
    };
    terminal.restore();
    Err(Failure::silent(stopped))
}

/// Waits for Ctrl-C or a request to end.
async fn stop_signal() -> Exit {
    let mut interrupt = signal(SignalKind::interrupt()).ok();
    let mut terminate = signal(SignalKind::terminate()).ok();
    let mut hang_up = signal(SignalKind::hangup()).ok();
    tokio::select! {
        () = received(&mut interrupt) => Exit::Interrupted,
        () = received(&mut terminate) => Exit::Terminated,
        () = received(&mut hang_up) => Exit::Terminated,
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

fn colours(when: When) -> ColorChoice {
    let choice = match when {
        When::Auto => ColorChoice::Auto,
        When::Always => ColorChoice::Always,
        When::Never => ColorChoice::Never,
    };
    if matches!(when, When::Never) {
        prompt::without_colours();
    }
    choice
}
