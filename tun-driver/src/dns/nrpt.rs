//! Windows: the rules of the Name Resolution Policy Table for zones. Pure; `sys/windows/registry.rs` writes them.

use std::{collections::BTreeMap, net::IpAddr};

use super::LinkNames;

/// How the names of our keys begin ("postern" in ASCII): what carries it is ours, also after a crash.
pub(crate) const OWN_KEYS: &str = "{706F7374-6572-6E00-";
/// Windows ignores rules with more names.
const MAX_NAMES: usize = 50;

/// One rule: one key of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The key's name, a GUID.
    pub(crate) key: String,
    /// Each with a leading dot: the zone and what lies below.
    pub(crate) names: Vec<String>,
    pub(crate) servers: String,
}

/// The rules for the zones of all links; the same for the same links.
pub(crate) fn rules(links: &[LinkNames]) -> Vec<Rule> {
    let mut by_servers: BTreeMap<Vec<IpAddr>, Vec<String>> = BTreeMap::new();
    let mut servers: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
    for link in links {
        for zone in &link.zones {
            servers.entry(zone.as_str()).or_default().extend(&link.resolvers);
        }
    }
    for (zone, servers) in servers {
        by_servers.entry(servers).or_default().push(format!(".{zone}"));
    }
    let chunks =
        by_servers.iter().flat_map(|(servers, names)| names.chunks(MAX_NAMES).map(move |names| (servers, names)));
    let rule = |(number, (servers, names)): (usize, (&Vec<IpAddr>, &[String]))| {
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        let key = format!("{OWN_KEYS}0000-{number:012X}}}");
        Rule { key, names: names.to_vec(), servers: servers.join(";") }
    };
    chunks.enumerate().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::Zone;

    fn link(index: u32, zones: Vec<Zone>, server: &str) -> LinkNames {
        LinkNames { index, name: "Postern".to_owned(), resolvers: vec![server.parse().unwrap()], zones }
    }

    #[test]
    fn a_rule_names_its_zones_and_servers() {
        let zones = vec![Zone::new("my-org").unwrap(), Zone::new("db.example").unwrap()];
        let [rule] = &rules(&[link(1, zones, "100.72.0.2")])[..] else { panic!("one rule") };
        assert_eq!(rule.key, "{706F7374-6572-6E00-0000-000000000000}");
        assert_eq!(rule.names, [".db.example", ".my-org"]);
        assert_eq!(rule.servers, "100.72.0.2");
    }

    #[test]
    fn many_zones_are_split_and_shared_ones_ask_both() {
        let many: Vec<Zone> = (0..120).map(|number| Zone::new(&format!("z{number}")).unwrap()).collect();
        let rules = rules(&[link(1, many, "100.72.0.2"), link(2, vec![Zone::new("z7").unwrap()], "100.72.0.4")]);
        assert!(rules.iter().all(|rule| rule.names.len() <= 50 && rule.key.len() == 38));
        let mut names: Vec<&String> = rules.iter().flat_map(|rule| &rule.names).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 120, "each zone once");
        let shared = rules.iter().find(|rule| rule.names.contains(&".z7".to_owned())).unwrap();
        assert_eq!(shared.servers, "100.72.0.2;100.72.0.4");
        let mut keys: Vec<&String> = rules.iter().map(|rule| &rule.key).collect();
        keys.dedup();
        assert_eq!(keys.len(), rules.len());
    }
}
