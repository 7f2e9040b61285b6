//! Gateways.

use postern_proto::time::UnixMillis;
use serde_json::Value;

use super::{api::Api, body::Body, entity, noun::GATEWAY};
use crate::{
    args::admin::{GatewayCreate, GatewayUpdate, GatewaysCommand, ShowArgs},
    context::Context,
    failure::Failure,
    screen::{DIM, Line},
    text,
};

/// The field that holds the one-time token.
const TOKEN: &str = "enrol_token";

pub(super) async fn run(command: GatewaysCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        GatewaysCommand::List(args) => entity::list(&GATEWAY, &args, api, context).await,
        GatewaysCommand::Show(args) => entity::show(&GATEWAY, &args.reference, args.json, api, context).await,
        GatewaysCommand::Create(args) => create(args, api, context).await,
        GatewaysCommand::Update(args) => update(args, api, context).await,
        GatewaysCommand::Delete(args) => entity::delete(&GATEWAY, &args, api, context).await,
        GatewaysCommand::Token(args) => token(args, api, context).await,
    }
}

async fn create(args: GatewayCreate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let role = args.kind.clone().unwrap_or_else(|| "gateway".to_owned());
    let body = Body::new().set("name", &args.name).set_if("kind", args.kind).set_if("group", args.group);
    let body = body.tags(&args.tags.tags).set_if("advertise", args.advertise);
    let failed = |f: Failure| f.while_(&format!("cannot create {role} {}", args.name));
    let gateway = api.post(GATEWAY.collection, body.finish()).await.map_err(failed)?;
    enrolment(&gateway, (&args.name, &role), args.output.json, api, context).await
}

async fn update(args: GatewayUpdate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let gateway = entity::find(&GATEWAY, &args.reference, api).await?;
    let body = Body::new().set_if("name", args.name).set_if("group", args.group);
    let body = body.tag_changes(&args.tags, &gateway).set_if("advertise", args.advertise).not_empty()?;
    let failed = |f: Failure| f.while_(&format!("cannot change gateway {}", gateway.name));
    let gateway = api.patch(&entity::path(&GATEWAY, &gateway), body).await.map_err(failed)?;
    entity::report("Changed", &GATEWAY, &gateway, args.output.json, context)
}

async fn token(args: ShowArgs, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let gateway = entity::find(&GATEWAY, &args.reference, api).await?;
    let path = format!("{}/token", entity::path(&GATEWAY, &gateway));
    let failed = |f: Failure| f.while_(&format!("cannot make a token for gateway {}", gateway.name));
    let answer = api.post(&path, Body::new().finish()).await.map_err(failed)?;
    let role = gateway.item.get("kind").and_then(Value::as_str).unwrap_or("gateway");
    enrolment(&answer, (&gateway.name, role), args.json, api, context).await
}

/// Prints the token, and the command that uses it.
async fn enrolment(
    answer: &Value,
    (name, role): (&str, &str),
    as_json: bool,
    api: &Api,
    context: &mut Context,
) -> Result<(), Failure> {
    if as_json {
        return Ok(context.screen.json(answer)?);
    }
    let ends = answer.get("enrol_token_expires_at").and_then(Value::as_u64).map(|at| text::instant(UnixMillis(at)));
    let until = ends.map(|at| format!(", until {at}")).unwrap_or_default();
    // The command is a help; without it the token is of use all the same.
    let fingerprint = api.get("ca").await.ok().and_then(|ca| Some(ca.get("fingerprint")?.as_str()?.to_owned()));
    let control = api.control_url().unwrap_or("https://…");
    let trust = fingerprint.map(|hex| format!(" --ca-fingerprint {hex}")).unwrap_or_default();
    let command = format!("  POSTERN_ENROL_TOKEN=… postern-node {role} --control {control}{trust} --state DIR");
    context.note(Line::of(format!(
        "{} {name} enrols with this token, once{until}. It is shown this once. Use:",
        titled(role)
    )));
    context.note(Line::new().styled(DIM, command));
    entity::secret(answer, TOKEN, context)
}

fn titled(role: &str) -> &'static str {
    if role == "relay" { "Relay" } else { "Gateway" }
}
