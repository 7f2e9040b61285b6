//! `cargo xtask bench dns`: Postern's resolver beside dnsmasq, each behind one UDP socket on loopback, the same names, the
//! same load. How fast names are answered through the virtual network is `cargo xtask bench vnm`'s to tell, with the same
//! load and the same dnsmasq.
//!
//! dnsmasq has one thread and can have no more. Postern has two here, as posternd answers on a thread for each queue of its
//! device; `postern-1` is the same with one, where the kernel's part of a query is nine tenths of all.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde::Serialize;

use super::{queries::Queries, report, usage};
use crate::{
    consent::Consent,
    interrupt::Interrupt,
    packages::{self, Installed},
    process::Process,
    workspace::{Workspace, find_program},
};

/// Names that are asked for.
pub(crate) const NAMES: u16 = 1000;
pub(crate) const CLIENTS: usize = 3;
/// Queries of each client on their way.
pub(crate) const OUTSTANDING: u16 = 32;
/// Between two measurements.
const SETTLE: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON lines instead of a table
    #[arg(long)]
    json: bool,
    /// Rounds; medians are taken over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Length of one measurement in seconds
    #[arg(long, default_value_t = 2.0, value_parser = super::parse_seconds)]
    seconds: f64,
    /// Install missing packages without asking
    #[arg(long)]
    yes: bool,
    /// Set on the release build that does the measuring
    #[arg(long, hide = true)]
    measure: bool,
}

/// Installs the peer, builds in release mode, and becomes the release build of this program.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.measure {
        return measure(args);
    }
    let wanted = ["dnsmasq-base".to_owned()];
    if let Installed::Declined { line } = packages::install(&wanted, Consent::from_environment(args.yes))? {
        bail!("dnsmasq is not installed; run this:\n{line}");
    }
    let workspace = Workspace::find()?;
    let status = workspace
        .cargo()
        .args(["build", "--locked", "--release", "--package", "postern-netstack", "--example", "dns_udp"])
        .stdout(Stdio::null())
        .status()
        .context("cannot start cargo build")?;
    if !status.success() {
        bail!("the release build failed ({status})");
    }
    super::become_release(&workspace, &["xtask"])
}

fn measure(args: &Args) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::on_signals()?;
    let folder = tempfile::Builder::new().prefix("postern-bench-").tempdir().context("cannot make a folder")?;
    let subjects = [
        start_postern("postern", 2, folder.path(), &interrupt)?,
        start_dnsmasq(folder.path(), &interrupt).map(|(address, process)| Subject { address, process })?,
        start_postern("postern-1", 1, folder.path(), &interrupt)?,
    ];
    let names = names();
    let time = Duration::from_secs_f64(args.seconds);
    let mut rounds = Vec::new();
    for round in 0..args.runs as usize {
        let mut saturated = Round::default();
        for turn in 0..subjects.len() {
            let at = (turn + round) % subjects.len();
            let (Some(subject), Some(place)) = (subjects.get(at), saturated.0.get_mut(at)) else { continue };
            interrupt.check()?;
            let queries = Queries { server: subject.address, names: &names, clients: CLIENTS };
            *place = measure_one(subject, &queries, time).with_context(|| subject.process.name().to_owned())?;
            interrupt.sleep(SETTLE)?;
        }
        // The figure asks for the latency at half of what must be reached, half of 1.5 × dnsmasq.
        let rate = saturated.0[DNSMASQ].per_second * WANTED_RATIO / 2.0;
        for (subject, place) in subjects.iter().zip(&mut saturated.0) {
            interrupt.check()?;
            let queries = Queries { server: subject.address, names: &names, clients: CLIENTS };
            let answers = queries.pace(rate, time).with_context(|| subject.process.name().to_owned());
            let quantile = |quantile| answers.as_ref().ok()?.times.quantile(quantile);
            (place.p50, place.p99) = (quantile(0.5), quantile(0.99));
            interrupt.sleep(SETTLE)?;
        }
        rounds.push(saturated);
    }
    for subject in subjects {
        subject.process.stop();
    }
    anstream::print!("{}", if args.json { json(&rounds)? } else { table(&rounds)? });
    Ok(ExitCode::SUCCESS)
}

/// What must be reached, × dnsmasq.
pub(crate) const WANTED_RATIO: f64 = 1.5;
/// What p99 may be at half of that load, µs.
pub(crate) const WANTED_P99: f64 = 1000.0;
const SUBJECTS: [&str; 3] = ["postern", "dnsmasq", "postern-1"];
const POSTERN: usize = 0;
const DNSMASQ: usize = 1;
const ONE_THREAD: usize = 2;

/// The names that every server of a benchmark knows.
pub(crate) fn names() -> Vec<String> {
    (0..NAMES).map(|host| format!("host-{host}.bench")).collect()
}

struct Subject {
    address: SocketAddr,
    process: Process,
}

/// Of one subject in one round.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    per_second: f64,
    /// CPU time for each answer, µs.
    cpu: f64,
    /// At half of the load that must be reached; none when the server could not keep up.
    p50: Option<f64>,
    p99: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Round([Measured; SUBJECTS.len()]);

fn measure_one(subject: &Subject, queries: &Queries<'_>, time: Duration) -> anyhow::Result<Measured> {
    queries.saturate(OUTSTANDING, time / 10)?;
    let before = usage::cpu_time(&[subject.process.pid()]);
    let answers = queries.saturate(OUTSTANDING, time)?;
    let cpu = usage::cpu_time(&[subject.process.pid()]).saturating_sub(before);
    let cpu = cpu.as_secs_f64() * 1e6 / answers.times.len() as f64;
    Ok(Measured { per_second: answers.per_second, cpu, p50: None, p99: None })
}

fn start_postern(name: &str, threads: usize, folder: &Path, interrupt: &Interrupt) -> anyhow::Result<Subject> {
    let program = std::env::current_exe()?.with_file_name("examples").join("dns_udp");
    let mut process = Process::start(name, folder, &program, [NAMES.to_string(), threads.to_string()])?;
    let ready = process.ready_line(interrupt)?;
    let listen = ready.get("listen").and_then(|listen| listen.as_str()).context("its ready line names no address")?;
    Ok(Subject { address: listen.parse()?, process })
}

/// dnsmasq with the same names, from a file in the form of /etc/hosts. It cannot be given port 0, and somebody may take the
/// port between our look and its own; then it says so and the bench ends.
pub(crate) fn start_dnsmasq(folder: &Path, interrupt: &Interrupt) -> anyhow::Result<(SocketAddr, Process)> {
    let hosts = folder.join("hosts");
    let mut text = String::new();
    for [high, low] in (0..NAMES).map(u16::to_be_bytes) {
        writeln!(text, "100.72.{high}.{low} host-{}.bench", u16::from_be_bytes([high, low]))?;
    }
    std::fs::write(&hosts, text)?;
    let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let program: PathBuf = find_program("dnsmasq").context("dnsmasq is not installed")?;
    let mut args: Vec<String> = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        "--no-resolv",
        "--no-hosts",
        "--local=/bench/",
        "--local-ttl=5",
        "--pid-file",
        "--log-facility=-",
    ]
    .map(str::to_owned)
    .to_vec();
    args.push(format!("--port={}", address.port()));
    args.push(format!("--addn-hosts={}", hosts.display()));
    if rustix::process::geteuid().is_root() {
        // It would become a user who may not read our folder.
        args.push("--user=root".to_owned());
    }
    let process = Process::start("dnsmasq", folder, &program, args)?;
    let names = ["host-0.bench".to_owned()];
    let queries = Queries { server: address, names: &names, clients: 1 };
    let deadline = Instant::now() + Duration::from_secs(10);
    let answered = || queries.pace(100.0, Duration::from_millis(20)).ok();
    interrupt.wait_for(deadline, answered)?.context("dnsmasq does not answer")?;
    Ok((address, process))
}

/// A line of `--json`; the same fields as those of the other benchmarks.
#[derive(Serialize)]
struct Line {
    case: &'static str,
    subject: &'static str,
    unit: &'static str,
    median: f64,
    min: f64,
    max: f64,
    runs: usize,
}

/// A case, its unit, and where its value is.
type Case = (&'static str, &'static str, fn(&Measured) -> Option<f64>);

const CASES: [Case; 4] = [
    ("dns/queries", "1/s", |measured| Some(measured.per_second)),
    ("dns/cpu", "us", |measured| Some(measured.cpu)),
    ("dns/p50", "us", |measured| measured.p50),
    ("dns/p99", "us", |measured| measured.p99),
];

fn lines(rounds: &[Round]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (case, unit, value) in CASES {
        for (at, subject) in SUBJECTS.into_iter().enumerate() {
            let mut values: Vec<f64> = rounds.iter().filter_map(|round| value(round.0.get(at)?)).collect();
            values.sort_by(f64::total_cmp);
            if let (Some(median), Some(min), Some(max)) = (middle(&values), values.first(), values.last()) {
                let [median, min, max] = [median, *min, *max].map(report::round);
                lines.push(Line { case, subject, unit, median, min, max, runs: values.len() });
            }
        }
    }
    lines
}

fn middle(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len().is_multiple_of(2) { f64::midpoint(upper, *sorted.get(sorted.len() / 2 - 1)?) } else { upper })
}

/// The figures to hold: name, value, and whether it holds. That with one thread is told beside them.
fn verdicts(rounds: &[Round]) -> [(&'static str, Option<f64>, bool); 3] {
    let median = |value: fn(&Round) -> Option<f64>| {
        let mut values: Vec<f64> = rounds.iter().filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        // A round that could not be measured is not one that went well.
        if values.len() == rounds.len() { middle(&values) } else { None }
    };
    let ratio = median(|round| Some(round.0[POSTERN].per_second / round.0[DNSMASQ].per_second));
    let alone = median(|round| Some(round.0[ONE_THREAD].per_second / round.0[DNSMASQ].per_second));
    let p99 = median(|round| round.0[POSTERN].p99);
    [
        ("dns: queries per second × dnsmasq (wanted ≥ 1.5)", ratio, ratio.is_some_and(|ratio| ratio >= WANTED_RATIO)),
        (
            "dns: the same with one thread each (1.5 for comparison)",
            alone,
            alone.is_some_and(|alone| alone >= WANTED_RATIO),
        ),
        ("dns: p99 at half of that load, us (wanted ≤ 1000)", p99, p99.is_some_and(|p99| p99 <= WANTED_P99)),
    ]
}

fn json(rounds: &[Round]) -> anyhow::Result<String> {
    let mut text = String::new();
    for line in lines(rounds) {
        writeln!(text, "{}", serde_json::to_string(&line)?)?;
    }
    for (figure, seen, holds) in verdicts(rounds) {
        let standing = if seen.is_none() {
            "unknown"
        } else if holds {
            "pass"
        } else {
            "short"
        };
        writeln!(text, "{}", serde_json::json!({"verdict": figure, "standing": standing, "seen": seen}))?;
    }
    Ok(text)
}

fn table(rounds: &[Round]) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut before = "";
    for line in lines(rounds) {
        if line.case != before {
            writeln!(
                text,
                "\n{} [{}]\n  {:<10}{:>10}{:>10}{:>10}{:>6}",
                line.case, line.unit, "", "median", "min", "max", "runs"
            )?;
            before = line.case;
        }
        writeln!(text, "  {:<10}{:>10}{:>10}{:>10}{:>6}", line.subject, line.median, line.min, line.max, line.runs)?;
    }
    writeln!(text)?;
    for (figure, seen, holds) in verdicts(rounds) {
        let word = if seen.is_none() {
            "unknown"
        } else if holds {
            "pass"
        } else {
            "SHORT"
        };
        let seen = seen.map_or_else(|| "-".to_owned(), |seen| format!("{seen:.2}"));
        writeln!(text, "  {word:<8}{figure:<58}{seen:>8}")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(postern: f64, dnsmasq: f64, p99: Option<f64>) -> Round {
        let measured = |per_second, p99| Measured { per_second, cpu: 1.0, p50: p99, p99 };
        Round([measured(postern, p99), measured(dnsmasq, None), measured(dnsmasq, None)])
    }

    #[test]
    fn a_ratio_is_that_of_one_round() {
        let rounds =
            [round(200.0, 100.0, Some(10.0)), round(60.0, 50.0, Some(2000.0)), round(400.0, 250.0, Some(20.0))];
        let [ratio, alone, p99] = verdicts(&rounds);
        assert_eq!((ratio.1, ratio.2), (Some(1.6), true));
        assert_eq!((alone.1, alone.2), (Some(1.0), false));
        assert_eq!((p99.1, p99.2), (Some(20.0), true));
    }

    #[test]
    fn a_round_without_an_answer_leaves_the_figure_unknown() {
        let [.., p99] = verdicts(&[round(2.0, 1.0, Some(10.0)), round(2.0, 1.0, None)]);
        assert_eq!((p99.1, p99.2), (None, false));
    }
}
