//! The settings file: read once, written whole and atomically, readable by the user alone.
//!
//! A file that cannot be understood is kept aside under another name, and that is said; defaults apply then. Fields of
//! newer versions are carried along, so that going back a version loses nothing.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::view::Settings;

/// How many recents the list shows.
pub const RECENTS: usize = 5;
/// A settings file larger than this was not written by us.
const LARGEST: u64 = 4 << 20;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stored {
    pub settings: Settings,
    /// Ids, in the user's own order.
    pub favourites: Vec<String>,
    /// Last used first.
    pub recents: Vec<Used>,
    /// To fill in the next time.
    pub address: Option<String>,
    pub email: Option<String>,
    /// What other versions keep.
    #[serde(flatten)]
    pub others: serde_json::Map<String, serde_json::Value>,
}

/// A resource that was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    pub id: String,
    /// Milliseconds since 1970.
    pub at: u64,
}

impl Stored {
    /// Takes note that a resource was used. Whether the order changed.
    pub fn touch(&mut self, id: &str, at: u64) -> bool {
        let before: Vec<String> = self.recents.iter().map(|used| used.id.clone()).collect();
        let known = self.recents.iter().find(|used| used.id == id).map_or(0, |used| used.at);
        self.recents.retain(|used| used.id != id);
        self.recents.push(Used { id: id.to_owned(), at: at.max(known) });
        self.recents.sort_by_key(|used| std::cmp::Reverse(used.at));
        self.recents.truncate(RECENTS);
        self.recents.iter().map(|used| &used.id).ne(&before)
    }

    /// Adds a favourite at the end, or takes one away. Whether something changed.
    pub fn set_favourite(&mut self, id: &str, on: bool) -> bool {
        let known = self.favourites.iter().any(|favourite| favourite == id);
        match (known, on) {
            (false, true) => self.favourites.push(id.to_owned()),
            (true, false) => self.favourites.retain(|favourite| favourite != id),
            _ => return false,
        }
        true
    }

    /// Gives the favourites this order; those that are not named keep theirs behind it.
    pub fn order_favourites(&mut self, ids: &[String]) {
        let place = |id: &String| ids.iter().position(|named| named == id).unwrap_or(ids.len());
        self.favourites.sort_by_key(place);
    }
}

/// Where they are kept.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
}

/// Why the settings could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be written: {error}", path.display())]
pub struct NotKept {
    pub path: PathBuf,
    pub error: io::Error,
}

/// A file that was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    pub reason: String,
    /// Where it is now; `None`: it could not be moved and is left where it is.
    pub kept: Option<PathBuf>,
}

impl Store {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file. Without one there are defaults; what cannot be understood is put aside.
    #[must_use]
    pub fn load(&self) -> (Stored, Option<Aside>) {
        match self.read() {
            Ok(stored) => (stored, None),
            Err(reason) => {
                let kept = self.path.with_extension("json.bad");
                let kept = fs::rename(&self.path, &kept).is_ok().then_some(kept);
                (Stored::default(), Some(Aside { reason, kept }))
            }
        }
    }

    fn read(&self) -> Result<Stored, String> {
        let size = match fs::metadata(&self.path) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stored::default()),
            Err(error) => return Err(error.to_string()),
        };
        if size > LARGEST {
            return Err(format!("it has {size} bytes"));
        }
        let text = fs::read(&self.path).map_err(|error| error.to_string())?;
        serde_json::from_slice(&text).map_err(|error| error.to_string())
    }

    /// Writes them beside the file and puts that in its place, so that a crash leaves the old or the new one.
    pub fn save(&self, stored: &Stored) -> Result<(), NotKept> {
        self.write(stored).map_err(|error| NotKept { path: self.path.clone(), error })
    }

    fn write(&self, stored: &Stored) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or_else(|| Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut text = serde_json::to_vec_pretty(stored)?;
        text.push(b'\n');
        // A name of this process, so that two that write at once do not mix.
        let fresh = self.path.with_extension(format!("json.{}.new", std::process::id()));
        let written = (|| {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&fresh, &self.path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::view::{NotificationKind, Theme};

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("config/desktop.json"));
        (folder, store)
    }

    #[test]
    fn what_was_kept_is_read_again() {
        let (_folder, store) = store();
        let mut stored = Stored { favourites: vec!["b".into(), "a".into()], ..Stored::default() };
        stored.settings.theme = Theme::Dark;
        stored.settings.muted = vec![NotificationKind::Update];
        stored.touch("a", 7);
        store.save(&stored).unwrap();
        assert_eq!(store.load(), (stored, None));
    }

    #[test]
    fn only_the_user_may_read_the_file_and_its_folder() {
        let (_folder, store) = store();
        store.save(&Stored::default()).unwrap();
        assert_eq!(fs::metadata(store.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(store.path().parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let names: Vec<_> = fs::read_dir(store.path().parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing is left beside it: {names:?}");
    }

    #[test]
    fn a_file_that_is_not_there_means_defaults() {
        let (_folder, store) = store();
        assert_eq!(store.load(), (Stored::default(), None));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_put_aside_and_said() {
        let (_folder, store) = store();
        store.save(&Stored::default()).unwrap();
        fs::write(store.path(), "{\"settings\": {\"theme\": \"puce\"}}").unwrap();
        let (stored, aside) = store.load();
        assert_eq!(stored, Stored::default());
        let aside = aside.unwrap();
        assert!(aside.reason.contains("puce"), "{}", aside.reason);
        assert!(fs::read_to_string(aside.kept.unwrap()).unwrap().contains("puce"));
        assert_eq!(store.load(), (Stored::default(), None), "it is asked about once");
    }

    #[test]
    fn fields_of_other_versions_are_carried_along() {
        let (_folder, store) = store();
        store.save(&Stored::default()).unwrap();
        fs::write(store.path(), r#"{"favourites": ["a"], "layout": {"columns": 3}}"#).unwrap();
        let (stored, aside) = store.load();
        assert_eq!(aside, None);
        store.save(&stored).unwrap();
        let text = fs::read_to_string(store.path()).unwrap();
        assert!(text.contains("\"columns\": 3"), "{text}");
        assert!(text.contains("\"shortcuts\": true"), "missing fields have their defaults: {text}");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_said_with_its_path() {
        let store = Store::new("/proc/nowhere/desktop.json".into());
        let error = store.save(&Stored::default()).unwrap_err().to_string();
        assert!(error.starts_with("/proc/nowhere/desktop.json cannot be written"), "{error}");
    }

    #[test]
    fn the_last_used_come_first_and_five_of_them_are_kept() {
        let mut stored = Stored::default();
        for (at, id) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
            assert!(stored.touch(id, at as u64));
        }
        assert!(stored.touch("c", 10));
        assert!(!stored.touch("c", 11), "it is the first already");
        let ids: Vec<&str> = stored.recents.iter().map(|used| used.id.as_str()).collect();
        assert_eq!(ids, ["c", "f", "e", "d", "b"]);
    }

    #[test]
    fn favourites_have_an_order_of_their_own() {
        let mut stored = Stored::default();
        for id in ["a", "b", "c"] {
            assert!(stored.set_favourite(id, true));
        }
        assert!(!stored.set_favourite("a", true));
        stored.order_favourites(&["c".into(), "stranger".into(), "a".into()]);
        assert_eq!(stored.favourites, ["c", "a", "b"]);
        assert!(stored.set_favourite("a", false));
        assert_eq!(stored.favourites, ["c", "b"]);
    }
}
