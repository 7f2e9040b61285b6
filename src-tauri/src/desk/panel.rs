//! One resource in full, and what a tool or the clipboard needs of it.

use postern_local_api::{
    command::{endpoint, wildcard},
    message::{Connection, LiveSession, ResourceStatus},
    proto::id::ResourceId,
};

use super::{Desk, Held, convert};
use crate::view::{Details, Kind, Notice, NoticeLevel, Problem, Question, ResourceState, Session};

/// More sessions than this are counted, not listed.
const MOST_SESSIONS: usize = 100;

/// Where programs reach a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) kind: Kind,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Whether it is switched on.
    pub(crate) wanted: bool,
}

impl Desk {
    /// Which resource the window shows in full.
    pub(crate) fn open(&mut self, id: Option<ResourceId>) {
        self.open = id;
    }

    pub(crate) const fn opened(&self) -> Option<ResourceId> {
        self.open
    }

    /// What the service says of a resource, to see whether the details may have changed.
    pub(crate) fn status_of(&self, id: ResourceId) -> Option<&ResourceStatus> {
        self.held.get(&id).map(|held| &held.status)
    }

    /// `sessions` are those of the service, of whichever resource.
    pub(crate) fn details(&self, now: u64, id: ResourceId, sessions: &[LiveSession]) -> Option<Details> {
        let held = self.held.get(&id)?;
        let status = &held.status;
        let mut sessions: Vec<&LiveSession> = sessions.iter().filter(|session| session.resource == id).collect();
        sessions.sort_by_key(|session| session.started_at);
        let kind = convert::kind(status.resource.kind);
        Some(Details {
            id: id.to_string(),
            command: status.command.clone(),
            addresses: addresses(status),
            fallback: status.fallback.clone(),
            ports: (!status.resource.ports.is_empty()).then(|| status.resource.ports.to_string()),
            assigned_port: status.resource.bind.port,
            since: status.since.map(|at| at.0),
            last_used: status.last_used.map(|at| at.0),
            grant_ends: status.grant_ends.map(|at| at.0),
            lease_ends: status.lease_ends.map(|at| at.0),
            route: status.route.as_ref().map(convert::route),
            session_count: u32::try_from(sessions.len()).unwrap_or(u32::MAX),
            sessions: sessions.into_iter().take(MOST_SESSIONS).map(|session| self.session(session)).collect(),
            traffic: held.traffic.shown(now),
            tools: self.desktop.tools.iter().filter(|tool| tool.kinds.contains(&kind)).cloned().collect(),
        })
    }

    fn session(&self, from: &LiveSession) -> Session {
        let gateways = self.status.iter().flat_map(|status| &status.gateways);
        let name = |id| gateways.clone().find(|gateway| Some(gateway.id) == id).map(|gateway| gateway.name.clone());
        Session {
            id: from.stream.to_string(),
            peer: from.peer.to_string(),
            gateway: name(from.gateway).or_else(|| from.gateway.map(|id| id.to_string())),
            started_at: from.started_at.0,
            bytes_up: from.bytes_up,
            bytes_down: from.bytes_down,
        }
    }

    pub(crate) fn endpoint(&self, id: ResourceId) -> Option<Endpoint> {
        let status = &self.held.get(&id)?.status;
        let at = endpoint(status);
        Some(Endpoint {
            kind: convert::kind(status.resource.kind),
            host: at.host,
            port: at.port,
            wanted: status.wanted,
        })
    }

    /// The address as a person would write it.
    pub(crate) fn address(&self, id: ResourceId) -> Option<String> {
        self.held.get(&id).map(|held| endpoint(&held.status).to_string())
    }

    /// The ready command.
    pub(crate) fn command(&self, id: ResourceId) -> Option<String> {
        let status = &self.held.get(&id)?.status;
        Some(status.command.clone().unwrap_or_else(|| postern_local_api::command::command(status)))
    }

    /// The name of the resource in the virtual network, while it is there.
    pub(crate) fn virtual_name(&self, id: ResourceId) -> Option<String> {
        self.held.get(&id)?.status.virtual_name.clone()
    }

    /// What an admin needs to know about a resource, as text.
    pub(crate) fn report(&self, id: ResourceId) -> Option<String> {
        let held = self.held.get(&id)?;
        let row = self.row(held);
        let mut lines = vec![
            format!("{} ({}), {}", row.name, held.status.resource.kind, row.id),
            format!("state: {}", held.status.state.as_str()),
            format!("address: {}", endpoint(&held.status)),
        ];
        if let Some(trouble) = &row.trouble {
            let Problem { code, what, why, remedy, .. } = &trouble.problem;
            lines.extend([format!("code: {code}"), format!("what: {what}"), format!("why: {why}")]);
            lines.push(format!("remedy: {remedy}"));
            lines.push(format!("at: {}", written(trouble.at)));
        }
        for hop in held.status.route.iter().flat_map(|route| &route.hops) {
            let latency = hop.latency_micros.map_or_else(|| "not measured".to_owned(), |micros| format!("{micros} µs"));
            lines.push(format!("hop: {} {latency}{}", hop.name, if hop.up { "" } else { ", cut" }));
        }
        let service = self.status.as_ref().map_or("unknown", |status| status.service.as_str());
        lines.push(format!("versions: window {}, service {service}", env!("CARGO_PKG_VERSION")));
        Some(lines.join("\n"))
    }

    /// A link asks for a resource. While nobody is signed in the question waits.
    pub(crate) fn link_asks(&mut self, name: String) {
        if !self.is_signed_in() {
            let text = format!("The link to {name} is followed after signing in.");
            if self.status.is_some() {
                self.tell(Notice { level: NoticeLevel::Info, text, resource: None });
            }
            self.waiting_link = Some(name);
            return;
        }
        let found = self.held.values().find(|held| held.status.resource.name == name);
        let question = Question::Link {
            id: found.map(|held| held.status.resource.id.to_string()),
            state: found.map(|held| convert::state(held.status.state)),
            address: found.map(|held| endpoint(&held.status).to_string()),
            name,
        };
        self.ask(Some(question));
    }

    /// Asks what waited. After a sign-in the resource may come a moment later: until then it goes on waiting.
    pub(super) fn ask_waiting_link(&mut self) {
        let there = |name: &String| self.held.values().any(|held| held.status.resource.name == *name);
        if self.is_signed_in()
            && let Some(name) = self.waiting_link.take_if(|name| there(name))
        {
            self.link_asks(name);
        }
    }

    /// Names and states of all favourites that are off, for "connect favourites".
    pub(crate) fn favourites_off(&self) -> Vec<ResourceId> {
        let ids = self.stored.favourites.iter().filter_map(|id| id.parse().ok());
        ids.filter(|id| self.held.get(id).is_some_and(can_be_switched_on)).collect()
    }
}

fn can_be_switched_on(held: &Held) -> bool {
    !held.status.wanted && convert::state(held.status.state) != ResourceState::NeedsApproval
}

/// A time as a log writes it.
fn written(at: u64) -> String {
    let at = i64::try_from(at / 1000).ok().and_then(|at| time::OffsetDateTime::from_unix_timestamp(at).ok());
    at.and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok()).unwrap_or_default()
}

/// The main one first, then the other family of it, then loopback beside the virtual network.
fn addresses(status: &ResourceStatus) -> Vec<String> {
    let mut all = vec![endpoint(status).to_string()];
    if let Connection::Listening { address } = status.connection {
        all.push(address.to_string());
    }
    // Every name under a wildcard leads there; one alone cannot be copied or opened.
    all.extend(wildcard(status).map(|names| names.to_string()));
    all.extend(status.also_at.map(|address| address.to_string()));
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|address| seen.insert(address.clone()));
    all
}
