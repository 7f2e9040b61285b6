//! How a resource is shown: state, health and address.

use postern_local_api::{
    command::endpoint,
    message::{Connection, PortHolder, ResourceStatus},
};
use postern_proto::{resource::Health, time::UnixMillis};

use crate::{
    table::{Field, Tone},
    text,
};

pub(crate) fn state(resource: &ResourceStatus) -> Field {
    match resource.connection {
        Connection::Disconnected => Field::from(""),
        Connection::Listening { .. } => Field::new("connected", Tone::Good),
        Connection::PortInUse { .. } => Field::new("port in use", Tone::Bad),
        Connection::Failed { .. } => Field::new("failed", Tone::Bad),
        Connection::Suspended => Field::new("locked", Tone::Warn),
    }
}

pub(crate) fn health(health: &Health) -> Field {
    match health {
        Health::Unknown => Field::new("unknown", Tone::Dim),
        Health::Healthy => Field::new("healthy", Tone::Good),
        Health::Unhealthy { .. } => Field::new("unhealthy", Tone::Bad),
    }
}

/// Where programs reach it; dim while nothing listens there.
pub(crate) fn address(resource: &ResourceStatus) -> Field {
    let tone = if matches!(resource.connection, Connection::Listening { .. }) { Tone::Plain } else { Tone::Dim };
    Field::new(endpoint(resource).to_string(), tone)
}

/// What keeps the resource from being used, in one sentence; empty when nothing does.
pub(crate) fn problem(resource: &ResourceStatus) -> String {
    match (&resource.connection, &resource.last_error, &resource.resource.health) {
        (Connection::PortInUse { address, holder, .. }, _, _) => {
            format!("{address} is in use by {}", holder_text(holder.as_ref()))
        }
        (Connection::Failed { address, error, .. }, _, _) => {
            format!("cannot listen on {address}: {}", text::without_os_code(error))
        }
        (_, Some(error), _) | (_, None, Health::Unhealthy { error }) => text::without_os_code(error).into_owned(),
        (Connection::Listening { .. }, None, Health::Healthy | Health::Unknown) => stand_in(resource),
        (_, None, Health::Healthy | Health::Unknown) => String::new(),
    }
}

/// Why it is at a loopback address and not in the virtual network.
fn stand_in(resource: &ResourceStatus) -> String {
    let reason = resource.fallback.as_deref().map(text::without_os_code);
    reason.map(|reason| format!("at loopback: {reason}")).unwrap_or_default()
}

/// `in 2 h`, or nothing for a grant without an end.
pub(crate) fn ends(resource: &ResourceStatus, now: UnixMillis) -> Field {
    match resource.grant_ends {
        None => Field::from(""),
        Some(end) if end <= now => Field::new("ended", Tone::Bad),
        Some(end) => Field::new(format!("in {}", text::span(end.since(now))), Tone::Warn),
    }
}

pub(crate) fn tags<'a>(tags: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let tag = |(key, value): (&String, &String)| if value.is_empty() { key.clone() } else { format!("{key}={value}") };
    tags.into_iter().map(tag).collect::<Vec<_>>().join(" ")
}

fn holder_text(holder: Option<&PortHolder>) -> String {
    let Some(PortHolder { uid, pid, program }) = holder else { return "another program".to_owned() };
    match (program, pid) {
        (Some(program), Some(pid)) => format!("{program} (process {pid})"),
        (Some(program), None) => program.clone(),
        (None, Some(pid)) => format!("process {pid}"),
        (None, None) => format!("a program of uid {uid}"),
    }
}
