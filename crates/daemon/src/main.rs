//! `posternd`: see the library.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use postern_daemon::{options::Options, service};

fn main() -> ExitCode {
    postern_tunnel::tls::install_crypto_provider();
    let options = Options::parse();
    start_log();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(service::run(options));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ended
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}
