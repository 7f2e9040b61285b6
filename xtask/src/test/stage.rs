//! The stages of `cargo xtask test`, in the order in which they run.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::Context;
use clap::ValueEnum;

use super::{Outcome, Setting, other_systems, postgres, python, tally, tally::Tally};
use crate::{
    front_end::{self, Node},
    packages::{self, Installed},
    workspace::{find_program, is_executable, tools_folder},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    Packages,
    Format,
    Clippy,
    OtherSystems,
    Deny,
    Audit,
    FrontEnd,
    Build,
    Unit,
    Postgres,
    Scenarios,
    DocTests,
    Docs,
}

type Ran = anyhow::Result<(Outcome, Option<Tally>)>;

impl Stage {
    pub(crate) const ALL: &'static [Self] = &[
        Self::Packages,
        Self::Format,
        Self::Clippy,
        Self::OtherSystems,
        Self::Deny,
        Self::Audit,
        Self::FrontEnd,
        Self::Build,
        Self::Unit,
        Self::Postgres,
        Self::Scenarios,
        Self::DocTests,
        Self::Docs,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Packages => "packages",
            Self::Format => "format",
            Self::Clippy => "clippy",
            Self::OtherSystems => "types on macOS and Windows",
            Self::Deny => "licences, bans, sources",
            Self::Audit => "advisories",
            Self::FrontEnd => "front end",
            Self::Build => "build",
            Self::Unit => "unit and property tests",
            Self::Postgres => "control plane on PostgreSQL",
            Self::Scenarios => "architecture and end-to-end tests",
            Self::DocTests => "doc tests",
            Self::Docs => "docs",
        }
    }

    pub(crate) fn needs_build(self) -> bool {
        matches!(self, Self::Unit | Self::Postgres | Self::Scenarios | Self::DocTests)
    }

    pub(crate) fn run(self, setting: &Setting) -> Ran {
        match self {
            Self::Packages => install_packages(setting),
            Self::Format => cargo(setting, &["fmt", "--all", "--check"]),
            Self::Clippy => {
                cargo(setting, &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])
            }
            Self::OtherSystems => Ok((other_systems::check(setting)?, None)),
            Self::Deny => check_dependencies(setting),
            Self::Audit => check_advisories(setting),
            Self::FrontEnd => check_front_end(setting),
            // The tests start the programs, and nothing else would build those without features of their own.
            Self::Build => {
                let mut args = vec!["build", "--locked", "--workspace", "--lib", "--bins", "--tests"];
                args.extend(front_end::FEATURES);
                cargo(setting, &args)
            }
            Self::Unit => tally::run_tests(setting, &["--lib", "--bins"]),
            Self::Postgres => postgres::run(setting),
            Self::Scenarios => {
                // Without it the tests of the window announce that they cannot run.
                if let Err(reason) = Tool::TAURI_DRIVER.find_or_install(setting)? {
                    anstream::println!("{reason}");
                }
                tally::run_tests(setting, &["--test", "*"])
            }
            Self::DocTests => tally::run_doc_tests(setting),
            Self::Docs => build_docs(setting),
        }
    }
}

fn install_packages(setting: &Setting) -> Ran {
    let list = setting.workspace.root().join("tests/debian-packages.txt");
    let list = std::fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let outcome = match packages::install(&packages::read_list(&list), setting.consent)? {
        Installed::AlreadyThere => Outcome::Passed,
        Installed::Now(names) => {
            anstream::println!("installed {}", names.join(", "));
            Outcome::Passed
        }
        Installed::Declined { line } => Outcome::Skipped(format!("packages are missing; install them with: {line}")),
    };
    // Tests that need these announce it where they are missing.
    if let Err(reason) = python::install(setting, &setting.workspace.root().join("tests/python-packages.txt"))? {
        anstream::println!("{reason}");
    }
    Ok((outcome, None))
}

fn cargo(setting: &Setting, args: &[&str]) -> Ran {
    let mut command = setting.workspace.cargo();
    command.args(args);
    Ok((outcome_of(&mut command)?, None))
}

/// Private items are documented too: these docs are for those who work here, and links to private items hold then.
/// Plain URLs are right in the texts that become `--help`.
fn build_docs(setting: &Setting) -> Ran {
    let mut command = setting.workspace.cargo();
    command
        .args(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items", "--keep-going"])
        .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links -A rustdoc::bare_urls");
    Ok((outcome_of(&mut command)?, None))
}

fn check_dependencies(setting: &Setting) -> Ran {
    let tool = match Tool::DENY.find_or_install(setting)? {
        Ok(tool) => tool,
        Err(reason) => return Ok((Outcome::Skipped(reason), None)),
    };
    let mut command = Command::new(tool);
    command.current_dir(setting.workspace.root()).stdin(Stdio::null()).args([
        "--locked",
        "check",
        "--show-stats",
        "bans",
        "licenses",
        "sources",
    ]);
    Ok((outcome_of(&mut command)?, None))
}

fn check_advisories(setting: &Setting) -> Ran {
    let Some(database) = &setting.advisory_db else {
        let reason = "no advisory database: name its folder with --advisory-db or POSTERN_ADVISORY_DB";
        return Ok((Outcome::Skipped(reason.to_owned()), None));
    };
    let tool = match Tool::AUDIT.find_or_install(setting)? {
        Ok(tool) => tool,
        Err(reason) => return Ok((Outcome::Skipped(reason), None)),
    };
    let mut command = Command::new(tool);
    command
        .current_dir(setting.workspace.root())
        .stdin(Stdio::null())
        .args(["audit", "--no-fetch", "--stale", "--db"])
        .arg(database);
    Ok((outcome_of(&mut command)?, None))
}

/// Types, style, unit tests, and the build that the desktop app is compiled with. Without a node that is new enough the
/// app is compiled with a page that says so, and the tests of its window announce that they cannot run.
fn check_front_end(setting: &Setting) -> Ran {
    if !front_end::folder(&setting.workspace).is_dir() {
        return Ok((Outcome::Skipped("there is no `ui` folder".to_owned()), None));
    }
    let node = match Node::find() {
        Ok(node) => node,
        Err(missing) => return Ok((Outcome::Skipped(missing.to_string()), None)),
    };
    front_end::install(&setting.workspace, &node)?;
    for script in ["check", "test", "build"] {
        match outcome_of(&mut node.npm(&setting.workspace, &["run", script]))? {
            Outcome::Passed => {}
            Outcome::Failed(_) => return Ok((Outcome::Failed(format!("`npm run {script}` in ui/: see above")), None)),
            skipped @ Outcome::Skipped(_) => return Ok((skipped, None)),
        }
    }
    Ok((Outcome::Passed, None))
}

fn outcome_of(command: &mut Command) -> anyhow::Result<Outcome> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    Ok(if status.success() { Outcome::Passed } else { Outcome::Failed(format!("see above ({status})")) })
}

/// A cargo tool that is built from crates.io where it is missing: about a minute and a half each, once for a machine.
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
}

impl Tool {
    const DENY: Self = Self { name: "cargo-deny", version: "0.20.2" };
    const AUDIT: Self = Self { name: "cargo-audit", version: "0.22.2" };
    /// Drives the window of the desktop app.
    pub(crate) const TAURI_DRIVER: Self = Self { name: "tauri-driver", version: "2.1.0" };

    /// The program, where it is installed.
    pub(crate) fn find(&self) -> anyhow::Result<Option<PathBuf>> {
        let kept = tools_folder()?.join("bin").join(self.name);
        Ok(find_program(self.name).or_else(|| is_executable(&kept).then_some(kept)))
    }

    /// The program, or why there is none.
    fn find_or_install(&self, setting: &Setting) -> anyhow::Result<Result<PathBuf, String>> {
        if let Some(found) = self.find()? {
            return Ok(Ok(found));
        }
        let folder = tools_folder()?;
        let kept = folder.join("bin").join(self.name);
        let line = format!("cargo install --locked {}@{}", self.name, self.version);
        if !setting.consent.allows(&format!("Build {} into {}?", self.name, folder.display())) {
            return Ok(Err(format!("{} is not installed; install it with: {line}", self.name)));
        }
        let mut command = setting.workspace.cargo();
        command
            .args(["install", "--locked", &format!("{}@{}", self.name, self.version), "--root"])
            .arg(&folder)
            .env("CARGO_TARGET_DIR", folder.join("target"));
        Ok(match outcome_of(&mut command)? {
            Outcome::Passed => Ok(kept),
            _ => Err(format!("{} could not be built with: {line}", self.name)),
        })
    }
}
