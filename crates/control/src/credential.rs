//! The rows of an account's password and logins, as changes write them.

use postern_proto::{
    id::{AccountId, DeviceId, LoginId},
    lease::RevokedSubject,
};

use crate::{
    catalogue::Account,
    sql,
    store::{Activity, Change, StoreError, Subject, read},
};

/// Stores the hash of a password. `must_change` says that it was made for one use; it is told at sign-in and bars
/// nothing, so that a forgotten change never locks anybody out of the data path.
pub async fn set_password(
    change: &mut Change,
    account: &Account,
    hash: &str,
    must_change: bool,
) -> Result<(), StoreError> {
    let now = read::signed(change.now().0);
    let statement = "INSERT INTO account_credential (account_id, kind, secret, must_change, changed_at)
        VALUES ($1, 'password', $2, $3, $4)
        ON CONFLICT (account_id, kind) DO UPDATE SET secret = $2, must_change = $3, changed_at = $4";
    sql::query(statement)
        .bind(account.id.to_string())
        .bind(hash)
        .bind(must_change)
        .bind(now)
        .execute(change.connection())
        .await?;
    change.note(&Activity::new("account.password_set", subject(account))).await
}

/// Ends every login of an account but one, and revokes the devices that are signed out by it.
pub async fn end_logins(
    change: &mut Change,
    account: AccountId,
    but: Option<LoginId>,
    reason: &str,
) -> Result<(), StoreError> {
    let now = read::signed(change.now().0);
    let statement = "UPDATE login SET revoked_at = $1
        WHERE account_id = $2 AND id <> $3 AND revoked_at IS NULL AND expires_at > $1 RETURNING device_id";
    let rows = sql::query(statement)
        .bind(now)
        .bind(account.to_string())
        .bind(but.map(|login| login.to_string()).unwrap_or_default())
        .fetch_all(change.connection())
        .await?;
    for row in &rows {
        if let Some(device) = read::optional_value::<DeviceId>(row, "device_id")? {
            change.revoke(RevokedSubject::Device { device }, reason);
        }
    }
    Ok(())
}

/// An account as an activity names it.
#[must_use]
pub fn subject(account: &Account) -> Subject {
    Subject { kind: "account", id: account.id.to_string(), name: account.email.to_string() }
}
