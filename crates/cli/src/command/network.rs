//! `network`: Virtual Networking Mode on this machine.

use postern_local_api::message::{NameService, NetworkChoice, NetworkFault, NetworkMoved, NetworkStatus, NetworkUp};
use postern_proto::time::UnixMillis;

use super::status::labelled;
use crate::{
    args::NetworkCommand,
    context::Context,
    exit::Exit,
    failure::Failure,
    screen::{BAD, DIM, GOOD, Line, WARN},
    text, waiting,
};

/// Names that are shown of a list of them.
const MAX_NAMES: usize = 8;

pub(crate) async fn run(command: &NetworkCommand, context: &mut Context) -> Result<(), Failure> {
    match command {
        NetworkCommand::Status(args) => {
            let status = context.service().await?.status().await?.network;
            show(&status, args.json, context)
        }
        NetworkCommand::Enable(args) => {
            let service = context.service().await?;
            let choice = NetworkChoice { enabled: true };
            let status = waiting::during("switching the network on", service.network(&choice)).await?;
            show(&status, args.json, context)?;
            missing(&status)
        }
        NetworkCommand::Disable(args) => {
            let service = context.service().await?;
            let status = service.network(&NetworkChoice { enabled: false }).await?;
            show(&status, args.json, context)
        }
    }
}

fn show(status: &NetworkStatus, as_json: bool, context: &mut Context) -> Result<(), Failure> {
    if as_json {
        return Ok(context.screen.json(status)?);
    }
    let lines = match status {
        NetworkStatus::Off => {
            vec![labelled("Network").plain("off – switch it on with `postern network enable`")]
        }
        other => overview(other, text::now()).into_iter().chain(unanswered(other)).collect(),
    };
    Ok(context.screen.lines(&lines)?)
}

/// The lines of `status`; none while it is switched off.
pub(super) fn overview(status: &NetworkStatus, now: UnixMillis) -> Vec<Line> {
    let line = labelled("Network");
    match status {
        NetworkStatus::Off => Vec::new(),
        NetworkStatus::Waiting => vec![line.styled(WARN, "on").plain(", comes up when you are signed in")],
        NetworkStatus::Starting => vec![line.styled(WARN, "starting")],
        NetworkStatus::Up(up) => lines_of(line, up, now),
        NetworkStatus::Unavailable { fault, reason, .. } => {
            let line = line.styled(BAD, "cannot be had").plain(format!(": {}", text::without_os_code(reason)));
            let advice = advice(*fault).map(|advice| labelled("").plain(advice));
            std::iter::once(line).chain(advice).collect()
        }
    }
}

fn lines_of(line: Line, up: &NetworkUp, now: UnixMillis) -> Vec<Line> {
    let NetworkUp { interface, subnet, moved, ipv6, address, resolver, zones, names, since, behind, .. } = up;
    let for_long = text::span(now.since(*since));
    let ipv6 = ipv6.as_ref().map(|ipv6| format!(" and {ipv6}")).unwrap_or_default();
    let line =
        line.styled(GOOD, "up").plain(format!(" for {for_long}: {subnet}{ipv6} on {interface}, you are {address}"));
    let mut lines = vec![line];
    if let Some(NetworkMoved { from, because }) = moved {
        let why = match because.as_slice() {
            [] => "which is free again; it moves back when it is switched on anew".to_owned(),
            because => format!("because {}", because.join(", ")),
        };
        lines.push(labelled("").styled(WARN, "moved").plain(format!(" from {from}, {why}")));
    }
    let zones = few(zones);
    lines.push(match names {
        NameService::Registered { through } => {
            labelled("Names").plain(format!("{zones} at {resolver}, through {through}"))
        }
        NameService::NoZones => labelled("Names").styled(DIM, "none to register"),
        NameService::Unavailable { reason } => {
            labelled("Names").styled(WARN, "not registered").plain(format!(": {}", text::without_os_code(reason)))
        }
    });
    lines.extend(behind.as_ref().map(|reason| {
        labelled("").styled(WARN, "not up to date").plain(format!(": {}", text::without_os_code(reason)))
    }));
    lines
}

/// The names that nobody answers. `status` has them among what is wrong.
fn unanswered(status: &NetworkStatus) -> Option<Line> {
    let NetworkStatus::Up(up) = status else { return None };
    let what = format!(": {} – their zones could not be registered; they are reached by address", few(&up.left_out));
    (!up.left_out.is_empty()).then(|| labelled("").styled(WARN, "without an answer").plain(what))
}

/// The first of many.
fn few(names: &[String]) -> String {
    let shown = names.get(..MAX_NAMES.min(names.len())).unwrap_or_default().join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more (--json has all)"),
    }
}

/// What to do about it, where the reason does not say.
fn advice(fault: NetworkFault) -> Option<&'static str> {
    match fault {
        NetworkFault::NoService => {
            Some("install and start the system service postern-netd; until then resources are at loopback")
        }
        NetworkFault::NotPermitted => Some("an administrator of this machine allows it in /etc/postern/netd.toml"),
        NetworkFault::NoDevice => Some("the kernel module tun is needed"),
        NetworkFault::NoSubnet | NetworkFault::BadSettings | NetworkFault::Failed => None,
    }
}

/// Who switches it on wants it to be there.
fn missing(status: &NetworkStatus) -> Result<(), Failure> {
    match status {
        NetworkStatus::Unavailable { .. } => {
            Err(Failure::new(Exit::NotReady, "the virtual network cannot be had").next("it is tried again by itself"))
        }
        NetworkStatus::Off | NetworkStatus::Waiting | NetworkStatus::Starting | NetworkStatus::Up(_) => Ok(()),
    }
}
