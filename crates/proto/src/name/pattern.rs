//! Names of hosts that stand for one host or for all under a name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{DnsName, DnsNameError};

/// One host (`db.internal`) or all that lie under a name (`*.kafka.internal`).
///
/// The star stands for one label or more, as in DNS (RFC 4592), and never for none: `*.kafka.internal` is `b1.kafka.internal`
/// and `b1.eu.kafka.internal`, but neither `kafka.internal` nor `mykafka.internal`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    Exact(DnsName),
    Under(DnsName),
}

/// Which rule a pattern breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternError {
    #[error("must name what the star stands under, for example *.kafka.internal")]
    StarAlone,
    #[error("must have a star only as its whole first label, for example *.kafka.internal")]
    Star,
    #[error(transparent)]
    Name(#[from] DnsNameError),
}

impl HostPattern {
    #[must_use]
    pub const fn is_wildcard(&self) -> bool {
        matches!(self, Self::Under(_))
    }

    /// The host itself, or the name that all lie under.
    #[must_use]
    pub const fn name(&self) -> &DnsName {
        match self {
            Self::Exact(name) | Self::Under(name) => name,
        }
    }

    /// Whether it stands for this host.
    #[must_use]
    pub fn matches(&self, host: &DnsName) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Under(name) => host.is_under(name),
        }
    }

    /// Whether it stands for every host that `other` stands for.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match other {
            Self::Exact(host) => self.matches(host),
            Self::Under(name) => self == other || self.is_wildcard() && self.matches(name),
        }
    }

    /// The same pattern in another zone; `None` when it does not lie in `from`, or would be too long in `to`.
    #[must_use]
    pub fn moved(&self, from: &DnsName, to: &DnsName) -> Option<Self> {
        let text = self.to_string();
        let rest = text.strip_suffix(from.as_str())?;
        if !rest.is_empty() && !rest.ends_with('.') {
            return None;
        }
        format!("{rest}{to}").parse().ok()
    }

    /// How closely it describes the hosts it stands for: of two patterns that stand for a host the one with the higher
    /// rank counts. An exact name is above each wildcard, a longer wildcard above a shorter one.
    #[must_use]
    pub fn rank(&self) -> usize {
        match self {
            Self::Exact(_) => usize::MAX,
            Self::Under(name) => name.labels().count(),
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        match text.strip_prefix('*') {
            None if text.contains('*') => Err(HostPatternError::Star),
            None => Ok(Self::Exact(text.parse()?)),
            Some("" | ".") => Err(HostPatternError::StarAlone),
            Some(rest) => match rest.strip_prefix('.') {
                Some(name) if !name.contains('*') => {
                    let name: DnsName = name.parse()?;
                    // A host under it must fit too.
                    if name.as_str().len() + 2 > super::MAX_DNS_NAME {
                        Err(DnsNameError::TooLong.into())
                    } else {
                        Ok(Self::Under(name))
                    }
                }
                _ => Err(HostPatternError::Star),
            },
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Under(name) => write!(f, "*.{name}"),
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl From<DnsName> for HostPattern {
    fn from(name: DnsName) -> Self {
        Self::Exact(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse().unwrap()
    }

    fn name(text: &str) -> DnsName {
        text.parse().unwrap()
    }

    #[test]
    fn a_star_stands_for_one_label_or_more_and_ends_at_a_label() {
        let under = pattern("*.Kafka.Internal.");
        assert_eq!(under.to_string(), "*.kafka.internal");
        for host in ["b1.kafka.internal", "b1.eu.kafka.internal"] {
            assert!(under.matches(&name(host)), "{host}");
        }
        for host in ["kafka.internal", "mykafka.internal", "b1.kafka.internal.example", "internal"] {
            assert!(!under.matches(&name(host)), "{host}");
        }
        assert!(pattern("b1.kafka.internal").matches(&name("B1.kafka.internal")));
        assert!(!pattern("b1.kafka.internal").matches(&name("x.b1.kafka.internal")));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (bad, error) in [
            ("*", HostPatternError::StarAlone),
            ("*.", HostPatternError::StarAlone),
            ("*.*.internal", HostPatternError::Star),
            ("b*.internal", HostPatternError::Star),
            ("*b.internal", HostPatternError::Star),
            ("b.*", HostPatternError::Star),
            ("b.*.internal", HostPatternError::Star),
            ("", HostPatternError::Name(DnsNameError::Empty)),
            ("*..internal", HostPatternError::Name(DnsNameError::Label)),
            ("*.a_b", HostPatternError::Name(DnsNameError::Character)),
            ("*.10.0.0.1", HostPatternError::Name(DnsNameError::Address)),
            ("10.0.0.1", HostPatternError::Name(DnsNameError::Address)),
        ] {
            assert_eq!(bad.parse::<HostPattern>(), Err(error), "{bad:?}");
        }
    }

    #[test]
    fn a_pattern_moves_with_its_zone() {
        let (from, to) = (name("my-org"), name("acme.example"));
        for (before, after) in [
            ("db.my-org", Some("db.acme.example")),
            ("*.kafka.my-org", Some("*.kafka.acme.example")),
            ("*.my-org", Some("*.acme.example")),
            ("my-org", Some("acme.example")),
            ("notmy-org", None),
            ("db.my-org.example", None),
        ] {
            assert_eq!(pattern(before).moved(&from, &to), after.map(pattern), "{before}");
        }
    }

    #[test]
    fn an_exact_name_counts_before_a_wildcard_and_a_longer_wildcard_before_a_shorter() {
        let ranks = ["*.internal", "*.kafka.internal", "*.eu.kafka.internal", "b.internal"].map(|p| pattern(p).rank());
        assert!(ranks.is_sorted_by(|a, b| a < b));
    }

    fn any_pattern() -> impl Strategy<Value = HostPattern> {
        ("(\\*\\.)?([ab]\\.){0,3}[abc]").prop_map(|text| pattern(&text))
    }

    fn any_name() -> impl Strategy<Value = DnsName> {
        "([ab]\\.){0,4}[abc]".prop_map(|text| name(&text))
    }

    proptest! {
        #[test]
        fn a_pattern_survives_its_text_and_json(pattern in any_pattern()) {
            prop_assert_eq!(&pattern, &pattern.to_string().parse().unwrap());
            prop_assert_eq!(&pattern, &serde_json::from_str(&serde_json::to_string(&pattern).unwrap()).unwrap());
        }

        #[test]
        fn what_covers_matches_all_that_is_covered(a in any_pattern(), b in any_pattern(), host in any_name()) {
            if a.covers(&b) && b.matches(&host) {
                prop_assert!(a.matches(&host), "{} {} {}", a, b, host);
            }
            // A fresh label below tells the two apart.
            let fresh = name(&format!("zz.{}", b.name()));
            let example = if b.is_wildcard() { &fresh } else { b.name() };
            prop_assert_eq!(a.covers(&b), a.matches(example), "{} {}", a, b);
        }
    }
}
