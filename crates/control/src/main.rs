//! `postern-control`: see the library for what it does.

use std::process::ExitCode;

use postern_control::{config::CommandLine, run};

fn main() -> ExitCode {
    postern_tunnel::tls::install_crypto_provider();
    run::start_log();
    match run::run(CommandLine::of_process().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
