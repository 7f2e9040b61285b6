//! How a resource is shown: state, health and address.

use postern_local_api::{
    command::{endpoint, wildcard},
    message::{Connection, ResourceState, ResourceStatus},
};
use postern_proto::{resource::Health, time::UnixMillis};

use crate::{
    failure::Failure,
    name,
    table::{Field, Tone},
    text,
};

/// The one that is meant by a name or an id.
pub(crate) fn find<'a>(wanted: &str, resources: &'a [ResourceStatus]) -> Result<&'a ResourceStatus, Failure> {
    let id = |known: &ResourceStatus| known.resource.id.to_string();
    name::find("resource", wanted, resources, id, |known| &known.resource.name)
        .map_err(|failure| failure.because("there is none of that name among those that you may reach"))
}

pub(crate) fn state(resource: &ResourceStatus) -> Field {
    let word = resource.state.as_str();
    match resource.state {
        ResourceState::Off => Field::from(""),
        ResourceState::Connected => Field::new(word, Tone::Good),
        ResourceState::Connecting => Field::new(word, Tone::Dim),
        ResourceState::Expiring | ResourceState::Degraded | ResourceState::NeedsApproval | ResourceState::Locked => {
            Field::new(word, Tone::Warn)
        }
        ResourceState::Unhealthy => Field::new(word, Tone::Bad),
    }
}

pub(crate) fn health(health: &Health) -> Field {
    match health {
        Health::Unknown => Field::new("unknown", Tone::Dim),
        Health::Healthy => Field::new("healthy", Tone::Good),
        Health::Unhealthy { .. } => Field::new("unhealthy", Tone::Bad),
    }
}

/// Where programs reach it, and under which names several hosts of it; dim while nothing listens there.
pub(crate) fn address(resource: &ResourceStatus) -> Field {
    let tone = if matches!(resource.connection, Connection::Listening { .. }) { Tone::Plain } else { Tone::Dim };
    let places = [Some(endpoint(resource)), wildcard(resource)].into_iter().flatten();
    Field::new(places.map(|place| place.to_string()).collect::<Vec<_>>().join(", "), tone)
}

/// What keeps the resource from being used, or why it is not where it belongs, in one sentence; else empty.
pub(crate) fn problem(resource: &ResourceStatus) -> String {
    resource.trouble.as_ref().map_or_else(|| stand_in(resource), |trouble| trouble.what.clone())
}

/// Why it is at a loopback address and not in the virtual network.
fn stand_in(resource: &ResourceStatus) -> String {
    if !matches!(resource.connection, Connection::Listening { .. }) {
        return String::new();
    }
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
