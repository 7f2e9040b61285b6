//! `status`: everything at a glance.

use std::borrow::Cow;

use postern_local_api::message::{
    Connection, ControlLink, GatewayState, GatewayStatus, HealthItem, KeyStorage, ResourceStatus, Severity, SignIn,
    Status, StatusApi,
};
use postern_proto::time::UnixMillis;

use crate::{
    account,
    context::Context,
    failure::Failure,
    resource,
    screen::{BAD, BOLD, DIM, GOOD, Line, WARN},
    table::{Field, Grid},
    text,
};

/// The column that values begin in.
const VALUES: usize = 15;

pub(crate) async fn show(as_json: bool, context: &mut Context) -> Result<(), Failure> {
    let status = context.service().await?.status().await?;
    if as_json {
        return Ok(context.screen.json(&status)?);
    }
    context.screen.lines(&overview(&status, text::now()))?;
    let grid = connected(&status);
    if !grid.is_empty() {
        context.screen.line(&Line::new())?;
        context.screen.grid(&grid)?;
    }
    Ok(())
}

/// The lines above the table.
pub(super) fn overview(status: &Status, now: UnixMillis) -> Vec<Line> {
    let mut lines = vec![sign_in(&status.sign_in, now), control(&status.control, now)];
    lines.extend(status.gateways.iter().enumerate().map(|(n, gateway)| {
        let label = if n == 0 { "Gateways" } else { "" };
        gateway_line(labelled(label), gateway)
    }));
    if status.gateways.is_empty() && matches!(status.sign_in, SignIn::SignedIn { .. }) {
        lines.push(labelled("Gateways").styled(WARN, "none is known").plain(", so nothing can be reached yet"));
    }
    lines.extend(super::network::overview(&status.network, now));
    if let Some(ends) = status.certificate_ends {
        lines.push(match ends > now {
            true => labelled("Certificate").plain(format!("good for {}", text::span(ends.since(now)))),
            false => labelled("Certificate").styled(BAD, format!("ended {} ago", text::span(now.since(ends)))),
        });
    }
    lines.push(match &status.key_storage {
        KeyStorage::Keystore { name } => labelled("Device key").plain(format!("in {name}")),
        KeyStorage::File { path } => labelled("Device key").plain(format!("in the file {path}, open to you alone")),
        KeyStorage::Memory => labelled("Device key").plain("in memory, until the service stops"),
        KeyStorage::Unreadable { reason, missing: true, .. } => labelled("Device key")
            .plain("in memory only; ")
            .styled(WARN, "there is no keyring")
            .plain(format!(": {}. Choose: `postern key-storage memory|file`", text::without_os_code(reason))),
        KeyStorage::Unreadable { name, reason, missing: false } => labelled("Device key")
            .plain(format!("in {name}, "))
            .styled(BAD, "not readable")
            .plain(format!(": {}", text::without_os_code(reason))),
    });
    match &status.status_api {
        StatusApi::Off => {}
        StatusApi::Listening { address, token_file } => {
            lines.push(labelled("For scripts").plain(format!("http://{address}/ with the token in {token_file}")));
        }
        StatusApi::Failed { error } => lines.push(labelled("For scripts").styled(WARN, error)),
    }
    if !status.allowed_uids.is_empty() {
        let uids = status.allowed_uids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        lines.push(labelled("Open also to").styled(WARN, format!("uid {uids}")));
    }
    if !matches!(status.sign_in, SignIn::SignedOut) {
        lines.push(resources(status));
    }
    lines.extend(status.health.iter().flat_map(|item| health(item, &status.resources)));
    lines
}

/// What is wrong, with which resource, why, and what to do.
fn health(item: &HealthItem, resources: &[ResourceStatus]) -> [Line; 2] {
    let concerned = resources.iter().find(|status| Some(status.resource.id) == item.resource);
    let name = concerned.map(|status| &status.resource.name).filter(|name| !item.what.contains(name.as_str()));
    let name = name.map(|name| format!("{name}: ")).unwrap_or_default();
    let (style, word) = match item.severity {
        Severity::Info => (DIM, "note: "),
        Severity::Warn => (WARN, "warning: "),
        Severity::Error => (BAD, "error: "),
    };
    let left = item.until.map(|end| end.since(text::now())).filter(|left| !left.is_zero());
    let left = left.map(|left| format!(", {} left", text::countdown(left))).unwrap_or_default();
    [
        Line::new().styled(style, word).plain(name).plain(&item.what).styled(DIM, format!(" ({}{left})", item.code)),
        Line::new().pad(2).styled(DIM, format!("{} ", item.why)).plain(&item.remedy),
    ]
}

/// What is connected, or should be.
pub(super) fn connected(status: &Status) -> Grid {
    let wanted = || status.resources.iter().filter(|r| !matches!(r.connection, Connection::Disconnected));
    let problems = wanted().any(|r| !resource::problem(r).is_empty());
    let mut titles = vec!["NAME", "KIND", "ADDRESS", "STATE", "HEALTH", ">OPEN", ">UP", ">DOWN"];
    titles.extend(problems.then_some("PROBLEM"));
    let mut grid = Grid::new(&titles);
    for resource in wanted() {
        let mut row = vec![
            Field::from(&resource.resource.name),
            Field::from(resource.resource.kind.as_str()),
            resource::address(resource),
            resource::state(resource),
            resource::health(&resource.resource.health),
            Field::from(resource.streams.to_string()),
            Field::from(text::bytes(resource.bytes_up)),
            Field::from(text::bytes(resource.bytes_down)),
        ];
        if problems {
            row.push(Field::from(resource::problem(resource)));
        }
        grid.row(row);
    }
    grid
}

pub(super) fn labelled(label: &str) -> Line {
    Line::new().styled(DIM, label).pad(VALUES)
}

fn sign_in(sign_in: &SignIn, now: UnixMillis) -> Line {
    match sign_in {
        SignIn::SignedOut => labelled("Signed in").styled(WARN, "no").plain(" – sign in with `postern login`"),
        SignIn::SignedIn { account, org, expires_at, must_change_password, .. } => {
            let line = labelled("Signed in").styled(BOLD, account::called(account)).plain(format!(" ({org})"));
            let line = match *expires_at > now {
                true => line.plain(format!(", for {}", text::span(expires_at.since(now)))),
                false => line.styled(BAD, ", ended – sign in again with `postern login`"),
            };
            match must_change_password {
                true => line.styled(WARN, " – choose a new password: `postern password`"),
                false => line,
            }
        }
        SignIn::Locked { account, org } => labelled("Signed in")
            .styled(BOLD, account::called(account))
            .plain(format!(" ({org}), "))
            .styled(WARN, "locked")
            .plain(" – open with `postern unlock`"),
    }
}

fn control(control: &ControlLink, now: UnixMillis) -> Line {
    let line = labelled("Control plane");
    match control {
        ControlLink::None => line.styled(WARN, "none yet").plain(" – name it with `postern login --control URL`"),
        ControlLink::Known { url } => line.plain(url).styled(DIM, ", asked when you sign in"),
        ControlLink::Connecting { url } => line.plain(url).styled(WARN, " connecting"),
        ControlLink::Connected { url, since } => {
            line.plain(url).styled(GOOD, " connected").plain(format!(" for {}", text::span(now.since(*since))))
        }
        ControlLink::Away { url, since, error, .. } => line
            .plain(url)
            .styled(BAD, format!(" away for {}", text::span(now.since(*since))))
            .plain(format!(": {} – what is connected goes on", away_because(error, url))),
    }
}

/// The reason without what the line has said already.
fn away_because<'a>(error: &'a str, url: &str) -> Cow<'a, str> {
    let reason = error.split_once(url).map_or(error, |(_, reason)| reason.trim_start());
    text::without_os_code(reason)
}

fn gateway_line(line: Line, gateway: &GatewayStatus) -> Line {
    let line = line.plain(format!("{} at {}, ", gateway.name, gateway.address));
    match &gateway.state {
        GatewayState::Unknown => line.styled(DIM, "not tried yet"),
        GatewayState::Draining => line.styled(WARN, "draining"),
        GatewayState::Unreachable { error } => {
            line.styled(BAD, "unreachable").plain(format!(": {}", text::without_os_code(error)))
        }
        GatewayState::Reachable => {
            let line = line.styled(GOOD, "reachable");
            match gateway.handshake_micros {
                #[expect(clippy::cast_precision_loss, reason = "one decimal of a millisecond is shown")]
                Some(micros) => line.plain(format!(" in {:.1} ms", micros as f64 / 1000.0)),
                None => line,
            }
        }
    }
}

fn resources(status: &Status) -> Line {
    let connected = status.resources.iter().filter(|r| matches!(r.connection, Connection::Listening { .. })).count();
    let total = status.resources.len();
    let wanted = status.resources.iter().any(|r| !matches!(r.connection, Connection::Disconnected));
    labelled("Resources").plain(match (total, connected) {
        (0, _) => "none that you may reach".to_owned(),
        (_, 0) if wanted => format!("{total} that you may reach, none connected"),
        (_, 0) => format!("{total} that you may reach, none connected – `postern connect NAME`"),
        _ => format!("{total} that you may reach, {connected} connected"),
    })
}
