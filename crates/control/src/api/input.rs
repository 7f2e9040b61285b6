//! Bodies of requests: every field is looked at before anything is refused, so that one answer names all that is wrong.

use std::{collections::BTreeMap, fmt::Display};

use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::{HeaderValue, StatusCode, header},
};
use postern_proto::{
    name::unseen,
    problem::{Problem, Violation},
    resource::Tags,
    time::UnixMillis,
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    BODY,
    refusal::{Answer, Refusal, too_large},
};

/// The most tags of an entity.
const MAX_TAGS: usize = 64;
/// The longest key and the longest value of a tag, in characters.
const MAX_TAG: usize = 128;

/// A body that was read as JSON.
pub struct Input<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        let kind = request.headers().get(header::CONTENT_TYPE).cloned();
        let bytes = tokio::time::timeout(BODY, Bytes::from_request(request, state))
            .await
            .map_err(|_| Refusal::from(Problem::new(408, "timeout", "The body took too long to arrive")))?
            .map_err(unreadable)?;
        let value = match kind {
            // A call without a body gives nothing; what it must give is told field by field.
            None if bytes.is_empty() => Value::Object(serde_json::Map::new()),
            kind if kind.as_ref().is_some_and(is_json) => serde_json::from_slice(&bytes).map_err(malformed)?,
            _ => {
                let problem = Problem::new(415, "unsupported_media_type", "The body must be application/json");
                return Err(problem.with_detail("Set the header Content-Type: application/json.").into());
            }
        };
        T::deserialize(&value).map(Self).map_err(|error| {
            let mut broken = Violations::default();
            // Not with its value: it may hold a password.
            broken.add("body", "", error);
            broken.into()
        })
    }
}

fn is_json(kind: &HeaderValue) -> bool {
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

fn malformed(error: serde_json::Error) -> Refusal {
    Problem::new(400, "malformed_json", "The body is not JSON").with_detail(error.to_string()).into()
}

fn unreadable(rejection: BytesRejection) -> Refusal {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return too_large();
    }
    Problem::new(400, "broken_body", "The body could not be read").with_detail(rejection.body_text()).into()
}

/// A field of a body: left out, null, of the right type, or of another.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Given<T> {
    #[default]
    Absent,
    Null,
    Value(T),
    /// What was given instead, and what is wrong with it.
    Wrong(Value, String),
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value.is_null() {
            return Ok(Self::Null);
        }
        Ok(match T::deserialize(&value) {
            Ok(given) => Self::Value(given),
            Err(error) => Self::Wrong(value, error.to_string()),
        })
    }
}

/// An instant in milliseconds since 1970, or in the form of RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant(pub UnixMillis);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("must be milliseconds since 1970, or a time such as 2026-11-20T18:00:00Z");
        match Value::deserialize(deserializer)? {
            Value::Number(number) => number.as_u64().map(|millis| Self(UnixMillis(millis))).ok_or_else(wrong),
            Value::String(text) => {
                let at = OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| wrong())?;
                let millis = at.unix_timestamp_nanos() / 1_000_000;
                u64::try_from(millis).map(|millis| Self(UnixMillis(millis))).map_err(|_| wrong())
            }
            _ => Err(wrong()),
        }
    }
}

/// The end of the year 9999: what lies beyond is a slip of the pen.
const LAST_INSTANT: UnixMillis = UnixMillis(253_402_300_799_999);

/// The end of something that has one must lie ahead.
pub fn check_end(broken: &mut Violations, field: &str, end: Option<UnixMillis>, now: UnixMillis) {
    let Some(end) = end else { return };
    if end <= now {
        broken.add(field, end, "must lie in the future");
    } else if end > LAST_INSTANT {
        broken.add(field, end, "must not lie beyond the year 9999; is it in milliseconds?");
    }
}

/// Fields that the body has and the request has not.
pub type Unknown = BTreeMap<String, Value>;

/// The rules that a request broke.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    pub fn add(&mut self, field: &str, value: impl Display, rule: impl Display) {
        let value = value.to_string();
        let mut shown: String = value.chars().take(200).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        self.0.push(Violation { field: field.to_owned(), value: shown, rule: rule.to_string() });
    }

    /// Takes the good side of a check and notes the bad one.
    pub fn check<T>(&mut self, field: &str, value: impl Display, checked: Result<T, impl Display>) -> Option<T> {
        checked.map_err(|rule| self.add(field, value, rule)).ok()
    }

    /// A field that must be there.
    pub fn required<T>(&mut self, field: &str, given: Given<T>) -> Option<T> {
        match given {
            Given::Absent | Given::Null => {
                self.add(field, "", "must be given");
                None
            }
            given => self.optional(field, given),
        }
    }

    /// A field that may be left out or null.
    pub fn optional<T>(&mut self, field: &str, given: Given<T>) -> Option<T> {
        match given {
            Given::Absent | Given::Null => None,
            Given::Value(value) => Some(value),
            Given::Wrong(Value::String(value), rule) => {
                self.add(field, value, rule);
                None
            }
            Given::Wrong(value, rule) => {
                self.add(field, value, rule);
                None
            }
        }
    }

    /// A field of a change: `None` when it stays as it is. It cannot be null.
    pub fn change<T>(&mut self, field: &str, given: Given<T>) -> Option<T> {
        if matches!(given, Given::Null) {
            self.add(field, "null", "must have a value");
        }
        self.optional(field, given)
    }

    /// Notes fields that the request has not, since a misspelt one would be lost silently.
    pub fn unknown(&mut self, fields: &Unknown, known: &[&str]) {
        self.unknown_in("", fields, known);
    }

    /// The same for an object within the body; `prefix` is its name and a dot.
    pub fn unknown_in(&mut self, prefix: &str, fields: &Unknown, known: &[&str]) {
        for (field, value) in fields {
            let rule = format_args!("is not a field here; fields are {}", known.join(", "));
            self.add(&format!("{prefix}{field}"), value, rule);
        }
    }

    pub fn tags(&mut self, tags: &Tags) {
        if tags.len() > MAX_TAGS {
            self.add("tags", tags.len(), format_args!("must not be more than {MAX_TAGS}"));
        }
        for (key, value) in tags {
            let field = format!("tags.{}", key.chars().take(MAX_TAG).collect::<String>());
            if key.is_empty() || key.trim() != key {
                self.add(&field, key, "must not be empty or begin or end with a space");
            }
            if key.chars().count() > MAX_TAG || value.chars().count() > MAX_TAG {
                self.add(&field, value, format_args!("key and value must not be longer than {MAX_TAG} characters"));
            }
            if key.chars().chain(value.chars()).any(unseen) {
                self.add(&field, value, "must not hold control characters or characters that are not seen");
            }
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The refusal, if a rule was broken.
    pub fn none(self) -> Answer<()> {
        if self.is_empty() { Ok(()) } else { Err(self.into()) }
    }

    /// The values that were taken, if all were: a value is missing only where a rule was broken.
    pub fn take<T>(self, values: Option<T>) -> Answer<T> {
        match values {
            Some(values) if self.is_empty() => Ok(values),
            _ => Err(self.into()),
        }
    }
}

impl From<Violations> for Refusal {
    fn from(broken: Violations) -> Self {
        let mut problem = Problem::new(422, "invalid", "The request breaks rules");
        let list: Vec<String> = broken.0.iter().map(|broken| format!("{}: {}", broken.field, broken.rule)).collect();
        problem.detail = Some(list.join("; "));
        problem.violations = broken.0;
        problem.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        port: Given<u16>,
        #[serde(default)]
        name: Given<String>,
        #[serde(flatten)]
        unknown: Unknown,
    }

    #[test]
    fn one_refusal_names_everything_that_is_wrong() {
        let body: Body = serde_json::from_str(r#"{"port": 70000, "nme": "x"}"#).unwrap();
        let mut broken = Violations::default();
        assert_eq!(broken.optional("port", body.port), None);
        assert_eq!(broken.required("name", body.name), None);
        broken.unknown(&body.unknown, &["name", "port"]);
        let Refusal(problem) = broken.none().unwrap_err();
        let fields: Vec<_> = problem.violations.iter().map(|v| (v.field.as_str(), v.value.as_str())).collect();
        assert_eq!(fields, [("port", "70000"), ("name", ""), ("nme", "\"x\"")]);
        assert_eq!(problem.status, 422);
    }

    #[test]
    fn null_is_not_the_same_as_left_out() {
        let body: Body = serde_json::from_str(r#"{"port": null}"#).unwrap();
        assert_eq!(body.port, Given::Null);
        assert_eq!(body.name, Given::Absent);
    }
}
