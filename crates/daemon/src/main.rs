//! `posternd`: see the library.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use postern_daemon::{event_log::EventLog, options::Options, service};
use postern_tunnel::outward::Outward;
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

fn main() -> ExitCode {
    postern_tunnel::tls::install_crypto_provider();
    let options = Options::parse();
    let log = EventLog::default();
    start_log(log.clone());
    match run(options, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options, log: EventLog) -> anyhow::Result<()> {
    Outward::install(options.proxy_settings()?)?;
    if let Some(proxy) = Outward::installed().proxy() {
        tracing::info!(%proxy, "connections leave through an HTTPS proxy");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(service::run(options, log));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ended
}

/// Everything goes to standard error, and the newest of it to `log`.
fn start_log(log: EventLog) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).with(log).init();
}
