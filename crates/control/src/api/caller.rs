//! Who calls: read from the bearer token, and held against the TLS client certificate.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, header, request::Parts},
};
use postern_proto::{
    id::{AccountId, DeviceId, LoginId},
    problem::Problem,
    sync::Peer,
    time::UnixMillis,
};

use super::refusal::{Answer, Refusal};
use crate::{
    catalogue::Account,
    secret::TokenHash,
    sql::{self, Row},
    state::AppState,
    store::{Actor, StoreError, Who, read},
};

/// How exactly the last use of a service token is noted.
const LAST_USE: u64 = 60_000;

/// An account that proved itself with a bearer token.
///
/// A login's token counts only with the certificate of the device it was made on; a login without a device and a
/// service token count alone.
#[derive(Clone, Debug)]
pub struct Caller {
    pub account: Arc<Account>,
    /// `None`: a service token.
    pub login: Option<LoginId>,
    /// The device of the login.
    pub device: Option<DeviceId>,
    pub actor: Actor,
}

/// A caller that may administer.
#[derive(Clone, Debug)]
pub struct Admin(pub Caller);

impl FromRequestParts<AppState> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Answer<Self> {
        let token = bearer(&parts.headers).ok_or_else(not_signed_in)?;
        let peer = parts.extensions.get::<Peer>().copied();
        let bearer = authenticate(state, token, peer).await?.ok_or_else(not_signed_in)?;
        let account = state.store.catalogue().accounts.get(&bearer.account).cloned();
        let account = account.filter(|account| !account.suspended).ok_or_else(not_signed_in)?;
        let who = Who::Account { id: account.id, email: account.email.to_string() };
        let actor = origin(who, parts);
        Ok(Self { account, login: bearer.login, device: bearer.device, actor })
    }
}

impl FromRequestParts<AppState> for Admin {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Answer<Self> {
        let caller = Caller::from_request_parts(parts, state).await?;
        if caller.account.admin {
            return Ok(Self(caller));
        }
        let problem = Problem::new(403, "not_admin", "Only administrators may do this");
        Err(problem.with_detail(format!("{} is not an administrator.", caller.account.email)).into())
    }
}

/// The actor of a request: who, and from where.
pub fn origin(who: Who, parts: &Parts) -> Actor {
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip());
    let agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    Actor { who, address, agent: agent.map(|agent| agent.chars().take(200).collect()) }
}

/// What a token says.
struct Bearer {
    account: AccountId,
    login: Option<LoginId>,
    device: Option<DeviceId>,
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// One answer for every reason, so that a guess learns nothing.
fn not_signed_in() -> Refusal {
    let problem = Problem::new(401, "not_signed_in", "The request is not signed in");
    problem.with_detail("Sign in, or give a valid token, and use it with the device it was made on.").into()
}

async fn authenticate(state: &AppState, token: &str, peer: Option<Peer>) -> Answer<Option<Bearer>> {
    let hash = TokenHash::of(token);
    let now = state.clock.now();
    if let Some(bearer) = login(state, &hash, peer, now).await? {
        return Ok(Some(bearer));
    }
    service_token(state, &hash, now).await
}

async fn login(state: &AppState, hash: &TokenHash, peer: Option<Peer>, now: UnixMillis) -> Answer<Option<Bearer>> {
    let statement = "SELECT l.id, l.account_id, l.device_id, l.token_hash, d.revoked_at AS device_revoked_at
        FROM login l LEFT JOIN device d ON d.id = l.device_id
        WHERE l.token_hash = $1 AND l.revoked_at IS NULL AND l.expires_at > $2";
    let row = sql::query(statement)
        .bind(hash.to_text())
        .bind(read::signed(now.0))
        .fetch_optional(state.store.reader())
        .await?;
    let Some(row) = row else { return Ok(None) };
    let account = read::value(&row, "account_id")?;
    let device: Option<DeviceId> = read::optional_value(&row, "device_id")?;
    let revoked = read::optional_instant(&row, "device_revoked_at")?.is_some();
    let here = match (device, peer) {
        (None, _) => true,
        (Some(device), Some(Peer::Device { account: holder, device: held })) => device == held && account == holder,
        (Some(_), _) => false,
    };
    if !here || revoked || !same_hash(&row, "token_hash", hash)? {
        return Ok(None);
    }
    Ok(Some(Bearer { account, login: Some(read::value(&row, "id")?), device }))
}

async fn service_token(state: &AppState, hash: &TokenHash, now: UnixMillis) -> Answer<Option<Bearer>> {
    let account = find_service_token(state, hash, now).await?;
    Ok(account.map(|account| Bearer { account, login: None, device: None }))
}

/// The account of a service token that is valid now; notes that it was used.
pub async fn find_service_token(
    state: &AppState,
    hash: &TokenHash,
    now: UnixMillis,
) -> Result<Option<AccountId>, StoreError> {
    let statement = "SELECT id, account_id, hash, last_used_at FROM account_token
        WHERE hash = $1 AND (expires_at IS NULL OR expires_at > $2)";
    let row = sql::query(statement)
        .bind(hash.to_text())
        .bind(read::signed(now.0))
        .fetch_optional(state.store.reader())
        .await?;
    let Some(row) = row else { return Ok(None) };
    if !same_hash(&row, "hash", hash)? {
        return Ok(None);
    }
    let last = read::optional_instant(&row, "last_used_at")?;
    if last.is_none_or(|last| now.0.saturating_sub(last.0) > LAST_USE) {
        let id: String = row.try_get("id")?;
        let mut append = state.store.append().await?;
        sql::query("UPDATE account_token SET last_used_at = $1 WHERE id = $2")
            .bind(read::signed(now.0))
            .bind(id)
            .execute(append.connection())
            .await?;
        append.commit().await?;
    }
    read::value(&row, "account_id").map(Some)
}

/// The row was found by its hash; it is compared once more in constant time.
fn same_hash(row: &Row, column: &str, hash: &TokenHash) -> Result<bool, StoreError> {
    let stored: &str = row.try_get(column)?;
    Ok(TokenHash::from_text(stored).is_some_and(|stored| stored == *hash))
}
