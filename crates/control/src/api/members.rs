//! The members of roles.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use postern_proto::{
    filter::{Subject, Value},
    id::{AccountId, RoleId},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Admin, Answer, Given, Input, List, Page, Violations, accounts, entity::find, input::Unknown, page::ListParams,
    refusal::unknown,
};
use crate::{
    catalogue::{Catalogue, Member, Role},
    state::AppState,
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(remove))
}

#[derive(Deserialize, ToSchema)]
struct MemberInput {
    /// Id of the account.
    #[serde(default)]
    #[schema(value_type = String)]
    account: Given<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Unknown,
}

/// A member of a role.
#[derive(Serialize, ToSchema)]
struct MemberView {
    #[schema(value_type = String)]
    role: RoleId,
    #[schema(value_type = String)]
    account: AccountId,
    email: String,
    name: String,
}

impl Subject for MemberView {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "account" => self.account.to_string().into(),
            "email" => self.email.as_str().into(),
            "name" => self.name.as_str().into(),
            _ => Value::None,
        }
    }
}

#[utoipa::path(get, path = "/api/v1/roles/{id}/members", operation_id = "list_members", tag = "roles",
    params(("id" = String, Path,), ListParams), responses((status = 200, body = Page<MemberView>)))]
/// List the members of a role, by e-mail address
async fn list(
    State(state): State<AppState>,
    _: Admin,
    Path(id): Path<String>,
    list: List,
) -> Answer<Json<Page<MemberView>>> {
    let catalogue = state.store.catalogue();
    let role = find::<Role>(&catalogue, &id)?.id;
    let members = catalogue.index.members_of.get(&role).into_iter().flatten();
    let members = members.filter_map(|account| view(&catalogue, role, *account));
    Ok(Json(list.page(members, &["account", "email", "name"], |member| member.email.clone())?))
}

#[utoipa::path(post, path = "/api/v1/roles/{id}/members", operation_id = "add_member", tag = "roles",
    params(("id" = String, Path,)), request_body = MemberInput, responses((status = 201, body = MemberView)))]
/// Make an account a member of a role
async fn add(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(body): Input<MemberInput>,
) -> Answer<(StatusCode, Json<MemberView>)> {
    let mut change = state.store.change(caller.actor).await?;
    let role = find::<Role>(change.catalogue(), &id)?.id;
    let mut broken = Violations::default();
    broken.unknown(&body.unknown, &["account"]);
    let account = broken.required("account", body.account);
    let account = account.and_then(|id| accounts::read_id(&mut broken, change.catalogue(), &id));
    let account = broken.take(account)?;
    change.put(Member { role, account: account.id, revision: change.revision() }).await?;
    let catalogue = change.commit().await?;
    let member = view(&catalogue, role, account.id).ok_or_else(|| unknown("account", &account.id.to_string()))?;
    Ok((StatusCode::CREATED, Json(member)))
}

#[utoipa::path(delete, path = "/api/v1/roles/{id}/members/{account}", operation_id = "remove_member", tag = "roles",
    params(("id" = String, Path,), ("account" = String, Path,)), responses((status = 204)))]
/// Take an account out of a role
async fn remove(
    State(state): State<AppState>,
    Admin(caller): Admin,
    Path((id, account)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let mut change = state.store.change(caller.actor).await?;
    let role = find::<Role>(change.catalogue(), &id)?;
    let member =
        account.parse::<AccountId>().ok().filter(|id| change.catalogue().members.contains_key(&(role.id, *id)));
    let member = member.ok_or_else(|| unknown("member", &account))?;
    change.erase::<Member>((role.id, member)).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn view(catalogue: &Catalogue, role: RoleId, account: AccountId) -> Option<MemberView> {
    let account = catalogue.accounts.get(&account)?;
    Some(MemberView { role, account: account.id, email: account.email.to_string(), name: account.name.clone() })
}
