//! Debian packages: which are missing, and how they are installed.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::{consent::Consent, workspace::find_program};

/// The names in a list of packages: one a line, `#` begins a comment.
pub(crate) fn read_list(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.split('#').next()?.split_whitespace().next()).map(str::to_owned).collect()
}

/// Those of `wanted` that are not installed; all of them where there is no dpkg to say so.
pub(crate) fn missing(wanted: &[String]) -> anyhow::Result<Vec<String>> {
    if wanted.is_empty() || find_program("dpkg-query").is_none() {
        return Ok(wanted.to_vec());
    }
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${binary:Package} ${db:Status-Status}\n"])
        .args(wanted)
        .stdin(Stdio::null())
        .output()
        .context("cannot start dpkg-query")?;
    let listed = String::from_utf8_lossy(&output.stdout);
    let is_installed = |name: &String| {
        listed.lines().filter_map(|line| line.split_once(' ')).any(|(package, status)| {
            // Libraries are listed with their architecture.
            package.split(':').next() == Some(name) && status == "installed"
        })
    };
    Ok(wanted.iter().filter(|name| !is_installed(name)).cloned().collect())
}

/// What became of a wish for packages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Installed {
    AlreadyThere,
    Now(Vec<String>),
    /// Not allowed, or not possible here. The line is what a person may run.
    Declined {
        line: String,
    },
}

/// Installs what is missing, when that is allowed.
pub(crate) fn install(wanted: &[String], consent: Consent) -> anyhow::Result<Installed> {
    let missing = missing(wanted)?;
    if missing.is_empty() {
        return Ok(Installed::AlreadyThere);
    }
    let line = format!("sudo apt-get install --no-install-recommends {}", missing.join(" "));
    if find_program("apt-get").is_none() {
        return Ok(Installed::Declined {
            line: format!("(this machine has no apt-get) install: {}", missing.join(" ")),
        });
    }
    let Some(mut root_shell) = root_shell(consent) else {
        return Ok(Installed::Declined { line });
    };
    if !consent.allows(&format!("Install {} with apt-get?", missing.join(", "))) {
        return Ok(Installed::Declined { line });
    }
    let status = root_shell
        .args(["-c", INSTALL_SCRIPT, "install"])
        .args(&missing)
        .stdin(Stdio::null())
        .status()
        .context("cannot start apt-get")?;
    if !status.success() {
        bail!("apt-get failed ({status}); to see why, run: {line}");
    }
    Ok(Installed::Now(missing))
}

/// A shell that runs as root: at once for root, through sudo for others. Without a terminal sudo may not ask.
fn root_shell(consent: Consent) -> Option<Command> {
    if rustix::process::geteuid().is_root() {
        return Some(Command::new("/bin/sh"));
    }
    let mut sudo = Command::new(find_program("sudo")?);
    if consent != Consent::Ask {
        sudo.arg("-n");
        let may = Command::new("sudo").args(["-n", "true"]).stderr(Stdio::null()).stdin(Stdio::null()).status();
        if !may.is_ok_and(|status| status.success()) {
            return None;
        }
    }
    sudo.arg("/bin/sh");
    Some(sudo)
}

/// Installs its arguments. A policy file keeps the packages from starting their services on their fixed ports; it is
/// removed again, whatever happens, and one that somebody else put there is left alone.
const INSTALL_SCRIPT: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
mark='# cargo xtask: no service is started while packages are installed'
if [ ! -e "$policy" ] || grep -qF "$mark" "$policy"; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"; }
install "$@" || { apt-get update -q; install "$@"; }
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_list_of_packages_may_hold_comments_and_empty_lines() {
        assert_eq!(read_list("# servers\n\nnginx  # web\n curl\n"), ["nginx", "curl"]);
    }

    #[test]
    fn nobody_to_ask_means_a_line_to_run_and_no_change() {
        let wanted = names(&["no-such-package-anywhere"]);
        assert_eq!(missing(&wanted).unwrap(), wanted);
        let done = install(&wanted, Consent::Nobody).unwrap();
        let Installed::Declined { line } = done else { panic!("installed without consent: {done:?}") };
        assert!(line.ends_with("no-such-package-anywhere"), "{line}");
    }

    #[test]
    fn nothing_is_installed_when_nothing_is_missing() {
        assert_eq!(install(&[], Consent::Given).unwrap(), Installed::AlreadyThere);
    }

    #[test]
    fn the_install_script_is_a_valid_shell_script() {
        let status = Command::new("/bin/sh").args(["-n", "-c", INSTALL_SCRIPT]).status().unwrap();
        assert!(status.success());
    }

    #[test]
    fn services_are_kept_from_starting_only_while_packages_are_installed() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy-rc.d");
        let seen = folder.path().join("seen");
        let apt = format!(
            "#!/bin/sh\n{policy}; echo \"$? $*\" >> {seen}\n",
            policy = policy.display(),
            seen = seen.display()
        );
        std::fs::write(folder.path().join("apt-get"), apt).unwrap();
        let script = INSTALL_SCRIPT.replace("/usr/sbin/policy-rc.d", policy.to_str().unwrap());
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let status = Command::new("/bin/sh")
            .args(["-c", &format!("chmod +x {}/apt-get\n{script}", folder.path().display()), "install", "redis-server"])
            .env("PATH", path)
            .status()
            .unwrap();
        assert!(status.success());
        let seen = std::fs::read_to_string(seen).unwrap();
        assert!(seen.starts_with("101 install ") && seen.trim_end().ends_with(" redis-server"), "{seen}");
        assert!(!policy.exists());
    }
}
