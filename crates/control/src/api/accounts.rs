//! Accounts: users and service accounts.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use postern_proto::{
    filter::{Subject, Value},
    id::AccountId,
    name::{Email, check_name},
    problem::Problem,
    resource::Tags,
};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Admin, Answer, Given, Input, List, Page, Violations, entity::find, input::Unknown, page::ListParams};
use crate::{
    catalogue::{Account, AccountKind, Catalogue},
    credential,
    password::Password,
    state::AppState,
};

const FIELDS: &[&str] = &["email", "name", "kind", "admin", "suspended", "tags", "id"];

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, update, delete))
}

impl Subject for Account {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "email" => self.email.as_str().into(),
            "name" => self.name.as_str().into(),
            "kind" => self.kind.as_str().into(),
            "admin" => self.admin.into(),
            "suspended" => self.suspended.into(),
            "tags" => Value::Tags(&self.tags),
            "id" => self.id.to_string().into(),
            _ => Value::None,
        }
    }
}

/// What an account is created from.
#[derive(Deserialize, ToSchema)]
struct NewAccount {
    /// A service account without one is given an address that receives nothing.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Email)]
    email: Given<String>,
    /// The part of the address before the @ when left out.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    name: Given<String>,
    /// `user` when left out.
    #[serde(default)]
    #[schema(value_type = Option<AccountKind>)]
    kind: Given<AccountKind>,
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    admin: Given<bool>,
    /// At least 12 characters and not the address. A user without one cannot sign in yet. Service accounts sign in with
    /// tokens and have none.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Password, write_only)]
    password: Given<Password>,
    /// Whether the account is asked at sign-in to choose another password; false when left out.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    must_change_password: Given<bool>,
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    tags: Given<Tags>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

/// A change of an account; what is left out stays.
#[derive(Deserialize, ToSchema)]
struct AccountChange {
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Email)]
    email: Given<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    name: Given<String>,
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    admin: Given<bool>,
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    suspended: Given<bool>,
    /// A new password. Every login of the account ends.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = Password, write_only)]
    password: Given<Password>,
    /// With `password`: whether the account is asked at sign-in to choose another one; false when left out.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    must_change_password: Given<bool>,
    /// Replaces all tags.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    tags: Given<Tags>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

#[utoipa::path(get, path = "/api/v1/accounts", operation_id = "list_accounts", tag = "accounts", params(ListParams),
    responses((status = 200, body = Page<Account>)))]
/// List accounts, by e-mail address
async fn list(State(state): State<AppState>, _: Admin, list: List) -> Answer<Json<Page<Account>>> {
    let catalogue = state.store.catalogue();
    let accounts = catalogue.accounts.values().cloned();
    let page = list.page(accounts, FIELDS, |account| account.email.to_string())?;
    Ok(Json(page.map(|account| Account::clone(&account))))
}

#[utoipa::path(get, path = "/api/v1/accounts/{id}", operation_id = "show_account", tag = "accounts", params(("id" = String, Path,)),
    responses((status = 200, body = Account)))]
/// Show an account
async fn show(State(state): State<AppState>, _: Admin, Path(id): Path<String>) -> Answer<Json<Account>> {
    find::<Account>(&state.store.catalogue(), &id).map(|account| Json(Account::clone(&account)))
}

#[utoipa::path(post, path = "/api/v1/accounts", operation_id = "create_account", tag = "accounts", request_body = NewAccount,
    responses((status = 201, body = Account)))]
/// Create an account
async fn create(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Input(body): Input<NewAccount>,
) -> Answer<(StatusCode, Json<Account>)> {
    let id = AccountId::from_ulid(state.clock.ulid());
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["email", "name", "kind", "admin", "password", "must_change_password", "tags"]);
    let kind = broken.optional("kind", body.kind).unwrap_or(AccountKind::User);
    let email = match (kind, &body.email) {
        (AccountKind::Service, Given::Absent | Given::Null) => {
            format!("{}@service.invalid", id.ulid().to_string().to_ascii_lowercase()).parse().ok()
        }
        _ => broken.required("email", body.email).and_then(|email| read_email(&mut broken, &email)),
    };
    let name = new_name(&mut broken, body.name, email.as_ref());
    let admin = broken.optional("admin", body.admin).unwrap_or_default();
    let tags = broken.optional("tags", body.tags).unwrap_or_default();
    broken.tags(&tags);
    let password = secret(&mut broken, body.password, email.as_ref(), kind);
    let must_change = broken.optional("must_change_password", body.must_change_password).unwrap_or_default();
    let hash = hashed(&state, password.filter(|_| broken.is_empty())).await?;
    let mut change = state.store.change(caller.actor).await?;
    if let Some(email) = &email {
        check_email_free(&mut broken, change.catalogue(), email, id);
    }
    let (email, name) = broken.take(email.zip(name))?;
    let created_at = change.now();
    let account =
        Account { id, email, name, kind, admin, suspended: false, tags, created_at, revision: change.revision() };
    let account = change.put(account).await?;
    if let Some(hash) = hash {
        credential::set_password(&mut change, &account, &hash, must_change).await?;
    }
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(Account::clone(&account))))
}

#[utoipa::path(patch, path = "/api/v1/accounts/{id}", operation_id = "update_account", tag = "accounts", params(("id" = String, Path,)),
    request_body = AccountChange, responses((status = 200, body = Account)))]
/// Change an account
///
/// Suspension ends its sessions at once.
async fn update(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(body): Input<AccountChange>,
) -> Answer<Json<Account>> {
    let known = find::<Account>(&state.store.catalogue(), &id)?;
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["email", "name", "admin", "suspended", "password", "must_change_password", "tags"]);
    let email = broken.change("email", body.email).and_then(|email| read_email(&mut broken, &email));
    let name = broken.change("name", body.name);
    if let Some(name) = &name {
        broken.check("name", name, check_name(name));
    }
    let admin = broken.change("admin", body.admin);
    let suspended = broken.change("suspended", body.suspended);
    let tags = broken.change("tags", body.tags);
    broken.tags(tags.as_ref().unwrap_or(&Tags::new()));
    let password = secret(&mut broken, body.password, Some(email.as_ref().unwrap_or(&known.email)), known.kind);
    let must_change = broken.optional("must_change_password", body.must_change_password).unwrap_or_default();
    let hash = hashed(&state, password.filter(|_| broken.is_empty())).await?;
    let mut change = state.store.change(caller.actor).await?;
    let before = find::<Account>(change.catalogue(), &id)?;
    if let Some(email) = &email {
        check_email_free(&mut broken, change.catalogue(), email, before.id);
    }
    broken.none()?;
    let mut account = Account::clone(&before);
    account.email = email.unwrap_or(account.email);
    account.name = name.unwrap_or(account.name);
    account.admin = admin.unwrap_or(account.admin);
    account.suspended = suspended.unwrap_or(account.suspended);
    account.tags = tags.unwrap_or(account.tags);
    keep_an_admin(change.catalogue(), &before, account.admin && !account.suspended)?;
    let account = change.put(account).await?;
    if let Some(hash) = hash {
        credential::set_password(&mut change, &account, &hash, must_change).await?;
        state.passwords.forgive(account.email.as_str()).await?;
        credential::end_logins(&mut change, account.id, caller.login, "the password was reset").await?;
    }
    if account.suspended && !before.suspended {
        credential::end_logins(&mut change, account.id, None, "the account was suspended").await?;
    }
    change.commit().await?;
    Ok(Json(Account::clone(&account)))
}

#[utoipa::path(delete, path = "/api/v1/accounts/{id}", operation_id = "delete_account", tag = "accounts", params(("id" = String, Path,)),
    responses((status = 204)))]
/// Delete an account, with its tokens, devices, memberships and grants
///
/// Its sessions end at once; their records stay.
async fn delete(State(state): State<AppState>, Admin(caller): Admin, Path(id): Path<String>) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let account = find::<Account>(change.catalogue(), &id)?;
    keep_an_admin(change.catalogue(), &account, false)?;
    change.remove_account(account.id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The account that a field names by its id.
pub(super) fn read_id(broken: &mut Violations, catalogue: &Catalogue, id: &str) -> Option<Arc<Account>> {
    broken.check("account", id, find::<Account>(catalogue, id).map_err(|_| "must be the id of an account"))
}

fn read_email(broken: &mut Violations, email: &str) -> Option<Email> {
    broken.check("email", email, email.parse::<Email>())
}

/// The name of a new account: that before the `@`, unless another one is given. Without a right address there is none
/// to take, and the address is told of already.
fn new_name(broken: &mut Violations, given: Given<String>, email: Option<&Email>) -> Option<String> {
    let before_at = || email?.as_str().split('@').next().map(str::to_owned);
    let name = broken.optional("name", given).or_else(before_at)?;
    broken.check("name", &name, check_name(&name)).map(|()| name)
}

fn check_email_free(broken: &mut Violations, catalogue: &Catalogue, email: &Email, id: AccountId) {
    if catalogue.account_by_email(email.as_str()).is_some_and(|other| other.id != id) {
        broken.add("email", email, "must be unique: another account has it");
    }
}

/// A new password, if one is given; what is wrong with it is told without it.
fn secret(
    broken: &mut Violations,
    given: Given<Password>,
    email: Option<&Email>,
    kind: AccountKind,
) -> Option<Password> {
    let password = match given {
        Given::Absent | Given::Null => return None,
        Given::Wrong(..) => {
            broken.add("password", "(hidden)", "must be a text");
            return None;
        }
        Given::Value(password) => password,
    };
    if kind == AccountKind::Service {
        broken.add("password", "(hidden)", "must not be given: service accounts sign in with tokens");
        return None;
    }
    broken.check("password", "(hidden)", password.check_rules(email.map_or("", Email::as_str)))?;
    Some(password)
}

/// Hashes outside any transaction, because it takes long.
async fn hashed(state: &AppState, password: Option<Password>) -> Answer<Option<String>> {
    match password {
        Some(password) => Ok(Some(state.passwords.hash(password).await?)),
        None => Ok(None),
    }
}

/// Refuses a change that would leave nobody who can administer.
fn keep_an_admin(catalogue: &Catalogue, account: &Account, stays: bool) -> Answer<()> {
    let acts = |account: &Account| account.admin && !account.suspended;
    let others = catalogue.accounts.values().any(|other| other.id != account.id && acts(other));
    if stays || others || !acts(account) {
        return Ok(());
    }
    let problem = Problem::new(409, "last_admin", "The last administrator cannot be removed");
    Err(problem.with_detail(format!("Make another account an administrator before {}.", account.email)).into())
}
