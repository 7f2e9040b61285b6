//! The rows of an account's password and logins, as changes write them.

use postern_proto::id::AccountId;

use crate::{
    catalogue::Account,
    store::{Activity, Change, StoreError, Subject, read},
};

/// Stores the hash of a password. With `must_change` the account must choose another one before it administers or is
/// given a lease.
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
    sqlx::query(statement)
        .bind(account.id.to_string())
        .bind(hash)
        .bind(must_change)
        .bind(now)
        .execute(change.connection())
        .await?;
    change.note(&Activity::new("account.password_set", subject(account))).await
}

/// Ends every login of an account.
pub async fn end_logins(change: &mut Change, account: AccountId) -> Result<(), StoreError> {
    let now = read::signed(change.now().0);
    sqlx::query("UPDATE login SET revoked_at = $1 WHERE account_id = $2 AND revoked_at IS NULL")
        .bind(now)
        .bind(account.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

/// An account as an activity names it.
#[must_use]
pub fn subject(account: &Account) -> Subject {
    Subject { kind: "account", id: account.id.to_string(), name: account.email.to_string() }
}
