//! `postern-node`.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use postern_node::{
    command_line::{CommandLine, Role},
    gateway::{self, GatewayError},
    relay, worker,
};
use postern_tunnel::outward::Outward;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    postern_tunnel::tls::install_crypto_provider();
    let CommandLine { role } = CommandLine::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match start(role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "postern-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(role: Role) -> anyhow::Result<()> {
    Outward::install_given(role.node().proxy_settings()?)?;
    if let Some(proxy) = Outward::installed().proxy() {
        tracing::info!(%proxy, "connections to the control plane and to other nodes leave through an HTTPS proxy");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let stopped = runtime.block_on(async {
        let (stop, stop_now) = (CancellationToken::new(), CancellationToken::new());
        let signals = (listen_for(SignalKind::terminate())?, listen_for(SignalKind::interrupt())?);
        tokio::spawn(wait_for_signals(signals, stop.clone(), stop_now.clone()));
        run(role, stop, stop_now).await
    });
    // Name look-ups in flight are not waited for.
    runtime.shutdown_background();
    stopped
}

async fn run(role: Role, stop: CancellationToken, stop_now: CancellationToken) -> anyhow::Result<()> {
    let told = |name: &'static str, result: Result<(), GatewayError>| {
        result.with_context(|| format!("the {name} does not run"))
    };
    match role {
        Role::Gateway(options) => told("gateway", gateway::run(*options, stop, stop_now, announce).await),
        Role::Worker(options) => {
            worker::run(*options, stop, stop_now, announce).await.context("the worker does not run")
        }
        Role::Relay(options) => told("relay", relay::run(*options, stop, stop_now, announce).await),
    }
}

/// The first signal drains, the second stops at once.
async fn wait_for_signals(
    (mut terminate, mut interrupt): (Signal, Signal),
    stop: CancellationToken,
    stop_now: CancellationToken,
) {
    for token in [stop, stop_now] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    }
}

fn listen_for(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot listen for signals")
}

/// One line for whoever started this program.
fn announce(ready: &impl serde::Serialize) {
    let line = serde_json::to_string(ready).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
