//! Accounts and their tokens.

use super::{
    api::{Api, percent},
    body::Body,
    entity::{self, Found},
    noun::{ACCOUNT, TOKEN},
};
use crate::{
    args::admin::{
        AccountCreate, AccountKind, AccountUpdate, AccountsCommand, ListArgs, OfAccount, TokenCreate, TokenDelete,
        TokensCommand,
    },
    context::Context,
    failure::Failure,
    prompt,
    screen::Line,
    text,
};

pub(super) async fn run(command: AccountsCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        AccountsCommand::List(args) => entity::list(&ACCOUNT, &args, api, context).await,
        AccountsCommand::Show(args) => entity::show(&ACCOUNT, &args.reference, args.json, api, context).await,
        AccountsCommand::Create(args) => create(args, api, context).await,
        AccountsCommand::Update(args) => update(args, api, context).await,
        AccountsCommand::Delete(args) => entity::delete(&ACCOUNT, &args, api, context).await,
    }
}

async fn create(args: AccountCreate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let is_user = !matches!(args.kind, Some(AccountKind::Service));
    let password = match (args.password_stdin, is_user && prompt::possible()) {
        (true, _) => Some(prompt::secret_from_stdin()?),
        (false, true) => Some(prompt::new_secret("First password:").await?),
        (false, false) => None,
    };
    let body = Body::new()
        .set_if("email", args.email)
        .set_if("name", args.name)
        .set("kind", if is_user { "user" } else { "service" })
        .flag("admin", args.admin)
        .tags(&args.tags.tags)
        .set_if("password", password.as_ref())
        .flag("must_change_password", password.is_some() && !args.keep_password);
    let account =
        api.post(ACCOUNT.collection, body.finish()).await.map_err(|f| f.while_("cannot create the account"))?;
    entity::report("Created", &ACCOUNT, &account, args.output.json, context)?;
    if is_user && password.is_none() {
        context
            .warn("the account has no password yet, so nobody can sign in; set one with `… update --password-stdin`");
    }
    Ok(())
}

async fn update(args: AccountUpdate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let account = entity::find(&ACCOUNT, &args.reference, api).await?;
    let password = if args.password_stdin { Some(prompt::secret_from_stdin()?) } else { None };
    let body = Body::new()
        .set_if("email", args.email)
        .set_if("name", args.name)
        .set_if("admin", args.admin)
        .set_if("suspended", args.suspended)
        .flag("must_change_password", password.is_some() && !args.keep_password)
        .set_if("password", password)
        .tag_changes(&args.tags, &account)
        .not_empty()?;
    let path = entity::path(&ACCOUNT, &account);
    let account =
        api.patch(&path, body).await.map_err(|f| f.while_(&format!("cannot change account {}", account.name)))?;
    entity::report("Changed", &ACCOUNT, &account, args.output.json, context)
}

pub(super) async fn tokens(command: TokensCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        TokensCommand::List(args) => list_tokens(args, api, context).await,
        TokensCommand::Create(args) => create_token(args, api, context).await,
        TokensCommand::Delete(args) => delete_tokens(args, api, context).await,
    }
}

fn tokens_of(account: &Found) -> String {
    format!("{}/{}", entity::path(&ACCOUNT, account), TOKEN.collection)
}

async fn list_tokens(args: OfAccount, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let account = entity::find(&ACCOUNT, &args.account, api).await?;
    let all = ListArgs { filter: None, limit: 0, json: args.output.json };
    entity::list_at(&TOKEN, &tokens_of(&account), &all, api, context).await
}

async fn create_token(args: TokenCreate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let account = entity::find(&ACCOUNT, &args.account, api).await?;
    let body = Body::new().set_if("name", args.name).set_if("expires_at", args.end.at(text::now()));
    let failed = |f: Failure| f.while_(&format!("cannot make a token for {}", account.name));
    let token = api.post(&tokens_of(&account), body.finish()).await.map_err(failed)?;
    let about =
        format!("A token of {}; it is shown this once. Sign in with POSTERN_SERVICE_TOKEN set to it:", account.name);
    if args.output.json {
        return Ok(context.screen.json(&token)?);
    }
    context.note(Line::of(about));
    entity::secret(&token, "token", context)
}

async fn delete_tokens(args: TokenDelete, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let account = entity::find(&ACCOUNT, &args.account, api).await?;
    let collection = tokens_of(&account);
    let known = api.list(&collection, None, 0).await?.items;
    let known: Vec<_> = known.iter().map(|item| Found::of(&TOKEN, item)).collect();
    let mut doomed = Vec::new();
    for wanted in &args.tokens {
        let token = crate::name::find("token", wanted, &known, |token| token.id.clone(), |token| &token.name)?;
        doomed.push((format!("{collection}/{}", percent(&token.id)), token.name.clone()));
    }
    entity::delete_all(&TOKEN, doomed, &args.sure, api, context).await
}
