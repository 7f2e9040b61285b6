//! Runs tests and counts them: with cargo-nextest where it is installed, else with `cargo test`.
//!
//! A test that cannot run here (no root, no program) says so in a file and returns; libtest calls that passed, we do
//! not. See `skip` in the `tests` package.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::Context;
use serde::Deserialize;

use super::{Outcome, Setting};
use crate::front_end;

/// Names the file in which tests announce, a line each, that they could not run.
const SKIP_REPORT: &str = "POSTERN_SKIP_REPORT";
/// Names the folder of the programs that the build stage made for the tests.
const PROGRAMS: &str = "POSTERN_BIN_DIR";
/// Whether errors know where they come from. A test's error says what went wrong; forty lines of the test harness below it
/// would only push it out of what is kept of a long log. Panics follow `RUST_BACKTRACE` as ever.
const ERROR_TRACE: &str = "RUST_LIB_BACKTRACE";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: Vec<String>,
    pub(crate) skipped: Vec<SkippedTest>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SkippedTest {
    pub(crate) test: String,
    pub(crate) reason: String,
}

type Ran = anyhow::Result<(Outcome, Option<Tally>)>;

/// Runs the tests of the targets that `targets` selects, of all packages.
pub(crate) fn run_tests(setting: &Setting, targets: &[&str]) -> Ran {
    run_some_tests(setting, targets, None)
}

/// The same with a variable for the tests, without which some of them are ignored.
pub(crate) fn run_all_tests(setting: &Setting, targets: &[&str], variable: (&str, &str)) -> Ran {
    run_some_tests(setting, targets, Some(variable))
}

fn run_some_tests(setting: &Setting, targets: &[&str], variable: Option<(&str, &str)>) -> Ran {
    let mut command = setting.workspace.cargo();
    command.envs(variable);
    if has_nextest(setting) {
        command
            .args(["nextest", "run", "--locked", "--workspace", "--no-tests", "pass"])
            .args(front_end::FEATURES)
            .args(targets)
            .args(["--message-format", "libtest-json", "--status-level", "slow"])
            .env("NEXTEST_EXPERIMENTAL_LIBTEST_JSON", "1");
        if variable.is_some() {
            command.args(["--run-ignored", "all"]);
        }
        run(setting, command, read_nextest_line)
    } else {
        command.args(["test", "--locked", "--workspace", "--no-fail-fast"]).args(front_end::FEATURES).args(targets);
        if variable.is_some() {
            command.args(["--", "--include-ignored"]);
        }
        run(setting, command, read_libtest_line)
    }
}

/// Nextest runs no doc tests.
pub(crate) fn run_doc_tests(setting: &Setting) -> Ran {
    let mut command = setting.workspace.cargo();
    command.args(["test", "--locked", "--workspace", "--no-fail-fast", "--doc"]).args(front_end::FEATURES);
    run(setting, command, read_libtest_line)
}

fn has_nextest(setting: &Setting) -> bool {
    let mut command = setting.workspace.cargo();
    command.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn run(setting: &Setting, mut command: Command, read_line: fn(&str, &mut Tally) -> Show) -> Ran {
    // Each stage announces into an empty file, so that nobody's announcements are counted twice.
    std::fs::write(&setting.skipped_file, "").context("cannot write to the temporary folder")?;
    if let Some(folder) = &setting.programs {
        command.env(PROGRAMS, folder);
    }
    if std::env::var_os(ERROR_TRACE).is_none() {
        command.env(ERROR_TRACE, "0");
    }
    let mut child =
        command.env(SKIP_REPORT, &setting.skipped_file).stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = String::from_utf8_lossy(&line.context("cannot read what the tests print")?).into_owned();
            if read_line(&line, &mut tally) == Show::Yes {
                anstream::println!("{line}");
            }
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    let announced = std::fs::read_to_string(&setting.skipped_file).context("cannot read the file of skipped tests")?;
    tally.move_to_skipped(read_announcements(&announced)?);
    anstream::println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed.len(), tally.skipped.len());
    let outcome = match (status.success(), tally.failed.len()) {
        (true, 0) => Outcome::Passed,
        (_, 0) => Outcome::Failed(format!("no test failed, but cargo did; see above ({status})")),
        (_, failed) => Outcome::Failed(format!("{failed} failed; see above")),
    };
    Ok((outcome, Some(tally)))
}

impl Tally {
    /// What announced that it could not run has been counted as passed until now.
    fn move_to_skipped(&mut self, announced: Vec<SkippedTest>) {
        for skipped in announced {
            if !self.skipped.iter().any(|known| known.test == skipped.test) {
                self.passed = self.passed.saturating_sub(1);
                self.skipped.push(skipped);
            }
        }
    }
}

fn read_announcements(text: &str) -> anyhow::Result<Vec<SkippedTest>> {
    let read = |line: &str| {
        let (test, reason) = line.strip_prefix("SKIPPED: ")?.split_once(": ")?;
        Some(SkippedTest { test: test.to_owned(), reason: reason.to_owned() })
    };
    text.lines()
        .map(|line| read(line).with_context(|| format!("not the announcement of a skipped test: {line}")))
        .collect()
}

/// Whether a line is for the person who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    Yes,
    No,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    event: &'a str,
    name: Option<String>,
}

/// Nextest prints JSON for us on stdout, and everything for people on stderr.
fn read_nextest_line(line: &str, tally: &mut Tally) -> Show {
    let Ok(Event { kind: "test", event, name: Some(name) }) = serde_json::from_str::<Event<'_>>(line) else {
        return Show::No;
    };
    let name = name.replacen('$', " ", 1);
    match event {
        "ok" => tally.passed += 1,
        "failed" => tally.failed.push(name),
        "ignored" => tally.skipped.push(SkippedTest { test: name, reason: "ignored in the source".to_owned() }),
        _ => {}
    }
    Show::No
}

/// `test name ... ok`, as libtest prints it. A test that prints may break its line; the sum of its binary still
/// tells, but not its name.
fn read_libtest_line(line: &str, tally: &mut Tally) -> Show {
    let Some((name, verdict)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) else {
        return Show::Yes;
    };
    match verdict.split_once(", ").unwrap_or((verdict, "ignored in the source")) {
        ("ok", _) => tally.passed += 1,
        ("FAILED", _) => tally.failed.push(name.to_owned()),
        ("ignored", reason) => {
            tally.skipped.push(SkippedTest { test: name.to_owned(), reason: reason.to_owned() });
        }
        _ => {}
    }
    Show::Yes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str, read_line: fn(&str, &mut Tally) -> Show) -> Tally {
        let mut tally = Tally::default();
        for line in lines.lines() {
            read_line(line, &mut tally);
        }
        tally
    }

    #[test]
    fn nextest_events_are_counted_by_their_outcome() {
        let tally = read(
            r#"{"type":"suite","event":"started","test_count":3}
{"type":"test","event":"started","name":"a::a$good"}
{"type":"test","event":"ok","name":"a::a$good","exec_time":0.005}
{"type":"test","event":"failed","name":"a::a$bad","exec_time":0.005,"stdout":"thread\npanicked"}
{"type":"test","event":"ignored","name":"a::a$later"}
{"type":"suite","event":"failed","passed":1,"failed":1,"ignored":1}"#,
            read_nextest_line,
        );
        assert_eq!(tally.passed, 1);
        assert_eq!(tally.failed, ["a::a bad"]);
        assert_eq!(tally.skipped.len(), 1);
    }

    #[test]
    fn libtest_lines_are_counted_by_their_outcome() {
        let tally = read(
            "\nrunning 4 tests\ntest a::good ... ok\ntest a::bad ... FAILED\ntest b ... ignored, needs a moon\n\
             test src/lib.rs - x (line 3) ... ok\ntest result: FAILED. 2 passed; 1 failed; 1 ignored",
            read_libtest_line,
        );
        assert_eq!(tally.passed, 2);
        assert_eq!(tally.failed, ["a::bad"]);
        assert_eq!(tally.skipped, [SkippedTest { test: "b".to_owned(), reason: "needs a moon".to_owned() }]);
    }

    #[test]
    fn a_test_that_announced_itself_skipped_is_not_passed() {
        let mut tally = Tally { passed: 3, ..Tally::default() };
        let skipped = SkippedTest { test: "a::b".to_owned(), reason: "no root: really".to_owned() };
        let announced = "SKIPPED: a::b: no root: really\nSKIPPED: a::b: no root: really\n";
        tally.move_to_skipped(read_announcements(announced).unwrap());
        assert_eq!(tally, Tally { passed: 2, failed: vec![], skipped: vec![skipped] });
    }
}
