//! What is wrong: with single resources, and with the service as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use postern_local_api::{
    cause::Cause,
    message::{
        ControlLink, GatewayState, GatewayStatus, HealthItem, NameService, NetworkStatus, NetworkUp, ResourceState,
        ResourceStatus, StatusApi,
    },
};
use postern_proto::{door::Door, id::ResourceId, time::UnixMillis};

use super::Shell;
use crate::{
    clock,
    health::{Found, HealthBook},
    process,
    standing::{self, Look, Standing},
};

/// When the end of a sign-in or a certificate is told of: so many minutes before.
const STEPS: [u64; 3] = [2, 10, 15];

/// What was seen at the last look, to tell what is different.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    book: HealthBook,
    /// What keeps wanted resources from being used.
    troubles: BTreeMap<ResourceId, standing::Found>,
    gateways: Vec<GatewayMark>,
    expiring: BTreeSet<ResourceId>,
    control_away: bool,
}

/// A gateway, as far as resources depend on it: its handshake in steps of 50 ms.
type GatewayMark = (Door, std::mem::Discriminant<GatewayState>, Option<u64>);

impl Shell {
    /// Resources that stand otherwise although nothing happened to them: their gateways or the time changed.
    pub(super) fn drifted(&mut self) -> BTreeSet<ResourceId> {
        let now = clock::now();
        let gateways = self.parts.carriage.gateways().status(now.boot);
        let marks: Vec<_> = gateways.iter().map(mark).collect();
        let control_away = matches!(self.link, ControlLink::Away { .. });
        let expiring = self.engine.ending_before(now.wall.plus(ResourceState::EXPIRING_FROM));
        let mut drifted: BTreeSet<_> = expiring.symmetric_difference(&self.outlook.expiring).copied().collect();
        if (&marks, control_away) != (&self.outlook.gateways, self.outlook.control_away) {
            drifted.extend(self.engine.resources().map(|resource| resource.id));
        }
        (self.outlook.gateways, self.outlook.control_away, self.outlook.expiring) = (marks, control_away, expiring);
        drifted
    }

    /// Fills in how a resource stands, from everything else that is filled in already.
    pub(super) fn judge(&mut self, status: &mut ResourceStatus) {
        let (id, now) = (status.resource.id, clock::now());
        let failure = self.destinations.get(&id).and_then(|destination| destination.failure());
        let before = self.parts.board.look(id, |before| {
            let trouble = before.trouble.as_ref().map(|trouble| (trouble.code.clone(), trouble.at));
            (before.state, before.since, trouble)
        });
        let (reach, gateway) = {
            let gateways = self.parts.carriage.gateways();
            let name = failure.as_ref().and_then(|failure| gateways.name(failure.gateway?));
            (gateways.reach(&status.resource.ends(), now), name)
        };
        let look = Look {
            status,
            failure: failure.as_ref(),
            gateway,
            denied: self.engine.is_denied(id),
            reach,
            control_away: matches!(self.link, ControlLink::Away { .. }),
            lease_issued: self.engine.lease_span(id).map(|(issued, _)| issued),
            known: before.as_ref().and_then(|(_, _, trouble)| trouble.as_ref()).map(|(code, at)| (code.as_str(), *at)),
            now: now.wall,
        };
        let Standing { state, trouble } = standing::judge(&look);
        status.state = state;
        let same = before.filter(|(before, ..)| *before == state);
        status.since = same.and_then(|(_, since, _)| since).or(Some(now.wall));
        status.trouble = trouble.as_ref().map(|found| found.cause.trouble(found.at, found.retry_at));
        match trouble.filter(|_| !state.passes()) {
            Some(found) => self.outlook.troubles.insert(id, found),
            None => self.outlook.troubles.remove(&id),
        };
    }

    /// A resource is gone.
    pub(super) fn forget_trouble(&mut self, id: ResourceId) {
        self.outlook.troubles.remove(&id);
    }

    /// Everything that is wrong, the worst first.
    pub(super) fn health(&mut self, network: &NetworkStatus) -> Vec<HealthItem> {
        let mut found = self.service_causes(network);
        let no_way = found.iter().any(|found| {
            matches!(found.cause, Cause::GatewayAway { resource: None, .. } | Cause::NoGateway { resource: None })
        });
        // One sentence for all of them then.
        let follows = |cause: &Cause| matches!(cause, Cause::GatewayAway { .. } | Cause::NoGateway { .. });
        let troubles = self.outlook.troubles.iter().filter(|(_, found)| !(no_way && follows(&found.cause)));
        found.extend(troubles.map(|(id, found)| Found {
            cause: found.cause.clone(),
            resource: Some(*id),
            since: Some(found.at),
            until: None,
        }));
        self.outlook.book.items(found, clock::wall())
    }

    fn service_causes(&self, network: &NetworkStatus) -> Vec<Found> {
        let notes = &self.notes;
        let mut found: Vec<_> =
            self.parts.warnings.iter().map(|text| Found::new(Cause::AtStart { sentence: text.clone() })).collect();
        found.extend([&notes.sign_in_ended, &notes.skew].into_iter().flatten().cloned().map(Found::new));
        found.extend(self.saver.failure().map(|error| Found::new(Cause::NotSaved { error })));
        found.extend(self.key_trouble().map(Found::new));
        if self.must_change_password {
            found.push(Found::new(Cause::PasswordOnce));
        }
        if let StatusApi::Failed { error } = &*self.parts.status_api.borrow() {
            found.push(Found::new(Cause::StatusApi { error: error.clone() }));
        }
        if let Some(limit) = process::file_limit().filter(|files| *files < process::COMFORTABLE_FILES) {
            found.push(Found::new(Cause::FewFiles { limit }));
        }
        found.extend(self.ends());
        found.extend(self.control_and_gateways());
        found.extend(network_causes(network));
        found
    }

    /// What ends soon, or has ended.
    fn ends(&self) -> Vec<Found> {
        let Some(account) = &self.account else { return Vec::new() };
        let now = clock::wall();
        let sign_in = account.record().expires_at;
        let span = account.certificate();
        let certificate = span.not_after;
        // One of a short life is near its end most of the time; what counts is that it was not renewed when it was due.
        let overdue = self.notes.renewal.is_some() || certificate.since(now) < certificate.since(span.not_before) / 8;
        let mut found: Vec<_> = step(sign_in, now)
            .map(|(minutes, since)| (Cause::SignInEnds { minutes }, since))
            .into_iter()
            .map(|(cause, since)| Found { cause, resource: None, since: Some(since), until: Some(sign_in) })
            .collect();
        let (cause, since) = match step(certificate, now) {
            _ if certificate <= now => (Some(Cause::CertificateEnded), Some(certificate)),
            Some((minutes, since)) if overdue => (Some(Cause::CertificateEnds { minutes }), Some(since)),
            _ => (self.notes.renewal.clone(), None),
        };
        found.extend(cause.map(|cause| Found { cause, resource: None, since, until: None }));
        found
    }

    fn control_and_gateways(&self) -> Vec<Found> {
        if self.account.is_none() {
            return Vec::new();
        }
        let mut found = Vec::new();
        if let ControlLink::Away { url, since, error, .. } = &self.link {
            let cause = Cause::ControlAway { url: url.clone(), error: error.clone() };
            found.push(Found { cause, resource: None, since: Some(*since), until: None });
        }
        let gateways = self.parts.carriage.gateways().status(clock::now().boot);
        let away: Vec<_> =
            gateways.iter().filter_map(|gateway| Some((gateway.name.clone(), error_of(gateway)?))).collect();
        let connected = matches!(self.link, ControlLink::Connected { .. });
        let (names, errors): (Vec<_>, Vec<_>) = away.into_iter().unzip();
        match errors.into_iter().next() {
            Some(error) if names.len() == gateways.len() => {
                found.push(Found::new(Cause::GatewayAway { resource: None, gateways: names, error }));
            }
            Some(error) => found.push(Found::new(Cause::SomeGatewaysAway { gateways: names, error })),
            None if gateways.is_empty() && connected && self.engine.resources().next().is_some() => {
                found.push(Found::new(Cause::NoGateway { resource: None }));
            }
            None => {}
        }
        found.extend(self.leaving_nodes());
        found
    }

    /// The nodes that go out of service while streams of this machine run over them.
    fn leaving_nodes(&self) -> Vec<Found> {
        let gateways = self.parts.carriage.gateways();
        if !gateways.any_leaves() {
            return Vec::new();
        }
        let mut leaving: BTreeMap<(UnixMillis, String), u32> = BTreeMap::new();
        for ((way, worker), streams) in self.parts.carriage.streams.by_way() {
            if let Some(node) = gateways.leaves(way, worker) {
                *leaving.entry(node).or_default() += streams;
            }
        }
        drop(gateways);
        let now = clock::wall();
        let ahead = leaving.into_iter().filter(|((ends, _), _)| *ends > now);
        ahead
            .map(|((ends, node), streams)| {
                let cause = Cause::NodeLeaves { node, streams, minutes: minutes_left(ends, now) };
                Found { until: Some(ends), ..Found::new(cause) }
            })
            .collect()
    }
}

/// Minutes in steps, so that what is said changes seldom.
fn minutes_left(end: UnixMillis, now: UnixMillis) -> u64 {
    const STEPS: [u64; 8] = [1, 2, 5, 10, 30, 60, 240, 1440];
    let minutes = end.since(now).as_secs().div_ceil(60);
    STEPS.into_iter().find(|step| minutes <= *step).unwrap_or_else(|| minutes.next_multiple_of(1440))
}

fn mark(gateway: &GatewayStatus) -> GatewayMark {
    let steps = gateway.handshake_micros.map(|micros| micros / 50_000);
    (gateway.id, std::mem::discriminant(&gateway.state), steps)
}

fn error_of(gateway: &GatewayStatus) -> Option<String> {
    match &gateway.state {
        GatewayState::Unreachable { error } => Some(error.clone()),
        GatewayState::Unknown | GatewayState::Reachable | GatewayState::Draining => None,
    }
}

/// The step that what is left has reached, and when it did.
fn step(end: UnixMillis, now: UnixMillis) -> Option<(u64, UnixMillis)> {
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let step = STEPS.into_iter().find(|step| end.since(now) <= minutes(*step))?;
    let before = u64::try_from(minutes(step).as_millis()).unwrap_or(u64::MAX);
    (end > now).then(|| (step, UnixMillis(end.0.saturating_sub(before))))
}

fn network_causes(network: &NetworkStatus) -> Vec<Found> {
    let up = match network {
        NetworkStatus::Off | NetworkStatus::Waiting | NetworkStatus::Starting => return Vec::new(),
        NetworkStatus::Unavailable { fault, reason, .. } => {
            return vec![Found::new(Cause::NetworkUnavailable { fault: *fault, reason: reason.clone() })];
        }
        NetworkStatus::Up(up) => up,
    };
    let NetworkUp { subnet, moved, names, behind, left_out, zones, since, .. } = &**up;
    let mut found = Vec::new();
    if let Some(moved) = moved {
        let cause = Cause::RangeTaken { to: subnet.clone(), because: moved.because.clone() };
        found.push(Found { cause, resource: None, since: Some(*since), until: None });
    }
    if let NameService::Unavailable { reason } = names {
        found.push(Found::new(Cause::DnsTaken { zones: zones.clone(), reason: reason.clone() }));
    }
    found.extend(behind.iter().map(|reason| Found::new(Cause::NetworkBehind { reason: reason.clone() })));
    if !left_out.is_empty() {
        found.push(Found::new(Cause::NamesLeftOut { names: left_out.clone() }));
    }
    found
}

#[cfg(test)]
mod tests {
    use postern_local_api::message::NetworkMoved;

    use super::*;

    #[test]
    fn everything_that_is_amiss_with_a_network_that_is_up_is_told_of() {
        let mut up = crate::doctor::network::tests::up();
        let codes = |up: &NetworkUp| {
            let found = network_causes(&NetworkStatus::Up(Box::new(up.clone())));
            found.iter().map(|found| found.cause.code().to_owned()).collect::<Vec<_>>()
        };
        assert!(codes(&up).is_empty());
        up.left_out = vec!["db.far.example".to_owned()];
        assert_eq!(codes(&up), ["names_left_out"]);
        up.behind = Some("a zone was refused".to_owned());
        up.names = NameService::Unavailable { reason: "there is no resolver".to_owned() };
        up.moved = Some(NetworkMoved { from: "100.64.0.0/16".to_owned(), because: Vec::new() });
        assert_eq!(codes(&up), ["range_taken", "dns_taken", "network_behind", "names_left_out"]);
    }

    #[test]
    fn an_end_is_told_of_fifteen_ten_and_two_minutes_before() {
        let end = UnixMillis(10_000_000_000);
        let at = |seconds_left: u64| step(end, UnixMillis(end.0 - seconds_left * 1000)).map(|(minutes, _)| minutes);
        assert_eq!(at(901), None);
        assert_eq!(at(900), Some(15));
        assert_eq!(at(600), Some(10));
        assert_eq!(at(121), Some(10));
        assert_eq!(at(120), Some(2));
        assert_eq!(at(0), None);
        assert_eq!(step(end, UnixMillis(end.0 - 60_000)), Some((2, UnixMillis(end.0 - 120_000))));
    }
}
