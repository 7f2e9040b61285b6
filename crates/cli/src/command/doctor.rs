//! `doctor`: what is wrong and what to do. What can be seen without the service comes first, so that the answer is of
//! use when it does not run.

use postern_local_api::{
    client::{ClientError, LocalClient},
    message::{Check, CheckGroup, DoctorLine, DoctorReport, Verdict},
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
    let mut told = Told::new(as_json);
    let mut fatal = None;
    match service.hello().await {
        Ok(hello) => {
            let own = [runs(&hello.service, hello.pid), autostart::check()];
            if let Err(error) = examine(&service, own, &mut told, context).await? {
                told.tell(broken(&error), context)?;
            }
        }
        Err(error) => {
            told.tell(broken(&error), context)?;
            told.tell(autostart::check(), context)?;
            fatal = Some(Failure::from(error).exit);
        }
    }
    let failed = told.finish(context)?;
    match (fatal, failed) {
        (Some(exit), _) => Err(Failure::silent(exit)),
        (None, 0) => Ok(()),
        (None, _) => Err(Failure::silent(Exit::Failed)),
    }
}

/// Tells of our own checks and of the service's as they come. The inner error is the service's.
async fn examine(
    service: &LocalClient,
    own: [Check; 2],
    told: &mut Told,
    context: &mut Context,
) -> Result<Result<(), ClientError>, Failure> {
    let mut examination = match waiting::during("checking", service.doctor_stream()).await {
        Ok(examination) => examination,
        Err(error) => {
            own.into_iter().try_for_each(|check| told.tell(check, context))?;
            return Ok(Err(error));
        }
    };
    own.iter().for_each(|check| told.expect(&check.id, &check.title));
    let mut own = Some(own);
    loop {
        let line = match waiting::during("checking", examination.next()).await {
            Ok(line) => line,
            Err(error) => return Ok(Err(error)),
        };
        if !matches!(line, Some(DoctorLine::Started { .. })) {
            // Now all titles are known, and with them the columns.
            own.take().into_iter().flatten().try_for_each(|check| told.tell(check, context))?;
        }
        match line {
            // The service says its version too; once is enough.
            Some(DoctorLine::Started { id, .. }) if id == "version" => {}
            Some(DoctorLine::Started { id, title, .. }) => told.expect(&id, &title),
            Some(DoctorLine::Finished(check)) if check.id == "version" => {}
            Some(DoctorLine::Finished(check)) => told.tell(check, context)?,
            None => return Ok(Ok(())),
        }
    }
}

/// What was told so far.
struct Told {
    as_json: bool,
    /// The ids of all checks, in their order.
    order: Vec<String>,
    checks: Vec<Check>,
    /// The column that details begin in.
    column: usize,
}

impl Told {
    const fn new(as_json: bool) -> Self {
        Self { as_json, order: Vec::new(), checks: Vec::new(), column: 0 }
    }

    fn expect(&mut self, id: &str, title: &str) {
        self.order.push(id.to_owned());
        self.column = self.column.max(Line::of(title).width() + 6);
    }

    fn tell(&mut self, check: Check, context: &mut Context) -> Result<(), Failure> {
        if !self.as_json {
            let column = self.column.max(Line::of(&check.title).width() + 6);
            show(&check, column, context)?;
            context.screen.flush()?;
        }
        self.checks.push(check);
        Ok(())
    }

    /// Says how it went; returns how many checks failed.
    fn finish(mut self, context: &mut Context) -> Result<usize, Failure> {
        let count = |verdict| self.checks.iter().filter(|check| check.verdict == verdict).count();
        let (failed, warnings) = (count(Verdict::Failed), count(Verdict::Warning));
        if self.as_json {
            let place = |check: &Check| self.order.iter().position(|id| *id == check.id).unwrap_or(usize::MAX);
            self.checks.sort_by_key(place);
            context.screen.json(&DoctorReport { checks: self.checks })?;
            return Ok(failed);
        }
        let summary = match (failed, warnings) {
            (0, 0) => Line::new().styled(GOOD, "All is well."),
            (0, warnings) => Line::of(format!("{}, nothing that stops you.", text::count(warnings, "warning"))),
            (failed, _) => Line::new().styled(BAD, format!("{} failed.", text::count(failed, "check"))),
        };
        context.screen.line(&Line::new())?;
        context.screen.line(&summary)?;
        Ok(failed)
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

fn show(check: &Check, column: usize, context: &mut Context) -> Result<(), Failure> {
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
    Ok(())
}
