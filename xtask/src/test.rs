//! `cargo xtask test`: everything that is checked, with one summary at the end.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{consent::Consent, workspace::Workspace};

mod other_systems;
mod postgres;
mod python;
mod stage;
mod summary;
mod tally;

pub(crate) use stage::{Stage, Tool};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install what is missing without asking (CI=true implies it)
    #[arg(long)]
    yes: bool,
    /// Folder of the RustSec advisory database [default: ../shared/advisory-db where present]
    #[arg(long, value_name = "DIR", env = "POSTERN_ADVISORY_DB")]
    advisory_db: Option<PathBuf>,
    /// Run these stages only (comma-separated)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "STAGE")]
    only: Vec<Stage>,
}

/// What every stage is told.
pub(crate) struct Setting {
    pub(crate) workspace: Workspace,
    pub(crate) consent: Consent,
    pub(crate) advisory_db: Option<PathBuf>,
    /// Tests append a line here when they cannot run.
    pub(crate) skipped_file: PathBuf,
    /// The folder of our programs, once this run has built them.
    pub(crate) programs: Option<PathBuf>,
}

/// How a stage ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// A stage that has run.
pub(crate) struct Report {
    pub(crate) stage: Stage,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
    /// For stages that run tests.
    pub(crate) tally: Option<tally::Tally>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let beside = workspace.root().join("../shared/advisory-db");
    let mut setting = Setting {
        consent: Consent::from_environment(args.yes),
        advisory_db: args.advisory_db.clone().or_else(|| beside.is_dir().then_some(beside)),
        skipped_file: scratch.path().join("skipped.jsonl"),
        programs: None,
        workspace,
    };
    let wanted = if args.only.is_empty() { Stage::ALL } else { &args.only };
    let mut reports: Vec<Report> = Vec::new();
    for &stage in wanted {
        let report = run_stage(stage, &setting, &reports);
        if stage == Stage::Build && report.outcome == Outcome::Passed {
            setting.programs = Some(setting.workspace.target_folder()?.join("debug"));
        }
        reports.push(report);
    }
    summary::print(&reports);
    Ok(if summary::all_well(&reports) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_stage(stage: Stage, setting: &Setting, before: &[Report]) -> Report {
    anstream::println!("\n=== {} ===", stage.title());
    let start = Instant::now();
    let unbuilt = before.iter().any(|report| report.stage == Stage::Build && report.outcome != Outcome::Passed);
    let (outcome, tally) = if unbuilt && stage.needs_build() {
        (Outcome::Skipped("the build failed".to_owned()), None)
    } else {
        stage.run(setting).unwrap_or_else(|error| (Outcome::Failed(format!("{error:#}")), None))
    };
    match &outcome {
        Outcome::Passed => {}
        Outcome::Failed(reason) => anstream::println!("FAILED: {reason}"),
        Outcome::Skipped(reason) => anstream::println!("SKIPPED: {reason}"),
    }
    Report { stage, outcome, took: start.elapsed(), tally }
}
