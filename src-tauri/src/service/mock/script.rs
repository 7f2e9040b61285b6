//! What the made-up doctor sees, and the made-up log.

use postern_local_api::message::{Check, CheckGroup, DoctorLine, LogExport, Redaction, Verdict};

/// Id, title, group, detail.
const CHECKS: &[(&str, &str, CheckGroup, &str)] = &[
    ("service", "Service runs, versions match", CheckGroup::ThisComputer, "0.1.0"),
    ("clock", "Clock is right", CheckGroup::ThisComputer, "0.2 s off"),
    ("keys", "Keys are in the system keyring", CheckGroup::ThisComputer, "GNOME Keyring"),
    ("ports", "Ports are free", CheckGroup::ThisComputer, "14 of 14"),
    ("sign_in", "Signed in", CheckGroup::Identity, "until 17:42"),
    ("certificate", "Device certificate is valid", CheckGroup::Identity, "until 21:10"),
    ("control", "Control plane answers", CheckGroup::Identity, "64 ms"),
    ("gateway_fra", "gw-fra-1", CheckGroup::Gateways, "TCP, TLS, IPv4 and IPv6"),
    ("gateway_ams", "gw-ams-2", CheckGroup::Gateways, "TCP, TLS, IPv4"),
    ("gateway_iad", "gw-iad-1", CheckGroup::Gateways, "TCP, TLS, IPv4"),
    ("interface", "Interface and route", CheckGroup::NamesAndRoutes, "postern0, 100.72.0.0/16"),
    ("names", "Names are asked here", CheckGroup::NamesAndRoutes, "100.72.0.2 answers for .northwind"),
];

/// What is found where something is wrong: the check, what it says, what to do, and the command that shows it.
const TROUBLES: &[(&str, &str, &str, &str)] = &[
    (
        "gateway_iad",
        "no reply on port 5000 in 3 s",
        "The other gateways are used meanwhile. Ask your admin whether gw-iad-1 runs.",
        "nc -vz gw-iad-1.northwind.example 5000",
    ),
    (
        "names",
        "162.159.36.1 answers for .northwind",
        "Register our names again, or tell your admin.",
        "resolvectl query orders.northwind",
    ),
];

pub(super) fn doctor(troubled: bool) -> Vec<DoctorLine> {
    let mut lines = Vec::new();
    for (n, (id, title, group, detail)) in (1_u64..).zip(CHECKS) {
        lines.push(DoctorLine::Started { id: (*id).to_owned(), title: (*title).to_owned(), group: *group });
        let trouble = TROUBLES.iter().find(|(check, ..)| troubled && check == id);
        lines.push(DoctorLine::Finished(Check {
            id: (*id).to_owned(),
            title: (*title).to_owned(),
            verdict: if trouble.is_some() { Verdict::Failed } else { Verdict::Ok },
            detail: trouble.map_or(*detail, |(_, found, ..)| *found).to_owned(),
            advice: trouble.map(|(_, _, advice, _)| (*advice).to_owned()),
            commands: trouble.iter().map(|(.., command)| (*command).to_owned()).collect(),
            group: *group,
            took_micros: Some(n * 3_000),
        }));
    }
    lines
}

/// Time and text; words in braces are replaced by redaction.
const LOG: &[&str] = &[
    "11:26:03 INFO  stream 01JD3K..7QF open {orders-primary|res-1}",
    "11:26:03 INFO  entry {gw-fra-1|gw-1} 8.1 ms, egress {relay-dc2|relay-1}",
    "11:26:03 WARN  {billing-replica|res-4} 502 target_refused {10.20.4.18|ip-7}:3306 connection refused",
    "11:26:05 INFO  retry 1 in 2 s",
    "11:26:31 INFO  lease renewed {orders-primary|res-1} by {mara@northwind.example|user-1}",
    "11:27:02 WARN  {gw-iad-1|gw-3} no reply in 3 s (v4, v6)",
    "11:27:40 INFO  control sync rev 8812, 0 changes",
    "11:28:02 INFO  dns zone {northwind|zone-1} re-registered",
    "11:30:00 INFO  spare 1 of 1 warm {gw-fra-1|gw-1}",
];

pub(super) fn logs(redaction: Redaction) -> LogExport {
    let mut replaced = 0;
    let lines = (0..120).filter_map(|n| LOG.get(n % LOG.len())).map(|line| redacted(line, redaction, &mut replaced));
    let lines = lines.collect();
    LogExport { redaction, lines, replaced, forgotten: 0 }
}

fn redacted(line: &str, redaction: Redaction, replaced: &mut u64) -> String {
    let mut text = String::new();
    for piece in line.split('{') {
        let Some((word, rest)) = piece.split_once('}') else {
            text.push_str(piece);
            continue;
        };
        let (name, stand_in) = word.split_once('|').unwrap_or((word, word));
        match redaction {
            Redaction::Names => text.push_str(name),
            Redaction::Pseudonyms => text.push_str(stand_in),
            Redaction::Strict => text.push('…'),
        }
        if redaction != Redaction::Names {
            *replaced += 1;
        }
        text.push_str(rest);
    }
    text
}
