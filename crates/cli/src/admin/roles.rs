//! Roles, their rules and their members.

use serde_json::Value;

use super::{
    api::{Api, percent},
    body::Body,
    entity::{self, Found},
    noun::{ACCOUNT, MEMBER, RESOURCE, ROLE, RULE},
};
use crate::{
    args::admin::{
        ListArgs, MemberChange, MembersCommand, OfRole, Opens, RoleCreate, RoleUpdate, RolesCommand, RuleCreate,
        RuleDelete, RuleUpdate, RulesCommand, ShowArgs,
    },
    context::Context,
    exit::Exit,
    failure::Failure,
    screen::{BOLD, DIM, GOOD, Line},
};

pub(super) async fn run(command: RolesCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        RolesCommand::List(args) => entity::list(&ROLE, &args, api, context).await,
        RolesCommand::Show(args) => show(args, api, context).await,
        RolesCommand::Create(args) => create(args, api, context).await,
        RolesCommand::Update(args) => update(args, api, context).await,
        RolesCommand::Delete(args) => entity::delete(&ROLE, &args, api, context).await,
    }
}

async fn show(args: ShowArgs, api: &Api, context: &mut Context) -> Result<(), Failure> {
    entity::show(&ROLE, &args.reference, args.json, api, context).await?;
    if args.json {
        return Ok(());
    }
    let role = entity::find(&ROLE, &args.reference, api).await?;
    for (noun, title) in [(&RULE, "Rules"), (&MEMBER, "Members")] {
        context.screen.line(&Line::new())?;
        context.screen.line(&Line::new().styled(BOLD, title))?;
        let all = ListArgs { filter: None, limit: 0, json: false };
        entity::list_at(noun, &below(&role, noun.collection), &all, api, context).await?;
    }
    Ok(())
}

async fn create(args: RoleCreate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let body = Body::new().set("name", &args.name).tags(&args.tags.tags);
    let role = api.post(ROLE.collection, body.finish()).await.map_err(|f| f.while_("cannot create the role"))?;
    entity::report("Created", &ROLE, &role, args.output.json, context)?;
    if !args.output.json {
        let next =
            format!("next: `postern admin rules create {0} --query …`, `postern admin members add {0} …`", args.name);
        context.note(Line::new().styled(DIM, next));
    }
    Ok(())
}

async fn update(args: RoleUpdate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let role = entity::find(&ROLE, &args.reference, api).await?;
    let body = Body::new().set_if("name", args.name).tag_changes(&args.tags, &role).not_empty()?;
    let failed = |f: Failure| f.while_(&format!("cannot change role {}", role.name));
    let role = api.patch(&entity::path(&ROLE, &role), body).await.map_err(failed)?;
    entity::report("Changed", &ROLE, &role, args.output.json, context)
}

pub(super) async fn rules(command: RulesCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        RulesCommand::List(args) => list_below(&RULE, args, api, context).await,
        RulesCommand::Show(args) => {
            let role = entity::find(&ROLE, &args.role, api).await?;
            let rule = entity::find_at(&RULE, &below(&role, RULE.collection), &args.rule, api).await?;
            entity::show_item(&RULE, rule.item, args.output.json, api, context).await
        }
        RulesCommand::Create(args) => create_rule(args, api, context).await,
        RulesCommand::Update(args) => update_rule(args, api, context).await,
        RulesCommand::Delete(args) => delete_rules(args, api, context).await,
    }
}

async fn create_rule(args: RuleCreate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let role = entity::find(&ROLE, &args.role, api).await?;
    let body = opens(&args.opens, api).await?;
    let failed = |f: Failure| f.while_(&format!("cannot add the rule to role {}", role.name));
    let rule = api.post(&below(&role, RULE.collection), body).await.map_err(failed)?;
    entity::report("Created", &RULE, &rule, args.output.json, context)
}

async fn update_rule(args: RuleUpdate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let role = entity::find(&ROLE, &args.role, api).await?;
    let body = opens(&args.opens, api).await?;
    let path = format!("{}/{}", below(&role, RULE.collection), percent(&args.rule));
    let rule = api.patch(&path, body).await.map_err(|f| f.while_("cannot change the rule"))?;
    entity::report("Changed", &RULE, &rule, args.output.json, context)
}

async fn delete_rules(args: RuleDelete, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let role = entity::find(&ROLE, &args.role, api).await?;
    let collection = below(&role, RULE.collection);
    let doomed = args.rules.iter().map(|rule| (format!("{collection}/{}", percent(rule)), rule.clone())).collect();
    entity::delete_all(&RULE, doomed, &args.sure, api, context).await
}

pub(super) async fn members(command: MembersCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        MembersCommand::List(args) => list_below(&MEMBER, args, api, context).await,
        MembersCommand::Add(args) => {
            let (role, accounts) = role_and_accounts(&args, api).await?;
            for account in accounts {
                let body = Body::new().set("account", &account.id).finish();
                let failed = |f: Failure| f.while_(&format!("cannot put {} into role {}", account.name, role.name));
                api.post(&below(&role, MEMBER.collection), body).await.map_err(failed)?;
                let line = Line::new().styled(GOOD, "Added ").styled(BOLD, &account.name);
                context.screen.line(&line.plain(format!(" to role {}", role.name)))?;
            }
            Ok(())
        }
        MembersCommand::Remove(args) => {
            let (role, accounts) = role_and_accounts(&args, api).await?;
            for account in accounts {
                let failed = |f: Failure| f.while_(&format!("cannot take {} out of role {}", account.name, role.name));
                let path = format!("{}/{}", below(&role, MEMBER.collection), percent(&account.id));
                api.delete(&path).await.map_err(failed)?;
                let line = Line::new().styled(GOOD, "Removed ").styled(BOLD, &account.name);
                context.screen.line(&line.plain(format!(" from role {}", role.name)))?;
            }
            Ok(())
        }
    }
}

/// All of them are looked up before the first one is changed.
async fn role_and_accounts(args: &MemberChange, api: &Api) -> Result<(Found, Vec<Found>), Failure> {
    let role = entity::find(&ROLE, &args.role, api).await?;
    let mut accounts = Vec::new();
    for account in &args.accounts {
        accounts.push(entity::find(&ACCOUNT, account, api).await?);
    }
    Ok((role, accounts))
}

async fn list_below(noun: &super::noun::Noun, args: OfRole, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let role = entity::find(&ROLE, &args.role, api).await?;
    let all = ListArgs { filter: None, limit: 0, json: args.output.json };
    entity::list_at(noun, &below(&role, noun.collection), &all, api, context).await
}

fn below(role: &Found, collection: &str) -> String {
    format!("{}/{collection}", entity::path(&ROLE, role))
}

async fn opens(opens: &Opens, api: &Api) -> Result<Value, Failure> {
    if let Some(query) = &opens.query {
        query.parse::<postern_proto::filter::Filter>().map_err(|error| {
            Failure::new(Exit::Usage, format!("the query {query:?} is not valid")).because(error.to_string())
        })?;
        return Ok(Body::new().set("query", query).finish());
    }
    let mut ids = Vec::new();
    for resource in &opens.resources {
        ids.push(entity::find(&RESOURCE, resource, api).await?.id);
    }
    Ok(Body::new().set("resources", ids).finish())
}
