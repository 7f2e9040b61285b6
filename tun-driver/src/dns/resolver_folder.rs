//! macOS: one file per zone in /etc/resolver, see resolver(5). The system watches the folder.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{DnsBackend, LinkNames};
use crate::interface::Zone;

/// The first line of a file of ours.
const MARK: &str = "# postern-netd wrote this file; it is removed when the virtual network ends\n";

/// The folder of the system's resolvers.
#[derive(Clone, Debug)]
pub(crate) struct ResolverFolder {
    folder: PathBuf,
}

impl Default for ResolverFolder {
    fn default() -> Self {
        Self { folder: "/etc/resolver".into() }
    }
}

impl ResolverFolder {
    pub(crate) const BACKEND: DnsBackend = DnsBackend::ResolverFolder;

    #[cfg(test)]
    fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Makes the marked files those of `links`, and leaves all others alone.
    ///
    /// # Errors
    /// `AlreadyExists`: a zone has a file of somebody else; then nothing is changed.
    pub(crate) fn declare(&self, links: &[LinkNames]) -> io::Result<()> {
        let wanted = files(links);
        for zone in wanted.keys() {
            let path = self.folder.join(zone.as_str());
            if is_marked(&path) == Some(false) {
                let text = format!("{} belongs to another program: remove it, or ask for another zone", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
        }
        for path in self.marked()? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if !wanted.keys().any(|zone| zone.as_str() == name) {
                fs::remove_file(&path)?;
            }
        }
        if !wanted.is_empty() {
            fs::create_dir_all(&self.folder)?;
        }
        for (zone, text) in wanted {
            let path = self.folder.join(zone.as_str());
            if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                // The name of a zone has no dot in front.
                let new = self.folder.join(format!(".{zone}.postern"));
                fs::write(&new, text)?;
                fs::rename(&new, &path)?;
            }
        }
        Ok(())
    }

    pub(crate) fn describe(&self) -> Vec<String> {
        let marked = self.marked().unwrap_or_default();
        marked.iter().map(|path| format!("{} is there", path.display())).collect()
    }

    /// Our files, and what a crash left unfinished.
    fn marked(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut marked = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let unfinished = name.starts_with('.') && name.ends_with(".postern");
            if unfinished || is_marked(&path) == Some(true) {
                marked.push(path);
            }
        }
        Ok(marked)
    }
}

/// `None` when there is no such file.
fn is_marked(path: &Path) -> Option<bool> {
    match fs::read(path) {
        Ok(text) => Some(text.starts_with(MARK.as_bytes())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(false),
    }
}

/// Several users may have one zone: its servers are asked in turn.
fn files(links: &[LinkNames]) -> BTreeMap<&Zone, String> {
    let mut servers: BTreeMap<&Zone, Vec<IpAddr>> = BTreeMap::new();
    for link in links {
        for zone in &link.zones {
            servers.entry(zone).or_default().extend(&link.resolvers);
        }
    }
    let text = |servers: &Vec<IpAddr>| {
        let lines: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        format!("{MARK}{lines}")
    };
    servers.iter().map(|(zone, servers)| (*zone, text(servers))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, zones: &[&str], server: &str) -> LinkNames {
        LinkNames {
            index,
            name: format!("utun{index}"),
            resolvers: vec![server.parse().unwrap()],
            zones: zones.iter().map(|zone| Zone::new(zone).unwrap()).collect(),
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn each_zone_has_a_file_for_as_long_as_it_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let resolver = ResolverFolder::at(folder.path());
        let (one, two) = (link(1, &["my-org", "db.example"], "100.72.0.2"), link(2, &["my-org"], "100.72.0.4"));
        resolver.declare(&[one.clone(), two.clone()]).unwrap();
        assert_eq!(names(folder.path()), ["db.example", "my-org"]);
        let text = fs::read_to_string(folder.path().join("my-org")).unwrap();
        assert_eq!(text, format!("{MARK}nameserver 100.72.0.2\nnameserver 100.72.0.4\n"));
        assert_eq!((resolver.describe().len(), ResolverFolder::BACKEND), (2, DnsBackend::ResolverFolder));
        resolver.declare(&[two]).unwrap();
        assert_eq!(names(folder.path()), ["my-org"]);
        resolver.declare(&[]).unwrap();
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn files_of_others_are_left_alone_and_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("corp"), "nameserver 10.0.0.1\n").unwrap();
        let resolver = ResolverFolder::at(folder.path());
        let error = resolver.declare(&[link(1, &["corp", "my-org"], "100.72.0.2")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("corp belongs to another program"), "{error}");
        assert_eq!(names(folder.path()), ["corp"], "nothing was changed");
        resolver.declare(&[]).unwrap();
        assert_eq!(names(folder.path()), ["corp"]);
    }

    #[test]
    fn leftovers_of_a_crash_go() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".my-org.postern"), "half").unwrap();
        fs::write(folder.path().join("old"), format!("{MARK}nameserver 100.72.0.2\n")).unwrap();
        ResolverFolder::at(folder.path()).declare(&[]).unwrap();
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_machine_without_the_folder_has_nothing_to_take_back() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("resolver");
        ResolverFolder::at(&absent).declare(&[]).unwrap();
        assert!(!absent.exists());
    }
}
