//! The commands of this repository: `cargo xtask demo`, `test`, `bench`, `fuzz`, `prove`, `package`, `screenshots`, `icons`.
//!
//! Nothing here is part of the product. What it starts, it stops; what it installs, it asks for first.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod consent;
mod demo;
mod desktop;
mod front_end;
mod fuzz;
mod icons;
mod interrupt;
mod package;
mod packages;
mod process;
mod prove;
mod release;
mod scale;
mod stack;
mod test;
mod workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Commands of the Postern repository")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check and test everything; what CI runs
    Test(test::Args),
    /// Run a whole Postern on this machine, with something to reach
    Demo(demo::Args),
    /// Measure Postern beside its peers
    Bench(bench::Args),
    /// Feed parsers with inputs that look for their faults
    Fuzz(fuzz::Args),
    /// Kill parts and cut links under load, with transfers of a gigabyte (as root)
    Prove(prove::Args),
    /// Build the packages for Debian, Fedora and their relatives
    Package(package::Args),
    /// Take a picture of each screen of the desktop app in both themes
    Screenshots(desktop::ScreenshotArgs),
    /// Draw the app's icons anew from their SVG files
    Icons,
    /// Become a program that dies with its parent
    #[command(hide = true)]
    Launch(process::LaunchArgs),
    /// The plain proxy of the benchmarks
    #[command(hide = true)]
    BenchCopy(bench::copy::Args),
    /// The SOCKS5 proxy of the benchmarks
    #[command(hide = true)]
    BenchSocks(bench::copy::Args),
    /// The far end of the benchmarks
    #[command(hide = true)]
    BenchTarget(bench::target::Args),
    /// Sends datagrams back; part of `bench vnm`
    #[command(hide = true)]
    BenchEcho,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Test(args) => test::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Prove(args) => prove::run(&args),
        Command::Package(args) => package::run(&args),
        Command::Screenshots(args) => desktop::screenshots(&args),
        Command::Icons => icons::run(),
        Command::Launch(args) => process::launch(&args),
        Command::BenchCopy(args) => bench::copy::run(&args),
        Command::BenchSocks(args) => bench::socks::run(&args),
        Command::BenchTarget(args) => bench::target::run(&args),
        Command::BenchEcho => bench::echo::run(),
    };
    result.unwrap_or_else(|error| {
        anstream::eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
