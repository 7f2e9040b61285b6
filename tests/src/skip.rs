//! Saying aloud what a machine cannot test.

use std::{io::Write as _, path::PathBuf};

/// Where skips are collected, one line each, when this variable names a file.
pub const REPORT_VARIABLE: &str = "POSTERN_SKIP_REPORT";

/// Announces that `test` does not run here, and why. The caller returns afterwards.
pub fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED: {test}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    let Some(report) = std::env::var_os(REPORT_VARIABLE).map(PathBuf::from) else { return };
    let written = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&report)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        let _ = writeln!(std::io::stderr(), "cannot write {}: {error}", report.display());
    }
}

/// Whether this process is root, which the tests with several users need.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Leaves the test with an announcement when a condition does not hold.
///
/// ```text
/// need!(is_root(), "needs root to act as a second user");
/// ```
#[macro_export]
macro_rules! need {
    ($condition:expr, $reason:expr) => {
        if !$condition {
            $crate::skip::skip(&$crate::skip::test_name(), $reason);
            return Ok(());
        }
    };
}

/// Gives the program, or leaves the test with an announcement when it is not installed.
#[macro_export]
macro_rules! need_program {
    ($name:expr) => {
        match $crate::command::find_program($name) {
            Some(path) => path,
            None => {
                $crate::skip::skip(
                    &$crate::skip::test_name(),
                    &format!("{} is not installed (tests/debian-packages.txt lists what is needed)", $name),
                );
                return Ok(());
            }
        }
    };
}

/// The name of the running test: the test harness gives it to the thread, unless that is the main one.
#[must_use]
pub fn test_name() -> String {
    match std::thread::current().name() {
        None | Some("main") => {
            std::env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| "a test without a name".to_owned())
        }
        Some(name) => name.to_owned(),
    }
}
