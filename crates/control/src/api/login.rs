//! Signing in and out, and one's own password.

use axum::{Json, extract::State, http::StatusCode, http::request::Parts};
use postern_proto::{
    api::{AccountInfo, CaInfo, CertificateRequest, CertificateResponse, Credential, LoginRequest, LoginResponse},
    id::AccountId,
    lease::RevokedSubject,
    name::{Email, name_key},
    problem::Problem,
};
use serde::Deserialize;
use ulid::Ulid;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Answer, Caller, Given, Input, Refusal, Violations,
    caller::{find_service_token, origin},
    input::Unknown,
    machine::{CallingDevice, same_key},
};
use crate::{
    authority::RequestedKey,
    catalogue::{Account, AccountKind},
    credential,
    devices::{self, Logins, NewLogin},
    password::{Password, Verdict},
    secret::TokenHash,
    sql::{self, Connection},
    state::AppState,
    store::{Activity, Who},
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(change_password))
        .routes(routes!(ca))
        .routes(routes!(certificate))
}

#[utoipa::path(get, path = "/api/v1/ca", operation_id = "show_ca", tag = "sign-in", security(()), responses((status = 200, body = Object)))]
/// Show the organisation's CA certificate and its fingerprint
async fn ca(State(state): State<AppState>) -> Json<CaInfo> {
    Json(state.authority.info(&state.store.org().name))
}

#[utoipa::path(post, path = "/api/v1/login", tag = "sign-in", security(()), request_body = Object,
    responses((status = 200, body = Object)))]
/// Sign in on a device, with a password or a service token
///
/// The answer for a wrong password and for an account that is not there is the same, and so is the lock after five
/// failures.
async fn login(
    State(state): State<AppState>,
    parts: Parts,
    Input(request): Input<LoginRequest>,
) -> Answer<Json<LoginResponse>> {
    let key = RequestedKey::from_pem(&request.csr)?;
    let proved = match request.credential {
        Credential::Password { email, password } => by_password(&state, &email, password.into(), &parts).await?,
        Credential::ServiceToken { token } => by_service_token(&state, &token).await?,
    };
    let who = Who::Account { id: proved.account.id, email: proved.account.email.to_string() };
    let mut append = state.store.append().await?;
    proved.check_still(&state, append.connection()).await?;
    let new = NewLogin { account: &proved.account, info: &request.device, key: &key, now: state.clock.now() };
    let made = new.insert(append.connection(), &state.clock, &origin(who, &parts)).await?;
    let certificate =
        state.authority.sign_device(&key, proved.account.id, made.device, made.expires_at, state.clock.now())?;
    append.commit().await?;
    Ok(Json(LoginResponse {
        login: made.login,
        token: made.token.expose().to_owned(),
        expires_at: made.expires_at,
        account: info(&proved.account),
        device: made.device,
        certificate,
        ca: state.authority.info(&state.store.org().name),
        must_change_password: proved.must_change,
    }))
}

#[utoipa::path(post, path = "/api/v1/logout", tag = "sign-in", responses((status = 204)))]
/// Sign out
///
/// The login's token is worth nothing any more, and streams of its device are cut.
async fn logout(State(state): State<AppState>, caller: Caller) -> Answer<StatusCode> {
    let Some(login) = caller.login else { return Ok(StatusCode::NO_CONTENT) };
    let mut change = state.store.change(caller.actor).await?;
    let now = change.now();
    devices::end_logins(change.connection(), Logins::One(login), now).await?;
    if let Some(device) = caller.device {
        change.revoke(RevokedSubject::Device { device }, "the device was signed out");
    }
    change.note(&Activity::new("account.logout", credential::subject(&caller.account))).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// One's own password, before and after.
#[derive(Deserialize, ToSchema)]
struct PasswordChange {
    #[serde(default)]
    #[schema(value_type = String, format = Password)]
    current: Given<Password>,
    /// At least 12 characters, and not the e-mail address.
    #[serde(default)]
    #[schema(value_type = String, format = Password)]
    new: Given<Password>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

#[utoipa::path(post, path = "/api/v1/password", tag = "sign-in", request_body = PasswordChange,
    responses((status = 204)))]
/// Change one's own password
///
/// The account is signed out on all its other devices.
async fn change_password(
    State(state): State<AppState>,
    caller: Caller,
    Input(body): Input<PasswordChange>,
) -> Answer<StatusCode> {
    let email = &caller.account.email;
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["current", "new"]);
    let current = typed(&mut broken, "current", body.current);
    let new = typed(&mut broken, "new", body.new);
    if let Some(new) = &new {
        broken.check("new", "(hidden)", new.check_rules(email.as_str()));
        if current.as_ref().is_some_and(|current| current.is_same(new)) {
            broken.add("new", "(hidden)", "must not be the password so far");
        }
    }
    let (current, new) = broken.take(current.zip(new))?;
    let stored = stored_password(&state, caller.account.id).await?;
    match state.passwords.verify(email.as_str(), stored.map(|stored| stored.hash), current).await? {
        Verdict::Right => {}
        Verdict::Wrong => {
            let problem = Problem::new(403, "wrong_password", "The current password is not right");
            return Err(problem.with_detail("Nothing was changed.").into());
        }
        Verdict::Locked { left } => return Err(locked(left)),
    }
    let hash = state.passwords.hash(new).await?;
    let mut change = state.store.change(caller.actor).await?;
    credential::set_password(&mut change, &caller.account, &hash, false).await?;
    let reason = "the password of the account was changed";
    credential::end_logins(&mut change, caller.account.id, caller.login, reason).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(post, path = "/api/v1/devices/certificate", operation_id = "renew_device_certificate", tag = "machines", request_body = Object,
    responses((status = 200, body = Object)))]
/// Renew a device's certificate, with its certificate
///
/// It never outlives the login.
async fn certificate(
    State(state): State<AppState>,
    device: CallingDevice,
    Input(request): Input<CertificateRequest>,
) -> Answer<Json<CertificateResponse>> {
    let standing = device.standing;
    let key = same_key(&request.csr, &standing.device.spki_sha256)?;
    let until = standing.login.expires_at;
    Ok(Json(state.authority.sign_device(&key, standing.account.id, standing.device.id, until, state.clock.now())?))
}

/// An account whose credential was right a moment ago.
struct Proved {
    account: std::sync::Arc<Account>,
    /// The hash that the password was checked against; `None`: it was a token.
    hash: Option<String>,
    must_change: bool,
}

impl Proved {
    /// Checks within the write transaction that neither account nor password has changed since.
    async fn check_still(&self, state: &AppState, connection: &mut Connection) -> Answer<()> {
        let account = state.store.catalogue().accounts.get(&self.account.id).cloned();
        let account = account.ok_or_else(failed)?;
        if account.suspended {
            return Err(devices::Barred::Suspended.into());
        }
        if let Some(hash) = &self.hash
            && password_row(connection, account.id).await?.is_none_or(|stored| stored.hash != *hash)
        {
            return Err(failed());
        }
        Ok(())
    }
}

async fn by_password(state: &AppState, email: &str, password: Password, parts: &Parts) -> Answer<Proved> {
    let parsed = email.parse::<Email>().ok();
    let canonical = parsed.as_ref().map_or_else(|| name_key(email.trim()), |email| email.as_str().to_owned());
    let account = parsed.and_then(|email| state.store.catalogue().account_by_email(email.as_str()).cloned());
    let account = account.filter(|account| account.kind == AccountKind::User);
    // Asked also where there is no account: the same work.
    let id = account.as_ref().map_or(AccountId::from_ulid(Ulid::nil()), |account| account.id);
    let stored = stored_password(state, id).await?;
    let hash = stored.as_ref().map(|stored| stored.hash.clone());
    let verdict = state.passwords.verify(&canonical, hash, password).await?;
    if let (Verdict::Wrong | Verdict::Locked { .. }, Some(account)) = (verdict, &account) {
        let activity = Activity::new("account.login_failed", credential::subject(account));
        state.journal.note(activity, origin(Who::System, parts), state.clock.now());
    }
    match verdict {
        Verdict::Right => {}
        Verdict::Wrong => return Err(failed()),
        Verdict::Locked { left } => return Err(locked(left)),
    }
    let (Some(account), Some(stored)) = (account, stored) else { return Err(failed()) };
    Ok(Proved { account, hash: Some(stored.hash), must_change: stored.must_change })
}

async fn by_service_token(state: &AppState, token: &str) -> Answer<Proved> {
    let found = find_service_token(state, &TokenHash::of(token), state.clock.now()).await?;
    let account = found.and_then(|id| state.store.catalogue().accounts.get(&id).cloned());
    let account = account.filter(|account| account.kind == AccountKind::Service).ok_or_else(bad_token)?;
    Ok(Proved { account, hash: None, must_change: false })
}

struct StoredPassword {
    hash: String,
    must_change: bool,
}

async fn stored_password(state: &AppState, account: AccountId) -> Answer<Option<StoredPassword>> {
    let mut connection = state.store.reader().acquire().await?;
    password_row(&mut connection, account).await
}

async fn password_row(connection: &mut Connection, account: AccountId) -> Answer<Option<StoredPassword>> {
    let statement = "SELECT secret, must_change FROM account_credential WHERE account_id = $1 AND kind = 'password'";
    let row = sql::query(statement).bind(account.to_string()).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(StoredPassword { hash: row.try_get("secret")?, must_change: row.try_get("must_change")? }))
}

/// A password field; what is wrong with it is told without it.
fn typed(broken: &mut Violations, field: &str, given: Given<Password>) -> Option<Password> {
    match given {
        Given::Value(password) => Some(password),
        Given::Absent | Given::Null => {
            broken.add(field, "", "must be given");
            None
        }
        Given::Wrong(..) => {
            broken.add(field, "(hidden)", "must be a text");
            None
        }
    }
}

/// The same for a wrong password, no such account, and an account that has no password.
fn failed() -> Refusal {
    let problem = Problem::new(401, "login_failed", "E-mail address or password is not right");
    problem.with_detail("After five failures sign-in is locked for five minutes.").into()
}

fn bad_token() -> Refusal {
    let problem = Problem::new(401, "login_failed", "The service token is not right");
    problem.with_detail("It was deleted, has ended, or was never given. Ask an administrator for a new one.").into()
}

fn locked(left: std::time::Duration) -> Refusal {
    let minutes = left.as_secs().div_ceil(60).max(1);
    let problem = Problem::new(429, "login_locked", "Too many failed sign-ins");
    problem.with_detail(format!("Try again in {minutes} min, or ask an administrator for a new password.")).into()
}

fn info(account: &Account) -> AccountInfo {
    AccountInfo {
        id: account.id,
        email: account.email.to_string(),
        name: account.name.clone(),
        admin: account.admin,
        service: account.kind == AccountKind::Service,
    }
}
