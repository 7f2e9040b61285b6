//! `override`: another port for the address that a resource has.

use postern_local_api::{
    cause::{Cause, Explanation},
    command::{command, endpoint},
    message::{Connection, PortOverride, ResourceStatus},
};

use crate::{
    args::OverrideArgs,
    context::Context,
    exit::Exit,
    failure::Failure,
    resource,
    screen::{BOLD, DIM, Line},
    waiting,
};

pub(crate) async fn choose(args: &OverrideArgs, context: &mut Context) -> Result<(), Failure> {
    let (service, status) = context.signed_in().await?;
    let found = resource::find(&args.resource, &status.resources)?;
    let port = args.port.map(|port| read(port, found)).transpose()?;
    let wish = PortOverride { resource: found.resource.id, port };
    let changed = waiting::during("changing the port", service.set_override(&wish)).await?;
    if args.json {
        context.screen.json(&changed)?;
    } else {
        show(&changed, context)?;
    }
    match (&changed.connection, &changed.trouble) {
        (Connection::PortInUse { .. } | Connection::Failed { .. }, Some(trouble)) => {
            Err(Failure::new(Exit::NotReady, trouble.what.trim_end_matches('.').to_owned())
                .because(trouble.why.clone())
                .next(trouble.remedy.clone()))
        }
        _ => Ok(()),
    }
}

/// What does not fit into a port number is told in the same words as a port that is not allowed.
fn read(port: i64, resource: &ResourceStatus) -> Result<u16, Failure> {
    u16::try_from(port).map_err(|_| {
        let network = resource.virtual_name.is_some();
        let Explanation { what, why, remedy } = Cause::PortRange { port, network }.explain();
        Failure::new(Exit::Invalid, what.trim_end_matches('.').to_owned()).because(why).next(remedy)
    })
}

fn show(changed: &ResourceStatus, context: &mut Context) -> Result<(), Failure> {
    let name = &changed.resource.name;
    let word = if changed.state.passes() { " is at " } else { " will be at " };
    let line = Line::new().styled(BOLD, name).plain(word).styled(BOLD, endpoint(changed).to_string());
    let line = match (changed.port_override, changed.assigned_port) {
        (Some(_), Some(assigned)) => line.styled(DIM, format!(" instead of port {assigned}")),
        _ => line.styled(DIM, ", as assigned"),
    };
    context.screen.line(&line)?;
    Ok(context.screen.line(&Line::new().styled(DIM, "  try: ").plain(command(changed)))?)
}
