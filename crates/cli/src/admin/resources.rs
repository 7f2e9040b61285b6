//! Resources.

use serde_json::Value;

use super::{
    api::Api,
    body::Body,
    entity,
    noun::{CLUSTER, RESOURCE, SEEN, TURN},
    show,
};
use crate::{
    args::admin::{Bind, ResourceCreate, ResourceUpdate, ResourcesCommand, ShowArgs},
    context::Context,
    exit::Exit,
    failure::Failure,
    screen::{DIM, Line},
};

pub(super) async fn run(command: ResourcesCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        ResourcesCommand::List(args) => entity::list(&RESOURCE, &args, api, context).await,
        ResourcesCommand::Show(args) => entity::show(&RESOURCE, &args.reference, args.json, api, context).await,
        ResourcesCommand::Create(args) => create(*args, api, context).await,
        ResourcesCommand::Update(args) => update(*args, api, context).await,
        ResourcesCommand::Delete(args) => entity::delete(&RESOURCE, &args, api, context).await,
        ResourcesCommand::Check(args) => check(args, api, context).await,
        ResourcesCommand::Health(args) => health(args, api, context).await,
    }
}

async fn create(args: ResourceCreate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let cluster = bound_to(args.cluster.as_deref(), api).await?;
    let body = Body::new()
        .set("name", &args.name)
        .set("kind", args.kind)
        .set("host", &args.host)
        .set_if("port", args.port)
        .set_if("ports", args.reach.ports)
        .set_if("hosts", args.reach.hosts.map(named))
        .tags(&args.tags.tags)
        .set_if("bind", bind(&args.bind))
        .flag("allow_local", args.allow_local)
        .flag("strict", args.strict)
        .set_if("egress", args.egress)
        .set_if("cluster", cluster);
    let failed = |f: Failure| f.while_(&format!("cannot create resource {}", args.name));
    let resource = api.post(RESOURCE.collection, body.finish()).await.map_err(failed)?;
    report("Created", &resource, args.output.json, context)
}

async fn update(args: ResourceUpdate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let resource = entity::find(&RESOURCE, &args.reference, api).await?;
    let cluster = bound_to(args.cluster.as_deref(), api).await?;
    let body = Body::new()
        .set_if("name", args.name)
        .set_if("kind", args.kind)
        .set_if("host", args.host)
        .set_if("port", args.port)
        .set_if("ports", args.reach.ports)
        .set_if("hosts", args.reach.hosts.map(named))
        .tag_changes(&args.tags, &resource)
        .set_if("bind", bind(&args.bind))
        .set_if("allow_local", args.allow_local)
        .set_if("strict", args.strict)
        .set_if("egress", args.egress)
        .set_if("cluster", cluster)
        .not_empty()?;
    let failed = |f: Failure| f.while_(&format!("cannot change resource {}", resource.name));
    let resource = api.patch(&entity::path(&RESOURCE, &resource), body).await.map_err(failed)?;
    report("Changed", &resource, args.output.json, context)
}

/// The hosts without the empty one that stands for no list.
fn named(hosts: Vec<String>) -> Vec<String> {
    hosts.into_iter().filter(|host| !host.trim().is_empty()).collect()
}

fn bind(bind: &Bind) -> Option<Value> {
    let loopback = Body::new().set_if("ip", bind.loopback_ip).set_if("port", bind.loopback_port);
    let body = Body::new()
        .set_if("mode", bind.mode)
        .set_if("ip", bind.ip)
        .set_if("port", bind.port)
        .set_if("dns_name", bind.dns_name.as_ref())
        .set_if("loopback", (!loopback.is_empty()).then(|| loopback.finish()));
    (!body.is_empty()).then(|| body.finish())
}

fn report(verb: &str, resource: &Value, as_json: bool, context: &mut Context) -> Result<(), Failure> {
    entity::report(verb, &RESOURCE, resource, as_json, context)?;
    let bind = |field: &str| resource.pointer(&format!("/bind/{field}")).map(show::plain).unwrap_or_default();
    let (ip, port, name) = (bind("ip"), bind("port"), bind("dns_name"));
    if as_json || ip.is_empty() {
        return Ok(());
    }
    let name = if name.is_empty() { name } else { format!(" as {name}") };
    let (loopback, loopback_port) = (bind("loopback/ip"), bind("loopback/port"));
    let second = match (bind("mode").as_str(), loopback.is_empty()) {
        ("both", false) => format!(", and at {loopback}:{loopback_port}"),
        (_, false) => format!(", or at {loopback}:{loopback_port} where there is no virtual network"),
        (_, true) => String::new(),
    };
    Ok(context.screen.line(&Line::new().styled(DIM, format!("  it appears at {ip}:{port}{name}{second}")))?)
}

/// The id of a cluster, or null for none.
async fn bound_to(cluster: Option<&str>, api: &Api) -> Result<Option<Value>, Failure> {
    match cluster {
        None => Ok(None),
        Some("") => Ok(Some(Value::Null)),
        Some(name) => Ok(Some(entity::find(&CLUSTER, name, api).await?.id.into())),
    }
}

async fn check(args: ShowArgs, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let resource = entity::find(&RESOURCE, &args.reference, api).await?;
    let path = format!("{}/check", entity::path(&RESOURCE, &resource));
    let failed = |f: Failure| f.while_(&format!("cannot check resource {}", resource.name));
    let answer = api.post(&path, Body::new().finish()).await.map_err(failed)?;
    let state = answer.pointer("/health/state").and_then(Value::as_str).unwrap_or_default();
    if args.json {
        context.screen.json(&answer)?;
    } else {
        let seen = answer.get("gateways").and_then(Value::as_array).cloned().unwrap_or_default();
        if seen.is_empty() {
            context.screen.line(&Line::of("No gateway is connected, so nobody could look."))?;
        } else {
            context.screen.grid(&show::grid(&SEEN, &seen))?;
        }
    }
    if state == "healthy" { Ok(()) } else { Err(Failure::silent(Exit::NotReady)) }
}

async fn health(args: ShowArgs, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let resource = entity::find(&RESOURCE, &args.reference, api).await?;
    let answer = api.get(&format!("{}/health", entity::path(&RESOURCE, &resource))).await?;
    if args.json {
        return Ok(context.screen.json(&answer)?);
    }
    let list = |field: &str| answer.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let (seen, turns) = (list("gateways"), list("history"));
    if seen.is_empty() {
        context.screen.line(&Line::of("No node says how it is now."))?;
    } else {
        context.screen.grid(&show::grid(&SEEN, &seen))?;
    }
    if turns.is_empty() {
        return Ok(());
    }
    context.screen.line(&Line::new())?;
    Ok(context.screen.grid(&show::grid(&TURN, &turns))?)
}
