//! Users of Unix systems.

use std::{fmt, fs::File, io, os::unix::fs::MetadataExt as _};

/// A user of this machine, by number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct User(pub(crate) u32);

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the file belongs to root and nobody else may write it.
pub(crate) fn is_the_administrators(file: &File) -> io::Result<bool> {
    let data = file.metadata()?;
    Ok(data.uid() == 0 && data.mode() & 0o022 == 0)
}
