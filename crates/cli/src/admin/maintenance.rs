//! Maintenance windows.

use super::{api::Api, body::Body, entity, noun::WINDOW};
use crate::{
    args::admin::{MaintenanceCommand, WindowCreate, WindowUpdate},
    context::Context,
    failure::Failure,
};

pub(super) async fn run(command: MaintenanceCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        MaintenanceCommand::List(args) => entity::list(&WINDOW, &args, api, context).await,
        MaintenanceCommand::Show(args) => entity::show(&WINDOW, &args.reference, args.json, api, context).await,
        MaintenanceCommand::Create(args) => create(args, api, context).await,
        MaintenanceCommand::Update(args) => update(args, api, context).await,
        MaintenanceCommand::Delete(args) => entity::delete(&WINDOW, &args, api, context).await,
    }
}

async fn create(args: WindowCreate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let body = Body::new()
        .set("name", &args.name)
        .set("schedule", &args.schedule)
        .set("duration", args.duration.as_secs())
        .flag("require_idleness", args.require_idleness)
        .set_if("nodes", args.nodes);
    let failed = |f: Failure| f.while_(&format!("cannot create maintenance window {}", args.name));
    let window = api.post(WINDOW.collection, body.finish()).await.map_err(failed)?;
    entity::report("Created", &WINDOW, &window, args.output.json, context)
}

async fn update(args: WindowUpdate, api: &Api, context: &mut Context) -> Result<(), Failure> {
    let window = entity::find(&WINDOW, &args.reference, api).await?;
    let body = Body::new()
        .set_if("name", args.name)
        .set_if("schedule", args.schedule)
        .set_if("duration", args.duration.map(|span| span.as_secs()))
        .set_if("require_idleness", args.require_idleness)
        .set_if("nodes", args.nodes)
        .not_empty()?;
    let failed = |f: Failure| f.while_(&format!("cannot change maintenance window {}", window.name));
    let window = api.patch(&entity::path(&WINDOW, &window), body).await.map_err(failed)?;
    entity::report("Changed", &WINDOW, &window, args.output.json, context)
}
