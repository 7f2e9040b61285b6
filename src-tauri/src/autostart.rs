//! Starting at login. The system's own entry decides; this makes it, removes it, and looks whether it is there.

pub(crate) use system::{is_on, set};

/// An entry of the freedesktop autostart specification in the user's configuration folder.
#[cfg(target_os = "linux")]
mod system {
    use std::{
        ffi::OsString,
        fs, io,
        path::{Path, PathBuf},
    };

    use tauri::AppHandle;

    /// Not in the way of an entry of the same name that a system-wide package may bring.
    const NAME: &str = "postern-desktop.desktop";

    pub(crate) fn is_on(_: &AppHandle) -> bool {
        entry(&|name| std::env::var_os(name))
            .is_some_and(|path| fs::read_to_string(path).is_ok_and(|text| counts(&text)))
    }

    pub(crate) fn set(_: &AppHandle, on: bool) -> Result<(), String> {
        let path = entry(&|name| std::env::var_os(name)).ok_or("neither HOME nor XDG_CONFIG_HOME is set")?;
        let program = std::env::var_os("APPIMAGE").map_or_else(std::env::current_exe, |path| Ok(path.into()));
        let program = program.map_err(|error| error.to_string())?;
        write(&path, on.then(|| text(&program)).as_deref()).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn entry(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")))?;
        Some(config.join("autostart").join(NAME))
    }

    fn write(path: &Path, text: Option<&str>) -> io::Result<()> {
        let Some(text) = text else {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let fresh = path.with_extension("desktop.new");
        fs::write(&fresh, text)?;
        fs::rename(fresh, path)
    }

    /// Desktops let a person turn an entry off without removing it.
    fn counts(text: &str) -> bool {
        let is = |key: &str, value: &str| {
            text.lines().filter_map(|line| line.split_once('=')).any(|(k, v)| k.trim() == key && v.trim() == value)
        };
        !is("Hidden", "true") && !is("X-GNOME-Autostart-enabled", "false")
    }

    fn text(program: &Path) -> String {
        format!(
            "[Desktop Entry]\nType=Application\nName=Postern\nIcon=postern-desktop\nExec={} --hidden\nTerminal=false\n\
             StartupNotify=false\n",
            quoted(&program.to_string_lossy())
        )
    }

    /// As an argument of `Exec` (Desktop Entry Specification): in quotes, with its two layers of escapes.
    fn quoted(text: &str) -> String {
        let mut quoted = String::from("\"");
        for c in text.chars() {
            match c {
                '\\' => quoted.push_str("\\\\\\\\"),
                '"' | '`' | '$' => {
                    quoted.push_str("\\\\");
                    quoted.push(c);
                }
                '%' => quoted.push_str("%%"),
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        quoted
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_entry_is_where_the_desktop_looks_for_it() {
            let place = |set: &[(&str, &str)]| {
                entry(&|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
            };
            let path = "/h/.config/autostart/postern-desktop.desktop";
            assert_eq!(place(&[("HOME", "/h")]), Some(path.into()));
            let path = "/c/autostart/postern-desktop.desktop";
            assert_eq!(place(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")]), Some(path.into()));
            assert_eq!(place(&[("XDG_CONFIG_HOME", "relative")]), None);
        }

        #[test]
        fn an_entry_comes_and_goes() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("autostart").join(NAME);
            write(&path, None).unwrap();
            write(&path, Some(&text(Path::new("/usr/bin/postern-desktop")))).unwrap();
            let written = fs::read_to_string(&path).unwrap();
            assert!(written.contains("\nExec=\"/usr/bin/postern-desktop\" --hidden\n"), "{written}");
            assert!(counts(&written));
            assert!(!counts(&format!("{written}Hidden=true\n")), "a person turned it off");
            write(&path, None).unwrap();
            assert!(!path.exists());
        }

        #[test]
        fn a_path_of_any_form_is_one_argument() {
            assert_eq!(quoted("/opt/my apps/p"), "\"/opt/my apps/p\"");
            assert_eq!(quoted("/o/100%/$x"), "\"/o/100%%/\\\\$x\"");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use tauri::AppHandle;
    use tauri_plugin_autostart::ManagerExt as _;

    pub(crate) fn is_on(shell: &AppHandle) -> bool {
        shell.autolaunch().is_enabled().unwrap_or(false)
    }

    pub(crate) fn set(shell: &AppHandle, on: bool) -> Result<(), String> {
        let autostart = shell.autolaunch();
        let done = if on { autostart.enable() } else { autostart.disable() };
        // Taking away what is not there is no failure.
        match done {
            Err(_) if !on && !is_on(shell) => Ok(()),
            done => done.map_err(|error| error.to_string()),
        }
    }
}
