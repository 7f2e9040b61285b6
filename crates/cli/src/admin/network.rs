//! Network settings.

use serde_json::Value;

use super::{api::Api, body::Body, show};
use crate::{
    args::admin::{NetworkCommand, NetworkUpdate},
    context::Context,
    failure::Failure,
    screen::{GOOD, Line},
};

const PATH: &str = "network";

pub(super) async fn run(command: NetworkCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        NetworkCommand::Show(output) => print(&api.get(PATH).await?, output.json, context),
        NetworkCommand::Update(args) => update(args, api, context).await,
    }
}

async fn update(args: NetworkUpdate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let changes = Body::new()
        .set_if("loopback_range", args.loopback_range)
        .set_if("multi_loopback", args.multi_loopback)
        .set_if("vnm_subnet", args.vnm_subnet)
        .set_if("dns_zone", args.dns_zone)
        .set_if("vnm_ipv6", args.vnm_ipv6)
        .not_empty()?;
    // PUT takes all settings: what is not changed is sent as it is.
    let mut settings = api.get(PATH).await?;
    if let (Value::Object(settings), Value::Object(changes)) = (&mut settings, changes) {
        settings.remove("revision");
        settings.extend(changes);
    }
    let settings = api.put(PATH, settings).await.map_err(|f| f.while_("cannot change the network settings"))?;
    if !args.output.json {
        context.screen.line(&Line::new().styled(GOOD, "Changed").plain(" the network settings"))?;
    }
    print(&settings, args.output.json, context)
}

fn print(settings: &Value, as_json: bool, context: &mut Context) -> Result<(), Failure> {
    if as_json {
        return Ok(context.screen.json(settings)?);
    }
    show::thing(settings, context)
}
