//! `connect` and `disconnect`.

use postern_local_api::{
    client::{ClientError, LocalClient},
    command::{command, endpoint},
    message::{ChangeReport, Connection, GatewayState, ResourceStatus, Selection, Status},
};
use postern_proto::resource::Health;

use super::resources;
use crate::{
    args::{Select, SelectArgs},
    context::Context,
    exit::Exit,
    failure::Failure,
    resource,
    screen::{BOLD, DIM, Line},
    table::{Field, Grid, Tone},
    text, waiting,
};

pub(crate) async fn connect(args: SelectArgs, context: &mut Context) -> Result<(), Failure> {
    let (service, status) = context.signed_in().await?;
    let selections = select(&args.select, &status)?;
    let report = waiting::during("connecting", change(&service, &selections, Change::Connect)).await?;
    if args.json {
        context.screen.json(&report)?;
    } else {
        show_connected(&report, context)?;
        for resource in report.resources.iter().filter(|resource| is_listening(resource)) {
            if let Health::Unhealthy { error, .. } = &resource.resource.health {
                let error = text::without_os_code(error);
                context.warn(format!("{} does not answer the gateways: {error}", resource.resource.name));
            }
        }
        if let Some(why) = no_way_out(&status) {
            context.warn(format!("{why}, so connections fail for now"));
        }
    }
    refused(&report.resources)
}

pub(crate) async fn disconnect(args: SelectArgs, context: &mut Context) -> Result<(), Failure> {
    let (service, status) = context.signed_in().await?;
    let selections = select(&args.select, &status)?;
    let report = waiting::during("disconnecting", change(&service, &selections, Change::Disconnect)).await?;
    if args.json {
        return Ok(context.screen.json(&report)?);
    }
    let line = match (report.changed, report.resources.as_slice()) {
        (0, [one]) => format!("{} was not connected.", one.resource.name),
        (0, _) => "Nothing was connected.".to_owned(),
        (1, [one]) => format!("Disconnected {}.", one.resource.name),
        (n, _) => format!("Disconnected {}.", text::count(n as usize, "resource")),
    };
    Ok(context.screen.line(&Line::of(line))?)
}

#[derive(Clone, Copy)]
enum Change {
    Connect,
    Disconnect,
}

/// Looks all names up before anything is changed: a typing error in the last one leaves everything as it was.
fn select(select: &Select, status: &Status) -> Result<Vec<Selection>, Failure> {
    if select.all {
        return Ok(vec![Selection::All]);
    }
    if let Some(filter) = &select.filter {
        let parsed = resources::parse(filter)?;
        if !status.resources.iter().any(|known| parsed.matches(&known.resource)) {
            return Err(Failure::new(Exit::NotFound, format!("nothing that you may reach matches {filter:?}"))
                .next("see what there is: `postern resources`"));
        }
        return Ok(vec![Selection::Filter { filter: filter.clone() }]);
    }
    let find = |wanted: &String| {
        let found = resource::find(wanted, &status.resources)?;
        Ok(Selection::Name { name: found.resource.id.to_string() })
    };
    select.names.iter().map(find).collect()
}

async fn change(service: &LocalClient, selections: &[Selection], change: Change) -> Result<ChangeReport, ClientError> {
    let mut all = ChangeReport { resources: Vec::new(), changed: 0 };
    for selection in selections {
        let report = match change {
            Change::Connect => service.connect(selection).await?,
            Change::Disconnect => service.disconnect(selection).await?,
        };
        all.resources.extend(report.resources);
        all.changed += report.changed;
    }
    Ok(all)
}

fn show_connected(report: &ChangeReport, context: &mut Context) -> Result<(), Failure> {
    let listening: Vec<_> = report.resources.iter().filter(|r| is_listening(r)).collect();
    match listening.as_slice() {
        [] if report.resources.is_empty() => {
            Ok(context.screen.line(&Line::of("There is nothing that you may reach yet."))?)
        }
        [] => Ok(()),
        [one] => {
            let line =
                Line::new().styled(BOLD, &one.resource.name).plain(" is at ").styled(BOLD, endpoint(one).to_string());
            context.screen.line(&line)?;
            Ok(context.screen.line(&Line::new().styled(DIM, "  try: ").plain(command(one)))?)
        }
        several => {
            let mut grid = Grid::new(&["NAME", "ADDRESS", "TRY"]);
            for one in several {
                grid.row(vec![
                    Field::from(&one.resource.name),
                    resource::address(one),
                    Field::new(command(one), Tone::Dim),
                ]);
            }
            Ok(context.screen.grid(&grid)?)
        }
    }
}

/// What was asked for and is not connected.
fn refused(resources: &[ResourceStatus]) -> Result<(), Failure> {
    let missing: Vec<_> = resources.iter().filter(|resource| !is_listening(resource)).collect();
    let failure = match (missing.as_slice(), resources.len()) {
        ([], _) => return Ok(()),
        ([one], 1) => Failure::new(Exit::NotReady, format!("{} is not connected", one.resource.name)),
        ([_], all) => Failure::new(Exit::NotReady, format!("1 of {all} resources is not connected")),
        (several, all) => {
            Failure::new(Exit::NotReady, format!("{} of {all} resources are not connected", several.len()))
        }
    };
    let locked = missing.iter().any(|resource| matches!(resource.connection, Connection::Suspended));
    if locked {
        return Err(failure
            .with_exit(Exit::NotSignedIn)
            .because("everything is locked")
            .next("unlock: `postern unlock`"));
    }
    let failure = missing.iter().fold(failure, |failure, resource| {
        let name = &resource.resource.name;
        failure.because(match &resource.trouble {
            Some(trouble) => format!("{} {} ({})", trouble.what, trouble.why, trouble.code),
            None => format!("{name}: it is not listened for yet"),
        })
    });
    Err(failure.next("it is tried again by itself; follow it with `postern status --watch`"))
}

/// Why no gateway can carry anything at the moment, if that is so.
fn no_way_out(status: &Status) -> Option<String> {
    let Some(first) = status.gateways.first() else { return Some("no gateway is known".to_owned()) };
    let all_away = status.gateways.iter().all(|gateway| matches!(gateway.state, GatewayState::Unreachable { .. }));
    match &first.state {
        GatewayState::Unreachable { error } if all_away => {
            Some(format!("no gateway can be reached ({})", text::without_os_code(error)))
        }
        _ => None,
    }
}

const fn is_listening(resource: &ResourceStatus) -> bool {
    matches!(resource.connection, Connection::Listening { .. })
}
