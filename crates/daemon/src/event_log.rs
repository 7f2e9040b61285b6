//! The newest lines of the service's own log, kept in memory to be looked at and handed on.
//!
//! Bounded by lines and by bytes; the oldest go first, and how many went is counted.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use postern_proto::time::UnixMillis;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::{carriage::printable, clock};

/// Lines that are kept at most.
const MAX_LINES: usize = 5000;
/// Bytes of text that are kept at most.
const MAX_BYTES: usize = 1 << 20;
/// A longer text is cut.
const MAX_TEXT: usize = 4096;

/// See the module. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct EventLog(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Line>,
    bytes: usize,
    forgotten: u64,
}

/// One event. `target`, `line` and the names of `fields` are words of our own code; the rest may hold anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub at: UnixMillis,
    pub level: Level,
    /// The module that said it, and where in it.
    pub target: &'static str,
    pub line: Option<u32>,
    pub message: String,
    pub fields: Vec<(&'static str, String)>,
}

impl EventLog {
    /// What is kept, oldest first, and how many older lines are not any more.
    #[must_use]
    pub fn lines(&self) -> (Vec<Line>, u64) {
        let ring = self.ring();
        (ring.lines.iter().cloned().collect(), ring.forgotten)
    }

    /// Keeps a line.
    pub fn push(&self, line: Line) {
        let mut ring = self.ring();
        ring.bytes += line.size();
        ring.lines.push_back(line);
        while ring.lines.len() > MAX_LINES || ring.bytes > MAX_BYTES {
            let Some(oldest) = ring.lines.pop_front() else { break };
            ring.bytes -= oldest.size();
            ring.forgotten += 1;
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for EventLog {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let meta = event.metadata();
        let mut texts = Texts::default();
        event.record(&mut texts);
        let Texts { message, fields } = texts;
        let (at, level) = (clock::wall(), *meta.level());
        self.push(Line { at, level, target: meta.target(), line: meta.line(), message, fields });
    }
}

impl Line {
    fn size(&self) -> usize {
        let fields: usize = self.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.message.len() + fields + 64
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:5} {}: {}", Instant(self.at), self.level, self.target, self.message)?;
        self.fields.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// `2026-11-21T08:09:45.123Z`.
pub(crate) struct Instant(pub(crate) UnixMillis);

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0.0) * 1_000_000;
        let Ok(at) = time::UtcDateTime::from_unix_timestamp_nanos(nanos) else { return write!(f, "{}", self.0.0) };
        let (date, clock) = (at.date(), at.time());
        write!(f, "{:04}-{:02}-{:02}T", date.year(), u8::from(date.month()), date.day())?;
        write!(f, "{:02}:{:02}:{:02}.{:03}Z", clock.hour(), clock.minute(), clock.second(), clock.millisecond())
    }
}

#[derive(Default)]
struct Texts {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Texts {
    fn put(&mut self, field: &Field, text: &str) {
        let text = printable(text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default());
        match field.name() {
            "message" => self.message = text,
            name => self.fields.push((name, text)),
        }
    }
}

impl Visit for Texts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn events_are_kept_with_their_fields_and_without_control_characters() {
        let log = EventLog::default();
        let subscriber = tracing_subscriber::registry().with(log.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(count = 3, name = "a\u{1b}b", "it {}", "broke");
        });
        let (lines, forgotten) = log.lines();
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((line.message.as_str(), line.level, forgotten), ("it broke", Level::WARN, 0));
        assert_eq!(line.fields, [("count", "3".to_owned()), ("name", "a\u{fffd}b".to_owned())]);
        assert!(
            line.to_string().ends_with("Z WARN  postern_daemon::event_log::tests: it broke count=3 name=a\u{fffd}b")
        );
    }

    #[test]
    fn the_oldest_lines_go_first_and_are_counted() {
        let log = EventLog::default();
        let line = |n: u64, text: &str| Line {
            at: UnixMillis(n),
            level: Level::INFO,
            target: "t",
            line: None,
            message: text.to_owned(),
            fields: Vec::new(),
        };
        for n in 0..6000 {
            log.push(line(n, ""));
        }
        let (lines, forgotten) = log.lines();
        assert_eq!((lines.len(), forgotten, lines[0].at), (MAX_LINES, 1000, UnixMillis(1000)));
        log.push(line(9, &"x".repeat(MAX_BYTES - 1000)));
        assert!(log.lines().0.len() < 20);
    }

    #[test]
    fn instants_are_in_utc() {
        assert_eq!(Instant(UnixMillis(1_795_224_000_123)).to_string(), "2026-11-21T01:20:00.123Z");
    }
}
