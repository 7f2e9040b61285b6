//! Tokens of service accounts.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use postern_proto::{
    filter::{Subject, Value},
    id::TokenId,
    name::check_name,
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Admin, Answer, Given, Input, List, Page, Violations,
    entity::find,
    input::{Instant, Unknown, check_end},
    page::ListParams,
    refusal::unknown,
};
use crate::{
    catalogue::{Account, AccountKind},
    credential,
    secret::Token,
    sql::{self, Row},
    state::AppState,
    store::{Activity, Change, StoreError, read},
};

/// What service tokens begin with.
const PREFIX: &str = "postern_service_";
/// Tokens of an account at most: two are enough to change them without a gap.
const MAX_TOKENS: i64 = 100;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(delete))
}

/// A token of a service account, without the token itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct TokenView {
    #[schema(value_type = String, example = "tok_01JABCDEFGHJKMNPQRSTVWXYZ0")]
    id: TokenId,
    name: String,
    #[schema(value_type = u64)]
    created_at: UnixMillis,
    /// Null: it has no end.
    #[schema(value_type = Option<u64>)]
    expires_at: Option<UnixMillis>,
    /// To the minute.
    #[schema(value_type = Option<u64>)]
    last_used_at: Option<UnixMillis>,
}

/// A new token, shown this once.
#[derive(Serialize, ToSchema)]
struct NewToken {
    #[serde(flatten)]
    view: TokenView,
    token: String,
}

#[derive(Deserialize, ToSchema)]
struct TokenInput {
    /// `token` when left out.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    name: Given<String>,
    /// When it ends: milliseconds since 1970, or RFC 3339. Without it, it has no end.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    expires_at: Given<Instant>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

impl Subject for TokenView {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "id" => self.id.to_string().into(),
            "name" => self.name.as_str().into(),
            _ => Value::None,
        }
    }
}

#[utoipa::path(get, path = "/api/v1/accounts/{id}/tokens", operation_id = "list_tokens", tag = "accounts",
    params(("id" = String, Path,), ListParams), responses((status = 200, body = Page<TokenView>)))]
/// List the tokens of a service account, oldest first
async fn list(
    State(state): State<AppState>,
    _: Admin,
    Path(id): Path<String>,
    list: List,
) -> Answer<Json<Page<TokenView>>> {
    let account = find::<Account>(&state.store.catalogue(), &id)?;
    let statement = "SELECT id, name, created_at, expires_at, last_used_at FROM account_token WHERE account_id = $1";
    let rows = sql::query(statement).bind(account.id.to_string()).fetch_all(state.store.reader()).await?;
    let tokens = rows.iter().map(view).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(list.page(tokens.into_iter(), &["id", "name"], |token| token.id.to_string())?))
}

#[utoipa::path(post, path = "/api/v1/accounts/{id}/tokens", operation_id = "create_token", tag = "accounts",
    params(("id" = String, Path,)), request_body = TokenInput, responses((status = 201, body = NewToken)))]
/// Make a token for a service account
///
/// The answer holds the token, which is not shown again.
async fn create(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(body): Input<TokenInput>,
) -> Answer<(StatusCode, Json<NewToken>)> {
    let mut change = state.store.change(caller.actor).await?;
    let account = find::<Account>(change.catalogue(), &id)?;
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["name", "expires_at"]);
    if account.kind == AccountKind::User {
        broken.add("id", &account.id, "must be a service account: users sign in with passwords");
    }
    let name = broken.optional("name", body.name).unwrap_or_else(|| "token".to_owned());
    broken.check("name", &name, check_name(&name));
    let expires_at = broken.optional("expires_at", body.expires_at).map(|Instant(end)| end);
    check_end(&mut broken, "expires_at", expires_at, change.now());
    let count: i64 = sql::query("SELECT COUNT(*) FROM account_token WHERE account_id = $1")
        .bind(account.id.to_string())
        .scalar(change.connection())
        .await?;
    if count >= MAX_TOKENS {
        broken.add("id", &account.id, format_args!("must not have more than {MAX_TOKENS} tokens: delete old ones"));
    }
    broken.none()?;
    let id = TokenId::from_ulid(change.ulid());
    let view = TokenView { id, name, created_at: change.now(), expires_at, last_used_at: None };
    let token = Token::draw(PREFIX)?;
    insert(&mut change, &account, &view, &token).await?;
    change.note(&Activity::new("account.token_created", credential::subject(&account)).after(&view)).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(NewToken { view, token: token.expose().to_owned() })))
}

#[utoipa::path(delete, path = "/api/v1/accounts/{id}/tokens/{token}", operation_id = "delete_token", tag = "accounts",
    params(("id" = String, Path,), ("token" = String, Path,)), responses((status = 204)))]
/// Delete a token
///
/// Every login of the account ends, because it may have been made with this token; who has another token signs in again.
async fn delete(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path((id, token)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let account = find::<Account>(change.catalogue(), &id)?;
    let statement = "DELETE FROM account_token WHERE account_id = $1 AND id = $2
        RETURNING id, name, created_at, expires_at, last_used_at";
    let row =
        sql::query(statement).bind(account.id.to_string()).bind(&token).fetch_optional(change.connection()).await?;
    let view = view(&row.ok_or_else(|| unknown("token", &token))?)?;
    credential::end_logins(&mut change, account.id, None, "a token of the account was deleted").await?;
    change.note(&Activity::new("account.token_deleted", credential::subject(&account)).before(&view)).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn insert(change: &mut Change, account: &Account, view: &TokenView, token: &Token) -> Result<(), StoreError> {
    let statement = "INSERT INTO account_token (id, account_id, name, hash, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6)";
    sql::query(statement)
        .bind(view.id.to_string())
        .bind(account.id.to_string())
        .bind(&view.name)
        .bind(token.hash().to_text())
        .bind(read::signed(view.created_at.0))
        .bind(read::millis(view.expires_at))
        .execute(change.connection())
        .await?;
    Ok(())
}

fn view(row: &Row) -> Result<TokenView, StoreError> {
    Ok(TokenView {
        id: read::value(row, "id")?,
        name: row.try_get("name")?,
        created_at: read::instant(row, "created_at")?,
        expires_at: read::optional_instant(row, "expires_at")?,
        last_used_at: read::optional_instant(row, "last_used_at")?,
    })
}
