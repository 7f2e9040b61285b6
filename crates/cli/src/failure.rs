//! What went wrong, told to a person: what failed, why, and what to do next.

use std::{fmt, io};

use postern_local_api::{client::ClientError, paths::PathsError};
use postern_proto::problem::Problem;

use crate::{
    exit::Exit,
    screen::{BAD, DIM, Line},
    text,
};

/// The end of a command that did not work.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    what: String,
    why: Vec<String>,
    next: Vec<String>,
    /// Nobody is there to read it: the reader of a pipe went away, or the user pressed Ctrl-C.
    silent: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), why: Vec::new(), next: Vec::new(), silent: false }
    }

    /// Ends the program with a code and without a word.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self { silent: true, ..Self::new(exit, "") }
    }

    pub(crate) fn because(mut self, why: impl Into<String>) -> Self {
        self.why.push(text::without_os_code(&why.into()).into_owned());
        self
    }

    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }

    pub(crate) fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    pub(crate) fn without_next(mut self) -> Self {
        self.next.clear();
        self
    }

    /// Puts what the command was about in front: `cannot show role "ops": …`.
    pub(crate) fn while_(mut self, doing: &str) -> Self {
        if !self.silent {
            self.what = format!("{doing}: {}", self.what);
        }
        self
    }

    /// What is printed; nothing for a silent end.
    pub(crate) fn lines(&self) -> Vec<Line> {
        if self.silent {
            return Vec::new();
        }
        let mut lines = vec![Line::new().styled(BAD, "error: ").plain(&self.what)];
        let labelled = |label: &str, text: &str| Line::new().plain("  ").styled(DIM, label).plain(text);
        lines.extend(self.why.iter().map(|why| labelled("why:  ", why)));
        lines.extend(self.next.iter().map(|next| labelled("next: ", next)));
        lines
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.why.iter().try_for_each(|why| write!(f, ": {why}"))
    }
}

impl From<io::Error> for Failure {
    /// For writing to stdout; other input and output says what it was about itself.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(Exit::Ok),
            _ => Self::new(Exit::Failed, "cannot write the output").because(error.to_string()),
        }
    }
}

impl From<PathsError> for Failure {
    fn from(error: PathsError) -> Self {
        Self::new(Exit::Failed, "there is no place for the service's socket").because(error.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NotRunning { socket } => Self::new(Exit::NotRunning, "posternd is not running")
                .because(format!("nothing answers at {}", socket.display()))
                .next("start it with `postern service run`, or with your session: `postern service install`"),
            ClientError::NotOurs { socket, reason } => {
                Self::new(Exit::NotRunning, format!("the service at {} is not yours", socket.display()))
                    .because(reason)
                    .next("check POSTERN_HOME and XDG_RUNTIME_DIR, and run this as the user who runs posternd")
            }
            ClientError::VersionMismatch { .. } => Self::new(Exit::NotRunning, error.to_string())
                .next("restart the service: `postern service stop`, then start it again"),
            ClientError::Refused(problem) => Self::from(problem),
            ClientError::Garbled { call, reason } => {
                Self::new(Exit::Failed, format!("posternd's answer to {call} makes no sense"))
                    .because(reason)
                    .next("check that postern and posternd are of one version: `postern version`")
            }
            ClientError::BrokenOff { call, reason } => {
                Self::new(Exit::NotRunning, format!("posternd broke off {call}"))
                    .because(reason)
                    .next("see whether it still runs: `postern doctor`")
            }
            ClientError::Silent { .. } => {
                Self::new(Exit::NotReady, error.to_string()).next("try again, or look at `postern doctor`")
            }
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let mut failure = Self::new(Exit::of_status(problem.status), as_clause(&problem.title));
        let told = problem.detail.clone().unwrap_or_default();
        // The violations say the same as the detail, one by one.
        let detail = problem.detail.filter(|_| problem.violations.is_empty());
        failure.why.extend(detail.map(|detail| text::without_os_code(&detail).into_owned()));
        failure.why.extend(
            problem
                .violations
                .into_iter()
                .map(|broken| format!("{} = {:?}: {}", broken.field, broken.value, broken.rule)),
        );
        // The control plane writes codes with `_`, the service with `-`.
        match (problem.status, problem.code.replace('-', "_").as_str()) {
            (_, "control_untrusted") => failure
                .with_exit(Exit::Failed)
                .next("name its certificate with --ca FILE or --ca-fingerprint HEX; `postern-control` prints both"),
            (_, "not_admin") => failure.next("ask an administrator, or sign in as one: `postern login`"),
            (423, _) | (_, "locked") if told.contains("postern unlock") => failure.with_exit(Exit::NotSignedIn),
            (423, _) | (_, "locked") => failure.with_exit(Exit::NotSignedIn).next("unlock first: `postern unlock`"),
            (401, _) if told.contains("postern login") => failure,
            (401, _) => failure.next("sign in: `postern login`"),
            _ => failure,
        }
    }
}

/// A title as the end of a sentence: `cannot sign in: the control plane cannot be reached`.
fn as_clause(title: &str) -> String {
    let mut chars = title.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain([second]).chain(chars).collect()
        }
        _ => title.to_owned(),
    }
}
