//! `doctor`: what is wrong and what to do. What can be seen without the service comes first, so that the answer is of
//! use when it does not run.

use postern_local_api::{
    client::{ClientError, LocalClient},
    message::{Check, CheckGroup, DoctorReport, Verdict},
};

use super::service::autostart;
use crate::{
    context::Context,
    exit::Exit,
    failure::Failure,
    screen::{BAD, DIM, GOOD, Line, WARN},
    text, waiting,
};

pub(crate) async fn check(as_json: bool, context: &mut Context) -> Result<(), Failure> {
    let paths = context.paths()?;
    let service = LocalClient::new(paths.socket());
    let mut checks = Vec::new();
    let mut fatal = None;
    match service.hello().await {
        Ok(hello) => {
            checks.push(runs(&hello.service, hello.pid));
            checks.push(autostart::check());
            match waiting::during("checking", service.doctor()).await {
                // The service says its version too; once is enough.
                Ok(report) => checks.extend(report.checks.into_iter().filter(|check| check.id != "version")),
                Err(error) => checks.push(broken(&error)),
            }
        }
        Err(error) => {
            checks.push(broken(&error));
            checks.push(autostart::check());
            fatal = Some(Failure::from(error).exit);
        }
    }
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Failed).count();
    let report = DoctorReport { checks };
    if as_json {
        context.screen.json(&report)?;
    } else {
        show(&report, context)?;
    }
    match (fatal, failed) {
        (Some(exit), _) => Err(Failure::silent(exit)),
        (None, 0) => Ok(()),
        (None, _) => Err(Failure::silent(Exit::Failed)),
    }
}

fn runs(version: &str, pid: u32) -> Check {
    let ours = env!("CARGO_PKG_VERSION");
    let same = version == ours;
    Check {
        id: "service".to_owned(),
        title: "Background service".to_owned(),
        verdict: if same { Verdict::Ok } else { Verdict::Warning },
        detail: if same {
            format!("posternd {version} runs as process {pid}")
        } else {
            format!("posternd {version} runs as process {pid}, this program is version {ours}")
        },
        advice: (!same).then(|| "restart the service so that both are of one version".to_owned()),
        commands: Vec::new(),
        group: CheckGroup::ThisComputer,
        took_micros: None,
    }
}

fn broken(error: &ClientError) -> Check {
    let advice = match error {
        ClientError::NotRunning { .. } => {
            "start it with `postern service run`, or with your session: `postern service install`"
        }
        ClientError::NotOurs { .. } => "check POSTERN_HOME and XDG_RUNTIME_DIR; run this as the user who runs posternd",
        ClientError::VersionMismatch { .. } => "restart the service: `postern service stop`, then start it again",
        _ => "restart the service, and look at what it wrote before",
    };
    Check {
        id: "service".to_owned(),
        title: "Background service".to_owned(),
        verdict: Verdict::Failed,
        detail: error.to_string(),
        advice: Some(advice.to_owned()),
        commands: Vec::new(),
        group: CheckGroup::ThisComputer,
        took_micros: None,
    }
}

fn show(report: &DoctorReport, context: &mut Context) -> Result<(), Failure> {
    let column = report.checks.iter().map(|check| Line::of(&check.title).width()).max().unwrap_or_default() + 6;
    for check in &report.checks {
        let (style, mark) = match check.verdict {
            Verdict::Ok => (GOOD, "ok"),
            Verdict::Warning => (WARN, "!!"),
            Verdict::Failed => (BAD, "XX"),
            Verdict::Skipped => (DIM, "--"),
        };
        let line = Line::new().styled(style, mark).plain("  ").plain(&check.title).pad(column).plain(&check.detail);
        context.screen.line(&line)?;
        if let Some(advice) = &check.advice {
            context.screen.line(&Line::new().pad(column).styled(WARN, "do: ").plain(advice))?;
        }
        let look = check.commands.iter().filter(|_| check.verdict == Verdict::Failed);
        for command in look {
            context.screen.line(&Line::new().pad(column).styled(DIM, "look: ").plain(command))?;
        }
    }
    let count = |verdict| report.checks.iter().filter(|check| check.verdict == verdict).count();
    let summary = match (count(Verdict::Failed), count(Verdict::Warning)) {
        (0, 0) => Line::new().styled(GOOD, "All is well."),
        (0, warnings) => Line::of(format!("{}, nothing that stops you.", text::count(warnings, "warning"))),
        (failed, _) => Line::new().styled(BAD, format!("{} failed.", text::count(failed, "check"))),
    };
    context.screen.line(&Line::new())?;
    Ok(context.screen.line(&summary)?)
}
