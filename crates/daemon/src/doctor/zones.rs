//! Whether names of the virtual network reach its resolver: for each zone a name that nobody has asked for before is asked
//! for, at the resolver itself and through the system.
//!
//! The resolver answers such a name with its own address, so the system's answer tells who gave it.

use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::{Message, ResponseCode};
use postern_local_api::{message::Check, names::SystemAnswer};
use postern_netstack::dns::PROBE;

use super::Open;
use crate::inquiry::{self, AskError, Question};

/// Zones that are probed; there are a few.
pub(super) const MAX_ZONES: usize = 50;

/// What a probe of a zone showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneState {
    /// The system asks our resolver.
    Ok,
    /// Somebody else answers for the zone.
    Hijacked,
    /// Our resolver answers, but the system does not ask it.
    NotRegistered,
    /// No answer in time: from our resolver, or by the system.
    Timeout,
    /// An error instead of an answer: from our resolver, or by the system.
    ResolverError,
}

impl ZoneState {
    /// The word for it, the same for ever.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Hijacked => "HIJACKED",
            Self::NotRegistered => "NOT_REGISTERED",
            Self::Timeout => "TIMEOUT",
            Self::ResolverError => "RESOLVER_ERROR",
        }
    }
}

/// What our resolver said when it was asked directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Direct {
    /// Its own address, as it must.
    Itself,
    /// Something that it never says: another code or other addresses.
    Other(String),
    TimedOut,
    Failed(String),
}

/// Judges what came back, and says in a sentence what was seen.
#[must_use]
pub fn classify(resolver: IpAddr, direct: &Direct, system: &SystemAnswer) -> (ZoneState, String) {
    match direct {
        Direct::Itself => {}
        Direct::TimedOut => return (ZoneState::Timeout, format!("the resolver at {resolver} does not answer")),
        Direct::Other(said) => {
            return (ZoneState::ResolverError, format!("the resolver at {resolver} answered {said}"));
        }
        Direct::Failed(error) => {
            return (ZoneState::ResolverError, format!("the resolver at {resolver} could not be asked: {error}"));
        }
    }
    match system {
        SystemAnswer::Found { addresses } if addresses.iter().all(|ip| *ip == resolver) => {
            (ZoneState::Ok, format!("the system asks the resolver at {resolver}"))
        }
        SystemAnswer::Found { addresses } => {
            let others: Vec<_> = addresses.iter().filter(|ip| **ip != resolver).map(IpAddr::to_string).collect();
            (ZoneState::Hijacked, format!("the system is answered by somebody else: {}", others.join(", ")))
        }
        SystemAnswer::NotFound | SystemAnswer::NotAsked => {
            (ZoneState::NotRegistered, format!("the resolver at {resolver} answers, but the system does not ask it"))
        }
        SystemAnswer::TimedOut => (ZoneState::Timeout, "the system gave no answer in time".to_owned()),
        SystemAnswer::Failed { error } => {
            (ZoneState::ResolverError, format!("the system could not look it up: {error}"))
        }
    }
}

/// Probes a zone. `resolver`: the address at which it is answered.
pub(super) async fn probe(check: Open, resolver: IpAddr, zone: &str) -> Check {
    // The dot keeps search domains out: an answer from one of these would look as if somebody had taken our zone.
    let name = format!("{PROBE}{:08x}.{zone}.", rand::random::<u32>());
    let kind = if resolver.is_ipv4() { "A" } else { "AAAA" };
    let question = match Question::new(&name, kind) {
        Ok(question) => question,
        Err(error) => return check.failed(error.to_string(), "Ask an administrator to correct the zone."),
    };
    let server = SocketAddr::new(resolver, inquiry::PORT);
    let (direct, system) = tokio::join!(inquiry::ask(server, &question), inquiry::ask_system(&question));
    let (state, seen) = classify(resolver, &read(resolver, direct), &system);
    let seen = format!("{}: {seen}", state.word());
    let mut check = match advice(state) {
        None => check.ok(seen),
        Some(advice) => check.failed(seen, advice),
    };
    check.commands = inquiry::commands(Some(resolver), &question);
    check
}

fn read(resolver: IpAddr, answer: Result<Message, AskError>) -> Direct {
    let answer = match answer {
        Ok(answer) => answer,
        Err(AskError::TimedOut) => return Direct::TimedOut,
        Err(error) => return Direct::Failed(error.to_string()),
    };
    let addresses: Vec<IpAddr> = answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    match answer.response_code {
        ResponseCode::NoError if addresses == [resolver] => Direct::Itself,
        code => {
            let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
            Direct::Other([inquiry::code(code)].into_iter().chain(addresses).collect::<Vec<_>>().join(" "))
        }
    }
}

fn advice(state: ZoneState) -> Option<&'static str> {
    Some(match state {
        ZoneState::Ok => return None,
        ZoneState::Hijacked => {
            "Another VPN, a filter or the network's DNS server answers for this zone: see `resolvectl status` and \
             /etc/resolv.conf, and switch that off or have the zone renamed."
        }
        ZoneState::NotRegistered => {
            "Register it anew: postern network disable, then postern network enable. See `resolvectl domain` for who has \
             the zone; another VPN may have overwritten it."
        }
        ZoneState::Timeout => "Check for a firewall in the way; then postern network disable, and enable.",
        ZoneState::ResolverError => {
            "Switch the network off and on (postern network disable, enable); look at the service's log if it stays so."
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 72, 0, 2));

    fn found(ips: &[[u8; 4]]) -> SystemAnswer {
        SystemAnswer::Found { addresses: ips.iter().map(|ip| IpAddr::from(*ip)).collect() }
    }

    #[test]
    fn each_outcome_of_a_probe_has_its_class() {
        let failed = || SystemAnswer::Failed { error: "Temporary failure in name resolution".to_owned() };
        let ours = || found(&[[100, 72, 0, 2]]);
        for (direct, system, state) in [
            (Direct::Itself, ours(), ZoneState::Ok),
            (Direct::Itself, found(&[[192, 0, 2, 1]]), ZoneState::Hijacked),
            (Direct::Itself, found(&[[100, 72, 0, 2], [192, 0, 2, 1]]), ZoneState::Hijacked),
            (Direct::Itself, SystemAnswer::NotFound, ZoneState::NotRegistered),
            (Direct::Itself, SystemAnswer::TimedOut, ZoneState::Timeout),
            (Direct::Itself, failed(), ZoneState::ResolverError),
            (Direct::TimedOut, ours(), ZoneState::Timeout),
            (Direct::TimedOut, SystemAnswer::NotFound, ZoneState::Timeout),
            (Direct::Other("REFUSED".to_owned()), SystemAnswer::NotFound, ZoneState::ResolverError),
            (Direct::Failed("network is unreachable".to_owned()), ours(), ZoneState::ResolverError),
        ] {
            assert_eq!(classify(OURS, &direct, &system).0, state, "{direct:?} {system:?}");
            assert_eq!(advice(state).is_none(), state == ZoneState::Ok);
        }
    }

    #[test]
    fn who_answers_in_our_place_is_named() {
        let (_, seen) = classify(OURS, &Direct::Itself, &found(&[[100, 72, 0, 2], [192, 0, 2, 1]]));
        assert_eq!(seen, "the system is answered by somebody else: 192.0.2.1");
    }

    #[test]
    fn the_words_stay() {
        let all = [
            (ZoneState::Ok, "OK"),
            (ZoneState::Hijacked, "HIJACKED"),
            (ZoneState::NotRegistered, "NOT_REGISTERED"),
            (ZoneState::Timeout, "TIMEOUT"),
            (ZoneState::ResolverError, "RESOLVER_ERROR"),
        ];
        assert!(all.iter().all(|(state, word)| state.word() == *word));
    }
}
