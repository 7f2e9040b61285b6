//! Exit codes: stable, so that scripts can tell what happened without reading text.

use std::process::ExitCode;

/// How the program ends. The numbers never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// Anything that has no code of its own.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// posternd does not run, is not ours or speaks another version.
    NotRunning = 3,
    /// Not signed in, locked, or the credentials were refused.
    NotSignedIn = 4,
    NotFound = 5,
    Denied = 6,
    /// Not ready, not answered in time, or out of service for now.
    NotReady = 7,
    /// Values that break a rule or collide with what is there.
    Invalid = 8,
    /// Ended by Ctrl-C (SIGINT).
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

/// The table that `--help` and the man pages end with.
pub(crate) const HELP: &str = "\
Exit codes:
    0  done
    1  failed for a reason that has no code of its own
    2  the command line makes no sense
    3  posternd is not running, or is not yours
    4  not signed in, locked, or the credentials were refused
    5  not found: no such name, or nothing matches
    6  denied: you may not do this
    7  not ready: timed out, in use, or out of service for now
    8  invalid: a value breaks a rule or collides with what is there
  130  ended by Ctrl-C
  143  ended by a termination signal";

impl Exit {
    /// The code that fits an HTTP status of the service or of the control plane.
    pub(crate) const fn of_status(status: u16) -> Self {
        match status {
            401 | 423 | 428 => Self::NotSignedIn,
            403 => Self::Denied,
            404 | 410 => Self::NotFound,
            400 | 409 | 412 | 413 | 415 | 422 => Self::Invalid,
            408 | 425 | 429 | 502..=504 => Self::NotReady,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
