//! How a resource stands, in one word, and what keeps it from being used.
//!
//! Pure: everything that is known about it goes in with the time.

use postern_local_api::{
    cause::Cause,
    message::{Connection, ResourceState, ResourceStatus},
};
use postern_proto::{door::Door, problem::Problem, resource::Health, time::UnixMillis};

/// A gateway whose handshake takes longer is slow: a person notices from here on.
const SLOW_MICROS: u64 = 300_000;
/// A retry that is further away is none.
const RETRY_WITHIN: std::time::Duration = std::time::Duration::from_secs(3600);

/// What the last streams of a resource met, until one succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub end: FailedEnd,
    pub gateway: Option<Door>,
    pub at: UnixMillis,
    /// How many in a row.
    pub times: u32,
}

/// How a stream failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailedEnd {
    /// It never began.
    Refused(Problem),
    /// It broke: a sentence.
    Broken(String),
}

/// Whether gateways lead to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// At least one answers, or was not tried yet.
    Up,
    /// All that lead there do not answer.
    Away { gateways: Vec<String>, error: String, retry_at: UnixMillis },
    /// None leads there.
    NoGateway,
}

/// What is known about one resource.
#[derive(Debug)]
pub struct Look<'a> {
    /// Everything but `state` and `trouble` is filled in.
    pub status: &'a ResourceStatus,
    pub failure: Option<&'a Failure>,
    /// The name of the failure's gateway.
    pub gateway: Option<String>,
    /// The control plane gives no lease for it.
    pub denied: bool,
    pub reach: Reach,
    pub control_away: bool,
    /// When the lease that is held was given.
    pub lease_issued: Option<UnixMillis>,
    /// What was wrong at the last look, by its code, and since when.
    pub known: Option<(&'a str, UnixMillis)>,
    pub now: UnixMillis,
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub state: ResourceState,
    pub trouble: Option<Found>,
}

/// What is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub cause: Cause,
    pub at: UnixMillis,
    pub retry_at: Option<UnixMillis>,
}

impl Failure {
    /// In the words that the gateway or the carrier had for it.
    #[must_use]
    pub fn text(&self) -> String {
        match &self.end {
            FailedEnd::Refused(problem) => crate::carriage::printable(&problem.to_string()),
            FailedEnd::Broken(text) => text.clone(),
        }
    }

    fn cause(&self, resource: &str, gateway: Option<String>, control_away: bool) -> Cause {
        match &self.end {
            FailedEnd::Refused(problem) => Cause::of_problem(&clean(problem), resource, gateway, control_away),
            FailedEnd::Broken(detail) => Cause::ConnectionLost { gateway, detail: detail.clone() },
        }
    }
}

/// Says how a resource stands.
#[must_use]
pub fn judge(look: &Look<'_>) -> Standing {
    let status = look.status;
    match &status.connection {
        Connection::Suspended => Standing::fine(ResourceState::Locked),
        _ if !status.wanted => Standing::fine(ResourceState::Off),
        Connection::Disconnected => Standing::fine(ResourceState::Connecting),
        Connection::PortInUse { address, holder, retry_at } => {
            let (resource, address, holder) = (status.resource.name.clone(), *address, holder.clone());
            look.unhealthy(Cause::PortTaken { resource, address, holder }, Some(*retry_at))
        }
        Connection::Failed { address, error, retry_at } => {
            let (resource, address, error) = (status.resource.name.clone(), *address, error.clone());
            look.unhealthy(Cause::AddressFailed { resource, address, error }, Some(*retry_at))
        }
        Connection::Listening { .. } => look.in_place(),
    }
}

impl Standing {
    const fn fine(state: ResourceState) -> Self {
        Self { state, trouble: None }
    }
}

impl Look<'_> {
    /// Programs can reach the address: what lies behind it decides.
    fn in_place(&self) -> Standing {
        let name = || self.status.resource.name.clone();
        match &self.reach {
            Reach::Away { gateways, error, retry_at } => {
                let (gateways, error) = (gateways.clone(), error.clone());
                let cause = Cause::GatewayAway { resource: Some(name()), gateways, error };
                return self.unhealthy(cause, Some(*retry_at));
            }
            Reach::NoGateway => return self.unhealthy(Cause::NoGateway { resource: Some(name()) }, None),
            Reach::Up => {}
        }
        let failed = self.failed();
        if let Some((cause, at, times)) = &failed
            && (cause.is_verdict() || *times > 1)
        {
            let state = match cause {
                Cause::StepUp { .. } => ResourceState::NeedsApproval,
                _ => ResourceState::Unhealthy,
            };
            return Standing { state, trouble: Some(Found { cause: cause.clone(), at: *at, retry_at: None }) };
        }
        if self.denied {
            return self.unhealthy(Cause::Denied { resource: name(), detail: None }, None);
        }
        if let Health::Unhealthy { error, code } = &self.status.resource.health {
            let detail = crate::carriage::printable(error);
            return self.unhealthy(Cause::of_check(code.as_deref(), detail), None);
        }
        let passing = failed.map(|(cause, at, _)| Found { cause, at, retry_at: None });
        let ends = self.status.grant_ends;
        if ends.is_some_and(|end| end.since(self.now) < ResourceState::EXPIRING_FROM) {
            return Standing { state: ResourceState::Expiring, trouble: passing };
        }
        match self.slow() {
            Some(cause) => self.found(ResourceState::Degraded, cause, None),
            None => Standing { state: ResourceState::Connected, trouble: passing },
        }
    }

    /// What the last stream met, unless it is known to be mended.
    fn failed(&self) -> Option<(Cause, UnixMillis, u32)> {
        let failure = self.failure?;
        let cause = failure.cause(&self.status.resource.name, self.gateway.clone(), self.control_away);
        let fresh_lease = self.lease_issued.is_some_and(|issued| issued > failure.at);
        let mended = match cause {
            // We come here only when a gateway is there.
            Cause::GatewayAway { .. } | Cause::NoGateway { .. } => true,
            Cause::LeaseExpired { .. } | Cause::Denied { .. } => fresh_lease && !self.denied,
            _ => false,
        };
        (!mended).then_some((cause, failure.at, failure.times))
    }

    fn slow(&self) -> Option<Cause> {
        let hop = self.status.route.as_ref()?.hops.first()?;
        let micros = hop.latency_micros.filter(|micros| *micros >= SLOW_MICROS)?;
        Some(Cause::Slow { gateway: hop.name.clone(), millis: micros / 1000 })
    }

    fn unhealthy(&self, cause: Cause, retry_at: Option<UnixMillis>) -> Standing {
        self.found(ResourceState::Unhealthy, cause, retry_at)
    }

    fn found(&self, state: ResourceState, cause: Cause, retry_at: Option<UnixMillis>) -> Standing {
        let retry_at = retry_at.filter(|at| at.since(self.now) < RETRY_WITHIN);
        let at = self.known.filter(|(code, _)| *code == cause.code()).map_or(self.now, |(_, at)| at);
        Standing { state, trouble: Some(Found { cause, at, retry_at }) }
    }
}

/// The words of a node, without what could forge a line or drive a terminal.
fn clean(problem: &Problem) -> Problem {
    let clean = crate::carriage::printable;
    Problem { title: clean(&problem.title), detail: problem.detail.as_deref().map(clean), ..problem.clone() }
}

#[cfg(test)]
mod tests;
