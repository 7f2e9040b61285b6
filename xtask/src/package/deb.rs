//! Debian packages, by debhelper: it knows the rules (configuration files, services, libraries, users), we do not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use super::{Release, Stage, collect, run_tool};
use crate::workspace::find_program;

/// Programs of Debian that are needed, and the packages that have them.
const NEEDED: [(&str, &str); 2] = [("dh", "debhelper"), ("dpkg-shlibdeps", "dpkg-dev")];

pub(super) fn build(stage: &Stage, release: &Release, root: &Path, output: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if let Some((program, package)) = NEEDED.into_iter().find(|(program, _)| find_program(program).is_none()) {
        bail!("{program} is missing; install it with: sudo apt-get install --no-install-recommends {package}");
    }
    // dpkg's tools work on a source tree: ours holds nothing but the rules and the finished files.
    let parent = stage.folder().parent().context("the stage has a parent")?;
    let (tree, made) = (parent.join("deb"), parent.join("deb-made"));
    copy_folder(&root.join("packaging/debian"), &tree.join("debian"))?;
    fs::write(tree.join("debian/changelog"), changelog(release))?;
    fs::create_dir_all(&made)?;
    run_tool(Command::new("cp").arg("-a").arg(stage.folder()).arg(tree.join("stage")))?;
    let mut rules = Command::new("debian/rules");
    rules.arg("binary").current_dir(&tree).env("DESTINATION", &made).env("SOURCE_DATE_EPOCH", release.date.to_string());
    // Set by a make or cargo above, or wrong for debhelper.
    rules.env_remove("MAKEFLAGS").env_remove("DH_VERBOSE").env("LC_ALL", "C.UTF-8");
    run_tool(&mut rules)?;
    collect(&made, "deb", output)
}

/// The packages' own history; that of the program is in CHANGELOG.md.
fn changelog(release: &Release) -> String {
    format!(
        "postern ({}-{}) unstable; urgency=medium\n\n  * Packages of version {}.\n\n -- Postern maintainers \
         <maintainers@postern.dev>  {}\n",
        release.version,
        release.revision,
        release.version,
        rfc_2822(release.date),
    )
}

/// `Thu, 01 Jan 1970 00:00:00 +0000`, as changelogs want it (civil from days: Howard Hinnant's algorithm).
fn rfc_2822(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = (month_index + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let name = |names: &[&'static str], index: u64| {
        usize::try_from(index).ok().and_then(|index| names.get(index).copied()).unwrap_or_default()
    };
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} +0000",
        name(&DAYS, days % 7),
        name(&MONTHS, month),
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    )
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &copy)?;
        } else {
            fs::copy(entry.path(), &copy).with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_changelogs_want_them() {
        assert_eq!(rfc_2822(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(rfc_2822(951_782_399), "Mon, 28 Feb 2000 23:59:59 +0000");
        assert_eq!(rfc_2822(951_782_400), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(rfc_2822(1_795_244_430), "Sat, 21 Nov 2026 07:00:30 +0000");
    }
}
