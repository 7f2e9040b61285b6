//! Lays out the files of each package as `packaging/files.txt` says.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use super::run_tool;

/// A folder with `PACKAGE/…` for each package, and the list of what is in each.
pub(super) struct Stage {
    folder: PathBuf,
    files: BTreeMap<String, Vec<PathBuf>>,
}

impl Stage {
    /// Copies everything into `scratch/stage`. Man pages and completions are made on the way, by `postern-manuals`.
    pub(super) fn lay_out(root: &Path, programs: &Path, scratch: &Path) -> anyhow::Result<Self> {
        let made = scratch.join("made");
        run_tool(Command::new(programs.join("postern-manuals")).arg(&made)).context("man pages")?;
        let sources = Sources { packaging: root.join("packaging"), programs: programs.to_owned(), made };
        let table = root.join("packaging/files.txt");
        let text = fs::read_to_string(&table).with_context(|| format!("cannot read {}", table.display()))?;
        let mut stage = Self { folder: scratch.join("stage"), files: BTreeMap::new() };
        for rule in read(&text)? {
            for source in sources.find(&rule)? {
                stage.add(&rule, &source)?;
            }
        }
        Ok(stage)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The packages, and the installed paths of each one's files.
    pub(super) fn packages(&self) -> impl Iterator<Item = (&str, &[PathBuf])> {
        self.files.iter().map(|(package, files)| (package.as_str(), files.as_slice()))
    }

    fn add(&mut self, rule: &Rule, source: &Path) -> anyhow::Result<()> {
        let installed = match rule.destination.strip_suffix('/') {
            Some(folder) => Path::new(folder).join(source.file_name().context("a source without a name")?),
            None => PathBuf::from(&rule.destination),
        };
        let inside = installed.strip_prefix("/").context("a destination must be absolute")?;
        let to = self.folder.join(&rule.package).join(inside);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        if to.exists() {
            bail!("two files of {} go to {}", rule.package, installed.display());
        }
        fs::copy(source, &to).with_context(|| format!("cannot copy {}", source.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(rule.mode))?;
        self.files.entry(rule.package.clone()).or_default().push(installed);
        Ok(())
    }
}

/// A line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    package: String,
    source: String,
    destination: String,
    mode: u32,
}

fn read(text: &str) -> anyhow::Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        let (package, source, destination, mode) = match words.as_slice() {
            [] => continue,
            [package, source, destination] => {
                let mode = if source.starts_with("program/") { 0o755 } else { 0o644 };
                (package, source, destination, mode)
            }
            [package, source, destination, mode] => {
                let mode = u32::from_str_radix(mode, 8).with_context(|| format!("line {}: mode", number + 1))?;
                (package, source, destination, mode)
            }
            _ => bail!("packaging/files.txt, line {}: not three or four words", number + 1),
        };
        rules.push(Rule {
            package: (*package).to_owned(),
            source: (*source).to_owned(),
            destination: (*destination).to_owned(),
            mode,
        });
    }
    Ok(rules)
}

/// Where sources are looked for.
struct Sources {
    packaging: PathBuf,
    programs: PathBuf,
    made: PathBuf,
}

impl Sources {
    fn find(&self, rule: &Rule) -> anyhow::Result<Vec<PathBuf>> {
        let path = match rule.source.split_once('/') {
            Some(("program", name)) => self.programs.join(name),
            Some(("made", path)) => self.made.join(path),
            _ => self.packaging.join(&rule.source),
        };
        let found = match path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('*')) {
            None => vec![path],
            Some((start, end)) => matching(path.parent().unwrap_or(&path), start, end)?,
        };
        match found.iter().find(|path| !path.is_file()) {
            None if found.is_empty() => bail!("nothing matches {}", rule.source),
            None => Ok(found),
            Some(missing) => bail!("{} is missing: {}", rule.source, missing.display()),
        }
    }
}

fn matching(folder: &Path, start: &str, end: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names: Result<Vec<OsString>, _> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
    let mut names = names?;
    names.retain(|name| name.to_str().is_some_and(|name| name.starts_with(start) && name.ends_with(end)));
    names.sort();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_this_repository_names_only_what_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let text = fs::read_to_string(root.join("packaging/files.txt")).unwrap();
        let rules = read(&text).unwrap();
        assert!(rules.len() > 30, "{}", rules.len());
        let here = Sources { packaging: root.join("packaging"), programs: PathBuf::new(), made: PathBuf::new() };
        for rule in
            rules.iter().filter(|rule| !rule.source.starts_with("program/") && !rule.source.starts_with("made/"))
        {
            here.find(rule).unwrap();
            assert!(rule.destination.starts_with('/'), "{rule:?}");
        }
    }

    #[test]
    fn programs_may_be_run_and_a_mode_may_be_given() {
        let rules = read("# table\na program/x /usr/bin/\n\na config/y /etc/y 0600 # secret\n").unwrap();
        let modes: Vec<u32> = rules.iter().map(|rule| rule.mode).collect();
        assert_eq!(modes, [0o755, 0o600]);
        assert!(read("a b").is_err() && read("a b c 9").is_err());
    }

    #[test]
    fn two_files_at_one_place_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x"), "x").unwrap();
        let mut stage = Stage { folder: folder.path().join("stage"), files: BTreeMap::new() };
        let rule = Rule { package: "a".into(), source: "x".into(), destination: "/etc/".into(), mode: 0o644 };
        stage.add(&rule, &folder.path().join("x")).unwrap();
        assert!(stage.add(&rule, &folder.path().join("x")).is_err());
        assert_eq!(stage.packages().next().unwrap().1, [PathBuf::from("/etc/x")]);
    }
}
