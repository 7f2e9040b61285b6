//! Log lines for others to read: how much of whom and what they still tell.
//!
//! Pure. *Pseudonyms* replaces what is known to be a name, and what looks like an address, an id, a path or a secret, by a
//! stand-in that is the same each time within one export. *Strict* does not search for what to leave out: it writes only
//! what our own code says of itself (time, level, module, line), counts, and codes of a list.

use std::collections::HashMap;

use postern_local_api::message::{LogExport, Redaction, Status};

use crate::event_log::{Instant, Line};

mod words;

/// Names that stand-ins replace, with the kind that the stand-in tells.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<(&'static str, Vec<String>)>);

/// Fields whose numbers are told even in the strict form.
const COUNTS: [&str; 4] = ["count", "cut", "up", "down"];
/// Codes that are told even in the strict form: each is a word of our own.
const CODES: [&str; 21] = [
    "target_refused",
    "target_timed_out",
    "target_unresolvable",
    "target_unroutable",
    "target_not_permitted",
    "dial_failed",
    "target_forbidden",
    "lease_expired",
    "lease_revoked",
    "lease_invalid",
    "lease_foreign",
    "grant_ended",
    "no_lease",
    "no_gateway",
    "gateway_unreachable",
    "gateway_lost",
    "draining",
    "too_many_streams",
    "unknown_resource",
    "certificate_expired",
    "control_plane_away",
];

/// Writes the lines for others to read.
#[must_use]
pub fn export(lines: &[Line], forgotten: u64, names: Names, redaction: Redaction) -> LogExport {
    let (lines, replaced) = match redaction {
        Redaction::Names => (lines.iter().map(Line::to_string).collect(), 0),
        Redaction::Pseudonyms => {
            let mut pseudonyms = Pseudonyms::new(names);
            let lines = lines.iter().map(|line| pseudonyms.line(line)).collect();
            (lines, pseudonyms.replaced)
        }
        Redaction::Strict => {
            let replaced: usize = lines.iter().map(|line| line.fields.len() + 1).sum();
            (lines.iter().map(strict).collect(), u64::try_from(replaced).unwrap_or(u64::MAX))
        }
    };
    LogExport { redaction, lines, replaced, forgotten }
}

/// Only words of our own.
fn strict(line: &Line) -> String {
    let place = line.line.map(|line| format!(":{line}")).unwrap_or_default();
    let mut text = format!("{} {:5} {}{place}", Instant(line.at), line.level, line.target);
    for (name, value) in &line.fields {
        let count = COUNTS.contains(name) && value.len() <= 20 && value.bytes().all(|byte| byte.is_ascii_digit());
        let code = *name == "code" && CODES.contains(&value.trim_matches('"'));
        if count || code {
            text.push_str(&format!(" {name}={value}"));
        }
    }
    text
}

impl Names {
    /// Everything in the status that names somebody or something.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        use postern_local_api::message::SignIn;
        let mut names = Vec::new();
        for status in &status.resources {
            let resource = &status.resource;
            let alias =
                resource.bind.dns_name.as_ref().map(|name| name.to_string().trim_start_matches("*.").to_owned());
            let all = [Some(resource.name.clone()), Some(resource.id.to_string()), alias];
            names.push(("res", all.into_iter().flatten().collect()));
            names.extend(resource.tags.iter().map(|(key, value)| ("tag", vec![format!("{key}={value}")])));
        }
        for gateway in &status.gateways {
            let host = gateway.address.rsplit_once(':').map_or(gateway.address.as_str(), |(host, _)| host);
            names.push(("gw", vec![gateway.name.clone(), gateway.id.to_string(), host.to_owned()]));
        }
        if let SignIn::SignedIn { account, org, .. } | SignIn::Locked { account, org } = &status.sign_in {
            names.push(("user", vec![account.email.clone(), account.name.clone(), account.id.to_string()]));
            names.push(("org", vec![org.clone()]));
        }
        Self(names)
    }

    /// One thing that has these names.
    pub fn add(&mut self, kind: &'static str, names: &[&str]) {
        self.0.push((kind, names.iter().map(|name| (*name).to_owned()).collect()));
    }
}

/// Stand-ins, and what they stand for.
struct Pseudonyms {
    /// Lower case, the longest first.
    known: Vec<(String, String)>,
    given: HashMap<String, String>,
    last: HashMap<&'static str, u32>,
    replaced: u64,
}

impl Pseudonyms {
    fn new(Names(names): Names) -> Self {
        let mut this = Self { known: Vec::new(), given: HashMap::new(), last: HashMap::new(), replaced: 0 };
        for (kind, names) in names {
            let names: Vec<_> =
                names.into_iter().map(|name| name.to_lowercase()).filter(|name| !name.is_empty()).collect();
            let stand_in = names.iter().find_map(|name| this.given.get(name).cloned());
            let stand_in = stand_in.unwrap_or_else(|| this.next(kind));
            for name in names {
                this.given.entry(name).or_insert_with(|| stand_in.clone());
            }
        }
        this.known = this.given.clone().into_iter().collect();
        this.known.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        this
    }

    fn next(&mut self, kind: &'static str) -> String {
        let number = self.last.entry(kind).or_default();
        *number += 1;
        format!("{kind}-{number}")
    }

    fn stand_in(&mut self, kind: &'static str, text: &str) -> String {
        self.replaced += 1;
        let text = text.to_lowercase();
        if let Some(stand_in) = self.given.get(&text) {
            return stand_in.clone();
        }
        let stand_in = self.next(kind);
        self.given.insert(text, stand_in.clone());
        stand_in
    }

    /// Time, level and module are our own words; the rest is searched.
    fn line(&mut self, line: &Line) -> String {
        let mut text = format!("{} {:5} {}: {}", Instant(line.at), line.level, line.target, self.text(&line.message));
        for (name, value) in &line.fields {
            let value = match *name {
                "uid" | "uids" => self.stand_in("uid", value),
                _ => self.text(value),
            };
            text.push_str(&format!(" {name}={value}"));
        }
        text
    }

    fn text(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut word = String::new();
        while let Some(letter) = rest.chars().next() {
            // A known name begins where a word begins and ends where one ends.
            let begins = word.is_empty() || word.ends_with(['=', '[', ':']);
            if begins && let Some((length, stand_in)) = self.known_at(rest) {
                self.flush(&mut word, &mut out);
                out.push_str(&stand_in);
                self.replaced += 1;
                rest = rest.get(length..).unwrap_or_default();
                continue;
            }
            if words::is_part(letter) {
                word.push(letter);
            } else {
                self.flush(&mut word, &mut out);
                out.push(letter);
            }
            rest = rest.get(letter.len_utf8()..).unwrap_or_default();
        }
        self.flush(&mut word, &mut out);
        out
    }

    /// The longest known name that the text begins with: its length there, and its stand-in.
    fn known_at(&self, text: &str) -> Option<(usize, String)> {
        self.known.iter().find_map(|(name, stand_in)| {
            let length = words::begins_with(text, name)?;
            let mut behind = text.get(length..)?.chars();
            let ends = match behind.next() {
                // A longer name, such as that of a host.
                Some('.') => behind.next().is_none_or(|letter| !letter.is_alphanumeric()),
                letter => letter.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_'),
            };
            ends.then(|| (length, stand_in.clone()))
        })
    }

    /// Writes a word, or what stands for it.
    fn flush(&mut self, word: &mut String, out: &mut String) {
        if word.is_empty() {
            return;
        }
        let after_uid = out.trim_end().ends_with("uid");
        // An IPv6 address may end in colons.
        let is_address = word.parse::<std::net::IpAddr>().is_ok();
        let end = if is_address { word.len() } else { word.trim_end_matches(['.', ':', ',', '=', '-']).len() };
        let (body, tail) = word.split_at(end);
        match words::kind(body) {
            _ if after_uid && body.bytes().all(|byte| byte.is_ascii_digit()) => {
                let stand_in = self.stand_in("uid", body);
                out.push_str(&stand_in);
            }
            None => out.push_str(body),
            Some(words::Found { kind, from, to }) => {
                let (head, rest) = body.split_at(from);
                let (found, behind) = rest.split_at(to - from);
                let stand_in = self.stand_in(kind, found);
                out.push_str(head);
                out.push_str(&stand_in);
                out.push_str(behind);
            }
        }
        out.push_str(tail);
        word.clear();
    }
}

#[cfg(test)]
mod tests;
