//! `NO_PROXY`: what is dialled straight.

use std::net::IpAddr;

use ipnet::IpNet;

/// The list, read as curl and most programs read it. What cannot be read matches nothing.
#[derive(Debug, Default)]
pub(super) struct Exempt {
    everything: bool,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    what: What,
    port: Option<u16>,
}

#[derive(Debug)]
enum What {
    Network(IpNet),
    /// A name and all names below it, in lower case.
    Name(String),
}

impl Exempt {
    /// Names (`example.org`, `.example.org`, `*.example.org`: all three mean the name and what is below it), addresses and
    /// networks, each with or without a port, between commas or spaces; `*` is everything.
    pub(super) fn parse(list: &str) -> Self {
        let entries = || list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty());
        Self { everything: entries().any(|entry| entry == "*"), rules: entries().filter_map(Rule::parse).collect() }
    }

    pub(super) fn matches(&self, host: &str, port: u16) -> bool {
        self.everything || self.rules.iter().any(|rule| rule.matches(host, port))
    }
}

impl Rule {
    fn parse(entry: &str) -> Option<Self> {
        let network = |text: &str| {
            let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
            text.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))
        };
        if let Some(network) = network(entry) {
            return Some(Self { what: What::Network(network), port: None });
        }
        let (text, port) = match entry.rsplit_once(':') {
            Some((text, port)) => (text, Some(port.parse().ok()?)),
            None => (entry, None),
        };
        if let Some(network) = network(text) {
            return Some(Self { what: What::Network(network), port });
        }
        let name = text.strip_prefix('*').unwrap_or(text).trim_start_matches('.').trim_end_matches('.');
        (!name.is_empty()).then(|| Self { what: What::Name(name.to_ascii_lowercase()), port })
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|wanted| wanted != port) {
            return false;
        }
        match (&self.what, host.parse::<IpAddr>()) {
            (What::Network(network), Ok(address)) => network.contains(&address.to_canonical()),
            (What::Name(name), Err(_)) => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_what_is_below_them_and_addresses_for_their_networks() {
        let exempt =
            Exempt::parse("corp.example, .lan,*.Dev.example 10.0.0.0/8,192.0.2.7,[2001:db8::7]:5000,odd.example:8443");
        for (host, port, straight) in [
            ("corp.example", 1, true),
            ("gw.CORP.example.", 1, true),
            ("notcorp.example", 1, false),
            ("corp.example.org", 1, false),
            ("printer.lan", 1, true),
            ("lan", 1, true),
            ("a.dev.example", 1, true),
            ("10.1.2.3", 1, true),
            ("::ffff:10.1.2.3", 1, true),
            ("11.1.2.3", 1, false),
            ("192.0.2.7", 1, true),
            ("192.0.2.8", 1, false),
            ("2001:db8::7", 5000, true),
            ("2001:db8::7", 5001, false),
            ("odd.example", 8443, true),
            ("odd.example", 443, false),
        ] {
            assert_eq!(exempt.matches(host, port), straight, "{host}:{port}");
        }
    }

    #[test]
    fn a_star_is_everything_and_nonsense_is_nothing() {
        assert!(Exempt::parse("a,*").matches("b", 1));
        for list in ["", ",", ".", "a:b:c", ":", "*.", "10.0.0.0/99"] {
            assert!(!Exempt::parse(list).matches("gw.example", 5000), "{list}");
        }
    }
}
