//! What the service remembers over restarts: small JSON files in private folders.
//!
//! A file is either the old one or the new one, never half of either (written beside, fsync, renamed, folder fsynced).
//! A file that cannot be read is set aside under another name, told of in a warning, and counts as absent: bad content
//! never keeps the service from starting.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use postern_local_api::paths::Paths;
use postern_tunnel::private_file;
use serde::{Serialize, de::DeserializeOwned};

mod files;

pub use files::{
    CachedLeases, Choices, ChosenPorts, Config, DeviceKey, Identity, KeyStorageChosen, KeyringItem, LastReplica,
    LastUsed, Lock, NetworkSwitch, SignInRecord, WildcardHosts,
};

/// No file of ours is near this; a larger one is not read.
const MAX_FILE: u64 = 256 << 20;

/// A value with a file of its own.
pub trait Stored: Serialize + DeserializeOwned {
    const FILE: &'static str;
    const FOLDER: Folder = Folder::State;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    State,
    Config,
}

/// Reads and writes the files of one user. Blocking; callers on the runtime go through a thread.
#[derive(Clone, Debug)]
pub struct Store {
    state: PathBuf,
    config: PathBuf,
}

/// A file that was set aside.
#[derive(Debug, thiserror::Error)]
#[error("{} could not be read ({reason}) and was set aside as {}", path.display(), aside.display())]
pub struct SetAside {
    pub path: PathBuf,
    pub aside: PathBuf,
    pub reason: String,
}

/// A value in the form in which it goes to disk.
#[derive(Debug)]
pub struct Saving {
    path: PathBuf,
    bytes: zeroize::Zeroizing<Vec<u8>>,
}

/// What was not written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {error}", path.display())]
pub struct SaveError {
    pub path: PathBuf,
    pub error: io::Error,
}

impl Store {
    #[must_use]
    pub fn new(paths: &Paths) -> Self {
        Self { state: paths.state.clone(), config: paths.config.clone() }
    }

    /// Where a value is kept.
    #[must_use]
    pub fn path<T: Stored>(&self) -> PathBuf {
        match T::FOLDER {
            Folder::State => self.state.join(T::FILE),
            Folder::Config => self.config.join(T::FILE),
        }
    }

    /// What was kept last; `None` when there is nothing.
    ///
    /// # Errors
    /// [`SetAside`] when there was a file that made no sense. It is out of the way now.
    pub fn load<T: Stored>(&self) -> Result<Option<T>, SetAside> {
        let path = self.path::<T>();
        let value = read_private(&path).and_then(|bytes| {
            let Some(bytes) = bytes else { return Ok(None) };
            serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from)
        });
        value.map_err(|error| set_aside(path, &error))
    }

    /// Prepares a value for [`Saving::write`].
    ///
    /// # Errors
    /// A value that has no JSON form.
    pub fn prepare<T: Stored>(&self, value: &T) -> Result<Saving, SaveError> {
        let path = self.path::<T>();
        match serde_json::to_vec(value) {
            Ok(bytes) => Ok(Saving { path, bytes: bytes.into() }),
            Err(error) => Err(SaveError { path, error: error.into() }),
        }
    }

    /// Keeps a value; it is on disk when this returns.
    ///
    /// # Errors
    /// What the system says; the old file is untouched then.
    pub fn save<T: Stored>(&self, value: &T) -> Result<(), SaveError> {
        self.prepare(value)?.write()
    }

    /// What was kept last, or the default; a file that made no sense is told of in `warnings`.
    #[must_use]
    pub fn load_or_warn<T: Stored>(&self, warnings: &mut Vec<String>) -> Option<T> {
        self.load().unwrap_or_else(|aside| {
            tracing::warn!("{aside}");
            warnings.push(format!("{aside}. What was in it is forgotten."));
            None
        })
    }

    /// Forgets a value and what was ever set aside of it.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove<T: Stored>(&self) -> Result<(), SaveError> {
        let path = self.path::<T>();
        for victim in [&path, &aside(&path)] {
            match fs::remove_file(victim) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(SaveError { path: victim.clone(), error });
                }
                _ => {}
            }
        }
        sync_folder(&path).map_err(|error| SaveError { path, error })
    }
}

impl Saving {
    /// Replaces the file; it is on disk when this returns.
    ///
    /// # Errors
    /// What the system says; the old file is untouched then.
    pub fn write(self) -> Result<(), SaveError> {
        private_file::write(&self.path, &self.bytes).map_err(|error| SaveError { path: self.path, error })
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn read_private(path: &Path) -> io::Result<Option<zeroize::Zeroizing<Vec<u8>>>> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a plain file"));
    }
    if meta.len() > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is far too large"));
    }
    if meta.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    fs::read(path).map(|bytes| Some(bytes.into()))
}

fn set_aside(path: PathBuf, error: &io::Error) -> SetAside {
    let aside = aside(&path);
    let reason = match fs::rename(&path, &aside) {
        Ok(()) => error.to_string(),
        Err(second) => format!("{error}; nor could it be moved: {second}"),
    };
    SetAside { path, aside, reason }
}

fn aside(path: &Path) -> PathBuf {
    with_suffix(path, ".bad")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests;
