//! Why something does not work, and the words for it: the only place where such a sentence is written. The service puts
//! the words into [`HealthItem`] and [`Trouble`]; shell, window, tray and notifications lay them out.
//!
//! Pure: a cause goes in, sentences come out. They hold no clock times and no countdowns, which are laid out from the
//! typed times beside them: an item stays equal for as long as nothing else happens.

use std::net::SocketAddr;

use postern_proto::{bind, id::ResourceId, problem::Problem, time::UnixMillis};

use crate::message::{HealthItem, NetworkFault, PortHolder, Severity, Trouble};

mod examples;
mod words;

/// The sentences for a cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What failed.
    pub what: String,
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// Why something does not work, or soon will not. `gateway` names the node that said so, where one is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The resource's host answered, but nothing listens there. `detail` is what the node saw.
    TargetRefused {
        gateway: Option<String>,
        detail: String,
    },
    TargetTimeout {
        gateway: Option<String>,
        detail: String,
    },
    /// No route leads from the node to the resource's host, or the host is not at the end of it.
    TargetUnroutable {
        gateway: Option<String>,
        detail: String,
    },
    /// The node's own system (a firewall, a policy) forbids the connection.
    TargetNotPermitted {
        gateway: Option<String>,
        detail: String,
    },
    /// The name of the resource's host cannot be resolved where it is dialled.
    TargetUnresolvable {
        gateway: Option<String>,
        detail: String,
    },
    /// The nodes' own check fails.
    TargetUnhealthy {
        detail: String,
    },
    /// The account may not use it, or not any more.
    Denied {
        resource: String,
        detail: Option<String>,
    },
    /// There is no lease for a new stream.
    LeaseExpired {
        control_away: bool,
    },
    /// Policy asks for a fresh proof of who the user is.
    StepUp {
        resource: String,
        detail: Option<String>,
    },
    /// Gateways do not answer, and no other leads there. `resource`: `None` when nothing can be reached at all.
    GatewayAway {
        resource: Option<String>,
        gateways: Vec<String>,
        error: String,
    },
    /// Some do not answer, and others do the work.
    SomeGatewaysAway {
        gateways: Vec<String>,
        error: String,
    },
    /// The control plane has named no gateway.
    NoGateway {
        resource: Option<String>,
    },
    /// A gateway takes no new streams: it stops, or has too much to do.
    GatewayBusy {
        gateway: Option<String>,
        detail: String,
    },
    /// A node goes out of service within so many minutes, and so many streams that run over it are cut then.
    NodeLeaves {
        node: String,
        streams: u32,
        minutes: u64,
    },
    /// A connection to a gateway broke in the middle of a stream.
    ConnectionLost {
        gateway: Option<String>,
        detail: String,
    },
    /// The last handshake took this long.
    Slow {
        gateway: String,
        millis: u64,
    },
    /// Somebody else has the address.
    PortTaken {
        resource: String,
        address: SocketAddr,
        holder: Option<PortHolder>,
    },
    /// The address cannot be listened on for another reason.
    AddressFailed {
        resource: String,
        address: SocketAddr,
        error: String,
    },
    /// A wished port that breaks the rules. `network`: of the virtual network instead of loopback mode.
    PortRange {
        port: i64,
        network: bool,
    },
    /// The virtual network is elsewhere, because something has its addresses.
    RangeTaken {
        to: String,
        because: Vec<String>,
    },
    /// The system does not ask our resolver for our names.
    DnsTaken {
        zones: Vec<String>,
        reason: String,
    },
    /// Resources in the virtual network whose names no zone covers.
    NamesLeftOut {
        names: Vec<String>,
    },
    /// The virtual network is switched on and cannot be had.
    NetworkUnavailable {
        fault: NetworkFault,
        reason: String,
    },
    /// It is up, but the latest change is not made.
    NetworkBehind {
        reason: String,
    },
    /// The clock of this computer differs from the control plane's.
    ClockSkew {
        minutes: u64,
        slow: bool,
    },
    /// The control plane does not answer. `leases`: whether new streams can go on with what is held.
    ControlAway {
        url: String,
        error: String,
    },
    /// A server that answers, and is not the control plane.
    NotOurServer {
        address: String,
        reason: String,
    },
    /// The sign-in ends within so many minutes.
    SignInEnds {
        minutes: u64,
    },
    /// The sign-in was ended, for this reason.
    SignInEnded {
        reason: String,
    },
    /// The password was for one use.
    PasswordOnce,
    /// The device certificate ends within so many minutes, and was not renewed.
    CertificateEnds {
        minutes: u64,
    },
    CertificateEnded,
    /// The last renewal of the certificate failed; there is time left.
    RenewalFailed {
        error: String,
    },
    /// The keyring that holds the keys does not open.
    KeyringLocked {
        keyring: String,
        reason: String,
    },
    /// There is no keyring where the keys are to be.
    KeyringMissing {
        reason: String,
    },
    /// Window or shell and service are of different versions.
    VersionsDiffer {
        client: String,
        service: String,
        streams: u32,
    },
    /// The service does not run.
    ServiceGone {
        detail: String,
    },
    /// Few files may be open at a time.
    FewFiles {
        limit: u64,
    },
    /// What is to be remembered cannot be written.
    NotSaved {
        error: String,
    },
    /// The status for scripts is not served.
    StatusApi {
        error: String,
    },
    /// Something that was met at the start: a sentence.
    AtStart {
        sentence: String,
    },
    /// A refusal that has no words of its own here.
    Refused(Problem),
}

impl Cause {
    /// At least one of each, with made-up content: to check that other places have words for all of them.
    #[must_use]
    pub fn examples() -> Vec<Self> {
        examples::all()
    }

    /// What a problem that ended a stream means. `resource` is its name.
    #[must_use]
    pub fn of_problem(problem: &Problem, resource: &str, gateway: Option<String>, control_away: bool) -> Self {
        let detail = problem.detail.clone().unwrap_or_else(|| format!("{}.", problem.title));
        match problem.code.as_str() {
            "target_refused" => Self::TargetRefused { gateway, detail },
            "target_timed_out" | "target_timeout" => Self::TargetTimeout { gateway, detail },
            "target_unroutable" => Self::TargetUnroutable { gateway, detail },
            "target_not_permitted" => Self::TargetNotPermitted { gateway, detail },
            "target_unresolvable" => Self::TargetUnresolvable { gateway, detail },
            "no_lease" if problem.status == 403 => Self::Denied { resource: resource.to_owned(), detail: None },
            "no_lease" | "lease_expired" | "lease_key_unknown" | "control_plane_away" | "certificate_expired" => {
                Self::LeaseExpired { control_away }
            }
            "step_up" => Self::StepUp { resource: resource.to_owned(), detail: problem.detail.clone() },
            "no_gateway" => Self::NoGateway { resource: Some(resource.to_owned()) },
            "gateway_unreachable" => Self::GatewayAway {
                resource: Some(resource.to_owned()),
                gateways: gateway.into_iter().collect(),
                error: detail,
            },
            "draining" | "too_many_streams" | "audit_unavailable" => Self::GatewayBusy { gateway, detail },
            "lease_revoked" | "grant_ended" | "denied" | "not_a_device" => {
                Self::Denied { resource: resource.to_owned(), detail: Some(detail) }
            }
            _ => Self::Refused(problem.clone()),
        }
    }

    /// What a node's own check met, told with this code or none.
    #[must_use]
    pub fn of_check(code: Option<&str>, detail: String) -> Self {
        match code {
            Some("target_unroutable") => Self::TargetUnroutable { gateway: None, detail },
            Some("target_not_permitted") => Self::TargetNotPermitted { gateway: None, detail },
            Some("target_unresolvable") => Self::TargetUnresolvable { gateway: None, detail },
            _ => Self::TargetUnhealthy { detail },
        }
    }

    /// A stable word.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::TargetRefused { .. } => "target_refused",
            Self::TargetTimeout { .. } => "target_timeout",
            Self::TargetUnroutable { .. } => "target_unroutable",
            Self::TargetNotPermitted { .. } => "target_not_permitted",
            Self::TargetUnresolvable { .. } => "target_unresolvable",
            Self::TargetUnhealthy { .. } => "target_unhealthy",
            Self::Denied { .. } => "denied",
            Self::LeaseExpired { .. } => "lease_expired",
            Self::StepUp { .. } => "step_up",
            Self::GatewayAway { .. } | Self::SomeGatewaysAway { .. } => "gateway_away",
            Self::NoGateway { .. } => "no_gateway",
            Self::GatewayBusy { .. } => "gateway_busy",
            Self::NodeLeaves { .. } => "node_leaves",
            Self::ConnectionLost { .. } => "connection_lost",
            Self::Slow { .. } => "slow",
            Self::PortTaken { .. } => "port_taken",
            Self::AddressFailed { .. } => "address_failed",
            Self::PortRange { .. } => "port_range",
            Self::RangeTaken { .. } => "range_taken",
            Self::DnsTaken { .. } => "dns_taken",
            Self::NamesLeftOut { .. } => "names_left_out",
            Self::NetworkUnavailable { fault: NetworkFault::NotPermitted, .. } => "helper_refused",
            Self::NetworkUnavailable { fault: NetworkFault::NoService, .. } => "helper_missing",
            Self::NetworkUnavailable { .. } => "network_unavailable",
            Self::NetworkBehind { .. } => "network_behind",
            Self::ClockSkew { .. } => "clock_skew",
            Self::ControlAway { .. } => "control_away",
            Self::NotOurServer { .. } => "not_our_server",
            Self::SignInEnds { .. } => "sign_in_ends",
            Self::SignInEnded { .. } => "sign_in_ended",
            Self::PasswordOnce => "password_once",
            Self::CertificateEnds { .. } => "certificate_ends",
            Self::CertificateEnded => "certificate_ended",
            Self::RenewalFailed { .. } => "renewal_failed",
            Self::KeyringLocked { .. } => "keyring_locked",
            Self::KeyringMissing { .. } => "keyring_missing",
            Self::VersionsDiffer { .. } => "versions_differ",
            Self::ServiceGone { .. } => "service_gone",
            Self::FewFiles { .. } => "few_files",
            Self::NotSaved { .. } => "not_saved",
            Self::StatusApi { .. } => "status_api",
            Self::AtStart { .. } => "at_start",
            Self::Refused(problem) => &problem.code,
        }
    }

    /// How much it matters for the service as a whole.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::GatewayAway { resource: None, .. }
            | Self::NoGateway { resource: None }
            | Self::CertificateEnded
            | Self::KeyringLocked { .. }
            | Self::ServiceGone { .. }
            | Self::SignInEnded { .. } => Severity::Error,
            Self::SignInEnds { minutes } | Self::CertificateEnds { minutes } if *minutes > 10 => Severity::Info,
            Self::RangeTaken { .. }
            | Self::NetworkBehind { .. }
            | Self::SomeGatewaysAway { .. }
            | Self::StatusApi { .. } => Severity::Info,
            _ => Severity::Warn,
        }
    }

    /// Whether one such failure of a stream is an answer. Others may be an accident of the moment, until they come twice.
    #[must_use]
    pub const fn is_verdict(&self) -> bool {
        !matches!(self, Self::ConnectionLost { .. } | Self::GatewayBusy { .. } | Self::Refused(_))
    }

    /// The sentences for it.
    #[must_use]
    pub fn explain(&self) -> Explanation {
        words::explain(self)
    }

    /// As something that deserves attention since then.
    #[must_use]
    pub fn health(&self, resource: Option<ResourceId>, since: UnixMillis) -> HealthItem {
        let Explanation { what, why, remedy } = self.explain();
        HealthItem {
            code: self.code().to_owned(),
            severity: self.severity(),
            what,
            why,
            remedy,
            resource,
            since,
            until: None,
        }
    }

    /// As what keeps a resource from being used.
    #[must_use]
    pub fn trouble(&self, at: UnixMillis, retry_at: Option<UnixMillis>) -> Trouble {
        let Explanation { what, why, remedy } = self.explain();
        Trouble { code: self.code().to_owned(), what, why, remedy, at, retry_at }
    }

    /// As a refusal of a call.
    #[must_use]
    pub fn problem(&self, status: u16) -> Problem {
        let Explanation { what, why, remedy } = self.explain();
        Problem::new(status, self.code(), what.trim_end_matches('.')).with_detail(format!("{why} {remedy}"))
    }
}

/// Whether a resource may have this port: `network` in the virtual network, else in loopback mode.
///
/// # Errors
/// [`Cause::PortRange`].
pub fn check_port(port: i64, network: bool) -> Result<u16, Cause> {
    let allowed = if network { bind::VNM_PORTS } else { bind::LOOPBACK_PORTS };
    u16::try_from(port).ok().filter(|port| allowed.contains(port)).ok_or(Cause::PortRange { port, network })
}

#[cfg(test)]
mod tests;
