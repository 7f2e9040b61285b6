//! `cargo xtask fuzz TARGET`: runs a fuzz target for a number of executions, on the compiler that builds everything else.
//!
//! cargo-fuzz asks for a nightly compiler and finds more (it has the address sanitizer). This asks for nothing but a C++
//! compiler, for libFuzzer itself; our code is instrumented by LLVM's coverage pass, with debug assertions and overflow
//! checks. New inputs go to a folder that is thrown away; one that fails is kept in `fuzz/artifacts`.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, bail};

use crate::workspace::Workspace;

/// What makes libFuzzer see which code an input reaches.
const INSTRUMENTED: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1";
/// The largest packet of the device that programs see.
const MAX_LENGTH: u32 = 1500;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A target of fuzz/fuzz_targets, such as packet or dns; all of them, one after the other, when none is given
    target: Option<String>,
    /// Executions of each target
    #[arg(long, default_value_t = 10_000_000)]
    runs: u64,
    /// The same seed and corpus give the same inputs
    #[arg(long, default_value_t = 11)]
    seed: u32,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    let fuzz = workspace.root().join("fuzz");
    let known = targets(&fuzz)?;
    let chosen = match &args.target {
        Some(target) if known.contains(target) => vec![target.clone()],
        Some(target) => bail!("there is no fuzz target {target:?}; there are {}", known.join(", ")),
        None => known,
    };
    let host = host()?;
    let built = workspace.target_folder()?.join("fuzz");
    let mut build = workspace.cargo();
    // The compiler's unstable options are used with the stable compiler: nothing built so is shipped.
    build.current_dir(&fuzz).env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", INSTRUMENTED);
    build.args(["build", "--locked", "--release", "--target", &host, "--target-dir"]).arg(&built);
    for target in &chosen {
        build.args(["--bin", target]);
    }
    if !build.status().context("cannot start cargo build")?.success() {
        bail!("the fuzz targets cannot be built (libFuzzer takes a C++ compiler)");
    }
    for target in &chosen {
        execute(&built.join(&host).join("release").join(target), &fuzz, target, args)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn execute(program: &Path, fuzz: &Path, target: &str, args: &Args) -> anyhow::Result<()> {
    let new = tempfile::Builder::new().prefix("postern-fuzz-").tempdir().context("cannot make a folder")?;
    let artifacts = fuzz.join("artifacts").join(target);
    fs::create_dir_all(&artifacts).with_context(|| format!("cannot make {}", artifacts.display()))?;
    anstream::eprintln!("{target}: {} executions", args.runs);
    let mut command = std::process::Command::new(program);
    command.arg(format!("-max_len={MAX_LENGTH}")).arg(format!("-runs={}", args.runs));
    command.arg(format!("-seed={}", args.seed)).arg(format!("-artifact_prefix={}/", artifacts.display()));
    // The first folder takes what is new; the second one is only read.
    command.arg("-print_final_stats=1").arg(new.path()).arg(fuzz.join("corpus").join(target));
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    if !status.success() {
        bail!("{target} failed ({status}); the input is in {}", artifacts.display());
    }
    anstream::println!("{target}: {} executions without a finding", args.runs);
    Ok(())
}

fn targets(fuzz: &Path) -> anyhow::Result<Vec<String>> {
    let folder = fuzz.join("fuzz_targets");
    let files = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The platform of the compiler. With it named, build scripts and macros are not instrumented.
fn host() -> anyhow::Result<String> {
    let output =
        std::process::Command::new("rustc").arg("-vV").output().context("cannot start rustc to learn its platform")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say its platform")
}
