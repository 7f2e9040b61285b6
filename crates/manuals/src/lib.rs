//! Man pages and shell completions of all programs, made from their command lines, so that they cannot be out of date.
//!
//! Used when packages are built, by nobody else. It writes files into the folder it is given and does nothing more.
#![forbid(unsafe_code)]

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

/// What users run themselves.
const USER_COMMANDS: &str = "1";
/// What administrators and service managers run.
const SYSTEM_PROGRAMS: &str = "8";

/// The programs with a clap command line, and the section of the manual for each.
fn programs() -> Vec<(Command, &'static str)> {
    vec![
        (postern_cli::command_line(), USER_COMMANDS),
        (postern_daemon::options::Options::command(), USER_COMMANDS),
        (postern_control::config::CommandLine::command(), SYSTEM_PROGRAMS),
        (postern_node::command_line::CommandLine::command(), SYSTEM_PROGRAMS),
        #[cfg(target_os = "linux")]
        (tun_driver::netd::Options::command(), SYSTEM_PROGRAMS),
        #[cfg(target_os = "linux")]
        (tun_driver::dns::stub::StubOptions::command(), SYSTEM_PROGRAMS),
    ]
}

/// Writes `man/*.1`, `man/*.8` and `completions/{bash,zsh,fish}/` into `folder`, as names that packages can take over.
pub fn write(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    let pages = make_folder(&folder.join("man"))?;
    for (program, section) in programs() {
        write_completions(&program, &folder.join("completions"), &mut written)?;
        let mut program = program.disable_help_subcommand(true);
        program.build();
        write_pages(&program, section, &pages, &mut written)?;
    }
    Ok(written)
}

fn write_pages(command: &Command, section: &str, folder: &Path, written: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        write_pages(subcommand, section, folder, written)?;
    }
    let page = Man::new(command.clone()).section(section).manual("Postern");
    let mut text = Vec::new();
    page.render(&mut text)?;
    keep(&folder.join(page.get_filename()), &text, written)
}

fn write_completions(command: &Command, folder: &Path, written: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let name = command.get_name();
    let files = [
        (Shell::Bash, "bash", name.to_owned()),
        (Shell::Zsh, "zsh", format!("_{name}")),
        (Shell::Fish, "fish", format!("{name}.fish")),
    ];
    for (shell, subfolder, file) in files {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), name, &mut script);
        keep(&make_folder(&folder.join(subfolder))?.join(file), &script, written)?;
    }
    Ok(())
}

fn make_folder(folder: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.to_owned())
}

fn keep(path: &Path, text: &[u8], written: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let result: io::Result<()> = fs::write(path, text);
    result.with_context(|| format!("cannot write {}", path.display()))?;
    written.push(path.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_and_every_subcommand_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let written = write(folder.path()).unwrap();
        let pages: Vec<String> =
            written.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
        for page in [
            "postern.1",
            "postern-connect.1",
            "posternd.1",
            "postern-control.8",
            "postern-control-serve.8",
            "postern-node.8",
            "postern-node-gateway.8",
            "postern-node-relay.8",
            "postern-node-worker.8",
            "postern-netd.8",
            "postern-dns-stub.8",
        ] {
            assert!(pages.iter().any(|name| name == page), "no {page} among {pages:?}");
        }
        let page = fs::read_to_string(folder.path().join("man/postern-netd.8")).unwrap();
        assert!(page.contains(".TH postern-netd 8") && page.contains("CAP_NET_ADMIN"), "{page}");
        let script = fs::read_to_string(folder.path().join("completions/bash/postern")).unwrap();
        assert!(script.contains("disconnect"), "{script}");
    }
}
