//! One service per user: private folders and the locks that only one process holds.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use postern_local_api::paths::Paths;
use rustix::fs::{FlockOperation, flock};

/// Proof that this process is the only service of its user; it ends with the value.
#[derive(Debug)]
pub struct Instance {
    _runtime: File,
    _state: File,
}

/// Why the service cannot be this user's one service.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    #[error("posternd is already running for this user{}: {} is locked", pid_text(*pid), lock.display())]
    AlreadyRunning { pid: Option<u32>, lock: PathBuf },
    #[error("the folder {} belongs to uid {owner}, not to you; use another one (--home)", path.display())]
    ForeignFolder { path: PathBuf, owner: u32 },
    #[error("{} is not a folder", path.display())]
    NoFolder { path: PathBuf },
    #[error("cannot use {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

impl Instance {
    /// Makes the folders (0700) and takes the locks. The state folder is locked too, because the place of the runtime
    /// folder depends on the environment while the state is one.
    ///
    /// # Errors
    /// [`InstanceError::AlreadyRunning`] when another service lives, else what is wrong with the folders.
    pub fn claim(paths: &Paths) -> Result<Self, InstanceError> {
        for folder in [&paths.runtime, &paths.state, &paths.config] {
            make_private_folder(folder)?;
        }
        let runtime = take_lock(&paths.lock())?;
        let state = take_lock(&paths.state.join("posternd.lock"))?;
        Ok(Self { _runtime: runtime, _state: state })
    }
}

/// Makes a folder that only we may open; an existing one of ours is closed to others.
///
/// # Errors
/// A folder of another user, something that is no folder, or what the system says.
pub fn make_private_folder(path: &Path) -> Result<(), InstanceError> {
    let failed = |error| InstanceError::Io { path: path.to_owned(), error };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let meta = fs::symlink_metadata(path).map_err(failed)?;
    if !meta.is_dir() {
        return Err(InstanceError::NoFolder { path: path.to_owned() });
    }
    if meta.uid() != tun_driver::socket_owner::own_uid() {
        return Err(InstanceError::ForeignFolder { path: path.to_owned(), owner: meta.uid() });
    }
    if meta.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

fn take_lock(path: &Path) -> Result<File, InstanceError> {
    let failed = |error| InstanceError::Io { path: path.to_owned(), error };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut text);
            return Err(InstanceError::AlreadyRunning { pid: text.trim().parse().ok(), lock: path.to_owned() });
        }
        Err(error) => return Err(failed(error.into())),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_claim_says_who_holds_the_first() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::under(home.path()).unwrap();
        let first = Instance::claim(&paths).unwrap();
        let error = Instance::claim(&paths).unwrap_err();
        assert!(
            matches!(&error, InstanceError::AlreadyRunning { pid: Some(pid), .. } if *pid == std::process::id()),
            "{error}"
        );
        drop(first);
        Instance::claim(&paths).unwrap();
    }

    #[test]
    fn the_same_state_cannot_be_used_from_two_runtime_folders() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::under(home.path()).unwrap();
        let _first = Instance::claim(&paths).unwrap();
        let elsewhere = Paths { runtime: home.path().join("other"), ..paths };
        assert!(matches!(Instance::claim(&elsewhere), Err(InstanceError::AlreadyRunning { .. })));
    }

    #[test]
    fn folders_are_closed_to_others_even_when_they_were_open() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::under(home.path()).unwrap();
        fs::create_dir_all(&paths.state).unwrap();
        fs::set_permissions(&paths.state, fs::Permissions::from_mode(0o755)).unwrap();
        let _instance = Instance::claim(&paths).unwrap();
        for folder in [&paths.runtime, &paths.state, &paths.config] {
            assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_folder_behind_a_link_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let real = home.path().join("real");
        fs::create_dir(&real).unwrap();
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(matches!(make_private_folder(&link), Err(InstanceError::NoFolder { .. })));
    }
}
