//! Where posternd keeps its files, and where its clients find it: one rule for the service, the CLI and the desktop app.
//!
//! | | with `POSTERN_HOME` (or `--home`) | otherwise |
//! |---|---|---|
//! | state | `$POSTERN_HOME/state` | `$XDG_STATE_HOME/postern`, else `~/.local/state/postern` |
//! | configuration | `$POSTERN_HOME/config` | `$XDG_CONFIG_HOME/postern`, else `~/.config/postern` |
//! | runtime | `$POSTERN_HOME/run` | `$XDG_RUNTIME_DIR/postern`, else `/run/user/<uid>/postern`, else `run` in the state folder |
//!
//! A runtime folder that belongs to another user (`sudo -E`, `su` without a login) is passed over, and `/run/user/<uid>`
//! is tried even when the variable is missing, so that a cron job finds the service that a desktop session started. As
//! the XDG rules ask, relative paths in XDG variables are ignored.

use std::{
    ffi::OsString,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

/// The variable that puts everything under one folder.
pub const HOME_VARIABLE: &str = "POSTERN_HOME";
/// The longest path that a Unix socket can have: the system's `sun_path` without its closing zero byte.
pub const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The folders of one user's service. Nothing is created here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// What outlives a restart: the device key, the sign-in, what is connected.
    pub state: PathBuf,
    /// What lives as long as the service: the socket and the lock.
    pub runtime: PathBuf,
    pub config: PathBuf,
}

/// Why there is no usable place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathsError {
    #[error("neither HOME nor {HOME_VARIABLE} is set to an absolute path; set one of them")]
    NoHome,
    #[error(
        "the socket path {} has {} bytes, the system allows {MAX_SOCKET_PATH}; set {HOME_VARIABLE} to a shorter folder",
        path.display(),
        path.as_os_str().len()
    )]
    SocketPathTooLong { path: PathBuf },
    #[error("the socket path {path:?} holds a zero byte; set {HOME_VARIABLE} to another folder")]
    ZeroByte { path: PathBuf },
}

impl Paths {
    /// The folders of the user who runs this process. `home` is the value of `--home`; it wins over the environment.
    pub fn find(home: Option<&Path>) -> Result<Self, PathsError> {
        let uid = rustix::process::geteuid().as_raw();
        let belongs_to_us = |folder: &Path| folder.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == uid);
        Self::choose(home, uid, &|name| std::env::var_os(name), &belongs_to_us)
    }

    /// Everything under one folder.
    pub fn under(home: &Path) -> Result<Self, PathsError> {
        let home = std::path::absolute(home).map_err(|_| PathsError::NoHome)?;
        Self { state: home.join("state"), runtime: home.join("run"), config: home.join("config") }.checked()
    }

    /// The socket of the local API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("posternd.sock")
    }

    /// The file that the service holds an exclusive `flock` on for as long as it lives. Who can lock it knows that no
    /// service runs.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.runtime.join("posternd.lock")
    }

    fn choose(
        home: Option<&Path>,
        uid: u32,
        variable: &dyn Fn(&str) -> Option<OsString>,
        belongs_to_us: &dyn Fn(&Path) -> bool,
    ) -> Result<Self, PathsError> {
        // An empty one is none, as with the variable, which may be where it comes from.
        if let Some(home) = home.filter(|home| !home.as_os_str().is_empty()) {
            return Self::under(home);
        }
        if let Some(home) = variable(HOME_VARIABLE).filter(|value| !value.is_empty()) {
            return Self::under(Path::new(&home));
        }
        let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let user = absolute("HOME");
        let in_home = |folder: &str| user.as_ref().map(|user| user.join(folder)).ok_or(PathsError::NoHome);
        let state = absolute("XDG_STATE_HOME").map_or_else(|| in_home(".local/state"), Ok)?.join("postern");
        let config = absolute("XDG_CONFIG_HOME").map_or_else(|| in_home(".config"), Ok)?.join("postern");
        let runtime = absolute("XDG_RUNTIME_DIR")
            .into_iter()
            .chain([PathBuf::from(format!("/run/user/{uid}"))])
            .find(|folder| belongs_to_us(folder))
            .map_or_else(|| state.join("run"), |folder| folder.join("postern"));
        Self { state, runtime, config }.checked()
    }

    fn checked(self) -> Result<Self, PathsError> {
        let path = self.socket();
        let bytes = path.as_os_str().as_bytes();
        if bytes.contains(&0) {
            return Err(PathsError::ZeroByte { path });
        }
        if bytes.len() > MAX_SOCKET_PATH {
            return Err(PathsError::SocketPathTooLong { path });
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chooses with the given variables, as uid 1000, where only the given folders belong to that user.
    fn choose(variables: &[(&str, &str)], ours: &[&str]) -> Result<Paths, PathsError> {
        let variable = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        Paths::choose(None, 1000, &variable, &|folder| ours.iter().any(|path| Path::new(path) == folder))
    }

    #[test]
    fn postern_home_holds_everything_and_wins_over_xdg() {
        let paths = choose(&[("POSTERN_HOME", "/p"), ("HOME", "/h"), ("XDG_STATE_HOME", "/s")], &[]).unwrap();
        assert_eq!(paths, Paths { state: "/p/state".into(), runtime: "/p/run".into(), config: "/p/config".into() });
        assert_eq!(paths.socket(), Path::new("/p/run/posternd.sock"));
        assert_eq!(paths.lock(), Path::new("/p/run/posternd.lock"));
    }

    #[test]
    fn an_empty_postern_home_counts_as_not_set() {
        assert_eq!(
            choose(&[("POSTERN_HOME", ""), ("HOME", "/h")], &[]).unwrap(),
            choose(&[("HOME", "/h")], &[]).unwrap()
        );
        assert_eq!(Paths::find(Some(Path::new(""))), Paths::find(None));
    }

    #[test]
    fn xdg_folders_are_used_where_they_are_set() {
        let variables =
            [("HOME", "/h"), ("XDG_STATE_HOME", "/s"), ("XDG_CONFIG_HOME", "/c"), ("XDG_RUNTIME_DIR", "/r")];
        let paths = choose(&variables, &["/r"]).unwrap();
        assert_eq!(
            paths,
            Paths { state: "/s/postern".into(), runtime: "/r/postern".into(), config: "/c/postern".into() }
        );
    }

    #[test]
    fn relative_xdg_folders_are_ignored() {
        let variables = [("HOME", "/h"), ("XDG_STATE_HOME", "s"), ("XDG_CONFIG_HOME", "c"), ("XDG_RUNTIME_DIR", "r")];
        let paths = choose(&variables, &["r"]).unwrap();
        assert_eq!(paths.state, Path::new("/h/.local/state/postern"));
        assert_eq!(paths.config, Path::new("/h/.config/postern"));
        assert_eq!(paths.runtime, Path::new("/h/.local/state/postern/run"));
    }

    #[test]
    fn the_usual_runtime_folder_is_found_without_its_variable() {
        let paths = choose(&[("HOME", "/h")], &["/run/user/1000"]).unwrap();
        assert_eq!(paths.runtime, Path::new("/run/user/1000/postern"));
    }

    #[test]
    fn a_runtime_folder_of_another_user_is_passed_over() {
        let variables = [("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/0")];
        assert_eq!(choose(&variables, &["/run/user/1000"]).unwrap().runtime, Path::new("/run/user/1000/postern"));
        assert_eq!(choose(&variables, &[]).unwrap().runtime, Path::new("/h/.local/state/postern/run"));
    }

    #[test]
    fn without_any_home_the_error_says_what_to_set() {
        let error = choose(&[], &[]).unwrap_err();
        assert_eq!(error, PathsError::NoHome);
        assert!(error.to_string().contains("POSTERN_HOME"));
    }

    #[test]
    fn a_socket_path_may_be_as_long_as_the_system_allows_and_no_longer() {
        let rest = "/run/posternd.sock".len();
        let longest = format!("/{}", "x".repeat(MAX_SOCKET_PATH - rest - 1));
        assert_eq!(Paths::under(Path::new(&longest)).unwrap().socket().as_os_str().len(), MAX_SOCKET_PATH);
        let error = Paths::under(Path::new(&format!("{longest}x"))).unwrap_err();
        assert!(matches!(error, PathsError::SocketPathTooLong { .. }));
        assert!(error.to_string().contains(&format!("{} bytes", MAX_SOCKET_PATH + 1)), "{error}");
    }
}
