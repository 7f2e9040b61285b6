//! The run of the doctor.

use std::collections::BTreeMap;

use postern_local_api::message::{self, CheckGroup, DoctorLine};

use super::Desk;
use crate::view::{Doctor, DoctorCheck, DoctorGroup, DoctorState, Problem, Verdict};

/// A run, if there was one.
#[derive(Debug, Default)]
pub(super) struct Diagnosis {
    run: Option<Run>,
}

#[derive(Debug)]
struct Run {
    state: DoctorState,
    started_at: u64,
    ended_at: Option<u64>,
    groups: BTreeMap<CheckGroup, Vec<DoctorCheck>>,
    problem: Option<Problem>,
}

impl Diagnosis {
    pub(super) fn shown(&self) -> Option<Doctor> {
        self.run.as_ref().map(|run| Doctor {
            state: run.state,
            started_at: run.started_at,
            ended_at: run.ended_at,
            groups: run.groups.iter().map(|(group, checks)| shown_group(*group, checks)).collect(),
            problem: run.problem.clone(),
        })
    }
}

fn shown_group(group: CheckGroup, checks: &[DoctorCheck]) -> DoctorGroup {
    let id = match group {
        CheckGroup::ThisComputer => "this_computer",
        CheckGroup::Identity => "identity",
        CheckGroup::Gateways => "gateways",
        CheckGroup::Resources => "resources",
        CheckGroup::NamesAndRoutes => "names_and_routes",
    };
    DoctorGroup { id: id.to_owned(), title: group.title().to_owned(), checks: checks.to_vec() }
}

impl Desk {
    /// Begins a run. `false`: one goes on already.
    pub(crate) fn doctor_begins(&mut self, now: u64) -> bool {
        if self.doctor.run.as_ref().is_some_and(|run| run.state == DoctorState::Running) {
            return false;
        }
        self.doctor.run = Some(Run {
            state: DoctorState::Running,
            started_at: now,
            ended_at: None,
            groups: BTreeMap::new(),
            problem: None,
        });
        self.untold.doctor = true;
        true
    }

    pub(crate) fn doctor_says(&mut self, line: DoctorLine) {
        let Some(run) = self.doctor.run.as_mut().filter(|run| run.state == DoctorState::Running) else { return };
        let (group, check) = match line {
            DoctorLine::Started { id, title, group } => (
                group,
                DoctorCheck {
                    id,
                    title,
                    verdict: Verdict::Running,
                    detail: String::new(),
                    advice: None,
                    commands: Vec::new(),
                    took_micros: None,
                },
            ),
            DoctorLine::Finished(check) => (check.group, finished(check)),
        };
        let checks = run.groups.entry(group).or_default();
        match checks.iter_mut().find(|known| known.id == check.id) {
            Some(known) => *known = check,
            None => checks.push(check),
        }
        self.untold.doctor = true;
    }

    /// Ends a run: `Ok` when all checks were made, `Err(None)` when somebody stopped it.
    pub(crate) fn doctor_ends(&mut self, now: u64, end: Result<(), Option<Problem>>) {
        let Some(run) = self.doctor.run.as_mut().filter(|run| run.state == DoctorState::Running) else { return };
        (run.state, run.problem) = match end {
            Ok(()) => (DoctorState::Done, None),
            Err(None) => (DoctorState::Stopped, None),
            Err(Some(problem)) => (DoctorState::Failed, Some(problem)),
        };
        run.ended_at = Some(now);
        for check in run.groups.values_mut().flatten().filter(|check| check.verdict == Verdict::Running) {
            check.verdict = Verdict::Waiting;
        }
        self.untold.doctor = true;
    }
}

fn finished(check: message::Check) -> DoctorCheck {
    DoctorCheck {
        id: check.id,
        title: check.title,
        verdict: match check.verdict {
            message::Verdict::Ok => Verdict::Ok,
            message::Verdict::Warning => Verdict::Warning,
            message::Verdict::Failed => Verdict::Failed,
            message::Verdict::Skipped => Verdict::Skipped,
        },
        detail: check.detail,
        advice: check.advice,
        commands: check.commands,
        took_micros: check.took_micros,
    }
}
