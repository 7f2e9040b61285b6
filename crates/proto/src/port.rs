//! Sets of ports, as a resource lists them: single ports and ranges, for example `5432,7000-7005`.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Ports and ranges that one set may list.
pub const MAX_RANGES: usize = 64;

/// A set of ports from 1 to 65535 in its one canonical form: ranges in rising order with gaps between them, at most
/// [`MAX_RANGES`]. In JSON a list of texts, each a port or a range.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSet(Vec<(u16, u16)>);

/// Why a text lists no ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortSetError {
    #[error("must list ports from 1 to 65535 or ranges of them, for example 5432 or 7000-7005; {0:?} is neither")]
    Form(String),
    #[error("must have ranges that begin with their lower port: {last}-{first} instead of {first}-{last}")]
    Backwards { first: u16, last: u16 },
    #[error("must not list more than {MAX_RANGES} ports and ranges")]
    TooMany,
}

impl PortSet {
    /// Reads a list of ports and ranges.
    pub fn read<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, PortSetError> {
        let mut ranges = Vec::new();
        for entry in entries {
            if ranges.len() == MAX_RANGES {
                return Err(PortSetError::TooMany);
            }
            ranges.push(read_range(entry)?);
        }
        Ok(Self::joined(ranges))
    }

    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= port);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, last)| port <= *last)
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ports it holds.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().map(|(first, last)| usize::from(last - first) + 1).sum()
    }

    /// The lowest port.
    #[must_use]
    pub fn first(&self) -> Option<u16> {
        self.0.first().map(|(first, _)| *first)
    }

    /// The ranges in rising order; a single port is a range of one.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u16>> + '_ {
        self.0.iter().map(|(first, last)| *first..=*last)
    }

    /// The lowest port that both hold.
    #[must_use]
    pub fn shared(&self, other: &Self) -> Option<u16> {
        let overlap = |(first, last): &(u16, u16)| {
            let met = other.0.iter().find(|(low, high)| low <= last && first <= high);
            met.map(|(low, _)| *low.max(first))
        };
        self.0.iter().find_map(overlap)
    }

    /// The lowest port that it holds and `other` does not.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Option<u16> {
        self.ranges().flatten().find(|port| !other.contains(*port))
    }

    /// This set and one port more. It may then list one range more than a text may.
    #[must_use]
    pub fn with(&self, port: u16) -> Self {
        Self::joined(self.0.iter().copied().chain([(port, port)]).collect())
    }

    /// Sorts ranges and joins those that overlap or touch.
    fn joined(mut ranges: Vec<(u16, u16)>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    fn entries(&self) -> impl ExactSizeIterator<Item = String> + '_ {
        self.0.iter().map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
    }
}

fn read_range(entry: &str) -> Result<(u16, u16), PortSetError> {
    let entry = entry.trim();
    let wrong = || PortSetError::Form(entry.chars().take(32).collect());
    let port = |text: &str| {
        let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|port| digits && *port > 0).ok_or_else(wrong)
    };
    let (first, last): (u16, u16) = match entry.split_once('-') {
        Some((first, last)) => (port(first.trim_end())?, port(last.trim_start())?),
        None => (port(entry)?, port(entry)?),
    };
    if first <= last { Ok((first, last)) } else { Err(PortSetError::Backwards { first: last, last: first }) }
}

/// Reads ports and ranges that are separated by commas; an empty text is the empty set.
impl FromStr for PortSet {
    type Err = PortSetError;

    fn from_str(text: &str) -> Result<Self, PortSetError> {
        if text.trim().is_empty() { Ok(Self::default()) } else { Self::read(text.split(',')) }
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, entry) in self.entries().enumerate() {
            write!(f, "{}{entry}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Serialize for PortSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.entries())
    }
}

impl<'de> Deserialize<'de> for PortSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Vec::<String>::deserialize(deserializer)?;
        Self::read(entries.iter().map(String::as_str)).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
