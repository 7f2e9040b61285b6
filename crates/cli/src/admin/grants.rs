//! Direct grants.

use serde_json::Value;

use super::{
    api::Api,
    body::Body,
    entity,
    noun::{ACCOUNT, GRANT, RESOURCE},
};
use crate::{
    args::admin::{GrantCreate, GrantList, GrantUpdate, GrantsCommand, ListArgs},
    context::Context,
    failure::Failure,
    text,
};

pub(super) async fn run(command: GrantsCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        GrantsCommand::List(args) => list(args, api, context).await,
        GrantsCommand::Show(args) => entity::show(&GRANT, &args.reference, args.json, api, context).await,
        GrantsCommand::Create(args) => create(args, api, context).await,
        GrantsCommand::Update(args) => update(args, api, context).await,
        GrantsCommand::Delete(args) => entity::delete(&GRANT, &args, api, context).await,
    }
}

/// Grants know accounts and resources by their ids; names become ids here.
async fn list(args: GrantList, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let mut filter: Vec<String> = args.list.filter.into_iter().collect();
    if let Some(account) = &args.account {
        filter.push(format!("account:{}", entity::find(&ACCOUNT, account, api).await?.id));
    }
    if let Some(resource) = &args.resource {
        filter.push(format!("resource:{}", entity::find(&RESOURCE, resource, api).await?.id));
    }
    let filter = (!filter.is_empty()).then(|| filter.join(" "));
    entity::list(&GRANT, &ListArgs { filter, ..args.list }, api, context).await
}

async fn create(args: GrantCreate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let account = entity::find(&ACCOUNT, &args.account, api).await?;
    let resource = entity::find(&RESOURCE, &args.resource, api).await?;
    let body = Body::new()
        .set("account", &account.id)
        .set("resource", &resource.id)
        .set_if("ends_at", args.end.at(text::now()))
        .set_if("reason", args.reason);
    let failed = |f: Failure| f.while_(&format!("cannot grant {} to {}", resource.name, account.name));
    let grant = api.post(GRANT.collection, body.finish()).await.map_err(failed)?;
    entity::report("Created", &GRANT, &grant, args.output.json, context)
}

async fn update(args: GrantUpdate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let grant = entity::find(&GRANT, &args.reference, api).await?;
    let body = Body::new().set_if("ends_at", args.end.at(text::now())).set_if("reason", args.reason);
    let body = if args.forever { body.set("ends_at", Value::Null) } else { body };
    let failed = |f: Failure| f.while_("cannot change the grant");
    let grant = api.patch(&entity::path(&GRANT, &grant), body.not_empty()?).await.map_err(failed)?;
    entity::report("Changed", &GRANT, &grant, args.output.json, context)
}
