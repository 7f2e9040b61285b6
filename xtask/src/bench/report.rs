//! Results for people (tables) and for programs (JSON lines).

use std::{
    collections::BTreeSet,
    fmt::{self, Write},
    fs,
    io::Write as _,
    path::Path,
    process::Command,
    time::Instant,
};

use anyhow::Context;
use serde::Serialize;

use super::{
    case::{Figure, Measure},
    load::Times,
    results::Results,
    subject::Kind,
    verdict::{Standing, Verdict},
};

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    case: String,
    subject: String,
    unit: &'a str,
    median: f64,
    min: f64,
    max: f64,
    runs: usize,
    /// Median over the rounds of the ratio to the plain proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_to_plain: Option<f64>,
}

pub(crate) fn json(results: &Results, subjects: &[Kind], verdicts: &[Verdict]) -> anyhow::Result<String> {
    let mut text = String::new();
    for figure in results.figures() {
        for &subject in subjects {
            let Some(summary) = results.summary(figure, subject) else { continue };
            let line = Line {
                case: figure.to_string(),
                subject: subject.to_string(),
                unit: figure.unit(),
                median: round(summary.median),
                min: round(summary.min),
                max: round(summary.max),
                runs: summary.runs,
                ratio_to_plain: results.ratio(figure, subject, Kind::Plain).map(round),
            };
            writeln!(text, "{}", serde_json::to_string(&line)?)?;
        }
    }
    for failure in results.failures() {
        let line = serde_json::json!({
            "case": failure.case.to_string(), "subject": failure.subject.to_string(),
            "round": failure.round, "error": failure.reason,
        });
        writeln!(text, "{line}")?;
    }
    for (subject, reason) in results.absences() {
        let line = serde_json::json!({ "subject": subject.to_string(), "skipped": reason });
        writeln!(text, "{line}")?;
    }
    for verdict in verdicts {
        writeln!(text, "{}", serde_json::to_string(verdict)?)?;
    }
    Ok(text)
}

/// A table for each figure: subjects as rows.
pub(crate) fn table(results: &Results, subjects: &[Kind], verdicts: &[Verdict]) -> anyhow::Result<String> {
    let mut text = String::new();
    for figure in results.figures() {
        // What single processes of peers hold is in the JSON lines; here it would be many tables of one row.
        let is_detail =
            matches!(figure.measure, Measure::PerStreamOf(_) | Measure::ResidentOf(_) | Measure::CpuPerOpeningOf(_));
        let rows: Vec<String> = subjects.iter().filter_map(|&subject| row(results, figure, subject)).collect();
        if is_detail {
            writeln!(text, "{figure} [{}]{}", figure.unit(), rows.concat())?;
        } else {
            writeln!(
                text,
                "\n{figure} [{}]\n  {:<16}{:>10}{:>10}{:>10}{:>6}{:>10}",
                figure.unit(),
                "",
                "median",
                "min",
                "max",
                "runs",
                "× plain"
            )?;
            writeln!(text, "{}", rows.join("\n"))?;
        }
    }
    write_failures(&mut text, results)?;
    for (subject, reason) in results.absences() {
        writeln!(text, "\nskipped: {subject}: {reason}")?;
    }
    write_verdicts(&mut text, verdicts)?;
    Ok(text)
}

fn row(results: &Results, figure: &Figure, subject: Kind) -> Option<String> {
    let summary = results.summary(figure, subject)?;
    let ratio = results.ratio(figure, subject, Kind::Plain).map_or_else(String::new, |ratio| format!("{ratio:.2}"));
    Some(format!(
        "  {:<16}{:>10}{:>10}{:>10}{:>6}{ratio:>10}",
        subject.to_string(),
        number(summary.median),
        number(summary.min),
        number(summary.max),
        summary.runs,
    ))
}

fn write_failures(text: &mut String, results: &Results) -> fmt::Result {
    if results.failures().is_empty() {
        return Ok(());
    }
    writeln!(text, "\nmeasurements that failed, in whole or in part")?;
    for failure in results.failures() {
        writeln!(text, "  {} {} in round {}: {}", failure.case, failure.subject, failure.round + 1, failure.reason)?;
    }
    Ok(())
}

fn write_verdicts(text: &mut String, verdicts: &[Verdict]) -> fmt::Result {
    if verdicts.is_empty() {
        return Ok(());
    }
    writeln!(text, "\nPostern against the figures to hold (medians of the ratios of each round)")?;
    for verdict in verdicts {
        let word = match verdict.standing {
            Standing::Pass => "pass",
            Standing::Short => "SHORT",
            Standing::Unknown => "unknown",
        };
        let seen = verdict.seen.map_or_else(|| "-".to_owned(), |seen| format!("{seen:.2}"));
        writeln!(text, "  {word:<8}{:<58}{seen:>8}  (wanted {} {})", verdict.figure, verdict.wanted, verdict.bar)?;
    }
    Ok(())
}

/// What the figures were measured on, since they mean little without it.
#[derive(Serialize)]
pub(crate) struct Machine {
    machine: String,
    /// Debian packages of the subjects, with their versions.
    packages: Vec<String>,
    /// How long this disk takes to make a record durable, which is in the way of each new stream of Postern, µs.
    sync_p50: f64,
    sync_p99: f64,
}

impl Machine {
    /// `folder`: where the subjects keep their files.
    pub(crate) fn look(folder: &Path, subjects: &[Kind]) -> anyhow::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpus = read("/proc/cpuinfo");
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let packages: BTreeSet<&str> = subjects.iter().filter_map(|kind| kind.packages().first().copied()).collect();
        let sync = sync_times(folder).context("cannot measure the disk")?;
        Ok(Self {
            machine: format!(
                "{} × {}, Linux {}, load {}, {}",
                cpus.lines().filter(|line| line.starts_with("processor")).count(),
                model.map_or("", |(_, model)| model),
                read("/proc/sys/kernel/osrelease"),
                read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" "),
                read("/proc/sys/net/ipv4/tcp_congestion_control"),
            ),
            packages: packages.into_iter().filter_map(package_version).collect(),
            sync_p50: round(sync.quantile(0.5).unwrap_or_default()),
            sync_p99: round(sync.quantile(0.99).unwrap_or_default()),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "{}", self.packages.join(", "))?;
        writeln!(f, "disk: a record is durable after {} us (p50), {} us (p99)", self.sync_p50, self.sync_p99)
    }
}

/// As a gateway's spool does it: a short record at the end of a file, then fdatasync.
fn sync_times(folder: &Path) -> std::io::Result<Times> {
    const RECORDS: usize = 100;
    let path = folder.join("sync");
    let mut file = fs::File::options().create(true).append(true).open(&path)?;
    let mut micros = Vec::with_capacity(RECORDS);
    for _ in 0..RECORDS {
        let begin = Instant::now();
        file.write_all(&[b'.'; 400])?;
        file.sync_data()?;
        micros.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(path)?;
    Ok(Times::new(micros))
}

fn package_version(package: &str) -> Option<String> {
    let output =
        Command::new("dpkg-query").args(["--show", "--showformat=${Package} ${Version}", package]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn number(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

/// Four significant digits are more than any of this is good for.
pub(crate) fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::case::Case;

    #[test]
    fn a_json_line_holds_the_agreed_fields() {
        let mut results = Results::default();
        for (round, value) in [(0, 1.0), (1, 3.0), (2, 2.0)] {
            results.record(round, Kind::Plain, Case::Up(1), vec![(Measure::Throughput, value)]);
        }
        let text = json(&results, &[Kind::Plain], &[]).unwrap();
        assert_eq!(
            text,
            "{\"case\":\"up/1\",\"subject\":\"plain\",\"unit\":\"Gbit/s\",\"median\":2.0,\"min\":1.0,\"max\":3.0,\
             \"runs\":3,\"ratio_to_plain\":1.0}\n"
        );
    }

    #[test]
    fn values_are_rounded_to_four_significant_digits() {
        assert_eq!(round(12_345.6), 12_350.0);
        assert_eq!(round(0.012_344), 0.012_34);
        assert_eq!(round(0.0), 0.0);
    }
}
