//! What is measured, and what each measurement is called.

use std::{fmt, str::FromStr};

use super::subject::Kind;

/// One kind of load. The order is that of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Case {
    /// Bulk towards the target on so many streams.
    Up(usize),
    /// Bulk from the target on so many streams.
    Down(usize),
    /// Streams opened and closed by so many clients.
    Streams(usize),
    /// One byte there and back on one stream.
    PingPong,
    /// As many questions for names as are answered.
    Names,
    /// Half as many of them as must be answered, 1.5 times what dnsmasq answers.
    NamesAtHalf,
    /// So many idle streams.
    Idle(usize),
    /// So many connections that never end their handshake, while a good client opens streams.
    Stalled(usize),
}

impl Case {
    /// Whether it is about names, and not about streams.
    pub(crate) fn asks_for_names(self) -> bool {
        matches!(self, Self::Names | Self::NamesAtHalf)
    }

    /// Whether this subject has what it takes.
    pub(crate) fn suits(self, kind: Kind) -> bool {
        if matches!(self, Self::Stalled(_)) {
            return matches!(kind, Kind::Postern | Kind::PosternRelayed | Kind::PosternAtWorker);
        }
        if self.asks_for_names() { kind.answers_names() } else { !kind.answers_only_names() }
    }
}

/// How many idle streams are wished for.
pub(crate) const IDLE_STREAMS: usize = 10_000;
/// How many handshakes stall.
pub(crate) const STALLED: usize = 5_000;

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(streams) => write!(f, "up/{streams}"),
            Self::Down(streams) => write!(f, "down/{streams}"),
            Self::Streams(clients) => write!(f, "streams/{clients}"),
            Self::PingPong => f.write_str("pingpong"),
            Self::Names => f.write_str("dns"),
            Self::NamesAtHalf => f.write_str("dns-half"),
            Self::Idle(streams) => write!(f, "idle/{streams}"),
            Self::Stalled(handshakes) => write!(f, "stalled/{handshakes}"),
        }
    }
}

/// A word that names no [`Case`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no case; cases are up/N, down/N, streams/N, pingpong, dns, dns-half, idle/N, stalled/N")]
pub(crate) struct UnknownCase(String);

impl FromStr for Case {
    type Err = UnknownCase;

    fn from_str(text: &str) -> Result<Self, UnknownCase> {
        let unknown = || UnknownCase(text.to_owned());
        match text {
            "pingpong" => return Ok(Self::PingPong),
            "dns" => return Ok(Self::Names),
            "dns-half" => return Ok(Self::NamesAtHalf),
            _ => {}
        }
        let (kind, number) = text.split_once('/').ok_or_else(unknown)?;
        let number = number.parse().ok().filter(|&number| number > 0).ok_or_else(unknown)?;
        match kind {
            "up" => Ok(Self::Up(number)),
            "down" => Ok(Self::Down(number)),
            "streams" => Ok(Self::Streams(number)),
            "idle" => Ok(Self::Idle(number)),
            "stalled" => Ok(Self::Stalled(number)),
            _ => Err(unknown()),
        }
    }
}

/// One number of a case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Measure {
    /// Gbit/s of [`Case::Up`] and [`Case::Down`].
    Throughput,
    /// CPU time of the subject's processes: seconds for each GiB carried, µs for each answer of [`Case::Names`].
    Cpu,
    /// Streams per second of [`Case::Streams`], answers per second of [`Case::Names`].
    Rate,
    /// Median and 99th percentile of connect, one byte there and back; or of the byte alone.
    P50,
    P99,
    /// CPU time of the subject's processes for each stream that was opened and closed.
    CpuPerOpening,
    /// The same, of one process.
    CpuPerOpeningOf(String),
    /// Growth of resident memory for each idle stream, over all processes of the subject.
    PerStream,
    /// The same, of one process.
    PerStreamOf(String),
    /// Resident memory of one process while it holds the idle streams.
    ResidentOf(String),
}

/// A number of a case, as results name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Figure {
    pub(crate) case: Case,
    pub(crate) measure: Measure,
}

impl Figure {
    pub(crate) fn new(case: Case, measure: Measure) -> Self {
        Self { case, measure }
    }

    pub(crate) fn unit(&self) -> &'static str {
        match self.measure {
            Measure::Throughput => "Gbit/s",
            Measure::Cpu if self.case.asks_for_names() => "us",
            Measure::Cpu => "s/GiB",
            Measure::Rate => "1/s",
            Measure::P50 | Measure::P99 | Measure::CpuPerOpening | Measure::CpuPerOpeningOf(_) => "us",
            Measure::PerStream | Measure::PerStreamOf(_) => "KiB",
            Measure::ResidentOf(_) => "MiB",
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let case = self.case;
        match (&self.measure, case) {
            (Measure::Throughput | Measure::Rate | Measure::PerStream, _) => write!(f, "{case}"),
            (Measure::Cpu | Measure::CpuPerOpening, _) => write!(f, "{case}/cpu"),
            (Measure::CpuPerOpeningOf(process), _) => write!(f, "{case}/{process}/cpu"),
            (Measure::P50, Case::Streams(_) | Case::Stalled(_)) => write!(f, "{case}/connect-p50"),
            (Measure::P99, Case::Streams(_) | Case::Stalled(_)) => write!(f, "{case}/connect-p99"),
            (Measure::P50, _) => write!(f, "{case}/p50"),
            (Measure::P99, _) => write!(f, "{case}/p99"),
            (Measure::PerStreamOf(process), _) => write!(f, "{case}/{process}"),
            (Measure::ResidentOf(process), _) => write!(f, "{case}/{process}/resident"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_read_back_from_its_name() {
        for case in [
            Case::Up(64),
            Case::Down(1),
            Case::Streams(8),
            Case::PingPong,
            Case::Names,
            Case::NamesAtHalf,
            Case::Idle(IDLE_STREAMS),
            Case::Stalled(STALLED),
        ] {
            assert_eq!(case.to_string().parse(), Ok(case));
        }
        for wrong in ["up", "up/", "up/0", "sideways/1", ""] {
            assert!(wrong.parse::<Case>().is_err(), "{wrong}");
        }
    }
}
