//! Devices and logins: who is signed in where, and whether it still counts.

use std::{sync::Arc, time::Duration};

use postern_proto::{
    api::DeviceInfo,
    id::{AccountId, ActivityId, DeviceId, LoginId},
    name::{MAX_NAME, unseen},
    time::UnixMillis,
};
use postern_tunnel::identity::PeerIdentity;

use crate::{
    authority::RequestedKey,
    catalogue::Account,
    clock::Clock,
    secret::{NoEntropy, Token},
    sql::{self, Connection},
    store::{
        Activity, Actor, Store, StoreError, Subject,
        read::{instant, optional_instant, signed, value},
    },
};

/// Devices of one account at most: a bound on what a stolen credential can fill the disk with.
const MAX_DEVICES: i64 = 10_000;
/// How long a login lasts.
pub const LOGIN_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// A device as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub id: DeviceId,
    pub account: AccountId,
    pub name: String,
    /// SHA-256 of its key (SubjectPublicKeyInfo), lower-case hex.
    pub spki_sha256: String,
    pub revoked_at: Option<UnixMillis>,
    /// Its newest login; `None` when it has none any more.
    pub login: Option<Login>,
}

/// A login as the store has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    pub id: LoginId,
    pub expires_at: UnixMillis,
    /// When it was ended before its time.
    pub revoked_at: Option<UnixMillis>,
}

impl Login {
    /// Whether it counts at an instant.
    #[must_use]
    pub fn is_live(&self, now: UnixMillis) -> bool {
        self.revoked_at.is_none() && self.expires_at > now
    }
}

/// Why a device may do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    #[error("the device is not known here")]
    Unknown,
    #[error("the device was revoked")]
    Revoked,
    #[error("the account is suspended")]
    Suspended,
    #[error("the device is signed out")]
    SignedOut,
}

/// Why it is not known whether a device may do something, or that it may not.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    #[error(transparent)]
    Barred(#[from] Barred),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A device that may act now: its certificate, its account and its login all count.
#[derive(Clone, Debug)]
pub struct Standing {
    pub device: Device,
    pub account: Arc<Account>,
    pub login: Login,
}

/// Reads a device; its certificate plays no part.
pub async fn find(connection: &mut Connection, id: DeviceId) -> Result<Option<Device>, StoreError> {
    let statement = "SELECT d.id, d.account_id, d.name, d.spki_sha256, d.revoked_at, l.id AS login_id,
            l.expires_at AS login_expires_at, l.revoked_at AS login_revoked_at
        FROM device d LEFT JOIN login l ON l.device_id = d.id
        WHERE d.id = $1 ORDER BY l.created_at DESC, l.id DESC LIMIT 1";
    let row = sql::query(statement).bind(id.to_string()).fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    let login = match row.try_get::<Option<&str>>("login_id")? {
        Some(_) => Some(Login {
            id: value(&row, "login_id")?,
            expires_at: instant(&row, "login_expires_at")?,
            revoked_at: optional_instant(&row, "login_revoked_at")?,
        }),
        None => None,
    };
    Ok(Some(Device {
        id: value(&row, "id")?,
        account: value(&row, "account_id")?,
        name: row.try_get("name")?,
        spki_sha256: row.try_get("spki_sha256")?,
        revoked_at: optional_instant(&row, "revoked_at")?,
        login,
    }))
}

/// Whether the device with this certificate may act now.
pub async fn standing(store: &Store, certificate: &PeerIdentity) -> Result<Standing, StandingError> {
    let holder = certificate.holder().ok_or(Barred::Unknown)?;
    let now = store.clock().now();
    let mut connection = store.reader().acquire().await.map_err(StoreError::from)?;
    let device = find(&mut connection, holder.device).await?.ok_or(Barred::Unknown)?;
    if device.account != holder.account || device.spki_sha256 != holder.cnf || certificate.is_over(now) {
        return Err(Barred::Unknown.into());
    }
    if device.revoked_at.is_some() {
        return Err(Barred::Revoked.into());
    }
    let account = store.catalogue().accounts.get(&device.account).cloned().ok_or(Barred::Unknown)?;
    if account.suspended {
        return Err(Barred::Suspended.into());
    }
    let login = device.login.filter(|login| login.is_live(now)).ok_or(Barred::SignedOut)?;
    Ok(Standing { device, account, login })
}

/// Ends logins that are not ended yet.
pub async fn end_logins(connection: &mut Connection, which: Logins, now: UnixMillis) -> Result<(), StoreError> {
    let (statement, id) = match which {
        Logins::Of(device) => (
            "UPDATE login SET revoked_at = $1 WHERE revoked_at IS NULL AND expires_at > $1 AND device_id = $2",
            device.to_string(),
        ),
        Logins::One(login) => (
            "UPDATE login SET revoked_at = $1 WHERE revoked_at IS NULL AND expires_at > $1 AND id = $2",
            login.to_string(),
        ),
    };
    sql::query(statement).bind(signed(now.0)).bind(id).execute(connection).await?;
    Ok(())
}

/// Which logins are meant.
#[derive(Clone, Copy, Debug)]
pub enum Logins {
    Of(DeviceId),
    One(LoginId),
}

/// What a login is made from; the credential was checked.
pub struct NewLogin<'a> {
    pub account: &'a Account,
    pub info: &'a DeviceInfo,
    pub key: &'a RequestedKey,
    pub now: UnixMillis,
}

/// A login that was made.
pub struct MadeLogin {
    pub login: LoginId,
    pub device: DeviceId,
    /// Shown this once.
    pub token: Token,
    pub expires_at: UnixMillis,
}

/// Why a login was not made.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error(transparent)]
    Barred(#[from] Barred),
    #[error("the account has {MAX_DEVICES} devices already")]
    TooMany,
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl NewLogin<'_> {
    /// Makes the login, and the device if its key is new. It takes the place of the device's login before it.
    pub async fn insert(
        &self,
        connection: &mut Connection,
        clock: &Clock,
        actor: &Actor,
    ) -> Result<MadeLogin, LoginError> {
        let device = self.device(connection, clock, actor).await?;
        end_logins(connection, Logins::Of(device), self.now).await?;
        let login = LoginId::from_ulid(clock.ulid());
        let token = Token::draw("")?;
        let expires_at = self.now.plus(LOGIN_LIFETIME);
        let statement = "INSERT INTO login (id, account_id, device_id, token_hash, created_at, expires_at, address)
            VALUES ($1, $2, $3, $4, $5, $6, $7)";
        sql::query(statement)
            .bind(login.to_string())
            .bind(self.account.id.to_string())
            .bind(device.to_string())
            .bind(token.hash().to_text())
            .bind(signed(self.now.0))
            .bind(signed(expires_at.0))
            .bind(actor.address.map(|address| address.to_string()))
            .execute(&mut *connection)
            .await
            .map_err(StoreError::from)?;
        let about = Subject { kind: "device", id: device.to_string(), name: shown(&self.info.name) };
        let id = ActivityId::from_ulid(clock.ulid());
        Activity::new("account.login", about).insert(connection, actor, 0, (id, self.now)).await?;
        Ok(MadeLogin { login, device, token, expires_at })
    }

    /// The device with this key; its name and system are noted anew.
    async fn device(&self, connection: &mut Connection, clock: &Clock, actor: &Actor) -> Result<DeviceId, LoginError> {
        let statement = "INSERT INTO device (id, account_id, name, os, spki_sha256, agent, created_at, last_seen_at,
                last_address)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8)
            ON CONFLICT (account_id, spki_sha256) DO UPDATE SET name = $3, os = $4, agent = $6, last_seen_at = $7,
                last_address = $8
            RETURNING id, revoked_at";
        let row = sql::query(statement)
            .bind(DeviceId::from_ulid(clock.ulid()).to_string())
            .bind(self.account.id.to_string())
            .bind(shown(&self.info.name))
            .bind(shown(&self.info.os))
            .bind(self.key.spki_sha256())
            .bind(actor.agent.clone().unwrap_or_default())
            .bind(signed(self.now.0))
            .bind(actor.address.map(|address| address.to_string()))
            .fetch_one(&mut *connection)
            .await
            .map_err(StoreError::from)?;
        if optional_instant(&row, "revoked_at")?.is_some() {
            return Err(Barred::Revoked.into());
        }
        // Dropped with its transaction when it is one too many.
        let devices: i64 = sql::query("SELECT COUNT(*) FROM device WHERE account_id = $1")
            .bind(self.account.id.to_string())
            .scalar(connection)
            .await
            .map_err(StoreError::from)?;
        if devices > MAX_DEVICES {
            return Err(LoginError::TooMany);
        }
        Ok(value(&row, "id")?)
    }
}

/// What a device calls itself, fit for lists and logs.
fn shown(name: &str) -> String {
    let name: String = name.chars().filter(|c| !unseen(*c)).take(MAX_NAME).collect();
    if name.trim().is_empty() { "unnamed".to_owned() } else { name }
}
