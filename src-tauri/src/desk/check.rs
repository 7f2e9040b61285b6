//! What can be said about a port or an address without asking anybody.

use std::net::IpAddr;

use postern_local_api::{message::NetworkStatus, proto::id::ResourceId};

use super::{Desk, convert::problem_of};
use crate::view::{AddressVerdict, PortVerdict, Problem};

/// Ports of loopback mode (DESIGN §1).
const LOOPBACK_PORTS: (u16, u16) = (1024, 64999);
/// Ports of the virtual network.
const VIRTUAL_PORTS: (u16, u16) = (1, 65535);
/// How many free ports are offered.
const OFFERED: usize = 3;

/// Whether a port of an address can be listened on by this user. Tests give their own.
pub(crate) type IsFree<'a> = &'a dyn Fn(IpAddr, u16) -> bool;

impl Desk {
    /// Whether `port` may be the port of a resource.
    pub(crate) fn check_port(&self, id: ResourceId, port: u16, is_free: IsFree<'_>) -> Option<PortVerdict> {
        let status = self.status_of(id)?;
        let virtually = status.resource.bind.mode.is_virtual()
            && matches!(self.status.as_ref().map(|status| &status.network), Some(NetworkStatus::Up(_)));
        let bind = &status.resource.bind;
        let loopback = bind.loopback_address();
        let (ip, assigned) = match loopback {
            Some(address) if !virtually => (address.ip(), address.port()),
            _ => (bind.ip, bind.port),
        };
        let (lowest, highest) = if virtually { VIRTUAL_PORTS } else { LOOPBACK_PORTS };
        let own = convert_port(status.port_override, assigned);
        let taken_by = |port: u16| {
            self.held.values().map(|held| &held.status).find(|other| {
                other.resource.id != id
                    && super::convert::row(other).address == std::net::SocketAddr::new(ip, port).to_string()
            })
        };
        // In the virtual network each resource has an address of its own; only loopback ports are shared with others.
        let may_be = |port: u16| {
            (lowest..=highest).contains(&port)
                && taken_by(port).is_none()
                && (virtually || port == own || is_free(ip, port))
        };
        let problem = if !(lowest..=highest).contains(&port) {
            Some(out_of_range(port, virtually))
        } else if let Some(other) = taken_by(port) {
            Some(taken(port, &format!("{} has it.", other.resource.name)))
        } else {
            (!may_be(port)).then(|| taken(port, "Another program of this computer holds it."))
        };
        let near = port.max(lowest).saturating_add(1)..=highest;
        let mut free: Vec<u16> = near.take(200).filter(|port| may_be(*port)).take(OFFERED - 1).collect();
        if may_be(assigned) && assigned != port {
            free.push(assigned);
        }
        Some(PortVerdict { problem, free, assigned, lowest, highest })
    }

    /// What will become of an address as it was typed.
    pub(crate) fn check_address(&self, typed: &str) -> AddressVerdict {
        match address(typed) {
            Ok(url) => {
                let service = self.status.as_ref().and_then(|status| status.control.url());
                let known = [service, self.stored.address.as_deref()].into_iter().flatten();
                let known = known.into_iter().any(|known| known.trim_end_matches('/') == url);
                AddressVerdict { url: Some(url), problem: None, known }
            }
            Err(why) => {
                let mut problem = problem_of(
                    "bad_control_url",
                    "This is no address of an organisation.",
                    why,
                    "It looks like northwind.postern.example; your admin has it.",
                );
                problem.field = Some("address".to_owned());
                AddressVerdict { url: None, problem: Some(problem), known: false }
            }
        }
    }
}

fn convert_port(chosen: Option<u16>, assigned: u16) -> u16 {
    chosen.unwrap_or(assigned)
}

fn out_of_range(port: u16, virtually: bool) -> Problem {
    let mut problem = if virtually {
        problem_of("port_range", &format!("{port} is no port."), "", "Use 1 to 65535.")
    } else if port < LOOPBACK_PORTS.0 {
        problem_of(
            "port_range",
            &format!("{port} cannot be used in loopback mode."),
            "Ports below 1024 belong to the system.",
            "Use 1024 to 64999, or Virtual Networking.",
        )
    } else {
        problem_of(
            "port_range",
            &format!("{port} cannot be used in loopback mode."),
            "Ports from 65000 are kept for Postern itself.",
            "Use 1024 to 64999.",
        )
    };
    problem.field = Some("port".to_owned());
    problem
}

fn taken(port: u16, why: &str) -> Problem {
    let mut problem = problem_of("port_taken", &format!("{port} is taken."), why, "Use another port.");
    problem.field = Some("port".to_owned());
    problem
}

/// An address as it was typed, made whole: `https://host[:port]`.
fn address(typed: &str) -> Result<String, &'static str> {
    let text = typed.trim().trim_end_matches('/');
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => rest,
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => {
            return Err("It begins with http://; Postern speaks https only.");
        }
        Some(_) => return Err("It begins with something else than https://."),
        None => text,
    };
    if rest.is_empty() {
        return Err("It is empty.");
    }
    if rest.contains('@') {
        return Err("It looks like an e-mail address.");
    }
    if rest.contains(['/', '?', '#', '\\']) || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("It holds more than a name and a port.");
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && (!host.contains(':') || host.ends_with(']')) => {
            (host, Some(port))
        }
        _ => (rest, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return Err("Its port is no number from 1 to 65535.");
    }
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    let name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || !(plain.parse::<IpAddr>().is_ok() || host.chars().all(name)) {
        return Err("Its name holds signs that no name has.");
    }
    Ok(format!("https://{}", rest.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_typed_as_people_say_it() {
        for (typed, wanted) in [
            ("northwind.postern.example", "https://northwind.postern.example"),
            (" https://Northwind.postern.example/ ", "https://northwind.postern.example"),
            ("127.0.0.1:8443", "https://127.0.0.1:8443"),
            ("https://[::1]:8443", "https://[::1]:8443"),
        ] {
            assert_eq!(address(typed).as_deref(), Ok(wanted), "{typed}");
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (typed, why) in [
            ("", "empty"),
            ("http://a.example", "https only"),
            ("ftp://a.example", "something else"),
            ("mara@northwind.example", "e-mail"),
            ("a.example/path", "more than"),
            ("a b", "more than"),
            ("a.example:0", "port"),
            ("a.example:99999", "port"),
            ("a$b", "signs"),
        ] {
            let error = address(typed).unwrap_err();
            assert!(error.contains(why), "{typed}: {error}");
        }
    }
}
