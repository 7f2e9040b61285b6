//! What belongs to a benchmark: its subjects, its cases, and the figures it is to hold.

use super::{
    case::{Case, IDLE_STREAMS, STALLED},
    results::Results,
    subject::Kind,
    verdict::{self, Verdict},
};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    Loopback,
    /// What a gateway and a relay bear.
    Load,
    Vnm,
}

impl Suite {
    /// In the order of the tables.
    pub(crate) fn subjects(self) -> &'static [Kind] {
        match self {
            Self::Loopback => {
                &[Kind::Raw, Kind::Plain, Kind::Plain2, Kind::Stunnel, Kind::Haproxy, Kind::Ssh, Kind::Postern]
            }
            Self::Load => &[Kind::Postern, Kind::PosternRelayed, Kind::PosternAtWorker],
            Self::Vnm => &[
                Kind::Raw,
                Kind::Plain,
                Kind::Postern,
                Kind::Stack,
                Kind::Stack1q,
                Kind::Device,
                Kind::Device1q,
                Kind::Vnm,
                Kind::Smoltcp64k,
                Kind::Smoltcp1500,
                Kind::Gvisor64k,
                Kind::Gvisor1500,
                Kind::Tun2proxy64k,
                Kind::Tun2proxy1500,
                Kind::Dnsmasq,
                Kind::UdpEcho,
            ],
        }
    }

    /// How long a measurement takes. Virtual networks have so many subjects that three rounds of a second each would take
    /// more than eight minutes.
    pub(crate) fn seconds(self) -> f64 {
        match self {
            Self::Loopback | Self::Load => 1.0,
            Self::Vnm => 0.7,
        }
    }

    /// In the order of the tables.
    pub(crate) fn cases(self) -> &'static [Case] {
        match self {
            Self::Loopback => &[
                Case::Up(1),
                Case::Up(8),
                Case::Down(1),
                Case::Down(8),
                Case::Streams(1),
                Case::Streams(8),
                Case::Streams(64),
                Case::PingPong,
                Case::Idle(IDLE_STREAMS),
            ],
            Self::Load => &[Case::Idle(IDLE_STREAMS), Case::Stalled(STALLED)],
            Self::Vnm => &[
                Case::Up(1),
                Case::Up(8),
                Case::Up(64),
                Case::Down(1),
                Case::Down(8),
                Case::Down(64),
                Case::Streams(1),
                Case::Streams(8),
                Case::Streams(64),
                Case::PingPong,
                Case::Names,
                Case::NamesAtHalf,
            ],
        }
    }

    pub(crate) fn verdicts(self, results: &Results, subjects: &[Kind]) -> Vec<Verdict> {
        match self {
            Self::Loopback if subjects.contains(&Kind::Postern) => verdict::loopback(results),
            Self::Vnm if subjects.iter().any(|kind| kind.is_virtual()) => verdict::vnm(results),
            Self::Load => verdict::load(results, subjects),
            Self::Loopback | Self::Vnm => Vec::new(),
        }
    }
}
