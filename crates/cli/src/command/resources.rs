//! `resources`: what the account may reach.

use postern_local_api::message::ResourceStatus;
use postern_proto::{filter::Filter, resource::ClientResource};

use crate::{
    args::ResourcesArgs,
    context::Context,
    exit::Exit,
    failure::Failure,
    resource,
    screen::Line,
    table::{Field, Grid, Tone},
    text,
};

pub(crate) async fn list(args: &ResourcesArgs, context: &mut Context) -> Result<(), Failure> {
    let filter = parse(args.filter.as_deref().unwrap_or_default())?;
    let (_, status) = context.signed_in().await?;
    let matching: Vec<_> = status.resources.into_iter().filter(|r| filter.matches(&r.resource)).collect();
    if args.json {
        return Ok(context.screen.json(&matching)?);
    }
    if matching.is_empty() {
        let text = match args.filter {
            Some(_) => "Nothing that you may reach matches the filter.",
            None => "There is nothing that you may reach yet. An administrator grants access; it appears by itself.",
        };
        return Ok(context.screen.line(&Line::of(text))?);
    }
    Ok(context.screen.grid(&grid(&matching))?)
}

pub(crate) fn parse(filter: &str) -> Result<Filter, Failure> {
    Filter::parse(filter, ClientResource::FILTER_FIELDS).map_err(|error| {
        Failure::new(Exit::Usage, format!("the filter {filter:?} is not valid")).because(error.to_string())
    })
}

fn grid(resources: &[ResourceStatus]) -> Grid {
    let now = text::now();
    let tagged = resources.iter().any(|r| !r.resource.tags.is_empty());
    let ending = resources.iter().any(|r| r.grant_ends.is_some());
    let problems = resources.iter().any(|r| !resource::problem(r).is_empty());
    let mut titles = vec!["NAME", "KIND", "ADDRESS", "STATE", "HEALTH"];
    titles.extend(ending.then_some("ENDS"));
    titles.extend(tagged.then_some("TAGS"));
    titles.extend(problems.then_some("PROBLEM"));
    let mut grid = Grid::new(&titles);
    for status in resources {
        let mut row = vec![
            Field::from(&status.resource.name),
            Field::from(status.resource.kind.as_str()),
            resource::address(status),
            resource::state(status),
            resource::health(&status.resource.health),
        ];
        if ending {
            row.push(resource::ends(status, now));
        }
        if tagged {
            row.push(Field::new(resource::tags(&status.resource.tags), Tone::Dim));
        }
        if problems {
            row.push(Field::from(resource::problem(status)));
        }
        grid.row(row);
    }
    grid
}
