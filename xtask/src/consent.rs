//! Whether this machine may be changed: asked once for each change, or answered beforehand.

use std::io::{BufRead, IsTerminal, Write};

/// Who answers when something is to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    /// `--yes`, or a CI machine.
    Given,
    /// The person at the terminal.
    Ask,
    /// Nobody: there is no terminal.
    Nobody,
}

impl Consent {
    pub(crate) fn from_environment(yes: bool) -> Self {
        let ci = std::env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
        if yes || ci {
            Self::Given
        } else if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
            Self::Ask
        } else {
            Self::Nobody
        }
    }

    /// Whether `change` may be made. An unreadable answer is a no.
    pub(crate) fn allows(self, change: &str) -> bool {
        match self {
            Self::Given => true,
            Self::Nobody => false,
            Self::Ask => {
                anstream::eprint!("{change} [Y/n] ");
                let mut answer = String::new();
                let read = std::io::stderr().flush().and_then(|()| std::io::stdin().lock().read_line(&mut answer));
                read.is_ok_and(|bytes| bytes > 0) && matches!(answer.trim(), "" | "y" | "Y" | "yes")
            }
        }
    }
}
