//! A peer of `cargo xtask bench vnm`: the crate `netstack-smoltcp` between a TUN device and a plain TCP target.
//!
//! `peer-netstack-smoltcp DEVICE MTU TARGET` attaches to a device that exists and has its address, and carries every
//! TCP connection that arrives there to TARGET. Says `{"ready":true}` on stdout once it listens.

use std::{net::SocketAddr, sync::Arc};

use futures::{SinkExt, StreamExt};
use netstack_smoltcp::StackBuilder;
use tokio::{io::copy_bidirectional_with_sizes, net::TcpStream};

/// The largest packet.
const PACKET: usize = 65_535;
/// As large as its own buffers: smaller ones made it slower.
const COPY: usize = 256 * 1024;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), AnyError> {
    let mut args = std::env::args().skip(1);
    let (Some(device), Some(mtu), Some(target)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: peer-netstack-smoltcp DEVICE MTU TARGET".into());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&device, mtu.parse()?, target.parse()?))
}

async fn run(device: &str, mtu: u16, target: SocketAddr) -> Result<(), AnyError> {
    let device = Arc::new(tun_rs::DeviceBuilder::new().name(device).mtu(mtu).build_async()?);
    let (stack, runner, _udp, listener) =
        StackBuilder::default().enable_tcp(true).enable_udp(false).mtu(mtu.into()).build()?;
    let mut listener = listener.ok_or("the stack has no TCP")?;
    if let Some(runner) = runner {
        tokio::spawn(runner);
    }
    let (mut into_stack, mut out_of_stack) = stack.split();
    let outward = Arc::clone(&device);
    tokio::spawn(async move {
        while let Some(Ok(packet)) = out_of_stack.next().await {
            // The kernel drops what it cannot take, as a network would.
            let _ = outward.send(&packet).await;
        }
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; PACKET];
        while let Ok(bytes) = device.recv(&mut buffer).await {
            if into_stack.send(buffer[..bytes].to_vec()).await.is_err() {
                break;
            }
        }
    });
    println!("{{\"ready\":true}}");
    while let Some((stream, _, _)) = listener.next().await {
        tokio::spawn(async move {
            // A broken stream is the business of its two ends.
            let _ = carry(stream, target).await;
        });
    }
    Ok(())
}

async fn carry(mut near: netstack_smoltcp::TcpStream, target: SocketAddr) -> std::io::Result<()> {
    let mut far = TcpStream::connect(target).await?;
    far.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut near, &mut far, COPY, COPY).await?;
    Ok(())
}
