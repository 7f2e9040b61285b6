//! Questions to the person at the terminal, and secrets from standard input. A secret never comes from an argument:
//! everybody on the machine can read those.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use inquire::{Confirm, InquireError, Password, PasswordDisplayMode, Text, ui::RenderConfig};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::{exit::Exit, failure::Failure};

/// No password or token is longer; more than this on standard input is a mistake.
const MAX_SECRET: u64 = 64 * 1024;

/// Whether somebody is there to be asked.
pub(crate) fn possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

pub(crate) async fn text(question: &'static str) -> Result<String, Failure> {
    ask(move || Text::new(question).prompt()).await.map(|answer| answer.trim().to_owned())
}

pub(crate) async fn secret(question: &'static str) -> Result<String, Failure> {
    ask(move || Password::new(question).with_display_mode(PasswordDisplayMode::Masked).without_confirmation().prompt())
        .await
}

/// Asks for a new secret twice.
pub(crate) async fn new_secret(question: &'static str) -> Result<String, Failure> {
    ask(move || {
        Password::new(question)
            .with_display_mode(PasswordDisplayMode::Masked)
            .with_custom_confirmation_message("The same again:")
            .with_custom_confirmation_error_message("The two are not the same.")
            .prompt()
    })
    .await
}

/// Asks before something that cannot be undone; no is the answer of the bare Enter key.
pub(crate) async fn confirm(question: String) -> Result<bool, Failure> {
    ask(move || Confirm::new(&crate::text::clean(&question)).with_default(false).prompt()).await
}

/// All of standard input as one secret, without the line end that `echo` and editors add.
pub(crate) fn secret_from_stdin() -> Result<String, Failure> {
    let mut secret = String::new();
    io::stdin().take(MAX_SECRET).read_to_string(&mut secret).map_err(cannot_read)?;
    let secret = secret.strip_suffix('\n').map_or(secret.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    not_empty(secret.to_owned())
}

/// The next line of standard input as a secret.
pub(crate) fn secret_line_from_stdin() -> Result<String, Failure> {
    let mut line = String::new();
    io::stdin().lock().take(MAX_SECRET).read_line(&mut line).map_err(cannot_read)?;
    not_empty(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Puts the terminal back into the state it had, whatever a prompt was doing to it.
pub(crate) struct Restore(Option<Termios>);

impl Restore {
    pub(crate) fn remember() -> Self {
        Self(possible().then(|| tcgetattr(io::stdin()).ok()).flatten())
    }

    pub(crate) fn restore(&self) {
        let Some(state) = &self.0 else { return };
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, state);
        // A prompt hides the cursor and asks for bracketed paste.
        let _ = io::stderr().write_all(b"\x1b[?25h\x1b[?2004l\r\n");
    }
}

async fn ask<T: Send + 'static>(
    prompt: impl FnOnce() -> Result<T, InquireError> + Send + 'static,
) -> Result<T, Failure> {
    if !possible() {
        return Err(Failure::new(Exit::Usage, "there is no terminal to ask on"));
    }
    // Off the runtime's thread, so that signals are still answered.
    match tokio::task::spawn_blocking(prompt).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(InquireError::OperationCanceled | InquireError::OperationInterrupted)) => {
            Err(Failure::silent(Exit::Interrupted))
        }
        Ok(Err(error)) => Err(Failure::new(Exit::Failed, "cannot ask on this terminal").because(error.to_string())),
        Err(error) => Err(Failure::new(Exit::Failed, "the prompt broke off").because(error.to_string())),
    }
}

/// Takes colours out of prompts where they are not wanted.
pub(crate) fn without_colours() {
    inquire::set_global_render_config(RenderConfig::empty());
}

fn cannot_read(error: io::Error) -> Failure {
    Failure::new(Exit::Failed, "cannot read standard input").because(error.to_string())
}

fn not_empty(secret: String) -> Result<String, Failure> {
    if secret.is_empty() {
        return Err(Failure::new(Exit::Usage, "there is nothing on standard input"));
    }
    Ok(secret)
}
