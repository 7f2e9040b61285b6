//! RPM packages, by rpmbuild.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use super::{Release, Stage, collect, run_tool};
use crate::workspace::find_program;

pub(super) fn build(stage: &Stage, release: &Release, root: &Path, output: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if find_program("rpmbuild").is_none() {
        bail!("rpmbuild is missing; on Debian: sudo apt-get install --no-install-recommends rpm");
    }
    for (package, files) in stage.packages() {
        let path = stage.folder().join(format!("{package}.files"));
        fs::write(&path, list(files)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let top = stage.folder().parent().context("the stage has a parent")?.join("rpm");
    fs::create_dir_all(&top)?;
    let define = |name: &str, value: &dyn std::fmt::Display| format!("{name} {value}");
    let defines = [
        define("_topdir", &top.display()),
        define("_rpmdir", &top.join("made").display()),
        define("_rpmfilename", &"%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm"),
        define("stage", &stage.folder().display()),
        define("license", &root.join("LICENSE").display()),
        define("postern_version", &release.version),
        define("postern_release", &release.revision),
        define("use_source_date_epoch_as_buildtime", &1),
        define("clamp_mtime_to_source_date_epoch", &1),
    ];
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.args(["-bb", "--quiet"]).env("SOURCE_DATE_EPOCH", release.date.to_string());
    for define in &defines {
        rpmbuild.arg("--define").arg(define);
    }
    run_tool(rpmbuild.arg(root.join("packaging/rpm/postern.spec")))?;
    collect(&top.join("made"), "rpm", output)
}

/// The files of a package as a spec file lists them: what lies in /etc is the administrator's once it is there, and
/// man pages get compressed on the way.
fn list(files: &[PathBuf]) -> anyhow::Result<String> {
    let mut text = String::new();
    for file in files {
        let path = file.to_str().with_context(|| format!("{} is not text", file.display()))?;
        let path = path.replace("/zsh/vendor-completions/", "/zsh/site-functions/");
        if path.starts_with("/etc/") {
            writeln!(text, "%config(noreplace) {path}")?;
        } else if path.starts_with("/usr/share/man/") {
            writeln!(text, "{path}*")?;
        } else {
            writeln!(text, "{path}")?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_by_what_they_are() {
        let files = ["/usr/bin/x", "/etc/y", "/usr/share/man/man1/z.1"].map(PathBuf::from);
        assert_eq!(list(&files).unwrap(), "/usr/bin/x\n%config(noreplace) /etc/y\n/usr/share/man/man1/z.1*\n");
    }
}
