//! The one summary at the end of `cargo xtask test`.

use std::{fmt::Write, time::Duration};

use super::{Outcome, Report};

pub(crate) fn all_well(reports: &[Report]) -> bool {
    !reports.iter().any(|report| matches!(report.outcome, Outcome::Failed(_)))
}

pub(crate) fn print(reports: &[Report]) {
    anstream::println!("\n{}", render(reports));
}

/// A table of the stages, the names of failed and skipped tests, and the sum alone on the last line: a stage that runs
/// tests counts as its tests, another one as one.
fn render(reports: &[Report]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_stages(&mut text, reports);
    let _ = write_tests(&mut text, reports);
    let _ = write!(text, "\n{}", sum(reports));
    text
}

fn write_stages(text: &mut String, reports: &[Report]) -> std::fmt::Result {
    writeln!(text, "{:<34} {:<8} {:>8}  tests / reason", "stage", "result", "time")?;
    for report in reports {
        let (word, reason) = match &report.outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed(reason) => ("FAILED", reason.as_str()),
            Outcome::Skipped(reason) => ("skipped", reason.as_str()),
        };
        let counts = report.tally.as_ref().map_or_else(String::new, |tally| {
            format!("{} passed, {} failed, {} skipped", tally.passed, tally.failed.len(), tally.skipped.len())
        });
        let gap = if counts.is_empty() || reason.is_empty() { "" } else { "; " };
        let line =
            format!("{:<34} {word:<8} {:>8}  {counts}{gap}{reason}", report.stage.title(), duration(report.took),);
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
}

fn write_tests(text: &mut String, reports: &[Report]) -> std::fmt::Result {
    for tally in reports.iter().filter_map(|report| report.tally.as_ref()) {
        for test in &tally.failed {
            writeln!(text, "failed:  {test}")?;
        }
        for skipped in &tally.skipped {
            writeln!(text, "skipped: {}: {}", skipped.test, skipped.reason)?;
        }
    }
    Ok(())
}

fn sum(reports: &[Report]) -> String {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for report in reports {
        let counted = report.tally.as_ref().map_or((0, 0, 0), |t| (t.passed, t.failed.len(), t.skipped.len()));
        passed += counted.0;
        failed += counted.1;
        skipped += counted.2;
        // A stage without counted tests is one check; so is a failure that no test explains.
        match &report.outcome {
            Outcome::Passed if report.tally.is_none() => passed += 1,
            Outcome::Failed(_) if counted.1 == 0 => failed += 1,
            Outcome::Skipped(_) => skipped += 1,
            _ => {}
        }
    }
    format!("{passed} passed, {failed} failed, {skipped} skipped")
}

fn duration(took: Duration) -> String {
    let seconds = took.as_secs();
    if seconds >= 60 { format!("{}m{:02}s", seconds / 60, seconds % 60) } else { format!("{:.1}s", took.as_secs_f64()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{
        Stage,
        tally::{SkippedTest, Tally},
    };

    fn report(stage: Stage, outcome: Outcome, tally: Option<Tally>) -> Report {
        Report { stage, outcome, took: Duration::from_millis(61_500), tally }
    }

    #[test]
    fn the_last_line_is_the_sum_of_tests_and_of_other_stages() {
        let skipped = SkippedTest { test: "second_uid".to_owned(), reason: "not root".to_owned() };
        let reports = [
            report(Stage::Format, Outcome::Passed, None),
            report(Stage::FrontEnd, Outcome::Skipped("none yet".to_owned()), None),
            report(
                Stage::Unit,
                Outcome::Failed("1 failed".to_owned()),
                Some(Tally { passed: 5, failed: vec!["a::b".to_owned()], skipped: vec![skipped] }),
            ),
        ];
        let text = render(&reports);
        assert_eq!(text.lines().last(), Some("6 passed, 1 failed, 2 skipped"));
        assert!(text.contains("skipped: second_uid: not root"), "{text}");
        assert!(text.contains("failed:  a::b"), "{text}");
        assert!(!all_well(&reports));
    }

    #[test]
    fn a_failed_run_without_a_failed_test_counts_as_a_failure() {
        let reports = [report(Stage::Unit, Outcome::Failed("did not compile".to_owned()), Some(Tally::default()))];
        assert_eq!(render(&reports).lines().last(), Some("0 passed, 1 failed, 0 skipped"));
    }
}
