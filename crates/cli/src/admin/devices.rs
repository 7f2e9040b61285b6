//! Devices.

use super::{api::Api, entity, noun::DEVICE};
use crate::{args::admin::DevicesCommand, context::Context, failure::Failure};

pub(super) async fn run(command: DevicesCommand, api: &Api, context: &mut Context) -> Result<(), Failure> {
    match command {
        DevicesCommand::List(args) => entity::list(&DEVICE, &args, api, context).await,
        DevicesCommand::Show(args) => entity::show(&DEVICE, &args.reference, args.json, api, context).await,
        DevicesCommand::Delete(args) => entity::delete(&DEVICE, &args, api, context).await,
    }
}
