//! Names that people choose, and e-mail addresses: one spelling each, nothing that could break a log line, a terminal
//! or a generated configuration file.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};

pub use self::pattern::{HostPattern, HostPatternError};

mod pattern;

/// The longest name of an entity, in characters.
pub const MAX_NAME: usize = 128;
/// The longest e-mail address (RFC 5321, 4.5.3.1.3).
pub const MAX_EMAIL: usize = 254;
/// The longest DNS name without its final dot (RFC 1035, 2.3.4).
pub const MAX_DNS_NAME: usize = 253;

/// Which rule a name breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("must not be empty")]
    Empty,
    #[error("must not be longer than {MAX_NAME} characters")]
    TooLong,
    #[error("must not begin or end with a space")]
    OuterSpace,
    #[error("must not hold quotes")]
    Quote,
    #[error("must not hold angle brackets")]
    AngleBracket,
    #[error("must not hold control characters or characters that are not seen")]
    Unseen,
}

/// Checks the name of a resource, role, account, gateway or token.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Empty);
    }
    if name.chars().count() > MAX_NAME {
        return Err(NameError::TooLong);
    }
    if name.chars().any(unseen) {
        return Err(NameError::Unseen);
    }
    if name.chars().any(quote) {
        return Err(NameError::Quote);
    }
    if name.contains(['<', '>']) {
        return Err(NameError::AngleBracket);
    }
    if name.trim() != name {
        return Err(NameError::OuterSpace);
    }
    Ok(())
}

/// The form in which names are compared: two names with the same key count as one.
#[must_use]
pub fn name_key(name: &str) -> String {
    name.to_lowercase()
}

/// Whether a character is never seen: control and format characters, among them those that turn the writing direction.
#[must_use]
pub fn unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Straight and typographic quotes.
fn quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`' | '\u{ab}' | '\u{bb}' | '\u{2018}'..='\u{201f}' | '\u{2039}' | '\u{203a}')
}

/// An e-mail address in its one canonical form: ASCII, lower case, no space around it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email(String);

/// Which rule an e-mail address breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmailError {
    #[error("must not be longer than {MAX_EMAIL} characters")]
    TooLong,
    #[error("must be of the form name@host with a valid host name")]
    Form,
    #[error(
        "must consist of ASCII letters, digits and the characters . _ % + - / = & ! # $ * ? ^ {{ | }} ~ before the @"
    )]
    Character,
}

impl Email {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = EmailError;

    fn from_str(text: &str) -> Result<Self, EmailError> {
        let text = text.trim_matches([' ', '\t']);
        if text.len() > MAX_EMAIL {
            return Err(EmailError::TooLong);
        }
        let (local, host) = text.rsplit_once('@').ok_or(EmailError::Form)?;
        if local.is_empty() || local.starts_with('.') || local.ends_with('.') || local.contains("..") {
            return Err(EmailError::Form);
        }
        if !local.chars().all(|c| c.is_ascii_alphanumeric() || "._%+-/=&!#$*?^{|}~".contains(c)) {
            return Err(EmailError::Character);
        }
        DnsName::from_str(host).map_err(|_| EmailError::Form)?;
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Email {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Email {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A host name in its one canonical form: lower case, without a final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

/// Which rule a host name breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsNameError {
    #[error("must not be empty")]
    Empty,
    #[error("must not be longer than {MAX_DNS_NAME} characters")]
    TooLong,
    #[error("must consist of labels of 1 to 63 characters, separated by single dots")]
    Label,
    #[error("must consist of ASCII letters, digits, hyphens and dots")]
    Character,
    #[error("must not have a label that begins or ends with a hyphen")]
    Hyphen,
    #[error("must not look like an IP address: its last label must hold a letter")]
    Address,
}

impl DnsName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name always means the machine itself (RFC 6761, 6.3).
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        self.0 == "localhost" || self.0.ends_with(".localhost")
    }

    /// Whether it lies below `other`: a name does not lie below itself.
    #[must_use]
    pub fn is_under(&self, other: &Self) -> bool {
        self.0.strip_suffix(&other.0).is_some_and(|rest| rest.ends_with('.'))
    }

    /// The labels from left to right.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// Whether everybody may register names below it (`com`, `co.uk`, `github.io`), by the Public Suffix List that this
    /// program was built with. A name that the list does not know is none, a single label too.
    #[must_use]
    pub fn is_public_suffix(&self) -> bool {
        psl::suffix(self.0.as_bytes()).is_some_and(|suffix| suffix.is_known() && suffix == self.0.as_bytes())
    }

    /// The label for something that a person named `name`, for example `payments-db-prod` for `Payments DB (prod)`;
    /// `None` when nothing of it can be in a label.
    #[must_use]
    pub fn label_for(name: &str) -> Option<String> {
        let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let label = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
        let label = label.get(..63).unwrap_or(&label).trim_end_matches('-');
        (!label.is_empty()).then(|| label.to_owned())
    }
}

impl FromStr for DnsName {
    type Err = DnsNameError;

    fn from_str(text: &str) -> Result<Self, DnsNameError> {
        if text.is_empty() {
            return Err(DnsNameError::Empty);
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.len() > MAX_DNS_NAME {
            return Err(DnsNameError::TooLong);
        }
        for label in text.split('.') {
            if label.is_empty() || label.len() > 63 {
                return Err(DnsNameError::Label);
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return Err(DnsNameError::Character);
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(DnsNameError::Hyphen);
            }
        }
        let last = text.rsplit('.').next().unwrap_or(text);
        // `0x7f` is read as a number by inet_aton, and so is a label of digits.
        let number = last.bytes().all(|b| b.is_ascii_digit())
            || last.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"))
                && last.bytes().skip(2).all(|b| b.is_ascii_hexdigit());
        if number {
            return Err(DnsNameError::Address);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for DnsName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DnsName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where something is dialled: a host name or an IP literal. Underscores are accepted in host names here, because names
/// in container networks have them.
///
/// Answers the canonical form: lower case, IPv6 without brackets.
pub fn check_host(text: &str) -> Result<String, HostError> {
    let literal = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = literal.parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    match text.replace('_', "x").parse::<DnsName>() {
        Ok(_) => Ok(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase()),
        Err(error) => Err(HostError(error)),
    }
}

/// A text that is neither a host name nor an IP literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a host name or an IP address without a port: a host name {0}")]
pub struct HostError(DnsNameError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_quotes_brackets_and_controls_is_taken() {
        for good in ["db", "Payments DB (prod)", "日本語", "a/b:c=d", "x".repeat(MAX_NAME).as_str()] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn each_broken_rule_of_a_name_is_told() {
        for (bad, error) in [
            ("", NameError::Empty),
            ("  ", NameError::Empty),
            (" a", NameError::OuterSpace),
            ("a\"b", NameError::Quote),
            ("a'b", NameError::Quote),
            ("a`b", NameError::Quote),
            ("a\u{201c}b", NameError::Quote),
            ("<a", NameError::AngleBracket),
            ("a>", NameError::AngleBracket),
            ("a\nb", NameError::Unseen),
            ("a\u{1b}[31m", NameError::Unseen),
            ("a\u{202e}b", NameError::Unseen),
            (&"x".repeat(MAX_NAME + 1), NameError::TooLong),
        ] {
            assert_eq!(check_name(bad), Err(error), "{bad:?}");
        }
    }

    #[test]
    fn spellings_of_one_address_are_one_address() {
        let canonical: Email = "ada@example.com".parse().unwrap();
        for same in ["Ada@Example.COM", " ada@example.com ", "ada@example.com\t"] {
            assert_eq!(same.parse::<Email>().unwrap(), canonical);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "a da@example.com",
            "ада@example.com",
            "ada@ex ample.com",
            "a@b@c d",
            "ada\n@example.com",
            ".ada@example.com",
            "a..b@example.com",
            "ada@10.0.0.1",
            "\"a\"@example.com",
        ] {
            assert!(bad.parse::<Email>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn host_names_follow_the_rules_of_dns() {
        for good in ["db", "db.my-org", "DB.My-Org.", "a1.b2", "xn--bcher-kva.example", "3com.com"] {
            assert!(good.parse::<DnsName>().is_ok(), "{good}");
        }
        assert_eq!("DB.My-Org.".parse::<DnsName>().unwrap().as_str(), "db.my-org");
        for (bad, error) in [
            ("", DnsNameError::Empty),
            (".", DnsNameError::Label),
            ("a..b", DnsNameError::Label),
            (&format!("{}.b", "a".repeat(64)), DnsNameError::Label),
            ("-a.b", DnsNameError::Hyphen),
            ("a-.b", DnsNameError::Hyphen),
            ("a_b", DnsNameError::Character),
            ("bücher.example", DnsNameError::Character),
            ("a b", DnsNameError::Character),
            ("10.0.0.1", DnsNameError::Address),
            ("a.0x7f", DnsNameError::Address),
            (&"a.".repeat(128), DnsNameError::TooLong),
        ] {
            let got = bad.parse::<DnsName>();
            assert_eq!(got, Err(error), "{bad:?}");
        }
    }

    #[test]
    fn names_lie_under_names_at_label_boundaries() {
        let name = |text: &str| text.parse::<DnsName>().unwrap();
        assert!(name("a.b.c").is_under(&name("b.c")) && name("a.b.c").is_under(&name("c")));
        assert!(!name("b.c").is_under(&name("b.c")) && !name("ab.c").is_under(&name("b.c")));
    }

    #[test]
    fn public_suffixes_are_those_of_the_list_and_nothing_else() {
        for suffix in ["com", "co.uk", "github.io", "de"] {
            assert!(suffix.parse::<DnsName>().unwrap().is_public_suffix(), "{suffix}");
        }
        for none in ["my-org", "internal", "example.com", "db.internal.example", "a.co.uk"] {
            assert!(!none.parse::<DnsName>().unwrap().is_public_suffix(), "{none}");
        }
    }

    #[test]
    fn a_label_is_made_of_what_a_label_may_hold() {
        for (name, label) in [
            ("Payments DB (prod)", Some("payments-db-prod")),
            ("--a__b--", Some("a-b")),
            ("日本 7", Some("7")),
            ("日本", None),
            (&"x".repeat(100), Some(&*"x".repeat(63))),
            (&format!("{} y", "x".repeat(62)), Some(&*"x".repeat(62))),
        ] {
            assert_eq!(DnsName::label_for(name).as_deref(), label, "{name}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        assert_eq!(check_host("DB_1.internal").unwrap(), "db_1.internal");
        assert_eq!(check_host("[::1]").unwrap(), "::1");
        assert_eq!(check_host("10.0.0.1").unwrap(), "10.0.0.1");
        for bad in ["", "db:5432", "http://db", "db/x", "a b", "db\n", "10.0.0.256"] {
            assert!(check_host(bad).is_err(), "{bad:?}");
        }
    }
}
