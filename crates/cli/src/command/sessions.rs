//! `sessions`: what is open now.

use postern_local_api::message::{GatewayStatus, LiveSession, Status};

use crate::{
    context::Context,
    failure::Failure,
    screen::Line,
    table::{Field, Grid, Tone},
    text,
};

pub(crate) async fn list(as_json: bool, context: &mut Context) -> Result<(), Failure> {
    let (service, status) = context.signed_in().await?;
    let mut sessions = service.sessions().await?;
    if as_json {
        return Ok(context.screen.json(&sessions)?);
    }
    sessions.sort_by_key(|session| session.started_at);
    if sessions.is_empty() {
        return Ok(context.screen.line(&Line::of("No connection is open."))?);
    }
    Ok(context.screen.grid(&grid(&sessions, &status))?)
}

/// The nodes that a stream runs over, and how far the last one is.
fn way(session: &LiveSession, gateway: Option<&GatewayStatus>) -> String {
    let Some(route) = session.route.as_ref().filter(|route| route.hops.len() > 1) else {
        return gateway.map(|gateway| gateway.name.clone()).unwrap_or_default();
    };
    let names: Vec<&str> = route.hops.iter().map(|hop| hop.name.as_str()).collect();
    let far: Option<u64> = route.hops.iter().map(|hop| hop.latency_micros).sum();
    let far = far.map(|micros| format!(", {} ms", micros.div_ceil(1000))).unwrap_or_default();
    format!("{}{far}", names.join(" → "))
}

fn grid(sessions: &[LiveSession], status: &Status) -> Grid {
    let ending = sessions.iter().any(|session| session.ends_at.is_some());
    let mut titles = vec!["RESOURCE", "CLIENT", "GATEWAY", ">FOR", ">UP", ">DOWN", "STREAM"];
    if ending {
        titles.insert(4, ">ENDS IN");
    }
    let mut grid = Grid::new(&titles);
    let now = text::now();
    for session in sessions {
        let gateway = status.gateways.iter().find(|gateway| Some(gateway.id) == session.gateway);
        let mut row = vec![
            Field::from(&session.resource_name),
            Field::from(session.peer.to_string()),
            Field::from(way(session, gateway)),
            Field::from(text::span(now.since(session.started_at))),
            Field::from(text::bytes(session.bytes_up)),
            Field::from(text::bytes(session.bytes_down)),
            Field::new(session.stream.to_string(), Tone::Dim),
        ];
        if ending {
            let left = session.ends_at.map(|end| text::countdown(end.since(now)));
            row.insert(4, Field::new(left.unwrap_or_default(), Tone::Warn));
        }
        grid.row(row);
    }
    grid
}
