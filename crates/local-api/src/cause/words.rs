//! The sentences. State first, cause second, remedy third; the subject is the thing, present tense, nobody is blamed.

use postern_proto::bind;

use super::{Cause, Explanation};
use crate::message::{NetworkFault, PortHolder};

const BY_ITSELF: &str = "It is tried again by itself.";
const NEXT_CONNECTION: &str = "Each new connection is a new try.";

pub(super) fn explain(cause: &Cause) -> Explanation {
    match cause {
        Cause::TargetRefused { .. }
        | Cause::TargetTimeout { .. }
        | Cause::TargetUnroutable { .. }
        | Cause::TargetNotPermitted { .. }
        | Cause::TargetUnresolvable { .. }
        | Cause::TargetUnhealthy { .. } => target(cause),
        Cause::Denied { .. } | Cause::LeaseExpired { .. } | Cause::StepUp { .. } => access(cause),
        Cause::GatewayAway { .. }
        | Cause::SomeGatewaysAway { .. }
        | Cause::NoGateway { .. }
        | Cause::GatewayBusy { .. }
        | Cause::NodeLeaves { .. }
        | Cause::ConnectionLost { .. }
        | Cause::Slow { .. } => gateway(cause),
        Cause::PortTaken { .. } | Cause::AddressFailed { .. } | Cause::PortRange { .. } => port(cause),
        Cause::RangeTaken { .. }
        | Cause::DnsTaken { .. }
        | Cause::NamesLeftOut { .. }
        | Cause::NetworkUnavailable { .. }
        | Cause::NetworkBehind { .. } => network(cause),
        Cause::SignInEnds { .. }
        | Cause::SignInEnded { .. }
        | Cause::PasswordOnce
        | Cause::CertificateEnds { .. }
        | Cause::CertificateEnded
        | Cause::RenewalFailed { .. }
        | Cause::ClockSkew { .. }
        | Cause::ControlAway { .. }
        | Cause::NotOurServer { .. } => identity(cause),
        Cause::KeyringLocked { .. }
        | Cause::KeyringMissing { .. }
        | Cause::VersionsDiffer { .. }
        | Cause::ServiceGone { .. }
        | Cause::FewFiles { .. }
        | Cause::NotSaved { .. }
        | Cause::StatusApi { .. }
        | Cause::AtStart { .. } => computer(cause),
        Cause::Refused(problem) => said(
            sentence(&problem.title),
            problem.detail.as_deref().map_or_else(|| "This was not foreseen.".to_owned(), sentence),
            format!("Try again, or quote the code {} to your admin.", problem.code),
        ),
    }
}

fn target(cause: &Cause) -> Explanation {
    match cause {
        Cause::TargetRefused { gateway, detail } => said(
            "The target refused the connection.",
            format!("{}Nothing listens there. Your access is fine.", seen(gateway.as_ref(), detail)),
            format!("Ask its owner whether it is down. {NEXT_CONNECTION}"),
        ),
        Cause::TargetTimeout { gateway, detail } => said(
            "The target did not answer in time.",
            format!(
                "{}Often a firewall between the two is the reason. Your access is fine.",
                seen(gateway.as_ref(), detail)
            ),
            "Try again, or copy the report for your admin.",
        ),
        Cause::TargetUnroutable { gateway, detail } => said(
            "The gateway finds no way to the target.",
            format!("{}Your access is fine.", seen(gateway.as_ref(), detail)),
            "Copy the report for your admin: a route is missing, the resource's host is off, or a firewall forbids the way.",
        ),
        Cause::TargetNotPermitted { gateway, detail } => said(
            "The gateway is not let to the target.",
            format!("{}Your access is fine.", seen(gateway.as_ref(), detail)),
            "Copy the report for your admin: a firewall or a policy on the gateway's own machine forbids it.",
        ),
        Cause::TargetUnresolvable { gateway, detail } => said(
            "The name of the target is not known.",
            format!("{}Your access is fine.", seen(gateway.as_ref(), detail)),
            "Copy the report for your admin: the resource's host name is wrong, or its DNS is down.",
        ),
        Cause::TargetUnhealthy { detail } => said(
            "The target does not answer.",
            format!("{} Your access is fine.", sentence(detail)),
            "Ask its owner whether it is down. The gateways look again by themselves.",
        ),
        other => fallback(other),
    }
}

fn access(cause: &Cause) -> Explanation {
    match cause {
        Cause::Denied { resource, detail } => said(
            format!("You may not use {resource} now."),
            detail.as_deref().map_or_else(|| "The control plane gives no proof of access for it.".to_owned(), sentence),
            "Request access, or ask an admin.",
        ),
        Cause::LeaseExpired { control_away: true } => said(
            "The proof of access ran out and could not be renewed.",
            "The control plane is away.",
            "New connections work again when it is back. Open ones go on.",
        ),
        Cause::LeaseExpired { control_away: false } => said(
            "The proof of access ran out and could not be renewed.",
            "The control plane has not given a new one yet.",
            format!("Open connections go on. {BY_ITSELF}"),
        ),
        Cause::StepUp { resource, detail } => said(
            format!("{resource} asks for a fresh sign-in."),
            detail.as_deref().map_or_else(|| "Its policy wants one.".to_owned(), sentence),
            "Sign in again, then connect again.",
        ),
        other => fallback(other),
    }
}

fn gateway(cause: &Cause) -> Explanation {
    match cause {
        Cause::GatewayAway { resource: Some(resource), gateways, error } => {
            let why = match gateways.as_slice() {
                [] => format!("No gateway that leads there answers: {}", sentence(error)),
                names => format!("{} {} not answer and no other gateway leads there.", list(names), does(names)),
            };
            said(format!("{resource} cannot be reached."), why, format!("Nothing to do here. {BY_ITSELF}"))
        }
        Cause::GatewayAway { resource: None, gateways, error } => said(
            "No gateway can be reached.",
            format!("{} {} not answer: {}", list(gateways), does(gateways), sentence(error)),
            format!("Check the network and firewalls of this computer. {BY_ITSELF}"),
        ),
        Cause::SomeGatewaysAway { gateways, error } => said(
            format!("{} {} not answer.", list(gateways), does(gateways)),
            format!("{} Connections go through another gateway.", sentence(error)),
            format!("Nothing to do here. {BY_ITSELF}"),
        ),
        Cause::NoGateway { resource: Some(resource) } => said(
            format!("{resource} cannot be reached."),
            "The control plane has named no gateway that leads there.",
            "Ask an admin.",
        ),
        Cause::NoGateway { resource: None } => {
            said("Nothing can be reached yet.", "The control plane has named no gateway.", "Ask an admin.")
        }
        Cause::GatewayBusy { gateway, detail } => said(
            format!("{} takes no new connections now.", gateway.as_deref().unwrap_or("The gateway")),
            sentence(detail),
            "Try again in a moment.",
        ),
        Cause::NodeLeaves { node, streams, minutes } => said(
            format!("{node} goes out of service within {minutes}\u{2009}min."),
            format!("Open connections over it: {streams}. They end then."),
            "Finish what runs there or connect again; new connections go another way.",
        ),
        Cause::ConnectionLost { gateway, detail } => said(
            format!("A connection through {} broke.", gateway.as_deref().unwrap_or("the gateway")),
            sentence(detail),
            NEXT_CONNECTION,
        ),
        Cause::Slow { gateway, millis } => said(
            format!("{gateway} answers slowly."),
            format!("The last handshake with it took {millis}\u{2009}ms."),
            "Check the network of this computer. It is measured again by itself.",
        ),
        other => fallback(other),
    }
}

fn port(cause: &Cause) -> Explanation {
    match cause {
        Cause::PortTaken { resource, address, holder } => {
            let program = holder.as_ref().and_then(|holder| holder.program.as_deref()).unwrap_or("that program");
            said(
                format!("{resource} could not open port {}.", address.port()),
                format!("{} holds {address}.", held_by(holder.as_ref())),
                format!("Stop {program}, or choose another port. {BY_ITSELF}"),
            )
        }
        Cause::AddressFailed { resource, address, error } => said(
            format!("{resource} could not open {address}."),
            sentence(error),
            "Choose another port, or ask an admin for another address.",
        ),
        Cause::PortRange { port, network: false } => {
            let (first, last) = (*bind::LOOPBACK_PORTS.start(), *bind::LOOPBACK_PORTS.end());
            let why = if (1..i64::from(first)).contains(port) {
                format!("Ports below {first} belong to the system.")
            } else {
                format!("Ports go from {first} to {last} there.")
            };
            said(
                format!("{port} cannot be used in loopback mode."),
                why,
                format!("Use {first} to {last}, or Virtual Networking."),
            )
        }
        Cause::PortRange { port, network: true } => {
            let (first, last) = (bind::VNM_PORTS.start(), bind::VNM_PORTS.end());
            said(
                format!("{port} is no port."),
                format!("Ports go from {first} to {last}."),
                format!("Use {first} to {last}."),
            )
        }
        other => fallback(other),
    }
}

fn network(cause: &Cause) -> Explanation {
    match cause {
        Cause::RangeTaken { to, because } => said(
            format!("The address range moved to {to}."),
            match because.as_slice() {
                [] => "Something had the organisation's range. It is free again.".to_owned(),
                reasons => reasons.iter().map(|reason| sentence(reason)).collect::<Vec<_>>().join(" "),
            },
            "Nothing for names; look up addresses you wrote down.",
        ),
        Cause::DnsTaken { zones, reason } => said(
            match zones.as_slice() {
                [] => "Names of the virtual network are not asked of Postern.".to_owned(),
                zones => format!("Names under {} go to another resolver.", list(zones)),
            },
            sentence(reason),
            "Loopback addresses and addresses of the virtual network still work. Look with postern doctor.",
        ),
        Cause::NamesLeftOut { names } => said(
            format!("Names without an answer: {}.", list(names)),
            "Their zones could not be registered: they would cover the control plane or a gateway, this system refuses \
             them, or there are too many.",
            "Use the addresses of these resources, or ask an admin for names in the organisation's own zone.",
        ),
        Cause::NetworkUnavailable { fault, reason } => unavailable(*fault, reason),
        Cause::NetworkBehind { reason } => said(
            "The virtual network is not up to date.",
            sentence(reason),
            format!("What was there before works. {BY_ITSELF}"),
        ),
        other => fallback(other),
    }
}

fn unavailable(fault: NetworkFault, reason: &str) -> Explanation {
    let what = match fault {
        NetworkFault::NotPermitted => "Virtual Networking is not authorised.",
        NetworkFault::NoService => "The helper for Virtual Networking does not run.",
        NetworkFault::NoDevice | NetworkFault::NoSubnet | NetworkFault::BadSettings | NetworkFault::Failed => {
            "Virtual Networking cannot be had."
        }
    };
    let remedy = match fault {
        NetworkFault::NotPermitted => "Ask again, or stay with loopback addresses: they work meanwhile.",
        NetworkFault::NoService => {
            "Install or start postern-netd, or stay with loopback addresses: they work meanwhile."
        }
        NetworkFault::BadSettings => "Ask an admin. Loopback addresses work meanwhile.",
        NetworkFault::NoSubnet => {
            "Leave another private network, or stay with loopback addresses: they work meanwhile."
        }
        NetworkFault::NoDevice | NetworkFault::Failed => {
            "Loopback addresses work meanwhile. It is tried again by itself."
        }
    };
    said(what, sentence(reason), remedy)
}

fn identity(cause: &Cause) -> Explanation {
    match cause {
        Cause::SignInEnds { minutes } => said(
            format!("The sign-in ends in less than {minutes} min."),
            "Each sign-in has an end that your organisation sets.",
            "Sign in again now, and open connections stay open.",
        ),
        Cause::SignInEnded { reason } => {
            said("You were signed out.", sentence(reason), "Sign in again: postern login.")
        }
        Cause::PasswordOnce => {
            said("Your password was for one use.", "It was set by an admin.", "Choose a new one: postern password.")
        }
        Cause::CertificateEnds { minutes } => said(
            format!("The device certificate ends in less than {minutes} min."),
            "It could not be renewed so far.",
            format!("Check that the control plane can be reached. {BY_ITSELF}"),
        ),
        Cause::CertificateEnded => said(
            "The device certificate has ended, so new connections fail.",
            "It could not be renewed in time.",
            "It is renewed as soon as the control plane answers; else sign in again.",
        ),
        Cause::RenewalFailed { error } => said(
            "The device certificate could not be renewed.",
            sentence(error),
            format!("It still holds. {BY_ITSELF}"),
        ),
        Cause::ClockSkew { minutes, slow } => said(
            format!("This computer's clock is {minutes}\u{2009}min {}.", if *slow { "slow" } else { "fast" }),
            "Certificates begin and end by the clock, so sign-in and connections may be refused.",
            "Turn on automatic time, then try again.",
        ),
        Cause::ControlAway { url, error } => said(
            "The control plane is away.",
            format!("{url} does not answer: {}", sentence(error)),
            "Open connections go on, and new ones for about an hour. It is tried again by itself.",
        ),
        Cause::NotOurServer { address, reason } => said(
            format!("{address} is not a Postern control plane."),
            sentence(reason),
            "Check the address with your admin.",
        ),
        other => fallback(other),
    }
}

fn computer(cause: &Cause) -> Explanation {
    match cause {
        Cause::KeyringLocked { keyring, reason } => said(
            "The keyring is locked, so your device key cannot be read.",
            format!("{keyring} opens with your login password. {}", sentence(reason)),
            "Unlock it, keep the key in memory until you quit, or in a file only you can read.",
        ),
        Cause::KeyringMissing { reason } => said(
            "There is no keyring, so your device key cannot be kept there.",
            sentence(reason),
            "Keep the key in memory until you quit, or in a file only you can read.",
        ),
        Cause::VersionsDiffer { client, service, streams } => said(
            "The service is of another version than this program.",
            format!("This program is {client}, the service {service}; it was not restarted after the update."),
            match streams {
                0 => "Restart the service.".to_owned(),
                1 => "Restart the service; 1 connection closes.".to_owned(),
                many => format!("Restart the service; {many} connections close."),
            },
        ),
        Cause::ServiceGone { detail } => said(
            "The Postern service does not run.",
            sentence(detail),
            "Start it: postern service run, or with your session: postern service install.",
        ),
        Cause::FewFiles { limit } => said(
            format!("Only {limit} files may be open at a time."),
            format!("That is enough for about {} connections.", limit.saturating_sub(64) / 2),
            "Raise the limit (ulimit -n, LimitNOFILE).",
        ),
        Cause::NotSaved { error } => said(
            "What changes now is forgotten when the service stops.",
            sentence(error),
            "Make room on the disk, or let the folder be written.",
        ),
        Cause::StatusApi { error } => {
            said("The status for scripts is not served.", sentence(error), "Choose another address: --status-listen.")
        }
        Cause::AtStart { sentence: text } => said(
            sentence(text),
            "It was met when the service started.",
            "It is said again at the next start if it lasts.",
        ),
        other => fallback(other),
    }
}

/// Never reached: each group above has words for its causes.
fn fallback(cause: &Cause) -> Explanation {
    said("This was not foreseen.", "There are no words for it.", format!("Quote the code {}.", cause.code()))
}

fn said(what: impl Into<String>, why: impl Into<String>, remedy: impl Into<String>) -> Explanation {
    Explanation { what: what.into(), why: why.into(), remedy: remedy.into() }
}

/// Who holds an address.
#[must_use]
pub(super) fn held_by(holder: Option<&PortHolder>) -> String {
    let Some(PortHolder { uid, pid, program }) = holder else { return "Another program".to_owned() };
    match (program, pid) {
        (Some(program), Some(pid)) => format!("{program} (pid {pid})"),
        (Some(program), None) => program.clone(),
        (None, Some(pid)) => format!("A program (pid {pid})"),
        (None, None) => format!("A program of uid {uid}"),
    }
}

/// What a gateway saw, as the beginning of a sentence of ours.
fn seen(gateway: Option<&String>, detail: &str) -> String {
    match gateway {
        Some(gateway) => format!("{gateway} says: {} ", sentence(detail)),
        None => format!("{} ", sentence(detail)),
    }
}

/// Somebody else's words as a sentence: a capital letter, a full stop, no number of a system error.
fn sentence(text: &str) -> String {
    let text = without_os_code(text.trim());
    let mut letters = text.trim_end_matches('.').chars();
    match letters.next() {
        // A name, an address or a quotation stays as it is.
        Some(first) if text.split(' ').next().is_some_and(|word| word.chars().all(char::is_lowercase)) => {
            format!("{}{}.", first.to_uppercase(), letters.as_str())
        }
        Some(first) => format!("{first}{}.", letters.as_str()),
        None => "No reason was given.".to_owned(),
    }
}

/// An error of the system without its number, which tells a person nothing: `Connection refused (os error 111)`.
fn without_os_code(text: &str) -> String {
    const MARK: &str = " (os error ";
    let (mut kept, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(MARK)
        && let Some((number, behind)) = after.split_once(')')
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        kept.push_str(before);
        rest = behind;
    }
    kept + rest
}

/// `a`, `a and b`, `a, b and c`; of many only the first.
fn list(names: &[String]) -> String {
    match names {
        [] => "No gateway".to_owned(),
        [one] => one.clone(),
        [most @ .., last] if most.len() < 4 => format!("{} and {last}", most.join(", ")),
        [first, second, rest @ ..] => format!("{first}, {second} and {} more", rest.len()),
    }
}

const fn does(names: &[String]) -> &'static str {
    if names.len() == 1 { "does" } else { "do" }
}
