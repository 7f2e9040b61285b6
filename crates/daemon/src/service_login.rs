//! Keeps a service account signed in with the token of a file: whenever nobody is signed in, and again before the
//! sign-in ends, so that nothing is cut by its end.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use postern_local_api::message::NoticeLevel;
use postern_proto::{api::Credential, problem::Problem};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    account::Account,
    carriage::printable,
    clock,
    engine::{Jitter, backoff},
    local::Handle,
    sign_in::Target,
};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How often it is looked whether the sign-in will end soon.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often it is looked, between tries, whether the file is another one.
const FILE_EVERY: Duration = Duration::from_secs(1);
/// A token is far shorter.
const MAX_TOKEN: usize = 4096;

/// Signs in whenever nobody is signed in, until `stop`. The file is read for each try, so that a new token is found.
pub async fn keep_signed_in(handle: Handle, file: PathBuf, stop: CancellationToken) {
    let mut accounts = handle.accounts.clone();
    let mut configs = handle.configs.clone();
    let mut jitter = Jitter::new(rand::random());
    let mut failures = 0;
    // The shell brings back the last sign-in first; it says the configuration before that.
    tokio::select! {
        () = stop.cancelled() => return,
        _ = crate::request::ask(&handle.requests, |reply| crate::request::Request::Refresh { reply }) => {}
    }
    loop {
        let account = accounts.borrow_and_update().clone();
        let due = account.as_ref().is_none_or(|account| account.record().account.service && is_ending(account));
        let seen = stamp(&file).await;
        let pause = if due {
            match sign_in(&handle, &file).await {
                Ok(()) => {
                    failures = 0;
                    continue;
                }
                Err(problem) => {
                    failures += 1;
                    let text = printable(&problem.to_string());
                    tracing::warn!("the service account could not sign in: {text}");
                    let notice = format!("The service account could not sign in, it is tried again: {text}");
                    handle.board.notify(NoticeLevel::Error, notice);
                    backoff(failures, FIRST_RETRY, LAST_RETRY, &mut jitter)
                }
            }
        } else {
            LOOK_EVERY
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            _ = accounts.changed(), if !due => {}
            _ = configs.changed(), if due => {}
            () = changed(&file, seen), if due => {}
        }
    }
}

/// When the file was written; `None` when there is none.
async fn stamp(file: &Path) -> Option<SystemTime> {
    tokio::fs::metadata(file).await.ok()?.modified().ok()
}

/// Waits until the file is another one than it was.
async fn changed(file: &Path, seen: Option<SystemTime>) {
    while stamp(file).await == seen {
        tokio::time::sleep(FILE_EVERY).await;
    }
}

/// Whether the last third of the sign-in has begun.
fn is_ending(account: &Account) -> bool {
    let record = account.record();
    let life = record.expires_at.since(record.signed_in_at);
    record.expires_at.since(clock::wall()) < life / 3
}

async fn sign_in(handle: &Handle, file: &Path) -> Result<(), Problem> {
    let config = handle.configs.borrow().clone();
    let config = config.ok_or_else(|| {
        Problem::new(422, "no_control_plane", "No control plane is known yet")
            .with_detail("Start posternd with --control https://… (and --ca FILE).")
    })?;
    let token = read_token(file).await?;
    let _turn = handle.signing_in.lock().await;
    handle.sign_in(Target::configured(&config)?, Credential::ServiceToken { token: token.to_string() }, false).await
}

async fn read_token(file: &Path) -> Result<Zeroizing<String>, Problem> {
    let unreadable = |why: String| {
        Problem::new(422, "no_token", "The service token cannot be read")
            .with_detail(format!("{}: {why}", file.display()))
    };
    let text = Zeroizing::new(tokio::fs::read_to_string(file).await.map_err(|error| unreadable(error.to_string()))?);
    let token = text.trim();
    if token.is_empty() || token.len() > MAX_TOKEN || token.contains(char::is_whitespace) {
        return Err(unreadable("it does not hold one token".to_owned()));
    }
    Ok(Zeroizing::new(token.to_owned()))
}
