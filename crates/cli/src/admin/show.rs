//! Values of the API as people read them.

use std::time::Duration;

use postern_proto::time::UnixMillis;
use serde_json::{Map, Number, Value};

use super::noun::Noun;
use crate::{
    context::Context,
    failure::Failure,
    screen::{DIM, Line},
    table::{Field, Grid, Tone},
    text as words,
};

/// A table of items.
pub(super) fn grid(noun: &Noun, items: &[Value]) -> Grid {
    let titles: Vec<_> = noun.columns.iter().map(|column| column.title).collect();
    let mut grid = Grid::new(&titles);
    for item in items {
        grid.row(noun.columns.iter().map(|column| (column.show)(item)).collect());
    }
    grid
}

/// The fields that a thing begins with; the others follow by name.
const FIRST: [&str; 10] =
    ["name", "email", "id", "at", "verb", "subject kind", "subject name", "actor name", "kind", "state"];

/// One thing, a line for each of its fields.
pub(super) fn thing(item: &Value, context: &mut Context) -> Result<(), Failure> {
    let mut fields = Vec::new();
    if let Value::Object(map) = item {
        flatten("", map, &mut fields);
    }
    // What it is called stands first.
    fields.sort_by_key(|(label, _)| FIRST.iter().position(|first| first == label).unwrap_or(FIRST.len()));
    let width = fields.iter().map(|(label, _)| label.len()).max().unwrap_or_default() + 2;
    for (label, value) in fields {
        context.screen.line(&Line::new().styled(DIM, label).pad(width).plain(value))?;
    }
    Ok(())
}

fn flatten(prefix: &str, map: &Map<String, Value>, fields: &mut Vec<(String, String)>) {
    for (key, value) in map {
        // A unit that is part of the name stands with the value.
        let label = key.trim_end_matches("_at").trim_end_matches("_permille").replace('_', " ");
        let label = format!("{prefix}{label}");
        match value {
            Value::Object(tags) if key.ends_with("tags") => fields.push((label, dash(tag_text(tags)))),
            Value::Object(inner) if inner.is_empty() => fields.push((label, "-".to_owned())),
            Value::Object(inner) => flatten(&format!("{label} "), inner, fields),
            Value::Number(number) => fields.push((label, quantity(key, number))),
            value => fields.push((label, dash(plain(value)))),
        }
    }
}

/// A number in the unit that the name of its field tells.
fn quantity(key: &str, number: &Number) -> String {
    let whole = number.as_u64();
    let written = match key {
        "at" => instant_text(whole),
        "duration" | "deadline" => whole.map(span),
        _ if key.ends_with("_at") => instant_text(whole),
        _ if key.ends_with("_permille") => number.as_f64().map(percent),
        _ if key.starts_with("bytes_") => whole.map(|count| format!("{number} ({})", words::bytes(count))),
        _ => None,
    };
    written.unwrap_or_else(|| number.to_string())
}

/// Seconds as people write them.
fn span(seconds: u64) -> String {
    words::countdown(Duration::from_secs(seconds))
}

/// Thousandths as percent.
fn percent(permille: f64) -> String {
    format!("{:.1} %", permille / 10.0)
}

pub(super) fn text(item: &Value, pointer: &str) -> Field {
    Field::from(plain(item.pointer(pointer).unwrap_or(&Value::Null)))
}

pub(super) fn number(item: &Value, pointer: &str) -> Field {
    text(item, pointer)
}

pub(super) fn id(item: &Value) -> Field {
    Field::new(plain(item.get("id").unwrap_or(&Value::Null)), Tone::Dim)
}

/// `yes` in the given tone, nothing for no.
pub(super) fn flag(item: &Value, pointer: &str, tone: Tone) -> Field {
    match item.pointer(pointer) {
        Some(Value::Bool(true)) => Field::new("yes", tone),
        _ => Field::from(""),
    }
}

pub(super) fn instant(item: &Value, pointer: &str) -> Field {
    Field::from(instant_text(item.pointer(pointer).and_then(Value::as_u64)).unwrap_or_default())
}

pub(super) fn size(item: &Value, pointer: &str) -> Field {
    Field::from(item.pointer(pointer).and_then(Value::as_u64).map(words::bytes).unwrap_or_default())
}

/// Microseconds as milliseconds.
pub(super) fn micros(item: &Value, pointer: &str) -> Field {
    let micros = item.pointer(pointer).and_then(Value::as_f64);
    Field::from(micros.map(|micros| format!("{:.1} ms", micros / 1000.0)).unwrap_or_default())
}

/// Thousandths as percent.
pub(super) fn permille(item: &Value, pointer: &str) -> Field {
    Field::from(item.pointer(pointer).and_then(Value::as_f64).map(percent).unwrap_or_default())
}

/// Seconds as people write them.
pub(super) fn seconds(item: &Value, pointer: &str) -> Field {
    Field::from(item.pointer(pointer).and_then(Value::as_u64).map(span).unwrap_or_default())
}

pub(super) fn tags(item: &Value, pointer: &str) -> Field {
    match item.pointer(pointer) {
        Some(Value::Object(tags)) => Field::new(tag_text(tags), Tone::Dim),
        _ => Field::from(""),
    }
}

/// How a gateway is.
pub(super) fn state(item: &Value, pointer: &str) -> Field {
    let state = plain(item.pointer(pointer).unwrap_or(&Value::Null));
    let tone = match state.as_str() {
        "connected" | "up" => Tone::Good,
        "draining" | "drained" | "waiting" => Tone::Warn,
        "away" => Tone::Bad,
        _ => Tone::Plain,
    };
    Field::new(state, tone)
}

/// The state, and what the check saw when it is bad.
pub(super) fn health(item: &Value, pointer: &str) -> Field {
    let health = item.pointer(pointer);
    let part = |name: &str| health.and_then(|health| health.get(name)).and_then(Value::as_str).unwrap_or_default();
    match part("state") {
        "healthy" => Field::new("healthy", Tone::Good),
        "unhealthy" => Field::new(format!("unhealthy: {}", words::without_os_code(part("error"))), Tone::Bad),
        other => Field::new(other, Tone::Dim),
    }
}

pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

fn tag_text(tags: &Map<String, Value>) -> String {
    let tag = |(key, value): (&String, &Value)| match plain(value) {
        value if value.is_empty() => key.clone(),
        value => format!("{key}={value}"),
    };
    tags.iter().map(tag).collect::<Vec<_>>().join(" ")
}

fn instant_text(millis: Option<u64>) -> Option<String> {
    millis.map(|millis| words::instant(UnixMillis(millis)))
}

fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_not_rounded_below_an_hour() {
        let spans = [(30, "30 s"), (90, "1 min 30 s"), (300, "5 min"), (5400, "1 h 30 min")];
        for (seconds, text) in spans {
            assert_eq!(quantity("duration", &Number::from(seconds)), text);
        }
    }
}
