//! Gateways.

use super::{api::Api, body::Body, entity, noun::GATEWAY};
use crate::{
    args::admin::{GatewayCreate, GatewayUpdate, GatewaysCommand, ShowArgs},
    context::Context,
    failure::Failure,
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
    let body = Body::new().set("name", &args.name).set_if("advertise", args.advertise);
    let failed = |f: Failure| f.while_(&format!("cannot create gateway {}", args.name));
    let gateway = api.post(GATEWAY.collection, body.finish()).await.map_err(failed)?;
    entity::secret(&gateway, TOKEN, &about(&args.name), args.output.json, context)
}

async fn update(args: GatewayUpdate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let gateway = entity::find(&GATEWAY, &args.reference, api).await?;
    let body = Body::new().set_if("name", args.name).set_if("advertise", args.advertise).not_empty()?;
    let failed = |f: Failure| f.while_(&format!("cannot change gateway {}", gateway.name));
    let gateway = api.patch(&entity::path(&GATEWAY, &gateway), body).await.map_err(failed)?;
    entity::report("Changed", &GATEWAY, &gateway, args.output.json, context)
}

async fn token(args: ShowArgs, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let gateway = entity::find(&GATEWAY, &args.reference, api).await?;
    let path = format!("{}/token", entity::path(&GATEWAY, &gateway));
    let failed = |f: Failure| f.while_(&format!("cannot make a token for gateway {}", gateway.name));
    let answer = api.post(&path, Body::new().finish()).await.map_err(failed)?;
    entity::secret(&answer, TOKEN, &about(&gateway.name), args.json, context)
}

fn about(name: &str) -> String {
    format!(
        "Gateway {name} enrols once with this token, shown this once: set POSTERN_ENROL_TOKEN for `postern-node gateway`."
    )
}
