//! Help, man pages and completions: made from the command line, and complete.

use crate::support::*;

/// Every command with its path, as clap knows them.
fn commands() -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, path: &[String], all: &mut Vec<Vec<String>>) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let path = [path, &[sub.get_name().to_owned()]].concat();
            walk(sub, &path, all);
            all.push(path);
        }
    }
    let mut all = Vec::new();
    walk(&postern_cli::command_line(), &[], &mut all);
    assert!(all.len() > 60, "only {} commands", all.len());
    all
}

fn run(arguments: &[&str]) -> Ran {
    let home = tempfile::tempdir().unwrap();
    Invocation::new(home.path(), arguments).run("")
}

#[test]
fn every_command_and_every_option_is_described() {
    fn check(command: &clap::Command, path: &str) {
        assert!(command.get_about().is_some(), "{path} has no description");
        for argument in command.get_arguments() {
            let described = argument.get_help().is_some() || argument.get_long_help().is_some();
            assert!(described, "{path}: {} has no description", argument.get_id());
        }
        for sub in command.get_subcommands() {
            check(sub, &format!("{path} {}", sub.get_name()));
        }
    }
    check(&postern_cli::command_line(), "postern");
}

#[test]
fn help_ends_well_and_names_the_exit_codes() {
    run(&["--help"]).ends(0).says("Exit codes:").says("3  posternd is not running").says("admin");
    run(&["admin", "resources", "create", "--help"]).ends(0).says("--bind-port").says("1024 to 64999");
    run(&[]).ends(2).warns("Usage: postern");
    run(&["admin"]).ends(2).warns("accounts");
    run(&["conect"]).ends(2).warns("'connect'");
}

#[test]
fn completions_of_every_shell_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).ends(0).out;
        for path in commands() {
            let name = path.last().unwrap();
            assert!(script.contains(name.as_str()), "{shell} does not know {path:?}");
        }
    }
    run(&["completions", "tcsh"]).ends(2);
}

#[test]
fn completions_are_valid_for_bash() {
    let script = run(&["completions", "bash"]).ends(0).out;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postern.bash");
    std::fs::write(&file, script).unwrap();
    let check = std::process::Command::new("bash").arg("-n").arg(&file).status().unwrap();
    assert!(check.success());
}

#[test]
fn there_is_a_man_page_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("man");
    let ran = run(&["man", "--out", out.to_str().unwrap()]).ends(0);
    let pages = std::fs::read_dir(&out).unwrap().count();
    assert!(ran.out.starts_with(&format!("{pages} pages in ")) && ran.out.contains("man -l"), "{}", ran.out);
    for path in commands() {
        let page = out.join(format!("postern-{}.1", path.join("-")));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains(".SH SYNOPSIS") && text.len() > 200, "{}", page.display());
    }
    let main = run(&["man"]).ends(0).out;
    for name in ["login", "connect", "status", "admin", "service", "EXIT"] {
        assert!(main.to_lowercase().contains(&name.to_lowercase()), "the man page does not mention {name}");
    }
    run(&["man", "--out", "/proc/none"]).ends(1).warns("cannot write man pages into /proc/none");
}

#[test]
fn the_documentation_names_every_command_and_exit_code() {
    let text = include_str!("../../../../docs/cli.md");
    for path in commands() {
        let name = path.last().unwrap();
        assert!(text.contains(name.as_str()), "docs/cli.md does not mention {}", path.join(" "));
    }
    for code in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "130", "143"] {
        assert!(text.contains(&format!("| {code} |")), "docs/cli.md does not explain exit code {code}");
    }
}
