//! The yardstick: a proxy that copies bytes between two sockets and does nothing else. It uses tokio with 64 KiB
//! buffers, as a plain proxy would.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Context;
use tokio::{io::copy_bidirectional_with_sizes, net::TcpStream};

use super::target::listen;

const BUFFER: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    pub(super) target: SocketAddr,
}

/// Runs until it is killed. Its address goes to stdout as the others' does.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let target = args.target;
    listen_and(move |stream| carry(stream, target))
}

/// Gives each connection to a task of its own.
pub(super) fn listen_and<F>(serve: impl Fn(TcpStream) -> F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = listen().context("cannot listen on loopback")?;
    let address = listener.local_addr()?;
    anstream::println!("{}", serde_json::json!({ "ready": true, "listen": address }));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let serving = serve(stream);
                    tokio::spawn(async move {
                        // A broken stream is the business of its two ends.
                        let _ = serving.await;
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
}

pub(super) async fn carry(mut near: TcpStream, target: SocketAddr) -> std::io::Result<()> {
    let mut far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER).await?;
    Ok(())
}
