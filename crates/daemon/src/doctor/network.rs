//! Whether there is a virtual network, and whether it is where it should be.

use postern_local_api::message::{Check, NameService, NetworkFault, NetworkStatus, NetworkUp};

use super::Open;

/// Names that are told of a list of them.
const MAX_NAMES: usize = 8;

/// One check, made of what the service knows already.
pub(super) fn examine(check: Open, status: &NetworkStatus) -> Check {
    match status {
        NetworkStatus::Off => check.skipped("It is switched off; resources are at loopback."),
        NetworkStatus::Waiting => check.skipped("It starts when somebody is signed in."),
        NetworkStatus::Starting => check.skipped("It is starting."),
        NetworkStatus::Unavailable { fault, reason, .. } => check.failed(reason.clone(), advice(*fault)),
        NetworkStatus::Up(up) => match trouble(up) {
            None => check.ok(seen(up)),
            Some((seen, advice)) => check.warning(seen, advice),
        },
    }
}

fn seen(up: &NetworkUp) -> String {
    let NetworkUp { interface, subnet, resolver, .. } = up;
    format!("postern-netd gave {interface} with {subnet}; names are answered at {resolver}")
}

fn list(names: &[String]) -> String {
    let shown = names.get(..MAX_NAMES.min(names.len())).unwrap_or_default().join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// What works less well than it should while the network is up, and what to do about it.
fn trouble(up: &NetworkUp) -> Option<(String, &'static str)> {
    if let NameService::Unavailable { reason } = &up.names {
        let seen = format!("{}, but the system does not ask there: {reason}", seen(up));
        return Some((seen, "Resources are reached by address. Names need systemd-resolved or postern-dns-stub."));
    }
    if let Some(reason) = &up.behind {
        let advice = "It is tried again by itself. If it stays so, see the log of postern-netd.";
        return Some((format!("{}, but the latest change is not made: {reason}", seen(up)), advice));
    }
    if !up.left_out.is_empty() {
        let seen = format!("{}, but not these, whose zones could not be registered: {}", seen(up), list(&up.left_out));
        return Some((seen, "These resources are reached by address: postern resources --json has them."));
    }
    // Last: nothing is amiss with it.
    if let Some(moved) = &up.moved {
        let because = if moved.because.is_empty() { "these were taken".to_owned() } else { moved.because.join(", ") };
        let seen = format!("{}, instead of {}: {because}", seen(up), moved.from);
        let advice = "Nothing has to be done: names and host parts are the same. To have the organisation's addresses again, \
             end the other product, then postern network disable, and enable.";
        return Some((seen, advice));
    }
    None
}

fn advice(fault: NetworkFault) -> &'static str {
    match fault {
        NetworkFault::NoService => {
            "Install and start the system service postern-netd. Until then resources are at loopback."
        }
        NetworkFault::NotPermitted => {
            "An administrator of this machine allows it in /etc/postern/netd.toml. Until then resources are at loopback."
        }
        NetworkFault::NoDevice => "Load the kernel module tun (modprobe tun). Until then resources are at loopback.",
        NetworkFault::NoSubnet => {
            "End another VPN, or ask an administrator for a smaller virtual subnet. Until then resources are at loopback."
        }
        NetworkFault::BadSettings => "Ask an administrator to correct the organisation's network settings.",
        NetworkFault::Failed => "It is tried again by itself. If it stays so, see the log of postern-netd.",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use postern_local_api::message::{NetworkMoved, Verdict};
    use postern_proto::time::UnixMillis;

    use super::*;

    fn looked(status: &NetworkStatus) -> Check {
        examine(Open::new("network", "Virtual network"), status)
    }

    /// A network with which nothing is amiss.
    pub(crate) fn up() -> NetworkUp {
        NetworkUp {
            interface: "postern0".to_owned(),
            subnet: "100.72.0.0/16".to_owned(),
            moved: None,
            ipv6: None,
            address: [100, 72, 0, 1].into(),
            resolver: [100, 72, 0, 2].into(),
            zones: vec!["my-org".to_owned()],
            names: NameService::Registered { through: "systemd-resolved".to_owned() },
            since: UnixMillis(0),
            behind: None,
            left_out: Vec::new(),
        }
    }

    fn look(up: NetworkUp) -> Check {
        looked(&NetworkStatus::Up(Box::new(up)))
    }

    #[test]
    fn a_network_where_it_should_be_is_well() {
        let check = look(up());
        assert_eq!((check.verdict, check.advice), (Verdict::Ok, None));
        assert!(check.detail.contains("postern0") && check.detail.contains("100.72.0.2"), "{}", check.detail);
    }

    #[test]
    fn who_has_our_addresses_and_what_is_behind_are_told_with_what_to_do() {
        let moved =
            NetworkMoved { from: "100.72.0.0/16".to_owned(), because: vec!["Tailscale (tailscale0)".to_owned()] };
        let cases = [
            (NetworkUp { moved: Some(moved.clone()), ..up() }, "Tailscale"),
            // What keeps something from working is told before what does not.
            (NetworkUp { moved: Some(moved), behind: Some("refused".to_owned()), ..up() }, "refused"),
            (NetworkUp { behind: Some("one zone is refused".to_owned()), ..up() }, "one zone is refused"),
            (NetworkUp { left_out: vec!["db.far.example".to_owned()], ..up() }, "db.far.example"),
            (NetworkUp { names: NameService::Unavailable { reason: "no resolver".to_owned() }, ..up() }, "no resolver"),
        ];
        for (up, told) in cases {
            let check = look(up);
            assert_eq!(check.verdict, Verdict::Warning);
            assert!(check.detail.contains(told) && check.advice.is_some(), "{check:?}");
        }
    }

    #[test]
    fn every_reason_for_having_none_comes_with_what_to_do() {
        for fault in [
            NetworkFault::NoService,
            NetworkFault::NotPermitted,
            NetworkFault::NoDevice,
            NetworkFault::NoSubnet,
            NetworkFault::BadSettings,
            NetworkFault::Failed,
        ] {
            let reason = "no".to_owned();
            let check = looked(&NetworkStatus::Unavailable { fault, reason, retry_at: UnixMillis(0) });
            assert_eq!((check.verdict, check.detail.as_str()), (Verdict::Failed, "no"));
            assert!(check.advice.is_some_and(|advice| advice.ends_with('.')));
        }
        assert_eq!(looked(&NetworkStatus::Off).verdict, Verdict::Skipped);
    }
}
