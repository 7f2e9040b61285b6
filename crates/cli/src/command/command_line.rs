//! `command`: what to type to use a resource.

use postern_local_api::command::command;

use crate::{context::Context, failure::Failure, resource, screen::Line};

pub(crate) async fn print(name: &str, context: &mut Context) -> Result<(), Failure> {
    let (_, status) = context.signed_in().await?;
    let found = resource::find(name, &status.resources)?;
    context.screen.line(&Line::of(command(found)))?;
    if !found.state.passes() {
        let name = &found.resource.name;
        context.warn(format!("{name} is {}; connect it first: `postern connect {name}`", found.state.as_str()));
    }
    Ok(())
}
