//! `cargo xtask prove`: the tests that kill parts and cut links under load, with release builds and transfers of a gigabyte.
//! What was lost is printed. They need root, and run in network namespaces of their own.

use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::workspace::Workspace;

/// The test programs: what is killed and cut, paths that fall silent, access that is revoked, nodes that are cut off from the
/// control plane, nodes that are restarted in turn.
const PROOFS: [&str; 5] = ["proofs", "silent_cut", "revocation_nodes", "cut_off", "rolling_restart"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The size of each transfer, MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(2..))]
    mib: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!("this needs root: it makes network namespaces");
    }
    let workspace = Workspace::find()?;
    let mut tests = workspace.cargo();
    tests.args(["test", "--release", "--locked", "--package", "postern-tests"]);
    for proof in PROOFS {
        tests.args(["--test", proof]);
    }
    tests.args(["--", "--nocapture", "--test-threads", "1"]).env("POSTERN_PROOF_MIB", args.mib.to_string());
    let passed = tests.status().context("cannot start cargo test")?.success();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
