//! When a window opens: a cron expression, in UTC.

use std::{fmt, time::Duration};

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions, normalize_crontab, parse_crontab_with};
use postern_proto::time::UnixMillis;

/// The longest expression, in characters.
pub const LONGEST_TEXT: usize = 128;
/// How long a window is open at least: in less, nobody gets anything done.
pub const SHORTEST: Duration = Duration::from_secs(60);
/// And at most. It opens once a minute at most, so this also bounds how many openings one moment may belong to.
pub const LONGEST: Duration = Duration::from_secs(86_400);
/// The end of the year 9990: the calendar of the library ends soon after.
const LAST: UnixMillis = UnixMillis(253_113_000_000_000);

/// Minute, hour, day of month, month, day of week, each `*`, numbers, names, lists, ranges and steps. As in any cron, when
/// neither day begins with `*`, either of them is enough.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    times: Crontab,
}

/// Why an expression is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("must not be longer than {LONGEST_TEXT} characters")]
    TooLong,
    #[error("must have five fields: minute, hour, day of month, month, day of week, for example 0 2 * * sun")]
    Fields,
    #[error("{0:?} is not understood: fields hold *, numbers, names such as jan or sun, lists, ranges and steps")]
    Word(String),
    #[error("is not a cron expression: {0}")]
    Malformed(String),
    #[error("never happens")]
    Never,
}

impl Schedule {
    /// Reads an expression that happens at least once in the four years after `now`.
    pub fn parse(text: &str, now: UnixMillis) -> Result<Self, ScheduleError> {
        let schedule = Self::read(text)?;
        schedule.next(now).map(|_| schedule.clone()).ok_or(ScheduleError::Never)
    }

    /// Reads an expression, whether it ever happens or not.
    pub fn read(text: &str) -> Result<Self, ScheduleError> {
        // Before anything else: the bound is for who reads it too.
        if text.chars().count() > LONGEST_TEXT {
            return Err(ScheduleError::TooLong);
        }
        let text = normalize_crontab(text);
        // A sixth field would be a time zone, and there is UTC alone.
        if text.split(' ').count() != 5 {
            return Err(ScheduleError::Fields);
        }
        if let Some(word) = text.split([' ', ',', '-', '/']).find(|word| !is_plain(word)) {
            return Err(ScheduleError::Word(word.to_owned()));
        }
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let times = parse_crontab_with(&text, options).map_err(|error| ScheduleError::Malformed(fault(&error)))?;
        Ok(Self { text, times })
    }

    /// The first time after an instant, within four years.
    #[must_use]
    pub fn next(&self, after: UnixMillis) -> Option<UnixMillis> {
        let after = i64::try_from(after.0).ok().filter(|_| after < LAST)?;
        let next = self.times.find_next(MakeTimestamp::from_millisecond(after).ok()?).ok()?;
        u64::try_from(next.timestamp().as_millisecond()).ok().map(UnixMillis)
    }

    /// The last time at or before `now` and after `since`. They must not lie further apart than [`LONGEST`].
    #[must_use]
    pub fn last(&self, since: UnixMillis, now: UnixMillis) -> Option<UnixMillis> {
        let times = std::iter::successors(self.next(since), |at| self.next(*at));
        times.take_while(|at| *at <= now).last()
    }
}

/// Extensions (`L`, `W`, `#`, `H`) are not the same in any two crons, and one of the library's is wrong in December.
fn is_plain(word: &str) -> bool {
    let is_name = word.len() == 3 && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_number = (1..=2).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_digit());
    word == "*" || is_name || is_number
}

/// The library writes the expression on a line of its own, and under it a mark at the place of the fault, then what it is.
fn fault(error: &cronexpr::Error) -> String {
    let text = error.to_string();
    let said = text.lines().last().unwrap_or_default().trim().trim_start_matches('^').trim();
    if said.is_empty() { "malformed".to_owned() } else { said.to_owned() }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
