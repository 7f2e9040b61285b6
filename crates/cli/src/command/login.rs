//! `login` and `logout`.

use std::{path::Path, time::Duration};

use postern_local_api::{
    client::{ClientError, LocalClient},
    message::{Connection, ControlLink, KeyStorage, Login, SignIn, Status, Trust},
    mirror,
};
use postern_proto::api::Credential;
use tokio::time::timeout;

use super::password;
use crate::{
    account,
    args::{LoginArgs, TokenSource},
    context::Context,
    exit::Exit,
    failure::Failure,
    prompt,
    screen::{BOLD, GOOD, Line},
    text, waiting,
};

const TOKEN_VARIABLE: &str = "POSTERN_SERVICE_TOKEN";
/// How long to wait for what may be reached; the sign-in itself is done by then.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long after the first contact an account that may reach something has been told.
const MOMENT: Duration = Duration::from_millis(500);
/// How long after one resource of a list the next one has come.
const BREATH: Duration = Duration::from_millis(50);
/// A CA certificate has a few kilobytes.
const MAX_CA_FILE: u64 = 1 << 20;

pub(crate) async fn login(args: LoginArgs, context: &mut Context) -> Result<(), Failure> {
    let trust = trust(&args)?;
    // Before anybody types a password: is there a service to take it?
    let service = context.service().await?;
    let control = args.control.clone();
    let credential = credential(args).await?;
    let by_password = match &credential {
        Credential::Password { password, .. } => Some(password.clone()),
        Credential::ServiceToken { .. } => None,
    };
    let login = Login { control, trust, credential };
    let status = waiting::during("signing in", service.login(&login))
        .await
        .map_err(|error| explain(Failure::from(error)).while_("cannot sign in"))?;
    let status = waiting::during("reading what you may reach", settle(&service, status)).await;
    greet(&status, context)?;
    if let (SignIn::SignedIn { must_change_password: true, .. }, Some(current)) = (&status.sign_in, by_password) {
        return password::choose_first(&service, current, context).await;
    }
    Ok(())
}

pub(crate) async fn logout(context: &mut Context) -> Result<(), Failure> {
    let service = context.service().await?;
    let before = service.status().await?;
    waiting::during("signing out", service.logout()).await?;
    let text = match before.sign_in {
        SignIn::SignedOut => "You were not signed in.",
        SignIn::SignedIn { .. } | SignIn::Locked { .. } => "Signed out; everything is disconnected.",
    };
    Ok(context.screen.line(&Line::of(text))?)
}

fn trust(args: &LoginArgs) -> Result<Trust, Failure> {
    match (&args.ca, &args.ca_fingerprint) {
        (Some(_), Some(_)) => {
            Err(Failure::new(Exit::Usage, "--ca and --ca-fingerprint say the same thing; give one of them"))
        }
        (Some(file), None) => Ok(Trust::Ca { pem: read_ca(file)? }),
        (None, Some(sha256)) => Ok(Trust::Fingerprint { sha256: sha256.clone() }),
        (None, None) => Ok(Trust::Known),
    }
}

fn read_ca(file: &Path) -> Result<String, Failure> {
    let failed =
        |why: String| Failure::new(Exit::Failed, format!("cannot use the CA file {}", file.display())).because(why);
    let length = file.metadata().map_err(|error| failed(error.to_string()))?.len();
    if length > MAX_CA_FILE {
        return Err(failed("it is too long to be a certificate".to_owned()));
    }
    let pem = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    if !pem.contains("-----BEGIN CERTIFICATE-----") {
        return Err(failed("it holds no certificate in PEM form".to_owned()));
    }
    Ok(pem)
}

async fn credential(args: LoginArgs) -> Result<Credential, Failure> {
    if args.service_token == Some(TokenSource::Stdin) {
        return Ok(Credential::ServiceToken { token: prompt::secret_from_stdin()?.trim().to_owned() });
    }
    let wants_token = args.service_token == Some(TokenSource::Any);
    if (wants_token || args.email.is_none())
        && let Some(token) = token_from_environment()?
    {
        return Ok(Credential::ServiceToken { token });
    }
    if wants_token {
        need_terminal("pipe the token to `postern login --service-token=-`, or set POSTERN_SERVICE_TOKEN")?;
        return Ok(Credential::ServiceToken { token: prompt::secret("Service token:").await?.trim().to_owned() });
    }
    if !args.password_stdin {
        need_terminal(
            "use --email with --password-stdin, or a service account with --service-token=- or POSTERN_SERVICE_TOKEN",
        )?;
    }
    let email = match args.email {
        Some(email) => email,
        None => prompt::text("E-mail:").await?,
    };
    let password = if args.password_stdin { prompt::secret_from_stdin()? } else { prompt::secret("Password:").await? };
    Ok(Credential::Password { email, password })
}

pub(super) fn token_from_environment() -> Result<Option<String>, Failure> {
    match std::env::var(TOKEN_VARIABLE) {
        Ok(token) if token.trim().is_empty() => Ok(None),
        Ok(token) => Ok(Some(token.trim().to_owned())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::new(Exit::Usage, format!("{TOKEN_VARIABLE} does not hold a token")))
        }
    }
}

fn need_terminal(instead: &str) -> Result<(), Failure> {
    if prompt::possible() {
        return Ok(());
    }
    Err(Failure::new(Exit::Usage, "there is no terminal to ask for the password on").next(instead))
}

/// What to do next depends on why: here signing in again is no advice.
fn explain(failure: Failure) -> Failure {
    if failure.exit == Exit::NotSignedIn { failure.without_next() } else { failure }
}

/// What may be reached arrives a moment after the sign-in. Whoever was signed in here before knows it at once.
async fn settle(service: &LocalClient, status: Status) -> Status {
    let mut latest = Some(status.clone());
    let arriving = async {
        let mut events = service.events().await?;
        while let Some(known) = &latest {
            // Once connected, the list is the next thing that comes: each resource is an event, an empty one makes none.
            let connected = matches!(known.control, ControlLink::Connected { .. });
            let patience = match known.resources.is_empty() {
                true if connected => MOMENT,
                true => PATIENCE,
                false if status.resources.is_empty() => BREATH,
                false => break,
            };
            match timeout(patience, events.next()).await {
                Ok(event) => mirror::apply(&mut latest, event?.event),
                Err(_) => break,
            }
        }
        Ok::<_, ClientError>(())
    };
    // Whatever goes wrong here: the sign-in itself is done.
    let _ = timeout(PATIENCE, arriving).await;
    latest.unwrap_or(status)
}

fn greet(status: &Status, context: &mut Context) -> Result<(), Failure> {
    let SignIn::SignedIn { account, org, expires_at, .. } = &status.sign_in else {
        context.warn("the service says that nobody is signed in");
        return Ok(());
    };
    let left = expires_at.since(text::now());
    let line = Line::new()
        .styled(GOOD, "Signed in")
        .plain(" as ")
        .styled(BOLD, account::called(account))
        .plain(format!(" ({org}), for the next {}.", text::span(left)));
    context.screen.line(&line)?;
    if let KeyStorage::Unreadable { name, reason, missing } = &status.key_storage {
        let why = if *missing { "there is no keyring".to_owned() } else { format!("{name} does not open") };
        context.warn(format!("the device key is in memory only, as {why} ({})", text::without_os_code(reason)));
        let place = if *missing { "memory|file" } else { "keyring|memory|file" };
        context.screen.line(&Line::of(format!("Choose where it is kept: `postern key-storage {place}`.")))?;
    }
    let connected =
        status.resources.iter().filter(|resource| matches!(resource.connection, Connection::Listening { .. })).count();
    let line = match status.resources.len() {
        0 => Line::of("There is nothing you may reach yet; new access appears by itself: `postern status --watch`."),
        total => Line::of(format!(
            "You may reach {}, {connected} connected. Next: `postern resources`, `postern connect NAME`.",
            text::count(total, "resource")
        )),
    };
    Ok(context.screen.line(&line)?)
}
