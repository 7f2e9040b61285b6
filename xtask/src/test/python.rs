//! Packages of the Python package index that tests use: in a folder of their own, made once for a list.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context;

use super::Setting;
use crate::workspace::{find_program, tools_folder};

/// Installs what the list names. The answer is why that was not done, where it was not.
pub(super) fn install(setting: &Setting, list: &Path) -> anyhow::Result<Result<(), String>> {
    let folder = tools_folder()?.join("python");
    let wanted = fs::read(list).with_context(|| format!("cannot read {}", list.display()))?;
    let made = folder.join("packages.txt");
    if fs::read(&made).is_ok_and(|made| made == wanted) {
        return Ok(Ok(()));
    }
    let Some(python) = find_program("python3") else { return Ok(Err("python3 is not installed".to_owned())) };
    if !setting.consent.allows(&format!("Install {} into {}?", list.display(), folder.display())) {
        return Ok(Err(format!("the packages of {} are not installed", list.display())));
    }
    let mut environment = Command::new(python);
    environment.args(["-m", "venv", "--clear"]).arg(&folder);
    let mut install = Command::new(folder.join("bin/python3"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
    install.arg("--requirement").arg(list);
    for mut command in [environment, install] {
        let status = command.stdin(Stdio::null()).status().context("cannot start python3")?;
        if !status.success() {
            return Ok(Err(format!("python3 could not install {} ({status}): see above", list.display())));
        }
    }
    fs::write(&made, wanted).context("cannot note which packages are installed")?;
    Ok(Ok(()))
}
