//! The filter grammar, one for lists, dynamic access rules, the CLI and selections of resources.
//!
//! ```text
//! filter := term (space term)*          every term must match; no term at all matches everything
//! term   := field ":" value             name:pay*  kind:postgres  tags:env=prod  tags:env
//!         | value                       a bare word is matched against the name
//! ```
//!
//! `*` stands for any characters, also none. Case does not count. Quotes hold spaces, colons and equal signs
//! (`name:"pay roll"`, `tags:"cost centre"=4*`); a backslash takes the next character as it is (`\*`, `\"`).

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use crate::resource::{BindMode, ClientResource, Health, Tags};

/// The longest filter, in bytes.
pub const MAX_LENGTH: usize = 2048;
/// The most terms of a filter.
pub const MAX_TERMS: usize = 64;

/// A filter that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Text { field: String, pattern: Pattern },
    Tag { key: Pattern, value: Option<Pattern> },
}

/// The literal parts between wildcards, in lower case; there is one more of them than wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern(Vec<String>);

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("a filter must not be longer than {MAX_LENGTH} bytes, with all quotes that it needs")]
    TooLong,
    #[error("a filter must not have more than {MAX_TERMS} terms")]
    TooManyTerms,
    #[error("a quote is not closed")]
    OpenQuote,
    #[error("a backslash at the end takes no character")]
    LoneBackslash,
    #[error("{0}: needs a value; {0}:* matches any, {0}:\"\" the empty one")]
    NoValue(String),
    #[error("a term begins with a colon; write field:value, or quote the text")]
    NoField,
    #[error("{field:?} is not a field here; fields are {known} (quote a text that holds a colon)")]
    UnknownField { field: String, known: String },
}

/// Something that a filter can be matched against.
pub trait Subject {
    /// The value of a field; [`Value::None`] where it has none.
    fn value(&self, field: &str) -> Value<'_>;
}

impl<T: Subject + ?Sized> Subject for &T {
    fn value(&self, field: &str) -> Value<'_> {
        (**self).value(field)
    }
}

impl<T: Subject + ?Sized> Subject for Arc<T> {
    fn value(&self, field: &str) -> Value<'_> {
        (**self).value(field)
    }
}

/// What a field holds.
pub enum Value<'a> {
    /// The field has no value, or there is no such field: nothing matches.
    None,
    Text(Cow<'a, str>),
    Tags(&'a Tags),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Self::from(if flag { "true" } else { "false" })
    }
}

impl Filter {
    /// Reads a filter whose fields must be among `known`.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, FilterError> {
        let filter: Self = text.parse()?;
        if let Some(field) = filter.fields().find(|field| !known.contains(field)) {
            let field = field.chars().take(64).collect();
            return Err(FilterError::UnknownField { field, known: known.join(", ") });
        }
        Ok(filter)
    }

    /// Whether every term matches.
    pub fn matches(&self, subject: &impl Subject) -> bool {
        self.terms.iter().all(|term| term.matches(subject))
    }

    /// Whether it has no term and so matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// A tag that all that matches has, key and value; `None` where no term asks for one without wildcards.
    #[must_use]
    pub fn needed_tag(&self) -> Option<TagKey> {
        self.terms.iter().find_map(|term| match term {
            Term::Tag { key, value: Some(value) } => Some(TagKey::of_lower(key.exact()?, value.exact()?)),
            Term::Tag { .. } | Term::Text { .. } => None,
        })
    }

    /// The fields that its terms name, in lower case.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|term| match term {
            Term::Text { field, .. } => field.as_str(),
            Term::Tag { .. } => "tags",
        })
    }
}

/// A tag as an index finds it: equal for tags that a filter does not tell apart, and, very seldom, for others too, so that
/// whoever finds something by it asks the filter again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagKey(u64);

impl TagKey {
    /// The key of a tag with this key and value.
    #[must_use]
    pub fn of(key: &str, value: &str) -> Self {
        Self::of_lower(&key.to_lowercase(), &value.to_lowercase())
    }

    /// FNV-1a, 64 bits: the same in every run, and good enough to tell tags apart.
    fn of_lower(key: &str, value: &str) -> Self {
        let bytes = key.bytes().chain([0]).chain(value.bytes());
        Self(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)))
    }
}

impl Term {
    fn matches(&self, subject: &impl Subject) -> bool {
        match self {
            Self::Text { field, pattern } => match subject.value(field) {
                Value::Text(text) => pattern.matches(&text),
                Value::None | Value::Tags(_) => false,
            },
            Self::Tag { key, value } => match subject.value("tags") {
                Value::Tags(tags) => {
                    tags.iter().any(|(k, v)| key.matches(k) && value.as_ref().is_none_or(|value| value.matches(v)))
                }
                Value::None | Value::Text(_) => false,
            },
        }
    }
}

impl Pattern {
    /// The text that it matches, in lower case, when there is but one.
    fn exact(&self) -> Option<&str> {
        match self.0.as_slice() {
            [text] => Some(text),
            _ => None,
        }
    }

    /// Each part is looked for behind the one before it, so the time is that of a few searches, never exponential.
    fn matches(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let (Some((first, rest)), Some(last)) = (self.0.split_first(), self.0.last()) else { return false };
        let Some((_, middle)) = rest.split_last() else { return text == *first };
        let Some(mut left) = text.strip_prefix(first.as_str()) else { return false };
        for part in middle {
            match left.find(part.as_str()) {
                Some(at) => left = left.get(at + part.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        left.ends_with(last.as_str())
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text.len() > MAX_LENGTH {
            return Err(FilterError::TooLong);
        }
        let mut terms = Vec::new();
        let mut marks = Marks::read(text)?;
        while let Some(term) = marks.take_term()? {
            if terms.len() == MAX_TERMS {
                return Err(FilterError::TooManyTerms);
            }
            terms.push(term);
        }
        let filter = Self { terms };
        // Quotes make the canonical form longer, and that is what is kept and read again.
        if filter.to_string().len() > MAX_LENGTH {
            return Err(FilterError::TooLong);
        }
        Ok(filter)
    }
}

/// A character with what it means at its place.
#[derive(Clone, Copy, PartialEq)]
enum Mark {
    /// Stands for itself.
    Plain(char),
    /// An unquoted character that may have a meaning: a colon, an equal sign.
    Sign(char),
    /// A wildcard.
    Star,
    /// Begins a quoted part; makes an empty value a value.
    Quote,
    Space,
}

struct Marks(std::iter::Peekable<std::vec::IntoIter<Mark>>);

impl Marks {
    fn read(text: &str) -> Result<Self, FilterError> {
        let mut marks = Vec::with_capacity(text.len());
        let mut quoted = false;
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            marks.push(match c {
                '\\' => Mark::Plain(chars.next().ok_or(FilterError::LoneBackslash)?),
                '"' => {
                    quoted = !quoted;
                    Mark::Quote
                }
                '*' => Mark::Star,
                ':' | '=' if !quoted => Mark::Sign(c),
                c if c.is_whitespace() && !quoted => Mark::Space,
                c => Mark::Plain(c),
            });
        }
        if quoted { Err(FilterError::OpenQuote) } else { Ok(Self(marks.into_iter().peekable())) }
    }

    fn take_term(&mut self) -> Result<Option<Term>, FilterError> {
        while self.0.next_if(|mark| *mark == Mark::Space).is_some() {}
        let mut marks = Vec::new();
        while let Some(mark) = self.0.next_if(|mark| *mark != Mark::Space) {
            marks.push(mark);
        }
        if marks.is_empty() {
            return Ok(None);
        }
        let Some(colon) = marks.iter().position(|mark| *mark == Mark::Sign(':')) else {
            return Ok(Some(Term::Text { field: "name".to_owned(), pattern: Pattern::of(&marks) }));
        };
        let (field, value) = marks.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        let field = field_name(field);
        if field.is_empty() {
            return Err(FilterError::NoField);
        }
        if value.is_empty() {
            return Err(FilterError::NoValue(field));
        }
        if field != "tags" {
            return Ok(Some(Term::Text { field, pattern: Pattern::of(value) }));
        }
        let sign = value.iter().position(|mark| *mark == Mark::Sign('='));
        let (key, value) = value.split_at(sign.unwrap_or(value.len()));
        Ok(Some(Term::Tag { key: Pattern::of(key), value: value.get(1..).map(Pattern::of) }))
    }
}

fn field_name(marks: &[Mark]) -> String {
    let text: String = marks
        .iter()
        .filter_map(|mark| match mark {
            Mark::Plain(c) | Mark::Sign(c) => Some(*c),
            Mark::Star => Some('*'),
            Mark::Quote | Mark::Space => None,
        })
        .collect();
    text.to_lowercase()
}

impl Pattern {
    fn of(marks: &[Mark]) -> Self {
        let mut parts = vec![String::new()];
        for mark in marks {
            match (mark, parts.last_mut()) {
                (Mark::Star, _) => parts.push(String::new()),
                (Mark::Plain(c) | Mark::Sign(c), Some(part)) => part.push(*c),
                _ => {}
            }
        }
        Self(parts.into_iter().map(|part| part.to_lowercase()).collect())
    }
}

impl fmt::Display for Filter {
    /// Writes the canonical form, which reads back as the same filter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, term) in self.terms.iter().enumerate() {
            if n > 0 {
                f.write_str(" ")?;
            }
            match term {
                Term::Text { field, pattern } => {
                    quoted(f, field)?;
                    write!(f, ":{pattern}")?;
                }
                Term::Tag { key, value: None } => write!(f, "tags:{key}")?,
                Term::Tag { key, value: Some(value) } => write!(f, "tags:{key}={value}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, part) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("*")?;
            }
            if !part.is_empty() || self.0.len() == 1 {
                quoted(f, part)?;
            }
        }
        Ok(())
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    use fmt::Write as _;
    let plain = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || matches!(c, ':' | '='));
    if !plain {
        f.write_char('"')?;
    }
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '*') {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    if plain { Ok(()) } else { f.write_char('"') }
}

impl ClientResource {
    /// The fields that a filter of resources may name on the user's machine.
    pub const FILTER_FIELDS: &[&str] =
        &["name", "kind", "tags", "id", "ports", "bind.mode", "bind.ip", "bind.port", "bind.dns_name", "health"];
}

impl Subject for ClientResource {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "name" => self.name.as_str().into(),
            "kind" => self.kind.as_str().into(),
            "tags" => Value::Tags(&self.tags),
            "id" => self.id.to_string().into(),
            "ports" => self.ports.to_string().into(),
            "health" => self.health.as_str().into(),
            _ => self.bind.value(field),
        }
    }
}

impl Subject for crate::resource::BindAddress {
    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "bind.mode" => self.mode.as_str().into(),
            "bind.ip" => self.ip.to_string().into(),
            "bind.port" => self.port.to_string().into(),
            "bind.dns_name" => self.dns_name.as_ref().map_or(Value::None, |name| name.to_string().into()),
            _ => Value::None,
        }
    }
}

impl BindMode {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Vnm => "vnm",
            Self::Both => "both",
        }
    }
}

impl Health {
    /// The word of this state, without the error.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy { .. } => "unhealthy",
        }
    }
}

#[cfg(test)]
mod tests;
