//! Nodes: how they are, and taking them out of service.

use postern_proto::time::UnixMillis;
use serde_json::Value;

use super::{
    api::Api,
    body::Body,
    entity,
    noun::{self, ATTENDANCE, NODE},
    show,
};
use crate::{
    args::admin::{NodeDrain, NodesCommand, ShowArgs},
    context::Context,
    failure::Failure,
    screen::{DIM, Line},
    text,
};

pub(super) async fn run(command: NodesCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        NodesCommand::List(args) => entity::list(&NODE, &args, api, context).await,
        NodesCommand::Show(args) => show(args, api, context).await,
        NodesCommand::Drain(args) => drain(args, api, context).await,
    }
}

/// The node, and below it when it was there.
async fn show(args: ShowArgs, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let found = entity::find(&NODE, &args.reference, api).await?;
    let mut node = api.get(&entity::path(&NODE, &found)).await?;
    if args.json {
        return Ok(context.screen.json(&node)?);
    }
    let history = node.as_object_mut().and_then(|node| node.remove("history"));
    entity::show_item(&NODE, node, false, api, context).await?;
    match history {
        Some(Value::Array(turns)) if !turns.is_empty() => {
            context.screen.line(&Line::new())?;
            Ok(context.screen.grid(&show::grid(&ATTENDANCE, &turns))?)
        }
        _ => Ok(()),
    }
}

async fn drain(args: NodeDrain, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let node = entity::find(&NODE, &args.reference, api).await?;
    let path = format!("{}/drain", entity::path(&NODE, &node));
    if args.cancel {
        let failed = |f: Failure| f.while_(&format!("cannot put {} back into service", node.name));
        api.delete(&path).await.map_err(failed)?;
        let node = api.get(&entity::path(&NODE, &node)).await?;
        return entity::report("Put back into service:", &NODE, &node, args.output.json, context);
    }
    let body = Body::new()
        .set_if("deadline", args.deadline.map(|deadline| deadline.as_secs()))
        .flag("in_window", args.in_window);
    let failed = |f: Failure| f.while_(&format!("cannot drain node {}", node.name));
    let drained = api.post(&path, body.finish()).await.map_err(failed)?;
    let verb = if args.in_window { "Will drain" } else { "Draining" };
    entity::report(verb, &NODE, &drained, args.output.json, context)?;
    if args.in_window && !args.output.json {
        let window = drained.pointer("/drain_planned/window").and_then(Value::as_str).unwrap_or_default();
        let back = format!("postern admin nodes drain {} --cancel", node.name);
        let planned = format!("In window {}: {}. Take it back: {back}", text::clean(window), noun::planned(&drained));
        context.note(Line::new().styled(DIM, planned));
    } else if !args.output.json {
        let ends = drained.get("drain_ends_at").and_then(Value::as_u64).map(|at| text::instant(UnixMillis(at)));
        let until = ends.map(|at| format!(" What runs there is cut at {at}.")).unwrap_or_default();
        let back = format!("postern admin nodes drain {} --cancel", node.name);
        context.note(Line::new().styled(DIM, format!("New connections go elsewhere.{until} Put it back: {back}")));
    }
    Ok(())
}
