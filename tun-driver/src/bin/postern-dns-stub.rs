//! `postern-dns-stub`.

use std::{io::Write as _, process::ExitCode};

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use std::io::IsTerminal as _;

    use clap::Parser as _;
    use tun_driver::dns::stub::{StubOptions, start};

    let options = StubOptions::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_ansi(colours)
        .with_env_filter(filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .init();
    match start(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "postern-dns-stub: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    let _ = writeln!(std::io::stderr(), "postern-dns-stub: only Linux needs it, for machines without systemd-resolved");
    ExitCode::FAILURE
}
