//! Figures that tests print and never judge.

use std::{io::Write as _, time::Duration};

/// Where figures are collected, one line each, when this variable names a file.
pub const REPORT_VARIABLE: &str = "POSTERN_FIGURE_REPORT";

/// Prints a line of figures.
pub fn say(line: &str) {
    let line = format!("FIGURE: {line}\n");
    let _ = std::io::stdout().write_all(line.as_bytes());
    if let Some(report) = std::env::var_os(REPORT_VARIABLE) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(report);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// Prints median, 99th percentile and maximum. The times are sorted afterwards.
pub fn times(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let [p50, p99, max] = [50, 99, 100].map(|share| percentile(times, share));
    say(&format!("{what}: p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?} of {}", times.len()));
}

/// The value below or at which so many of a hundred lie.
fn percentile(sorted: &[Duration], share: usize) -> Duration {
    let rank = (sorted.len() * share).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times, 100), Duration::from_millis(200));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
