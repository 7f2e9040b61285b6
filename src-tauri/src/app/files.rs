//! Clipboard, native tools, settings and the log export.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::PoisonError,
};

use postern_local_api::{
    message::{self, LogRequest},
    proto::id::ResourceId,
};

use super::{App, unknown, wall};
use crate::{
    desk::problem_of,
    tool,
    view::{Clip, Copied, LogExport, LogPart, Problem, Redaction, SavedFile, Settings, Which},
};

/// A page may put this much text of its own on the clipboard.
const MOST_TEXT: usize = 64 << 10;
/// A preview shows this many lines of a part; the file holds all.
const MOST_LINES: usize = 2_000;

impl App {
    pub(crate) fn copy(&self, clip: Clip) -> Result<Copied, Problem> {
        let lines = match clip {
            Clip::Addresses { ids } => self.lines(&ids, |app, id| app.desk().address(id))?,
            Clip::Commands { ids } => self.lines(&ids, |app, id| app.desk().command(id))?,
            Clip::Report { id } => {
                let id = Self::named(&id)?;
                vec![self.desk().report(id).ok_or_else(unknown)?]
            }
            Clip::Text { text } if text.len() <= MOST_TEXT => vec![text],
            Clip::Text { .. } => return Err(problem_of("too_many", "That is more than 64 KiB of text.", "", "")),
        };
        let copied = Copied { text: lines.join("\n"), count: u32::try_from(lines.len()).unwrap_or(u32::MAX) };
        let shell = self.shell.get().ok_or_else(|| not_copied("the app is starting"))?;
        crate::clipboard::put(shell, copied.text.clone()).map_err(|error| not_copied(&error))?;
        Ok(copied)
    }

    /// A line for each resource that is (still) there; using one makes it a recent.
    fn lines(
        &self,
        ids: &[String],
        line: impl Fn(&Self, ResourceId) -> Option<String>,
    ) -> Result<Vec<String>, Problem> {
        let ids: Vec<ResourceId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        let lines: Vec<String> = ids.iter().filter_map(|id| line(self, *id)).collect();
        if lines.is_empty() {
            return Err(unknown());
        }
        if let [id] = ids[..] {
            self.with(|desk, now| desk.touch(now, id));
        }
        Ok(lines)
    }

    pub(crate) async fn open_with(&self, id: &str, with: Option<&str>) -> Result<(), Problem> {
        let resource = Self::named(id)?;
        let endpoint = self.desk().endpoint(resource).ok_or_else(unknown)?;
        let tools = self.desk().desktop().tools.clone();
        let fits =
            |one: &&crate::view::Tool| one.kinds.contains(&endpoint.kind) && with.is_none_or(|wanted| wanted == one.id);
        let chosen = tools.iter().find(fits).ok_or_else(|| {
            let why = "No program for this kind of resource is installed here.";
            problem_of("no_tool", "It cannot be opened in a program.", why, "Copy its command instead.")
        })?;
        let endpoint = if endpoint.wanted {
            endpoint
        } else {
            let changed = self.connect(Which::Ids { ids: vec![id.to_owned()] }).await?;
            if let Some(failed) = changed.failed.into_iter().next() {
                return Err(failed.problem);
            }
            // Its address may be another now that it is there.
            self.desk().endpoint(resource).ok_or_else(unknown)?
        };
        let call = tool::call(&tool::in_path, &chosen.id, endpoint.kind, &endpoint.host, endpoint.port);
        let call = call.ok_or_else(|| not_started(&chosen.name, "it is no longer installed"))?;
        tool::run(&call).map_err(|error| not_started(&chosen.name, &error.to_string()))?;
        self.with(|desk, now| desk.touch(now, resource));
        Ok(())
    }

    pub(crate) fn save_settings(&self, settings: Settings) -> Result<Settings, Problem> {
        let before = self.desk().settings().clone();
        let mut settings = settings;
        settings.muted.sort_unstable();
        settings.muted.dedup();
        if before.start_at_login != settings.start_at_login
            && self.options.mock.is_none()
            && let Some(shell) = self.shell.get()
        {
            crate::autostart::set(shell, settings.start_at_login).map_err(|why| {
                problem_of(
                    "autostart",
                    "Starting at login could not be changed.",
                    &why,
                    "Nothing else was changed either.",
                )
            })?;
        }
        let stored = crate::settings::Stored { settings: settings.clone(), ..self.desk().stored().clone() };
        self.store.save(&stored).map_err(|error| {
            problem_of(
                "not_kept",
                "The settings were not kept.",
                &format!("{error}."),
                "Make room or mend the folder, then try again.",
            )
        })?;
        self.with(|desk, _| {
            desk.set_settings(settings.clone());
        });
        Ok(settings)
    }

    pub(crate) async fn preview_logs(&self, redaction: Redaction) -> Result<LogExport, Problem> {
        let wanted = match redaction {
            Redaction::Names => message::Redaction::Names,
            Redaction::Pseudonyms => message::Redaction::Pseudonyms,
            Redaction::Strict => message::Redaction::Strict,
        };
        let log = self.answer(self.service.logs(LogRequest { redaction: wanted }).await)?;
        let service = self.desk().status().map(|status| status.service.clone()).unwrap_or_default();
        let about = vec![
            format!("window {}", env!("CARGO_PKG_VERSION")),
            format!("service {service}"),
            format!("system {}", std::env::consts::OS),
            format!("redaction {}", serde_json::to_string(&redaction).unwrap_or_default().trim_matches('"')),
        ];
        let parts = vec![part("about.txt", about, 0), part("service.log", log.lines, log.forgotten)];
        let export = LogExport {
            redaction,
            bytes: u64::try_from(text(&parts).len()).unwrap_or(u64::MAX),
            parts,
            replaced: u32::try_from(log.replaced).unwrap_or(u32::MAX),
        };
        *self.export.lock().unwrap_or_else(PoisonError::into_inner) = Some(export.clone());
        Ok(shortened(export))
    }

    pub(crate) fn save_logs(&self) -> Result<SavedFile, Problem> {
        let export = self.export.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let export = export.ok_or_else(|| {
            problem_of("no_preview", "There is nothing to save yet.", "", "Look at the preview first.")
        })?;
        let folder = download_folder();
        let text = text(&export.parts);
        let path = write_new(&folder, &text).map_err(|error| {
            let why = format!("{}: {error}.", folder.display());
            problem_of(
                "not_saved",
                "The file could not be saved.",
                &why,
                "Make room or mend the folder, then try again.",
            )
        })?;
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.clone());
        Ok(SavedFile { path: path.display().to_string(), bytes: export.bytes })
    }

    pub(crate) fn show_saved(&self) -> Result<(), Problem> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let folder = saved
            .as_deref()
            .and_then(Path::parent)
            .ok_or_else(|| problem_of("nothing_saved", "Nothing was saved yet.", "", "Save the export first."))?;
        let call =
            tool::folder(&tool::in_path, folder).ok_or_else(|| not_started("A file manager", "none is installed"))?;
        tool::run(&call).map_err(|error| not_started("The file manager", &error.to_string()))
    }
}

fn not_copied(why: &str) -> Problem {
    problem_of("not_copied", "It was not copied.", why, "Try again.")
}

fn not_started(name: &str, why: &str) -> Problem {
    problem_of("not_started", &format!("{name} could not be started."), why, "Copy the command instead.")
}

fn part(name: &str, lines: Vec<String>, forgotten: u64) -> LogPart {
    let bytes = lines.iter().map(|line| line.len() + 1).sum::<usize>();
    LogPart {
        name: name.to_owned(),
        bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        line_count: u32::try_from(lines.len()).unwrap_or(u32::MAX),
        lines,
        forgotten,
    }
}

/// The file, as it is saved.
fn text(parts: &[LogPart]) -> String {
    let mut text = String::new();
    for part in parts {
        text.push_str(&format!("==== {}\n", part.name));
        for line in &part.lines {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The last lines of each part, for the page.
fn shortened(mut export: LogExport) -> LogExport {
    for part in &mut export.parts {
        let beyond = part.lines.len().saturating_sub(MOST_LINES);
        part.lines.drain(..beyond);
    }
    export
}

/// The user's download folder, else the home folder.
fn download_folder() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(|| PathBuf::from("/"));
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let config = config.unwrap_or_else(|| home.join(".config")).join("user-dirs.dirs");
    let named = fs::read_to_string(config).ok().and_then(|text| named_download(&text, &home));
    [named, Some(home.join("Downloads"))].into_iter().flatten().find(|path| path.is_dir()).unwrap_or(home)
}

/// The line `XDG_DOWNLOAD_DIR="$HOME/Downloads"` of `user-dirs.dirs`.
fn named_download(text: &str, home: &Path) -> Option<PathBuf> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("XDG_DOWNLOAD_DIR="))?;
    let value = line.trim_matches('"');
    match value.strip_prefix("$HOME/") {
        Some(rest) => Some(home.join(rest)),
        None => Some(PathBuf::from(value)).filter(|path| path.is_absolute()),
    }
}

/// Writes a file of a name that is not taken; nobody else may read it.
fn write_new(folder: &Path, text: &str) -> io::Result<PathBuf> {
    let now = time::OffsetDateTime::from_unix_timestamp(i64::try_from(wall() / 1000).unwrap_or(0))
        .map_err(io::Error::other)?;
    let stamp = now
        .format(time::macros::format_description!("[year][month][day]-[hour][minute][second]"))
        .map_err(io::Error::other)?;
    for n in 0..100 {
        let more = if n == 0 { String::new() } else { format!("-{n}") };
        let path = folder.join(format!("postern-logs-{stamp}{more}.txt"));
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("a hundred files of this name are there already"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_log_is_saved_once_and_for_the_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = write_new(folder.path(), "a\n").unwrap();
        let second = write_new(folder.path(), "b\n").unwrap();
        assert_ne!(first, second);
        assert_eq!(fs::read_to_string(&first).unwrap(), "a\n");
        assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_download_folder_is_the_one_that_the_user_chose() {
        let home = Path::new("/data/ana");
        let named = |text| named_download(text, home);
        assert_eq!(named("# x\nXDG_DOWNLOAD_DIR=\"$HOME/Geladen\"\n"), Some("/data/ana/Geladen".into()));
        assert_eq!(named("XDG_DOWNLOAD_DIR=\"/data/in\""), Some("/data/in".into()));
        assert_eq!(named("XDG_DOWNLOAD_DIR=\"in\""), None);
    }

    #[test]
    fn the_preview_holds_the_last_lines_and_the_file_all() {
        let lines: Vec<String> = (0..3_000).map(|n| format!("line {n}")).collect();
        let parts = vec![part("service.log", lines, 7)];
        assert_eq!(text(&parts).lines().count(), 3_001);
        let export = LogExport { redaction: Redaction::Strict, parts, bytes: 0, replaced: 0 };
        let shown = shortened(export);
        assert_eq!((shown.parts[0].lines.len(), shown.parts[0].line_count), (MOST_LINES, 3_000));
        assert_eq!(shown.parts[0].lines[0], "line 1000");
    }
}
