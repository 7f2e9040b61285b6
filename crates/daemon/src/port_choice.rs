//! Ports that the user chose in place of the assigned ones.
//!
//! Pure. A choice is for the address that the resource has when it is made: at loopback or in the virtual network.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use postern_local_api::cause::{Cause, check_port};
use postern_proto::{
    bind::Rule,
    id::ResourceId,
    problem::{Problem, Violation},
    resource::{BindMode, ClientResource},
};
use serde::{Deserialize, Serialize};

/// How many free ports a refusal names.
const SUGGESTIONS: usize = 2;

/// The choices of one account.
pub type PortChoices = BTreeMap<ResourceId, PortChoice>;

/// What was chosen for one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortChoice {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loopback: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<u16>,
}

/// Which of a resource's addresses is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    Loopback,
    Network,
}

impl PortChoice {
    #[must_use]
    pub const fn of(&self, plane: Plane) -> Option<u16> {
        match plane {
            Plane::Loopback => self.loopback,
            Plane::Network => self.network,
        }
    }

    pub const fn set(&mut self, plane: Plane, port: Option<u16>) {
        match plane {
            Plane::Loopback => self.loopback = port,
            Plane::Network => self.network = port,
        }
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.loopback.is_none() && self.network.is_none()
    }

    /// The resource with the chosen ports in place of the assigned ones.
    #[must_use]
    pub fn apply(&self, resource: &ClientResource) -> ClientResource {
        let mut chosen = resource.clone();
        let bind = &mut chosen.bind;
        match (bind.mode, self.loopback) {
            (_, None) => {}
            (BindMode::Loopback, Some(port)) => bind.port = port,
            (BindMode::Vnm | BindMode::Both, Some(port)) => {
                if let Some(loopback) = &mut bind.loopback {
                    loopback.port = port;
                }
            }
        }
        if let Some(port) = self.network.filter(|_| bind.mode.is_virtual()) {
            bind.port = port;
        }
        chosen
    }
}

impl Plane {
    /// The address of a resource there.
    #[must_use]
    pub fn address(self, resource: &ClientResource) -> Option<std::net::SocketAddr> {
        match self {
            Self::Loopback => resource.bind.loopback_address(),
            Self::Network => resource.bind.virtual_address(),
        }
    }
}

/// Whether a resource may have this port at its address there. `all`: everything that the account may reach.
///
/// # Errors
/// A problem that names the field, the value and the rule, and ports that are free.
pub fn check<'a>(
    port: u16,
    plane: Plane,
    resource: &ClientResource,
    all: impl Iterator<Item = &'a ClientResource>,
) -> Result<(), Problem> {
    let network = plane == Plane::Network;
    if let Err(cause) = check_port(i64::from(port), network) {
        let rule = if network { Rule::VnmPort } else { Rule::LoopbackPort };
        return Err(with_rule(cause.problem(422), port, &rule));
    }
    if network && resource.ports.contains(port) {
        let problem = Problem::new(422, "port_range", format!("{port} is one of the resource's further ports"));
        return Err(with_rule(problem, port, &Rule::PortMeansTwo));
    }
    let Some(address) = plane.address(resource) else {
        return Err(Problem::new(409, "no_address", "The resource has no address here")
            .with_detail("It is in the virtual network only, and that is not up."));
    };
    let others: Vec<_> = all.filter(|other| other.id != resource.id).collect();
    let has = |other: &ClientResource, port: u16| {
        let here = plane.address(other).is_some_and(|taken| taken.ip() == address.ip() && taken.port() == port);
        let further = network && plane.address(other).is_some_and(|taken| taken.ip() == address.ip());
        here || (further && other.ports.contains(port))
    };
    let Some(holder) = others.iter().find(|other| has(other, port)) else { return Ok(()) };
    let is_free = |port: &u16| check_port(i64::from(*port), network).is_ok() && !others.iter().any(|it| has(it, *port));
    let free: Vec<_> = (port..=u16::MAX).filter(is_free).take(SUGGESTIONS).collect();
    let ip = if let IpAddr::V4(ip) = address.ip() { ip } else { Ipv4Addr::LOCALHOST };
    let rule = Rule::PortTaken { ip, holder: holder.name.clone() };
    let problem = Problem::new(409, "port_taken", format!("Port {port} is taken by {}", holder.name));
    Err(with_rule(with_free(problem, &rule, &free), port, &rule))
}

/// Somebody else on this machine has the address.
#[must_use]
pub fn taken(cause: &Cause, port: u16) -> Problem {
    let problem = cause.problem(409);
    let rule = problem.detail.clone().unwrap_or_default();
    let violations = vec![Violation { field: "port".to_owned(), value: port.to_string(), rule }];
    Problem { violations, ..problem }
}

fn with_free(problem: Problem, rule: &Rule, free: &[u16]) -> Problem {
    let free: Vec<_> = free.iter().map(u16::to_string).collect();
    problem.with_detail(format!("port {rule}. Free: {}.", free.join(", ")))
}

fn with_rule(problem: Problem, port: u16, rule: &Rule) -> Problem {
    let violation = Violation { field: "port".to_owned(), value: port.to_string(), rule: rule.to_string() };
    let detail = problem.detail.clone().unwrap_or_else(|| format!("port {rule}."));
    Problem { violations: vec![violation], ..problem.with_detail(detail) }
}

#[cfg(test)]
mod tests {
    use postern_proto::{
        port::PortSet,
        resource::{BindAddress, Health, Kind, LoopbackAddress, Tags},
    };

    use super::*;

    fn resource(n: u128, name: &str, bind: BindAddress) -> ClientResource {
        ClientResource {
            id: ResourceId::from_ulid(n.into()),
            name: name.to_owned(),
            kind: Kind::Http,
            tags: Tags::new(),
            bind,
            ports: PortSet::default(),
            revision: 1,
            via: Vec::new(),
            cluster: None,
            health: Health::Unknown,
        }
    }

    fn at_loopback(n: u128, name: &str, port: u16) -> ClientResource {
        resource(n, name, BindAddress::loopback([127, 0, 0, 1].into(), port))
    }

    fn in_network(n: u128) -> ClientResource {
        let loopback = Some(LoopbackAddress { ip: [127, 0, 0, 1].into(), port: 10_000 });
        let bind = BindAddress { mode: BindMode::Vnm, ip: [100, 72, 1, 1].into(), port: 443, dns_name: None, loopback };
        let mut resource = resource(n, "wiki", bind);
        resource.ports = "8000-8010".parse().unwrap();
        resource
    }

    #[test]
    fn a_choice_is_for_one_of_the_two_addresses() {
        let choice = PortChoice { loopback: Some(20_000), network: None };
        assert_eq!(choice.apply(&at_loopback(1, "a", 10_000)).bind.port, 20_000);
        let moved = choice.apply(&in_network(1)).bind;
        assert_eq!((moved.port, moved.loopback.unwrap().port), (443, 20_000));
        let choice = PortChoice { loopback: None, network: Some(80) };
        assert_eq!(choice.apply(&at_loopback(1, "a", 10_000)).bind.port, 10_000);
        let moved = choice.apply(&in_network(1)).bind;
        assert_eq!((moved.port, moved.loopback.unwrap().port), (80, 10_000));
    }

    #[test]
    fn a_port_that_breaks_a_rule_is_told_with_field_value_and_rule() {
        let resource = at_loopback(1, "grafana", 10_000);
        let problem = check(80, Plane::Loopback, &resource, [&resource].into_iter()).unwrap_err();
        assert_eq!((problem.status, problem.code.as_str()), (422, "port_range"));
        let [violation] = problem.violations.as_slice() else { panic!("{problem:?}") };
        assert_eq!((violation.field.as_str(), violation.value.as_str()), ("port", "80"));
        assert_eq!(violation.rule, "must be from 1024 to 64999 in loopback mode");
        assert!(check(80, Plane::Network, &in_network(2), [].into_iter()).is_ok());
        let means_two = check(8005, Plane::Network, &in_network(2), [].into_iter()).unwrap_err();
        assert!(means_two.violations[0].rule.contains("further ports"));
    }

    #[test]
    fn a_port_of_another_resource_is_refused_and_free_ones_are_named() {
        let all = [at_loopback(1, "grafana", 10_000), at_loopback(2, "wiki", 10_001), at_loopback(3, "db", 10_002)];
        let problem = check(10_001, Plane::Loopback, &all[0], all.iter()).unwrap_err();
        assert_eq!((problem.status, problem.code.as_str()), (409, "port_taken"));
        assert_eq!(problem.violations[0].rule, "must be free at 127.0.0.1: resource wiki has it");
        assert!(problem.detail.as_ref().unwrap().ends_with("Free: 10003, 10004."), "{problem:?}");
        // Its own port is free for itself, and another address is another matter.
        assert!(check(10_000, Plane::Loopback, &all[0], all.iter()).is_ok());
        let elsewhere = resource(4, "x", BindAddress::loopback([127, 0, 0, 2].into(), 9999));
        assert!(check(10_001, Plane::Loopback, &elsewhere, all.iter()).is_ok());
    }
}
