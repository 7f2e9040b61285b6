//! Postern's figures beside those that the design wants held.

use serde::Serialize;

use super::{
    case::{Case, Figure, IDLE_STREAMS, Measure, STALLED},
    dns,
    results::{Better, Results},
    subject::Kind,
};

/// One figure to hold, and how it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    #[serde(rename = "verdict")]
    pub(crate) figure: String,
    pub(crate) standing: Standing,
    pub(crate) seen: Option<f64>,
    pub(crate) wanted: &'static str,
    pub(crate) bar: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Standing {
    Pass,
    Short,
    /// Something that it compares was not measured.
    Unknown,
}

/// Resident memory of the daemon and of the gateway with [`IDLE_STREAMS`] idle streams, MiB.
const RESIDENT_MIB: f64 = 160.0;
/// From connect to the first byte back for a good client while handshakes stall.
const STALLED_CONNECT_MICROS: f64 = 1e6;

pub(crate) fn loopback(results: &Results) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for case in [Case::Up(1), Case::Up(8), Case::Down(1), Case::Down(8)] {
        verdicts.extend(bulk(results, case));
    }
    for clients in [1, 8, 64] {
        verdicts.extend(opening(results, Case::Streams(clients)));
    }
    verdicts.extend(idle(results));
    verdicts
}

/// Other stacks behind a TUN device, with what ours is to be against each.
const STACKS: [(Kind, f64); 3] = [(Kind::Smoltcp64k, 1.3), (Kind::Gvisor64k, 2.0), (Kind::Gvisor1500, 6.0)];
/// What the virtual network is to be against loopback mode.
const END_TO_END: f64 = 0.9;

pub(crate) fn vnm(results: &Results) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let bulk = [1, 8, 64].into_iter().map(Case::Up).chain([1, 8, 64].into_iter().map(Case::Down));
    for case in bulk {
        let figure = Figure::new(case, Measure::Throughput);
        let of_plain = match case {
            Case::Up(1) => 1.4,
            Case::Down(1) => 2.5,
            Case::Up(_) => 0.9,
            _ => 1.2,
        };
        let against = |subject, other: Kind, bar| {
            at_least(format!("{case}: {subject} × {other}"), results.ratio(&figure, subject, other), bar)
        };
        verdicts.push(against(Kind::Stack, Kind::Plain, of_plain));
        verdicts.extend(STACKS.map(|(other, bar)| against(Kind::Stack, other, bar)));
        verdicts.push(against(Kind::Stack1q, Kind::Smoltcp64k, 1.3));
        let tun2proxy = [Kind::Tun2proxy64k, Kind::Tun2proxy1500];
        let best = results.ratio_to_best(&figure, Kind::Stack, &tun2proxy, Better::Higher);
        verdicts.push(at_least(format!("{case}: {} × best of tun2proxy", Kind::Stack), best, 10.0));
        verdicts.push(against(Kind::Vnm, Kind::Postern, END_TO_END));
    }
    for clients in [1, 8, 64] {
        let figure = Figure::new(Case::Streams(clients), Measure::Rate);
        let against = |subject, other: Kind, bar| {
            let figure_name = format!("{}: {subject} × {other}", figure.case);
            at_least(figure_name, results.ratio(&figure, subject, other), bar)
        };
        verdicts.push(against(Kind::Stack, Kind::Smoltcp64k, 1.3));
        verdicts.push(against(Kind::Stack1q, Kind::Smoltcp64k, 1.3));
        verdicts.push(against(Kind::Vnm, Kind::Postern, END_TO_END));
    }
    for subject in [Kind::Stack, Kind::Vnm] {
        let ratio = results.ratio(&Figure::new(Case::Names, Measure::Rate), subject, Kind::Dnsmasq);
        verdicts.push(at_least(format!("dns: {subject} × {}", Kind::Dnsmasq), ratio, dns::WANTED_RATIO));
        let p99 = results.summary(&Figure::new(Case::NamesAtHalf, Measure::P99), subject).map(|p99| p99.median);
        verdicts.push(at_most(format!("dns-half: p99 of {subject}, us"), p99, dns::WANTED_P99));
    }
    let ping = Figure::new(Case::PingPong, Measure::P50);
    let ratio = results.ratio(&ping, Kind::Vnm, Kind::Postern);
    verdicts.push(at_most(format!("{ping}: {} × {}", Kind::Vnm, Kind::Postern), ratio, 1.0 / END_TO_END));
    verdicts
}

fn bulk(results: &Results, case: Case) -> Vec<Verdict> {
    let throughput = Figure::new(case, Measure::Throughput);
    let cpu = Figure::new(case, Measure::Cpu);
    let of_plain = if matches!(case, Case::Up(1) | Case::Down(1)) { 0.8 } else { 0.6 };
    let tls = [Kind::Stunnel, Kind::Haproxy];
    vec![
        at_least(
            format!("{case}: throughput × best of the peers"),
            best_of(results, &throughput, Kind::PEERS, Better::Higher),
            1.5,
        ),
        at_least(
            format!("{case}: throughput × plain proxy"),
            results.ratio(&throughput, Kind::Postern, Kind::Plain),
            of_plain,
        ),
        at_most(
            format!("{case}: CPU per GiB × best of stunnel, haproxy"),
            best_of(results, &cpu, &tls, Better::Lower),
            0.5,
        ),
        at_most(format!("{case}: CPU per GiB × ssh -L"), results.ratio(&cpu, Kind::Postern, Kind::Ssh), 0.6),
    ]
}

/// Unknown unless every one of `others` was measured: the best of some may not be the best.
fn best_of(results: &Results, figure: &Figure, others: &[Kind], better: Better) -> Option<f64> {
    let all = others.iter().all(|&other| results.summary(figure, other).is_some());
    if all { results.ratio_to_best(figure, Kind::Postern, others, better) } else { None }
}

fn opening(results: &Results, case: Case) -> Vec<Verdict> {
    let against = |measure, other| results.ratio(&Figure::new(case, measure), Kind::Postern, other);
    vec![
        at_most(format!("{case}: connect p50 × plain proxy"), against(Measure::P50, Kind::Plain), 1.5),
        at_most(format!("{case}: connect p99 × plain proxy"), against(Measure::P99, Kind::Plain), 1.5),
        at_least(format!("{case}: streams per second × stunnel"), against(Measure::Rate, Kind::Stunnel), 5.0),
    ]
}

/// What a gateway, a relay and a worker have to bear.
pub(crate) fn load(results: &Results, subjects: &[Kind]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    if subjects.contains(&Kind::Postern) {
        verdicts.extend(idle_of(results, Kind::Postern, &["posternd", "postern-node"]));
    }
    if subjects.contains(&Kind::PosternRelayed) {
        verdicts.extend(idle_of(results, Kind::PosternRelayed, &["posternd", "postern-relay"]));
    }
    if subjects.contains(&Kind::PosternAtWorker) {
        verdicts.extend(idle_of(results, Kind::PosternAtWorker, &["posternd", "postern-worker"]));
    }
    for &kind in subjects.iter().filter(|kind| Case::Stalled(STALLED).suits(**kind)) {
        let p99 = |figure: &&Figure| matches!((figure.case, &figure.measure), (Case::Stalled(_), Measure::P99));
        let seen = results.figures().into_iter().filter(p99).find_map(|figure| results.summary(figure, kind));
        let figure = format!("stalled handshakes, {kind}: connect p99, µs");
        verdicts.push(at_most(figure, seen.map(|summary| summary.median), STALLED_CONNECT_MICROS));
    }
    verdicts
}

fn idle(results: &Results) -> Vec<Verdict> {
    idle_of(results, Kind::Postern, &["posternd", "postern-node"])
}

/// `ends`: the processes at both ends of a stream.
fn idle_of(results: &Results, kind: Kind, ends: &[&str]) -> Vec<Verdict> {
    let measured = results.figures().into_iter().find_map(|figure| match figure.case {
        Case::Idle(streams) => results.summary(figure, kind).map(|_| streams),
        _ => None,
    });
    let streams = measured.unwrap_or(IDLE_STREAMS);
    let case = Case::Idle(streams);
    let median = |measure| results.summary(&Figure::new(case, measure), kind).map(|summary| summary.median);
    let mut verdicts = Vec::new();
    let case_of = if kind == Kind::Postern { case.to_string() } else { format!("{case}, {kind}") };
    for &process in ends {
        verdicts.push(at_most(
            format!("{case_of}: KiB per stream in {process}"),
            median(Measure::PerStreamOf(process.to_owned())),
            16.0,
        ));
        verdicts.push(at_most(
            format!("{case_of}: MiB resident in {process}"),
            median(Measure::ResidentOf(process.to_owned())),
            RESIDENT_MIB * streams as f64 / IDLE_STREAMS as f64,
        ));
    }
    verdicts
}

fn at_least(figure: String, seen: Option<f64>, bar: f64) -> Verdict {
    Verdict { figure, standing: standing(seen, |seen| seen >= bar), seen, wanted: "≥", bar }
}

fn at_most(figure: String, seen: Option<f64>, bar: f64) -> Verdict {
    Verdict { figure, standing: standing(seen, |seen| seen <= bar), seen, wanted: "≤", bar }
}

fn standing(seen: Option<f64>, holds: impl Fn(f64) -> bool) -> Standing {
    match seen {
        None => Standing::Unknown,
        Some(seen) if holds(seen) => Standing::Pass,
        Some(_) => Standing::Short,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_passes_falls_short_or_is_unknown() {
        let mut results = Results::default();
        let case = Case::Up(1);
        for (subject, value) in [(Kind::Postern, 8.0), (Kind::Plain, 9.0), (Kind::Stunnel, 5.0), (Kind::Haproxy, 6.0)] {
            results.record(0, subject, case, vec![(Measure::Throughput, value)]);
        }
        let standing = |name: &str| loopback(&results).into_iter().find(|v| v.figure == name).unwrap().standing;
        assert_eq!(standing("up/1: throughput × plain proxy"), Standing::Pass);
        assert_eq!(standing("up/1: throughput × best of the peers"), Standing::Unknown, "ssh was not measured");
        results.record(0, Kind::Ssh, case, vec![(Measure::Throughput, 6.0)]);
        let standing = |name: &str| loopback(&results).into_iter().find(|v| v.figure == name).unwrap().standing;
        assert_eq!(standing("up/1: throughput × best of the peers"), Standing::Short);
    }
}
